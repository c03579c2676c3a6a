"""What several schedule rules do to the loops of a block."""

from __future__ import annotations

from typing import Any

from tvm_passes.namespaces import Schedule


def vectorize_tile(sch: Schedule, *loops: Any) -> None:
    """Vectorize the last loop, and unroll the others, so that accumulators are registers."""
    *outer, lane = loops
    for loop in outer:
        sch.unroll(loop)
    sch.vectorize(lane)


def cut_off_last(sch: Schedule, loop: Any) -> None:
    """Make a loop nest of its own of the last tile, where it is a partial one.

    The others then need no conditions, which would keep their accumulators out of registers.
    """
    sch.annotate(loop, "pragma_loop_partition_hint", 1)
