"""Who reads a value, and which value a node stands for: tuples are looked through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic

from tvm_passes.describe import plain
from tvm_passes.graph import Graph, Node
from tvm_passes.rules import FILLS


@dataclass
class Readers(Generic[Node]):
    """What reads a value.

    Parameters
    ----------
    nodes
        The nodes that read it, or an item of a tuple that holds it.
    leaves
        Whether it is returned from the function, by itself or in a tuple.
    """

    nodes: list[Node] = field(default_factory=list)
    leaves: bool = False


def value_of(graph: Graph[Node], node: Node) -> Node:
    """The value that a node hands on from a tuple that the function itself makes, or the node."""
    while (item := graph.item(node)) and (fields := graph.fields(item[0])) is not None:
        node = fields[item[1]]
    return node


def read_by(graph: Graph[Node], node: Node) -> Readers[Node]:
    """Who reads a value.

    What is only put into tuples and never taken out of them again is not read, and neither is what
    such numbers take their extents from: PyTorch's pools come as a tuple of the values and of
    indices that are all 0.
    """
    found: Readers[Node] = Readers()
    names = [node]
    while names:
        name = names.pop()
        found.leaves |= graph.is_output(name)
        for reader in graph.readers(name):
            if graph.is_result(reader, name):
                found.leaves = True
                if graph.fields(reader) is None:  # another name
                    names.append(reader)
                else:
                    found.nodes += graph.readers(reader)
            elif (items := _items(graph, reader)) is not None:
                names += [item for index, item in items if _is_field(graph, reader, index, name)]
            elif not (plain(graph.op_name(reader)) in FILLS and _is_never_taken(graph, reader)):
                found.nodes.append(reader)
    return found


def reached(
    graph: Graph[Node], nodes: Iterable[Node], passes: Callable[[Node], bool]
) -> Iterator[Node]:
    """What reads any of these values, and what reads that in turn, as far as it passes values on.

    Parameters
    ----------
    graph, nodes
        The function, and the values.
    passes
        Whether to go on to what reads a node.
    """
    stack = list(nodes)
    seen = set(map(graph.key, stack))
    while stack:
        for reader in read_by(graph, stack.pop()).nodes:
            yield reader
            if graph.key(reader) not in seen and passes(reader):
                seen.add(graph.key(reader))
                stack.append(reader)


def _items(graph: Graph[Node], node: Node) -> list[tuple[int, Node]] | None:
    """The items taken out of a tuple, by index; None where the tuple itself goes somewhere."""
    if graph.fields(node) is None or graph.is_output(node):
        return None
    found = []
    for reader in graph.readers(node):
        item = graph.item(reader)
        if item is None:
            return None
        found.append((item[1], reader))
    return found


def _is_field(graph: Graph[Node], node: Node, index: int, value: Node) -> bool:
    fields = graph.fields(node) or ()
    return graph.key(fields[index]) == graph.key(value)


def _is_never_taken(graph: Graph[Node], node: Node) -> bool:
    """Whether tuples are all that reads a node, and nothing takes it out of them."""
    tuples = graph.readers(node)
    if graph.is_output(node):
        return False
    for reader in tuples:
        items = _items(graph, reader)
        if items is None or any(_is_field(graph, reader, index, node) for index, _ in items):
            return False
    return True
