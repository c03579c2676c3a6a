"""Find a function's sites, decide on each, and say what moves where: once for both dialects.

An adapter shows a function as a `Graph`; what a node is, is its own business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

from tvm_passes.decision import Decision, decide
from tvm_passes.describe import (
    CallView,
    Vocabulary,
    data_index,
    describe_op,
    describe_pool,
    describe_producer,
)
from tvm_passes.site import ElementwiseOp, Producer, Site

Node = TypeVar("Node")


class Graph(Protocol[Node]):
    """A function as a graph of values."""

    def pools(self) -> Sequence[Node]:
        """The calls of pools, in the order in which they are computed."""

    def key(self, node: Node) -> int:
        """What identifies a node."""

    def op_name(self, node: Node) -> str:
        """The op that a node calls, or an empty string."""

    def view(self, node: Node) -> CallView:
        """The call of an op that the vocabulary knows, as plain values."""

    def argument(self, node: Node, index: int) -> Node:
        """An argument of the call."""

    def consumers(self, node: Node) -> int:
        """How many nodes read this one."""

    def readers(self, node: Node) -> Sequence[Node]:
        """The nodes that read this one."""

    def is_output(self, node: Node) -> bool:
        """Whether the value leaves the function by itself."""

    def is_result(self, reader: Node, node: Node) -> bool:
        """Whether `reader` does nothing with `node` but return it from the function."""

    def source(self, node: Node) -> Producer:
        """Describe a node that calls no op that the vocabulary knows."""

    def location(self, node: Node) -> str:
        """Source location, or an empty string."""


@dataclass(frozen=True)
class Link(Generic[Node]):
    """An op of a chain.

    Parameters
    ----------
    node
        The op's call.
    data
        Index of the argument that the chain goes on through.
    above
        What the op reads there, once the pools above have been rewritten.
    lender
        The key of the pool that sank this op before, and gives it on to this chain; or None.
    """

    node: Node
    data: int
    above: Node
    lender: int | None = None


@dataclass(frozen=True)
class Plan(Generic[Node]):
    """What becomes of one pool: the decision, and the chain above it, nearest the pool first."""

    pool: Node
    decision: Decision
    links: tuple[Link[Node], ...]

    @property
    def sunk(self) -> tuple[Link[Node], ...]:
        """The links that sink below this pool."""
        return self.links[: len(self.decision.sunk)]


@dataclass(frozen=True)
class Sink(Generic[Node]):
    """A rewrite: `pool` reads `root`, and the ops of `links`, nearest the pool first, follow it."""

    pool: Node
    root: Node
    links: tuple[Link[Node], ...]


def plan(
    graph: Graph[Node], function: Callable[[], str], words: Vocabulary, first: int = 0
) -> tuple[Plan[Node], ...]:
    """Decide on every pool of a graph, in the order in which they are computed.

    What sinks below one pool may sink on, below the next.

    Parameters
    ----------
    graph
        The function.
    function
        Finds its name, for remarks; called if there is a pool.
    words
        The dialect's op names.
    first
        Number of the function's pools that come before this graph.
    """
    plans: dict[int, Plan[Node]] = {}
    pools = graph.pools()
    function_name = function() if pools else ""
    for index, pool in enumerate(pools, first):
        chain = _climb(graph, graph.argument(pool, 0), words, plans)
        name = graph.op_name(pool)
        site = Site(
            function=function_name,
            index=index,
            pool=describe_pool(graph.view(pool), words.pools[name]),
            chain=tuple(chain.ops),
            producer=_producer(graph, chain.top, words),
            arithmetic_below=_arithmetic_below(graph, pool, words),
            location=graph.location(pool),
        )
        plans[graph.key(pool)] = Plan(pool, decide(site), tuple(chain.links))
    return tuple(plans.values())


def sinks(graph: Graph[Node], plans: Sequence[Plan[Node]]) -> tuple[Sink[Node], ...]:
    """The rewrites that carry out `plans`, each op below the last pool that it sinks below."""
    kept = {graph.key(item.pool): item.sunk for item in plans}
    for item in plans:
        for link in item.sunk:
            if link.lender is not None:
                kept[link.lender] = kept[link.lender][1:]
    return tuple(
        Sink(item.pool, item.sunk[-1].above, kept[graph.key(item.pool)])
        for item in plans
        if item.decision.passed
    )


@dataclass
class _Chain(Generic[Node]):
    """The ops met on the way up, and the first node that is none of them."""

    top: Node
    ops: list[ElementwiseOp] = field(default_factory=list)
    links: list[Link[Node]] = field(default_factory=list)


def _climb(
    graph: Graph[Node], node: Node, words: Vocabulary, plans: dict[int, Plan[Node]]
) -> _Chain[Node]:
    chain = _Chain(node)
    while True:
        name = graph.op_name(chain.top)
        uses, is_output = graph.consumers(chain.top), graph.is_output(chain.top)
        if name in words.activations:
            rule, form = words.activations[name]
            call = graph.view(chain.top)
            data = data_index(call, form)
            chain.ops.append(describe_op(call, rule, form, data, uses, is_output))
            above = graph.argument(chain.top, data)
            chain.links.append(Link(chain.top, data, above))
            chain.top = above
        elif name in words.pools:
            _borrow(graph, chain, plans[graph.key(chain.top)])
            return chain
        else:
            return chain
        if is_output or uses != 1:
            return chain


def _borrow(graph: Graph[Node], chain: _Chain[Node], lender: Plan[Node]) -> None:
    """Go on through the ops that have sunk below an earlier pool, now above this one."""
    uses, is_output = graph.consumers(lender.pool), graph.is_output(lender.pool)
    shape = lender.decision.site.pool.out_shape
    for op, link in zip(lender.decision.sunk, lender.sunk, strict=True):
        chain.ops.append(replace(op, shape=shape, consumers=uses, is_output=is_output))
        chain.links.append(replace(link, above=lender.pool, lender=graph.key(lender.pool)))
        if is_output or uses != 1:
            return


def _arithmetic_below(graph: Graph[Node], pool: Node, words: Vocabulary) -> tuple[str, ...]:
    """The pool's readers that arithmetic may be folded into, the function's result apart.

    A tuple is one of them: what is taken out of it again reads the pool.
    """
    readers = [reader for reader in graph.readers(pool) if not graph.is_result(reader, pool)]
    return tuple(
        op or "a tuple or a binding" for op in map(graph.op_name, readers) if words.may_fold(op)
    )


def _producer(graph: Graph[Node], node: Node, words: Vocabulary) -> Producer:
    name = graph.op_name(node)
    if name in words.pools:
        return Producer(name, rounded=True, reads_activation=False)
    if name in words.producers:
        return describe_producer(graph.view(node), words.producers[name])
    return graph.source(node)
