"""Find a function's sites, decide on each, and say what moves where: once for both dialects.

An adapter shows a function as a `tvm_passes.graph.Graph`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic

from tvm_passes.chain import Chain, Link, Plan, Role, climb
from tvm_passes.decision import Decision, decide, decide_together
from tvm_passes.decline import Ends
from tvm_passes.describe import Vocabulary, describe_pool, describe_producer, resolve
from tvm_passes.graph import Graph, Node
from tvm_passes.movement import Shapes, respelled
from tvm_passes.readers import Readers, read_by, value_of
from tvm_passes.site import Pool, Producer, Site

__all__ = ["Plan", "Sink", "Step", "plan", "sinks"]


@dataclass(frozen=True, slots=True)
class Step(Generic[Node]):
    """An op that sinks: its call, the argument the chain goes on through, and what changes.

    Parameters
    ----------
    node, data
        The call, and the index of that argument.
    reshaped
        New shapes of operands, by index of the argument.
    attrs
        New values of attributes.
    inner, entry
        Of a function that several ops spell: those before `node`, and what they read.
    """

    node: Node
    data: int
    reshaped: Shapes = field(default_factory=dict)
    attrs: Mapping[str, int] = field(default_factory=dict)
    inner: tuple[Node, ...] = ()
    entry: Node | None = None

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All ops of the function, in the order in which they are computed."""
        return (*self.inner, self.node)


@dataclass(frozen=True, slots=True)
class Sink(Generic[Node]):
    """A rewrite: `root` is moved, pooled, and then the ops follow.

    Parameters
    ----------
    pool
        The pool's call.
    root
        What the topmost op read.
    steps
        The ops that follow the pool, nearest the pool first.
    moves
        Calls that stay above the pool and move what it reads, nearest the pool first.
    gone
        Nodes that are left out.
    squeezed
        Axes that a reduction keeps for the ops, and that are dropped after them.
    ends
        The ends of each window that the ops are evaluated at.
    joined
        How many steps, nearest the pool, follow the larger of both results.
    opposite
        The op that selects the other end; empty where it is the negated pool of the negated data.
    """

    pool: Node
    root: Node
    steps: tuple[Step[Node], ...]
    moves: tuple[Node, ...] = ()
    gone: tuple[Node, ...] = ()
    squeezed: tuple[int, ...] = ()
    ends: Ends = Ends.SAME
    joined: int = 0
    opposite: str = ""


@contextmanager
def collector_paused() -> Iterator[None]:
    """Leave garbage to reference counts.

    Of 100,000 ops the collector would look at all again and again, for a fifth of the pass's time,
    and find no cycle.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@collector_paused()
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
    for node in pools:
        if graph.key(node) in plans:
            continue
        together = _that_read_what_it_reads(graph, node, words)
        several = len(together) > 1
        described = [
            describe_pool(graph.view(each), words.pools[graph.op_name(each)]) for each in together
        ]
        chains = [
            climb(graph, graph.argument(each, 0), pool.in_shape, words, plans, several)
            for each, pool in zip(together, described, strict=True)
        ]
        sites = [
            _site(graph, each, pool, chain, words, function_name, indices[graph.key(each)])
            for each, pool, chain in zip(together, described, chains, strict=True)
        ]
        decisions = (
            decide_together(sites) if several else (_decide_alone(graph, node, sites[0], words),)
        )
        for each, chain, decision in zip(together, chains, decisions, strict=True):
            plans[graph.key(each)] = Plan(each, decision, tuple(chain.links))
    return tuple(plans[key] for key in indices)


def _decide_alone(graph: Graph[Node], pool: Node, site: Site, words: Vocabulary) -> Decision:
    """Decide on a pool; below one that another pool follows, no op turns into a minimum's.

    What is evaluated at a minimum could sink on, but not in one run of the pass.
    """
    decision = decide(site, words.allow)
    if decision.ends is Ends.OTHER and _meets_a_pool(graph, pool, words):
        return decide(site, words.allow, (Ends.SAME, Ends.BOTH))
    return decision


def _meets_a_pool(graph: Graph[Node], node: Node, words: Vocabulary) -> bool:
    """Whether a pool follows, with nothing in between but what chains are made of."""
    below = [node]
    seen: set[int] = set()
    while below:
        for reader in read_by(graph, below.pop()).nodes:
            name = graph.op_name(reader)
            if name in words.pools:
                return True
            if words.may_link(name) and graph.key(reader) not in seen:
                seen.add(graph.key(reader))
                below.append(reader)
    return False


def _site(  # noqa: PLR0913, PLR0917 - what a site is made of
    graph: Graph[Node],
    node: Node,
    pool: Pool,
    chain: Chain[Node],
    words: Vocabulary,
    name: str,
    index: int,
) -> Site:
    return Site(
        function=name,
        index=index,
        pool=pool,
        chain=resolve(chain.ops, pool),
        producer=_producer(graph, chain.top, words),
        arithmetic_below=_arithmetic_below(graph, node, words),
        absorbers=_absorbers(graph, chain.top, node, words),
        location=graph.location(node),
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
    return tuple(_sink(graph, item, lent) for item in plans if item.decision.passed)


def _sink(graph: Graph[Node], item: Plan[Node], lent: Set[tuple[int | None, int]]) -> Sink[Node]:
    path, name = item.path, graph.key(item.pool)
    kept = [link for link in item.sunk if (name, graph.key(link.node)) not in lent]
    return Sink(
        item.pool,
        path[-1].above,
        tuple(_step(link, item.decision.site.pool) for link in kept),
        tuple(link.node for link in path if link.role is Role.MOVE),
        tuple(link.node for link in path if link.role is Role.IDENTITY),
        _squeezed(item.decision.site.pool, kept),
        item.decision.ends,
        len(kept) - (len(item.decision.sunk) - item.decision.joined),
        item.decision.site.pool.opposite,
    )


def _step(link: Link[Node], pool: Pool) -> Step[Node]:
    """The op as it follows the pool: its operands are written for what the pool reads."""
    if link.entry is not None:
        return Step(link.node, link.data, inner=link.inner, entry=link.entry)
    if not link.crossed:
        return Step(link.node, link.data)
    if link.axis:
        axis = link.axis_among(link.operands, pool.in_shape)
        return Step(link.node, link.data, attrs={} if axis is None else {link.axis: axis})
    reshaped = {n: shape for n, shape in link.operands.items() if respelled(link.own[n], shape)}
    return Step(link.node, link.data, reshaped)


def _squeezed(pool: Pool, links: Sequence[Link[Node]]) -> tuple[int, ...]:
    """The axes that a reduction has to keep for the operands of what sinks below it."""
    has_tensor = any(not link.is_scalar for link in links)
    return pool.axes or () if pool.drops_axes and has_tensor else ()


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
