"""How far up its chain a site sinks: one procedure for both dialects."""

from __future__ import annotations

from dataclasses import dataclass

from tvm_passes.decline import Decline
from tvm_passes.legality import OP_PRECONDITIONS, SITE_PRECONDITIONS, keeps_rounding, not_folded
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


def _legal_prefix(site: Site) -> tuple[int, Decline | None]:
    for count, op in enumerate(site.chain):
        for precondition in OP_PRECONDITIONS:
            decline = precondition(op, site.pool)
            if decline is not None:
                return count, decline
    return len(site.chain), None


def _above(site: Site, count: int) -> ElementwiseOp | Producer:
    return site.chain[count] if count < len(site.chain) else site.producer
