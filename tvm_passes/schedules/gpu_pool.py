"""Schedule a max-pool, and what is computed before and after it element by element, for GPUs.

A thread takes the maximum of one window, in a register, and stores one result.  TVM's own rules
turn a pool with an elementwise op behind it into a reduction across 256 threads a window.
"""

from __future__ import annotations

from math import prod
from typing import Any

from tvm_passes.namespaces import PARALLEL_DATA, Schedule, ScheduleRule, block, blocks_of, tir
from tvm_passes.schedules.structure import ELEMENTWISE, MAXIMUM, kind_of

THREADS = 256
LARGEST_WINDOW = 128
"""Elements of a window that one thread compares; more of them are shared out by TVM's rules."""


class MaxPool(ScheduleRule):
    """A dlight schedule rule for functions of one max-pool and elementwise blocks."""

    def apply(self, func: Any, target: Any, _tunable: bool) -> Schedule | None:
        """Schedule `func` if it is one, for a GPU."""
        if "gpu" not in [str(key) for key in target.keys]:
            return None
        sch = Schedule(func)
        blocks = blocks_of(sch)
        kinds = [kind_of(sch.get(item)) for item in blocks]
        if kinds.count(MAXIMUM) != 1 or set(kinds) - {MAXIMUM, ELEMENTWISE}:
            return None
        at = kinds.index(MAXIMUM)
        pool, after = blocks[at], blocks[at + 1 :]
        if not _suits_threads(sch.get(pool)) or not _one_chain(sch, blocks):
            return None
        for item in (*blocks[:at], *after[:-1]):
            sch.compute_inline(item)
        return _scheduled(sch, pool, after[-1] if after else None)


def _scheduled(sch: Schedule, pool: Any, output: Any | None) -> Schedule:
    if output is None:
        output = sch.cache_write(pool, 0, "local")
    else:
        sch.set_scope(pool, 0, "local")
    threads, thread = sch.split(sch.fuse(*sch.get_loops(output)), [None, THREADS])
    sch.bind(threads, "blockIdx.x")
    sch.bind(thread, "threadIdx.x")
    sch.compute_at(pool, thread, preserve_unit_loops=True)
    axes = sch.get(pool).iter_vars
    loops = list(sch.get_loops(pool))[-len(axes) :]
    for loop, axis in zip(loops, axes, strict=True):
        if int(axis.iter_type) != PARALLEL_DATA:
            sch.unroll(loop)
    return sch


def _suits_threads(stmt: Any) -> bool:
    """Whether there are axes to share out, and windows are known and small."""
    extents = [axis.dom.extent for axis in stmt.iter_vars if int(axis.iter_type) != PARALLEL_DATA]
    shared_out = len(extents) < len(stmt.iter_vars)
    known = all(isinstance(extent, tir.IntImm) for extent in extents)
    return shared_out and known and prod(map(int, extents)) <= LARGEST_WINDOW


def _one_chain(sch: Schedule, blocks: list[Any]) -> bool:
    """Whether the last block alone writes a result, and what others write is read."""
    inside = list(sch.get(block(sch, "root")).alloc_buffers)
    written = [sch.get(item).body.buffer for item in blocks[:-1]]
    if not all(any(buffer.same_as(own) for own in inside) for buffer in written):
        return False
    return all(sch.get_consumers(item) for item in blocks[:-1])
