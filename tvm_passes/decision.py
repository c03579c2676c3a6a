"""How far up its chain a site sinks: one procedure for both dialects."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, takewhile

from tvm_passes.decline import Decline, Direction, Ends, Reason
from tvm_passes.legality import (
    OP_PRECONDITIONS,
    SITE_PRECONDITIONS,
    chooses_no_addend,
    composed,
    direction_allowed,
    evaluations,
    keeps_bits,
    keeps_rounding,
    not_absorbed,
    not_folded,
    not_kept,
    sinks_below_all,
    stored,
    stores_above,
    stores_below,
    wrapping,
)
from tvm_passes.neighbours import heeds_what_it_reads, may_vanish_op
from tvm_passes.rule import SELECTED
from tvm_passes.site import ElementwiseOp, Pool, Producer, Site

ENDS = {
    Direction.NON_DECREASING: Ends.SAME,
    Direction.NON_INCREASING: Ends.OTHER,
    Direction.QUASI_CONVEX: Ends.BOTH,
    Direction.BY_CHANNEL: Ends.BOTH,
}

CALL = 6
"""What an evaluation of a function that `Rule.is_call` counts for, in negations: rsqrt takes 6, the
math library's functions 20 and more (scripts/records/function-times-*.json)."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a site.

    Parameters
    ----------
    site
        The site decided on.
    sunk
        The ops that move below the pool, nearest the pool first; empty for a site left alone.
    decline
        Why no more ops move; None where the whole chain does.
    ends
        The ends of each window that they are evaluated at.
    joined
        How many of `sunk`, nearest the pool, are evaluated once, of the larger of two results,
        where `ends` are both.
    """

    site: Site
    sunk: tuple[ElementwiseOp, ...]
    decline: Decline | None
    ends: Ends = Ends.SAME
    joined: int = 0

    @property
    def passed(self) -> bool:
        """Whether anything moves."""
        return bool(self.sunk)

    @property
    def lent(self) -> tuple[ElementwiseOp, ...]:
        """Those of `sunk` that may sink on below the next pool."""
        return self.sunk[: self.joined] if self.ends is Ends.BOTH else self.sunk

    @property
    def times(self) -> tuple[int, ...]:
        """How often each of `sunk` is evaluated for a window."""
        twice = self.ends is Ends.BOTH
        return tuple(2 if twice and n >= self.joined else 1 for n in range(len(self.sunk)))


def decide(
    site: Site, allow: Collection[str] = (), ends: Collection[Ends] = tuple(Ends)
) -> Decision:
    """Decide how many ops of a site's chain sink below its pool.

    Ops sink from the pool upwards until one may not; of the cuts at which no rounding depends on
    the cut, the one is taken that saves the most.

    Parameters
    ----------
    site
        The site.
    allow
        Directions, by `Direction.value`, whose rows are exact in real numbers alone.
    ends
        The ends of windows at which the ops may be evaluated.
    """
    decline = _of_site(site)
    if decline is not None:
        return Decision(site, (), decline)
    directions, decline = _legal_prefix(site, allow)
    kept = stores_below(site) or stores_above(site)
    if directions and kept is not None:
        return Decision(site, (), kept)
    cuts, limit = _Cuts.of(site), stored(site)
    best, most = 0, 0
    for count, saved in enumerate(_savings(site, directions), 1):
        possible = _has_ends(site, count, ENDS[directions[count - 1]], ends)
        if possible and count <= limit and saved >= max(most, 1) and cuts.decline(count) is None:
            best, most = count, saved
    if best < len(directions):
        has_ends = _has_ends(site, best + 1, ENDS[directions[best]], ends)
        stays = _costs_more if has_ends else _needs_other_end
        decline = cuts.decline(best + 1) or stays(site.chain[best], site)
    if limit < len(directions):
        decline = not_kept(site.chain[limit], site)
    if not best:
        return Decision(site, (), decline)
    direction = directions[best - 1]
    joined = _joined(cuts, directions[:best])
    return Decision(site, site.chain[:best], decline, ENDS[direction], joined)


def _of_site(site: Site) -> Decline | None:
    """Why nothing sinks at a site, whatever its ops are, or what is nearest the pool may not."""
    preconditions = (precondition(site) for precondition in SITE_PRECONDITIONS)
    folded = (not_folded(op, site) for op in nearest(site.chain))
    declines = chain(preconditions, folded)
    return next((decline for decline in declines if decline is not None), None)


def _joined(cuts: _Cuts, directions: Sequence[Direction]) -> int:
    """How many of the lowest ops may follow the larger of two results.

    They never fall, and no rounding depends on the maximum between them and what is above.
    """
    most = len(_rising(directions))
    return next((n for n in range(most, 0, -1) if cuts.decline(n) is None), 0)


def _rising(directions: Sequence[Direction]) -> list[Direction]:
    """Those before the first that is not non-decreasing."""
    return list(takewhile(lambda each: each is Direction.NON_DECREASING, directions))


def _savings(site: Site, directions: Sequence[Direction]) -> Iterator[int]:
    """What sinking the lowest ops saves, for each number of them, up to a common factor.

    Counted in negations.  That a window's other end takes two and a pool of its own is left out
    of functions that fall, then rise: it is for those who allow these to say whether that pays.
    """
    before, after = evaluations(site.pool)
    negations = 0 if site.pool.opposite else before + after
    extra = {
        Direction.NON_DECREASING: 0,
        Direction.NON_INCREASING: negations,
        Direction.QUASI_CONVEX: 0,
        Direction.BY_CHANNEL: negations + before + after,
    }
    saved = 0
    for op, direction in zip(site.chain, directions, strict=False):
        twice = ENDS[direction] is Ends.BOTH
        weight = CALL if op.rule.is_call else 1
        saved += weight * (before - (2 * after if twice else after))
        yield saved - extra[direction]


def _has_ends(site: Site, count: int, needed: Ends, ends: Collection[Ends]) -> bool:
    """Whether the ends of windows can be had that the lowest `count` ops need.

    The least of some numbers is the negated greatest of the negated ones, of floats alone:
    integers wrap around.
    """
    if needed is Ends.SAME or site.pool.opposite:
        return needed in ends
    return needed in ends and site.chain[count - 1].reads in SELECTED


@dataclass(frozen=True)
class _Cuts:
    """Where a chain may be cut, so that no rounding depends on what parts there.

    Parameters
    ----------
    sunk
        For each number of ops that sink: those that may come to be the topmost of them.
    above
        For each number of ops that stay: what may come to be the lowest of them.
    """

    sunk: Sequence[tuple[ElementwiseOp | Producer, ...]]
    above: Sequence[tuple[ElementwiseOp | Producer, ...]]

    @classmethod
    def of(cls, site: Site) -> _Cuts:
        """The cuts of a site's chain; none where all of its ops may be cut off anywhere."""
        if not any(heeds_what_it_reads(op) for op in {id(op): op for op in site.chain}.values()):
            return cls((), ())
        return cls(_ends_of(site.chain), _ends_of(reversed(site.chain), site.producer))

    def decline(self, count: int) -> Decline | None:
        """Why the lowest `count` ops may not part from what is above them."""
        if not self.sunk:
            return None
        declines = (
            keeps_rounding(op, stays)
            for op in self.sunk[count]
            if isinstance(op, ElementwiseOp)
            for stays in self.above[-1 - count]
        )
        return next((decline for decline in declines if decline is not None), None)


