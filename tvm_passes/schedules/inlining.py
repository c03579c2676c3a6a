"""Compute elementwise blocks where they are read."""

from __future__ import annotations

from typing import Any

from tvm_passes.namespaces import Schedule, ScheduleError


def inline(sch: Schedule, item: Any) -> bool:
    """Compute a block where it is read, if TVM can: where it is all that writes what it writes."""
    try:
        sch.compute_inline(item)
    except ScheduleError:
        return False
    return True
