"""Climb from a pool: the ops above it, one after the other, and what lies between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Generic

from tvm_passes.decision import Decision
from tvm_passes.decline import Ends
from tvm_passes.describe import CallView, Vocabulary, describe_move, plain
from tvm_passes.elementwise import Descriptions
from tvm_passes.graph import Graph, Node
from tvm_passes.matching import Match, find
from tvm_passes.movement import Shapes, axis_of, carried_past, lowered
from tvm_passes.readers import read_by, value_of
from tvm_passes.site import ElementwiseOp, Move, Shape


class Role(Enum):
    """What becomes of a node between a pool and what sinks from above it."""

    OP = "it sinks, or what is above it stays"
    MOVE = "it stays above the pool, and moves what the pool reads"
    IDENTITY = "it goes"


@dataclass(frozen=True, slots=True)
class Link(Generic[Node]):
    """A node of a chain.

    Parameters
    ----------
    node
        The call.
    data
        Index of the argument that the chain goes on through.
    above
        What the node reads there, once the pools above have been rewritten.
    role
        What it is.
    lender
        The key of the pool that sank this op before, and gives it on to this chain; or None.
    own, operands
        The shapes of an op's other tensors, by index of the argument: their own, and with one
        extent for each axis that the pool reads.
    crossed
        Whether a move lies between it and the pool.
    axis
        The op's attribute that names an axis of its data, or nothing.
    inner, entry
        Of a function that several ops spell: those before the last, in the order in which they are
        computed, and what they read; nothing of a single op.
    rank
        Of such a function: the most axes that a number of it has.
    """

    node: Node
    data: int
    above: Node
    role: Role = Role.OP
    lender: int | None = None
    own: Shapes = field(default_factory=dict)
    operands: Shapes = field(default_factory=dict)
    crossed: bool = False
    axis: str | None = None
    inner: tuple[Node, ...] = ()
    entry: Node | None = None
    rank: int = 0

    @property
    def is_scalar(self) -> bool:
        """Whether no operand has axes that are aligned to those of the data."""
        return not self.rank and all(shape == () for shape in self.own.values())

    def axis_among(self, operands: Shapes, data: Shape) -> int | None:
        """The axis of the data that the op's attribute has to name; None where there is none."""
        vectors = [shape for index, shape in operands.items() if self.own[index] != ()]
        vectors.sort(key=lambda shape: all(extent == 1 for extent in shape))
        return axis_of(vectors[0], data) if vectors else None


@dataclass(frozen=True, slots=True)
class Plan(Generic[Node]):
    """What becomes of one pool: the decision, and the chain above it, nearest the pool first."""

    pool: Node
    decision: Decision
    links: tuple[Link[Node], ...]

    @property
    def path(self) -> tuple[Link[Node], ...]:
        """The links up to the topmost op that sinks below this pool."""
        ops = [n for n, link in enumerate(self.links) if link.role is Role.OP]
        count = len(self.decision.sunk)
        return self.links[: ops[count - 1] + 1] if count else ()

    @property
    def sunk(self) -> tuple[Link[Node], ...]:
        """The links that sink below this pool."""
        return tuple(link for link in self.path if link.role is Role.OP)


Plans = Mapping[int, Plan[Node]]
"""The plans of pools that come before, by the pool's key."""


@dataclass
class Chain(Generic[Node]):
    """The ops met on the way up from a pool, and the first node that is none of them.

    Parameters
    ----------
    top
        That node.
    read
        The same as the lowest op or pool read it: an item of a tuple, perhaps.
    pool, reads
        Extents of the data that the pool reads, and that the node below `top` reads.
    moves
        What lies between `top` and the pool and moves elements, nearest the pool first.
    inside
        Keys of the ops of the function that reads `top`, if there are several.
    """

    top: Node
    read: Node
    pool: Shape
    reads: Shape
    ops: list[tuple[ElementwiseOp, ...]] = field(default_factory=list)
    links: list[Link[Node]] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    inside: frozenset[int] = frozenset()

    def take(self, link: Link[Node], ops: tuple[ElementwiseOp, ...]) -> None:
        """Add an op, described where it stands, by each row that fits it."""
        if not self.moves:
            self.ops.append(ops)
            self.links.append(link)
            return
        below = [lowered(op, self.moves, self.reads, self.pool) for op in ops]
        carried = {i: carried_past(own, self.moves) or own for i, own in link.operands.items()}
        if link.axis and not link.is_scalar:
            lost = link.axis_among(carried, self.pool) is None
            below = [replace(op, stuck=link.axis) if lost else op for op in below]
        if link.rank > len(self.pool):
            below = [replace(op, stuck="a number") for op in below]
        self.ops.append(tuple(below))
        self.links.append(replace(link, operands=carried, crossed=True))

    def go_on(self, above: Node) -> None:
        """Look at what the topmost node reads."""
        self.top = self.read = above
        self.inside = frozenset()


