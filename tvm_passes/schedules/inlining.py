"""Compute elementwise blocks where they are read, in kernels that have no other schedule.

LLVM contracts a product with the sum that it is added to, one rounding for two, unless it goes
through memory.  Whether it does must not depend on what else TVM fuses with the two.
"""

from __future__ import annotations

from typing import Any

from tvm_passes.namespaces import (
    Call,
    Schedule,
    ScheduleError,
    ScheduleRule,
    blocks_of,
)
from tvm_passes.schedules.structure import ELEMENTWISE, SUM, kind_of, results_of


class Inlined(ScheduleRule):
    """A dlight schedule rule for what others leave: loops stay, elementwise blocks are inlined.

    A sum of products, which reads an element many times, has its operands from memory.
    """

    def apply(self, func: Any, target: Any, _tunable: bool) -> Schedule | None:
        """Inline what can be, for a target of kind llvm; None if nothing can."""
        if str(target.kind.name) != "llvm":
            return None
        sch = Schedule(func)
        moved = [item for item in blocks_of(sch) if _may_inline(sch, item) and inline(sch, item)]
        return sch if moved else None


def inline(sch: Schedule, item: Any) -> bool:
    """Compute a block where it is read, if TVM can: where it is all that writes what it writes."""
    try:
        sch.compute_inline(item)
    except ScheduleError:
        return False
    return True


def is_cheap(sch: Schedule, item: Any) -> bool:
    """Whether it hardly costs more to compute a block where it is read.

    A reduction, or a call of the math library, is not computed again for each element that its
    result is broadcast to; sums and products are, for contraction must not depend on what has the
    larger result.
    """
    stmt = sch.get(item)
    if kind_of(stmt) == ELEMENTWISE and not isinstance(stmt.body.value, Call):
        return True
    own = results_of(stmt)
    return all(results_of(sch.get(reader)) <= own for reader in sch.get_consumers(item))


def _may_inline(sch: Schedule, item: Any) -> bool:
    """Whether a block is elementwise and cheap, and what reads it does not do so many times.

    A softmax's exponentials, which a sum and a quotient read, would be computed twice.
    """
    if kind_of(sch.get(item)) != ELEMENTWISE or not is_cheap(sch, item):
        return False
    readers = [kind_of(sch.get(reader)) for reader in sch.get_consumers(item)]
    return set(readers) == {ELEMENTWISE} or (len(readers) == 1 and readers[0] != SUM)
