"""What moves where, to carry out what has been planned: once for both dialects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Generic

from tvm_passes.chain import Link, Plan, Role
from tvm_passes.decline import Ends
from tvm_passes.graph import Graph, Node
from tvm_passes.movement import Shapes, respelled
from tvm_passes.site import Pool


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


def sinks(graph: Graph[Node], plans: Sequence[Plan[Node]]) -> tuple[Sink[Node], ...]:
    """The rewrites that carry out `plans`, each op below the last pool that it sinks below."""
    paths = [item.path for item in plans]
    lent = {
        (link.lender, graph.key(link.node))
        for path in paths
        for link in path
        if link.lender is not None
    }
    return tuple(
        _sink(graph, item, path, lent) for item, path in zip(plans, paths, strict=True) if path
    )


def _sink(
    graph: Graph[Node],
    item: Plan[Node],
    path: Sequence[Link[Node]],
    lent: Set[tuple[int | None, int]],
) -> Sink[Node]:
    name, pool = graph.key(item.pool), item.decision.site.pool
    sunk = [link for link in path if link.role is Role.OP]
    kept = [link for link in sunk if (name, graph.key(link.node)) not in lent] if lent else sunk
    return Sink(
        item.pool,
        path[-1].above,
        tuple([_step(link, pool) for link in kept]),
        tuple([link.node for link in path if link.role is Role.MOVE]),
        tuple([link.node for link in path if link.role is Role.IDENTITY]),
        _squeezed(pool, kept),
        item.decision.ends,
        len(kept) - (len(sunk) - item.decision.joined),
        pool.opposite,
    )


LAST = -1
"""The axis that an op names which has one number for all: it has to be there, and means nothing."""


def _step(link: Link[Node], pool: Pool) -> Step[Node]:
    """The op as it follows the pool: its operands are written for what the pool reads."""
    if link.entry is not None:
        return Step(link.node, link.data, inner=link.inner, entry=link.entry)
    if not link.crossed:
        return Step(link.node, link.data)
    if link.axis:
        axis = link.axis_among(link.operands, pool.in_shape)
        return Step(link.node, link.data, attrs={link.axis: LAST if axis is None else axis})
    reshaped = {n: shape for n, shape in link.operands.items() if respelled(link.own[n], shape)}
    return Step(link.node, link.data, reshaped)


def _squeezed(pool: Pool, links: Sequence[Link[Node]]) -> tuple[int, ...]:
    """The axes that a reduction has to keep for what sinks below it.

    For its operands, and for an attribute that names one of them; without any, Relay's
    ``qnn.requantize`` does not compile.
    """
    has_axes = pool.drops_axes and any(link.axis or not link.is_scalar for link in links)
    return pool.axes or () if has_axes else ()
