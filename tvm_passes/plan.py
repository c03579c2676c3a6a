"""Find a function's sites, decide on each, and say what moves where: once for both dialects.

An adapter shows a function as a `tvm_passes.graph.Graph`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic

from tvm_passes.decision import Decision, decide, decide_together
from tvm_passes.describe import (
    Vocabulary,
    describe_alternatives,
    describe_pool,
    describe_producer,
    resolve,
)
from tvm_passes.graph import Graph, Node
from tvm_passes.readers import Readers, read_by, value_of
from tvm_passes.site import ElementwiseOp, Operand, Pool, Producer, Site


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
    """A rewrite: `pool` reads `root`, and the ops of `links`, nearest the pool first, follow it.

    Where `squeezed` names axes, the pool keeps them, and they are dropped after the ops.
    """

    pool: Node
    root: Node
    links: tuple[Link[Node], ...]
    squeezed: tuple[int, ...] = ()


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
    indices = {graph.key(pool): index for index, pool in enumerate(pools, first)}
    for pool in pools:
        if graph.key(pool) in plans:
            continue
        together = _that_read_what_it_reads(graph, pool, words)
        several = len(together) > 1
        chains = [
            _climb(graph, graph.argument(each, 0), words, plans, several) for each in together
        ]
        sites = [
            _site(graph, each, chain, words, function_name, indices[graph.key(each)])
            for each, chain in zip(together, chains, strict=True)
        ]
        decisions = decide_together(sites) if several else tuple(map(decide, sites))
        for each, chain, decision in zip(together, chains, decisions, strict=True):
            plans[graph.key(each)] = Plan(each, decision, tuple(chain.links))
    return tuple(plans[key] for key in indices)


def _site(
    graph: Graph[Node],
    pool: Node,
    chain: _Chain[Node],
    words: Vocabulary,
    function: str,
    index: int,
) -> Site:
    described = describe_pool(graph.view(pool), words.pools[graph.op_name(pool)])
    return Site(
        function=function,
        index=index,
        pool=described,
        chain=resolve(chain.ops, described),
        producer=_producer(graph, chain.top, words),
        arithmetic_below=_arithmetic_below(graph, pool, words),
        absorbers=_absorbers(graph, chain.top, pool, words),
        location=graph.location(pool),
    )


def _that_read_what_it_reads(graph: Graph[Node], pool: Node, words: Vocabulary) -> Sequence[Node]:
    """The pools that are all that reads an activation or another pool; or this pool alone."""
    read = graph.argument(pool, 0)
    if graph.op_name(read) in words.activations:
        reading = Readers(list(graph.readers(read)), graph.is_output(read))
    elif graph.op_name(lender := value_of(graph, read)) in words.pools:
        reading = read_by(graph, lender)
    else:
        return [pool]
    all_pools = all(graph.op_name(reader) in words.pools for reader in reading.nodes)
    return reading.nodes if all_pools and not reading.leaves else [pool]


def sinks(graph: Graph[Node], plans: Sequence[Plan[Node]]) -> tuple[Sink[Node], ...]:
    """The rewrites that carry out `plans`, each op below the last pool that it sinks below."""
    lent = {
        (link.lender, graph.key(link.node))
        for item in plans
        for link in item.sunk
        if link.lender is not None
    }
    found = []
    for item in plans:
        name = graph.key(item.pool)
        kept = tuple(link for link in item.sunk if (name, graph.key(link.node)) not in lent)
        if item.decision.passed:
            squeezed = _squeezed(graph, item.decision.site.pool, kept)
            found.append(Sink(item.pool, item.sunk[-1].above, kept, squeezed))
    return tuple(found)


def _squeezed(graph: Graph[Node], pool: Pool, links: Sequence[Link[Node]]) -> tuple[int, ...]:
    """The axes that a reduction has to keep for the operands of what sinks below it."""
    if not pool.drops_axes or not any(_has_tensor(graph, link) for link in links):
        return ()
    return pool.axes or ()


def _has_tensor(graph: Graph[Node], link: Link[Node]) -> bool:
    """Whether an op has an operand that is aligned to axes of the data."""
    args = graph.view(link.node).args
    return any(
        isinstance(arg, Operand) and arg.shape != ()
        for index, arg in enumerate(args)
        if index != link.data
    )


@dataclass
class _Chain(Generic[Node]):
    """The ops met on the way up, and the first node that is none of them.

    `read` is that node as the lowest op or pool read it: an item of a tuple, perhaps.
    """

    top: Node
    read: Node
    ops: list[tuple[ElementwiseOp, ...]] = field(default_factory=list)
    links: list[Link[Node]] = field(default_factory=list)


def _climb(
    graph: Graph[Node],
    node: Node,
    words: Vocabulary,
    plans: dict[int, Plan[Node]],
    several: bool,
) -> _Chain[Node]:
    """The chain above a pool that reads `node`, perhaps as one of `several` that count as one."""
    chain = _Chain(node, node)
    while True:
        name = graph.op_name(chain.top)
        uses, is_output = graph.consumers(chain.top), graph.is_output(chain.top)
        if several and not chain.ops:
            uses = 1
        if name in words.activations:
            rows = words.activations[name]
            data, ops = describe_alternatives(graph.view(chain.top), rows, uses, is_output)
            if not ops:
                return chain
            chain.ops.append(ops)
            above = graph.argument(chain.top, data)
            chain.links.append(Link(chain.top, data, above))
            chain.top = chain.read = above
        elif graph.op_name(pool := value_of(graph, chain.top)) in words.pools:
            chain.top = pool
            _borrow(graph, chain, plans[graph.key(pool)], several and not chain.ops)
            return chain
        else:
            return chain
        if is_output or uses != 1:
            return chain


def _borrow(graph: Graph[Node], chain: _Chain[Node], lender: Plan[Node], several: bool) -> None:
    """Go on through the ops that have sunk below an earlier pool, now above this one.

    A pool that drops axes keeps an op with an operand, which is aligned to the pool's input.
    """
    reading = read_by(graph, lender.pool)
    uses, is_output = 1 if several else len(reading.nodes), reading.leaves
    pool = lender.decision.site.pool
    for op, link in zip(lender.decision.sunk, lender.sunk, strict=True):
        if pool.drops_axes and _has_tensor(graph, link):
            return
        moved = replace(op, shape=pool.out_shape, consumers=uses, is_output=is_output)
        chain.ops.append((moved,))
        chain.links.append(replace(link, above=chain.read, lender=graph.key(lender.pool)))
        if is_output or uses != 1:
            return


def _arithmetic_below(graph: Graph[Node], pool: Node, words: Vocabulary) -> tuple[str, ...]:
    """The pool's readers that arithmetic may be folded into, the function's result apart."""
    return tuple(
        op or "a tuple or a binding"
        for op in map(graph.op_name, read_by(graph, pool).nodes)
        if words.may_fold(op)
    )


def _absorbers(graph: Graph[Node], top: Node, pool: Node, words: Vocabulary) -> tuple[str, ...]:
    """The layer above, and the pool's readers, that a factor may be folded into or through."""
    if not words.absorbers:
        return ()
    readers = [graph.op_name(node) for node in read_by(graph, pool).nodes]
    layers = [op for op in (graph.op_name(top), *readers) if op in words.absorbers]
    return (*layers, *(op for op in readers if op in words.activations))


def _producer(graph: Graph[Node], node: Node, words: Vocabulary) -> Producer:
    name = graph.op_name(node)
    if name in words.pools:
        return Producer(name, rounded=True, reads_activation=False)
    if name in words.producers:
        return describe_producer(graph.view(node), words.producers[name])
    return graph.source(node)
