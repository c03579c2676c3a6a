"""Find functions that several ops of a graph spell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isclose
from typing import Generic

import numpy as np

from tvm_passes.describe import CallView, plain
from tvm_passes.graph import Graph, Node
from tvm_passes.pattern import Apply, Number, Pattern
from tvm_passes.rule import Rule
from tvm_passes.site import Operand

PRECISION = {"float16": 1e-3, "bfloat16": 1e-2}
"""Relative, of constants in a pattern that no element type holds; of wider types `CLOSE`."""
CLOSE = 1e-6

COMMUTES = frozenset({"add", "multiply", "maximum", "minimum"})


@dataclass
class Match(Generic[Node]):
    """A function that was found.

    Parameters
    ----------
    rule
        Its row.
    data, operand
        What it is of, and that tensor's shape and element type.
    nodes
        Its ops in the order in which they are computed, the last one its result.
    numbers
        Constants that the pattern names.
    constants
        All constants, as they stand in the graph.
    """

    rule: Rule
    data: Node
    operand: Operand
    nodes: tuple[Node, ...]
    numbers: Mapping[str, float] = field(default_factory=dict)
    constants: tuple[Operand, ...] = ()


@dataclass(frozen=True)
class _State(Generic[Node]):
    """What has been matched so far; each step makes a new one."""

    data: tuple[Node, Operand] | None = None
    nodes: tuple[Node, ...] = ()
    numbers: tuple[tuple[str, float], ...] = ()
    constants: tuple[Operand, ...] = ()


def find(
    graph: Graph[Node], node: Node, patterns: Sequence[tuple[Rule, Apply]]
) -> Match[Node] | None:
    """The function whose result is `node`, if nothing else reads what it computes on the way."""
    for rule, pattern in patterns:
        for state in _match(graph, node, pattern, _State()):
            if state.data is not None and _is_alone(graph, state.nodes):
                numbers = dict(state.numbers)
                return Match(rule, *state.data, state.nodes, numbers, state.constants)
    return None


def _match(
    graph: Graph[Node], node: Node, pattern: Apply, state: _State[Node]
) -> Iterator[_State[Node]]:
    """The ways in which a node matches, in a state: none, one, or several."""
    if plain(graph.op_name(node)) != pattern.op or not _has(graph.view(node), pattern):
        return
    view = graph.view(node)
    for args in _orders(pattern):
        for found in _match_args(graph, node, view, args, state):
            seen = {graph.key(each) for each in found.nodes}
            yield found if graph.key(node) in seen else replace(found, nodes=(*found.nodes, node))


def _has(view: CallView, pattern: Apply) -> bool:
    return all(getattr(view.attrs, name) == value for name, value in pattern.attrs)


def _orders(pattern: Apply) -> list[tuple[Pattern, ...]]:
    flipped = pattern.args[::-1]
    return [pattern.args, flipped] if pattern.op in COMMUTES else [pattern.args]


def _match_args(
    graph: Graph[Node],
    node: Node,
    view: CallView,
    args: Sequence[Pattern],
    state: _State[Node],
) -> Iterator[_State[Node]]:
    states = [state]
    for index, pattern in enumerate(args):
        states = [
            after
            for each in states
            for after in _match_arg(graph, node, view, index, pattern, each)
        ]
    yield from states


def _match_arg(
    graph: Graph[Node],
    node: Node,
    view: CallView,
    index: int,
    pattern: Pattern,
    state: _State[Node],
) -> Iterator[_State[Node]]:
    if isinstance(pattern, Number):
        yield from _bind(state, pattern, view, index)
        return
    if index >= len(view.args):
        return
    argument, operand = graph.argument(node, index), view.args[index]
    if isinstance(pattern, Apply):
        yield from _match(graph, argument, pattern, state)
    elif isinstance(operand, Operand) and operand.value is None:
        if state.data is None:
            yield replace(state, data=(argument, operand))
        elif graph.key(state.data[0]) == graph.key(argument):
            yield state


def _bind(
    state: _State[Node], pattern: Number, view: CallView, index: int
) -> Iterator[_State[Node]]:
    value = _number(view, index)
    if value is None:
        return
    if pattern.value is not None and not _is(value, pattern.value, view.dtype):
        return
    named = ((pattern.name, value),) if pattern.name else ()
    constants = [arg for arg in view.args[index : index + 1] if isinstance(arg, Operand)]
    yield replace(
        state,
        numbers=(*state.numbers, *named),
        constants=(*state.constants, *constants),
    )


def _is(value: float, expected: float, dtype: str) -> bool:
    """Whether a constant of an element type is a number, as near as that can be.

    One that float16 holds has to be itself: exp(x) - 0.9995 is no exp(x) - 1.
    """
    if float(np.float16(expected)) == expected:
        return value == expected
    return isclose(value, expected, rel_tol=PRECISION.get(dtype, CLOSE))


def _number(view: CallView, index: int) -> float | None:
    """The number that an argument is, or an attribute of Relay's clip in the place of one."""
    if index >= len(view.args):
        name = {1: "a_min", 2: "a_max"}.get(index, "") if plain(view.op) == "clip" else ""
        value = getattr(view.attrs, name) if name else None
        return None if value is None else float(value)
    argument = view.args[index]
    if isinstance(argument, Operand):
        if argument.value is None or argument.value.size != 1:
            return None
        return float(argument.value.item())
    return None if argument is None else float(argument)


def _is_alone(graph: Graph[Node], nodes: Sequence[Node]) -> bool:
    """Whether only these nodes read those of them that are not the last."""
    keys = {graph.key(node) for node in nodes}
    return all(
        not graph.is_output(node) and all(graph.key(r) in keys for r in graph.readers(node))
        for node in nodes[:-1]
    )