def climb(
    graph: Graph[Node],
    node: Node,
    shape: Shape,
    told: Descriptions,
    plans: Plans[Node],
    several: bool,
) -> Chain[Node]:
    """The chain above a pool.

    Parameters
    ----------
    graph, told
        The function, and the descriptions of its calls.
    node, shape
        What the pool reads, and its extents.
    plans
        The plans of the pools before it: what sank below them may sink on.
    several
        Whether it is one of several pools that count as one reader of the node.
    """
    words = told.words
    chain = Chain(node, node, shape, shape)
    uses, leaves = 1, False  # of what lies between the last op and the topmost node
    while True:
        shared = uses != 1 or leaves
        counted = shared or (several and not chain.links)
        if not counted:
            uses = _readers(graph, chain)
        leaves = leaves or graph.leaves(chain.top)
        name = graph.op_name(chain.top)
        if name in words.activations or plain(name) in words.composites:
            taken = _take_op(graph, chain, told, uses, leaves)
            if uses != 1 or leaves or not taken:
                return chain
        elif graph.op_name(lender := value_of(graph, chain.top)) in words.pools:
            chain.top = lender
            _borrow(graph, chain, plans[graph.key(lender)], uses if counted else None, leaves)
            return chain
        elif several or shared or not _take_move(graph, chain, words):
            return chain
        elif chain.links[-1].role is Role.IDENTITY:
            uses = max(uses, graph.consumers(chain.links[-1].node))


def _take_op(
    graph: Graph[Node], chain: Chain[Node], told: Descriptions, uses: int, leaves: bool
) -> bool:
    """Go on past the topmost node if a row fits it, or it and ops above it."""
    call = graph.view(chain.top)
    several = find(graph, chain.top, told.patterns(call))
    if several is not None:
        _take_several(graph, chain, several, call, uses, leaves)
        return True
    found = told.of(call, uses, leaves)
    if not found.ops:
        return False
    link = Link(
        chain.top,
        found.data,
        graph.argument(chain.top, found.data),
        own=found.own,
        operands=found.operands,
        axis=found.axis,
    )
    chain.take(link, found.ops)
    chain.reads = found.ops[0].shape
    chain.go_on(link.above)
    return True


def _take_several(
    graph: Graph[Node],
    chain: Chain[Node],
    found: Match[Node],
    call: CallView,
    uses: int,
    leaves: bool,
) -> None:
    """Go on past a function that several ops spell."""
    read, op = found.operand, found.rule.name
    unsettled = any(constant.unsettled for constant in found.constants)
    described = ElementwiseOp(
        op, found.rule, read.shape, call.dtype, found.numbers, uses, leaves, unsettled=unsettled
    )
    rank = max((len(constant.shape) for constant in found.constants), default=0)
    link = Link(chain.top, 0, found.data, inner=found.nodes[:-1], entry=found.data, rank=rank)
    chain.take(link, (described,))
    chain.reads = read.shape
    chain.go_on(found.data)
    chain.inside = frozenset(map(graph.key, found.nodes))


def _readers(graph: Graph[Node], chain: Chain[Node]) -> int:
    """How many read the topmost node, the ops of one function counted as one."""
    if not chain.inside:
        return graph.consumers(chain.top)
    keys = [graph.key(reader) for reader in graph.readers(chain.top)]
    return 1 + sum(key not in chain.inside for key in keys)


def _take_move(graph: Graph[Node], chain: Chain[Node], words: Vocabulary) -> bool:
    """Go on past the topmost node if it moves elements, or is dropout: at inference, nothing."""
    name = graph.op_name(chain.top)
    if name in words.moves:
        move = describe_move(graph.view(chain.top), words.moves[name])
        chain.moves.append(move)
        chain.reads = move.in_shape
        above = graph.argument(chain.top, 0)
        chain.links.append(Link(chain.top, 0, above, Role.MOVE))
        chain.go_on(above)
        return True
    item = graph.item(chain.top)
    if item is None or item[1] != 0 or graph.op_name(item[0]) not in words.dropouts:
        return False
    above = graph.argument(item[0], 0)
    chain.links += [Link(node, 0, above, Role.IDENTITY) for node in (chain.top, item[0])]
    chain.go_on(above)
    return True


def _borrow(
    graph: Graph[Node],
    chain: Chain[Node],
    lender: Plan[Node],
    readers: int | None,
    leaves: bool,
) -> None:
    """Go on through the ops that have sunk below an earlier pool, now above this one.

    `readers` is how many read the pool, or what lies between, where that is known; `leaves` tells
    whether what lies between leaves the function.  Ops of which a window needs both ends stay where
    they are, above the larger of both results.
    """
    if lender.decision.ends is Ends.OTHER:
        raise ValueError(f"{lender.decision.site.name} was to lend nothing to another pool")
    reading = read_by(graph, lender.pool)
    uses = len(reading.nodes) if readers is None else readers
    leaves = leaves or reading.leaves
    pool = lender.decision.site.pool
    shape, matches = pool.out_shape, chain.reads == pool.out_shape
    if pool.drops_axes:
        shape = tuple(1 if n in (pool.axes or ()) else e for n, e in enumerate(pool.in_shape))
        chain.moves.append(Move(pool.op, shape, pool.out_shape))
    chain.reads = shape if matches else ()
    for op, link in zip(lender.decision.lent, lender.sunk, strict=False):
        again = replace(link, above=chain.read, lender=graph.key(lender.pool))
        fresh = replace(op, crosses=(), computed=None, consumers=uses, is_output=leaves)
        chain.take(again, (replace(fresh, shape=shape),))
        if leaves or uses != 1:
            return
