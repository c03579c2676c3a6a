"""How far up its chain a site sinks: one procedure for both dialects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tvm_passes.decline import Decline
from tvm_passes.legality import (
    OP_PRECONDITIONS,
    SITE_PRECONDITIONS,
    keeps_rounding,
    not_absorbed,
    not_folded,
    sinks_below_all,
)
from tvm_passes.site import ElementwiseOp, Producer, Site


@dataclass(frozen=True)
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
    """

    site: Site
    sunk: tuple[ElementwiseOp, ...]
    decline: Decline | None

    @property
    def passed(self) -> bool:
        """Whether anything moves."""
        return bool(self.sunk)


def decide(site: Site) -> Decision:
    """Decide how many ops of a site's chain sink below its pool.

    Ops sink from the pool upwards until one may not; then the topmost of them go back up until
    no rounding depends on the cut.
    """
    for precondition in SITE_PRECONDITIONS:
        decline = precondition(site)
        if decline is not None:
            return Decision(site, (), decline)
    decline = not_folded(site.chain[0], site)
    if decline is not None:
        return Decision(site, (), decline)
    count, decline = _legal_prefix(site)
    while count and (split := keeps_rounding(site.chain[count - 1], _above(site, count))):
        count, decline = count - 1, split
    return Decision(site, site.chain[:count], decline)


def decide_together(sites: Sequence[Site]) -> tuple[Decision, ...]:
    """Decide on pools that read one activation, and are all that do: it sinks below each or none.

    Parameters
    ----------
    sites
        The sites of these pools, with the same chain, in which they count as one consumer.
    """
    alone = [decide(site) for site in sites]
    counts = [len(decision.sunk) for decision in alone]
    split = sinks_below_all(sites, counts)
    if split is not None:
        return tuple(Decision(d.site, (), split if d.passed else d.decline) for d in alone)
    count = min(counts)
    stays = alone[counts.index(count)].decline
    return tuple(Decision(d.site, d.sunk[:count], stays) for d in alone)


def _legal_prefix(site: Site) -> tuple[int, Decline | None]:
    pool = site.pool
    for count, op in enumerate(site.chain):
        for precondition in OP_PRECONDITIONS:
            decline = precondition(op, pool)
            if decline is not None:
                return count, decline
        decline = not_absorbed(op, site)
        if decline is not None:
            return count, decline
        pool = replace(pool, dtype=op.reads)  # below the op, the pool reads what the op reads
    return len(site.chain), None


def _above(site: Site, count: int) -> ElementwiseOp | Producer:
    return site.chain[count] if count < len(site.chain) else site.producer