def _ends_of(
    ops: Iterable[ElementwiseOp], *first: Producer
) -> list[tuple[ElementwiseOp | Producer, ...]]:
    """What may come to be the last of the first n ops, signs aside, once some are dropped.

    Of ops that `keeps_rounding` cannot tell apart, one.
    """
    ends: list[tuple[ElementwiseOp | Producer, ...]] = [first]
    for op in ops:
        last = ends[-1]
        if not op.rule.is_sign:
            last = _with(op, last) if may_vanish_op(op) else (op,)
        ends.append(last)
    return ends


def _with(
    op: ElementwiseOp, others: tuple[ElementwiseOp | Producer, ...]
) -> tuple[ElementwiseOp | Producer, ...]:
    kind = (op.op, id(op.rule), op.reads, op.dtype)
    known = {(o.op, id(o.rule), o.reads, o.dtype) for o in others if isinstance(o, ElementwiseOp)}
    return others if kind in known else (op, *others)


def nearest(ops: Iterable[ElementwiseOp]) -> Iterator[ElementwiseOp]:
    """The ops that may come to be the first, signs aside, once some are dropped."""
    for op in ops:
        if not op.rule.is_sign:
            yield op
            if not may_vanish_op(op):
                return


def _needs_other_end(op: ElementwiseOp, site: Site) -> Decline:
    return Decline(
        Reason.NOT_MONOTONE,
        f"{op.op} is {op.rule.direction.value}, and {site.pool.op} has no other end: it is one of "
        "several pools, beside or below it, or would read integers",
        "only non-decreasing functions sink below such a pool",
    )


def _costs_more(op: ElementwiseOp, site: Site) -> Decline:
    return Decline(
        Reason.DOES_NOT_PAY,
        f"{op.op} is {op.rule.direction.value}: the other end of each window that it needs of "
        f"{site.pool.op} costs more than it saves",
        "nothing to do",
    )


def decide_together(sites: Sequence[Site]) -> tuple[Decision, ...]:
    """Decide on pools that read one activation, and are all that do: it sinks below each or none.

    Parameters
    ----------
    sites
        The sites of these pools, with the same chain, in which they count as one consumer.
    """
    alone = [decide(site, ends=(Ends.SAME,)) for site in sites]
    counts = [len(decision.sunk) for decision in alone]
    split = sinks_below_all(sites, counts)
    if split is not None:
        return tuple(Decision(d.site, (), split if d.passed else d.decline) for d in alone)
    count = min(counts)
    stays = alone[counts.index(count)].decline
    return tuple(Decision(d.site, d.sunk[:count], stays) for d in alone)


def _legal_prefix(site: Site, allow: Collection[str]) -> tuple[list[Direction], Decline | None]:
    """How the lowest ops move together, for each number of them, and why no more of them sink."""
    directions: list[Direction] = []
    below = Direction.NON_DECREASING
    pool = site.pool
    refusals: dict[tuple[int, str], Decline | None] = {}
    wraps = wrapping(site)
    for n, op in enumerate(site.chain):
        alike = (id(op), pool.dtype)
        if alike not in refusals:
            refusals[alike] = _refusal(op, site, pool, allow)
        decline = refusals[alike] or keeps_bits(op, n, wraps)
        if decline is not None:
            return directions, decline
        if op.reads != pool.dtype:  # below the op, the pool reads what the op reads
            pool = replace(pool, dtype=op.reads)
        together = composed(below, op, site.pool)
        if isinstance(together, Decline):
            # Where what falls had made a maximum of a minimum, a second run could sink the op.
            return _rising(directions) if pool.minimum else directions, together
        below = together
        directions.append(below)
    return directions, None


def _refusal(op: ElementwiseOp, site: Site, pool: Pool, allow: Collection[str]) -> Decline | None:
    for precondition in OP_PRECONDITIONS:
        decline = precondition(op, pool)
        if decline is not None:
            return decline
    declines = (not_absorbed(op, site), chooses_no_addend(op, site), direction_allowed(op, allow))
    return next((decline for decline in declines if decline is not None), None)
