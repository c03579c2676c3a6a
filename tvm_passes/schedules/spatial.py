"""Schedule pools, means, elementwise ops and changes of layout on CPUs: one pass over the data.

Vectors run along the axis that is contiguous in memory.  Where a load is contiguous along one
axis and the store along another, square tiles of both are transposed in registers.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Any

from tvm_passes.namespaces import (
    PARALLEL_DATA,
    Analyzer,
    BlockRealize,
    Schedule,
    ScheduleRule,
    blocks_of,
    buffer_of,
    tir,
)
from tvm_passes.schedules.inlining import inline, is_cheap
from tvm_passes.schedules.loops import cut_off_last
from tvm_passes.schedules.machine import STACK, Machine, machine_of
from tvm_passes.schedules.structure import (
    ELEMENTWISE,
    MAXIMUM,
    MINIMUM,
    TOTAL,
    kind_of,
    results_of,
    split_axes,
)

PARALLEL_ELEMENTS = 1 << 14
"""Elements below which waking TVM's threads costs more than it saves: about 10 microseconds."""

TURNS = 8
"""Iterations of a parallel loop for each core: what is left over at the end is short then."""

REDUCTIONS = {MAXIMUM, MINIMUM, TOTAL}

UNROLLED = 32
"""Elements of a window that are read in straight-line code."""


class Spatial(ScheduleRule):
    """A dlight schedule rule for functions of elementwise blocks and at most one reduction.

    Composes with others in ``dlight.ApplyDefaultSchedule``.
    """

    def apply(self, func: Any, target: Any, _tunable: bool) -> Schedule | None:
        """Schedule `func` if it is such a function for a target of kind llvm."""
        if str(target.kind.name) != "llvm":
            return None
        sch = Schedule(func)
        blocks = blocks_of(sch)
        if not blocks or not _is_spatial(sch, blocks):
            return None
        *others, last = blocks
        reduction = next((item for item in blocks if kind_of(sch.get(item)) in REDUCTIONS), None)
        if not all(inline(sch, item) for item in others if item is not reduction):
            return None
        _schedule(sch, last, reduction, machine_of(target))
        return sch


def _is_spatial(sch: Schedule, blocks: list[Any]) -> bool:
    """Whether blocks are those of such a function, written as ops are, of more than one result."""
    stmts = [sch.get(item) for item in blocks]
    kinds = [kind_of(stmt) for stmt in stmts]
    if sum(kind in REDUCTIONS for kind in kinds) > 1 or {*kinds} - {ELEMENTWISE, *REDUCTIONS}:
        return False
    if not all(map(_static, stmts)) or not all(_is_plain(sch, item) for item in blocks):
        return False
    if all(int(axis.iter_type) != PARALLEL_DATA for axis in stmts[-1].iter_vars):
        return False  # one number: there is no loop to vectorize
    if not all(sch.get_consumers(item) for item in blocks[:-1]):
        return False
    if not all(is_cheap(sch, item) for item in blocks[:-1]):
        return False
    whole = results_of(stmts[-1])  # else a reduction would run for each element of the whole
    found = zip(stmts, kinds, strict=True)
    return all(results_of(stmt) >= whole for stmt, kind in found if kind in REDUCTIONS)


def _static(stmt: Any) -> bool:
    """Whether a block has axes, of known extents, and elements."""
    extents = [axis.dom.extent for axis in stmt.iter_vars]
    return bool(extents) and all(isinstance(n, tir.IntImm) and int(n) for n in extents)


def _is_plain(sch: Schedule, item: Any) -> bool:
    """Whether a nest of serial loops, one for each axis, has the block alone in it."""
    loops = [sch.get(loop) for loop in sch.get_loops(item)]
    if not loops or not isinstance(loops[-1].body, BlockRealize):
        return False
    values, always = loops[-1].body.iter_values, loops[-1].body.predicate
    if len(values) != len(loops) or not isinstance(always, tir.IntImm):
        return False
    if not all(outer.body.same_as(inner) for outer, inner in pairwise(loops)):
        return False
    bound = [loop.loop_var.same_as(value) for loop, value in zip(loops, values, strict=True)]
    return all(bound) and all(int(loop.kind) == tir.ForKind.SERIAL for loop in loops)


def _schedule(sch: Schedule, last: Any, reduction: Any | None, machine: Machine) -> None:
    if reduction is last:
        last = sch.cache_write(reduction, 0, STACK)
    axes = sch.get(last).iter_vars
    across = None
    if reduction is None:
        across = _transposed(sch.get(last), machine.lanes)
    outer, inner = _tile(sch, last, across, machine.lanes)
    vector = across is not None or _vectorizable(sch.get(reduction or last), machine.lanes)
    if reduction is not None:
        sch.compute_at(reduction, outer[-1], preserve_unit_loops=True)
    if prod(int(axis.dom.extent) for axis in axes) >= PARALLEL_ELEMENTS and machine.cores > 1:
        _parallel(sch, outer, machine.cores)
    if reduction is not None:  # once it is decomposed, no loop around it is made parallel
        _reduce(sch, reduction, vector)
    if vector:
        sch.vectorize(inner)


def _parallel(sch: Schedule, outer: list[Any], cores: int) -> None:
    """Run as few of the outer loops on TVM's threads as give each several turns."""
    fused: list[Any] = []
    turns = 1
    for loop in outer:
        if turns >= TURNS * cores or sch.get(loop).annotations:
            break
        fused.append(loop)
        turns *= int(sch.get(loop).extent)
    if fused:
        sch.parallel(sch.fuse(*fused) if len(fused) > 1 else fused[0])


def _tile(sch: Schedule, last: Any, across: int | None, lanes: int) -> tuple[list[Any], Any]:
    """The loops outside of a vector, and the vector's.

    A transposing block's axis `across` is split as well, and its tile unrolled.
    """
    *outer, inner = sch.get_loops(last)
    extent = int(sch.get(inner).extent)
    tile = None
    if across is not None:
        outer[across], tile = sch.split(outer[across], [None, lanes])
    if extent > lanes:
        rest, inner = sch.split(inner, [None, lanes])
        outer.append(rest)
        if extent % lanes:
            cut_off_last(sch, rest)
    if not outer:
        outer.append(sch.add_unit_loop(inner))
    if tile is not None:
        sch.reorder(*outer, tile, inner)
        sch.unroll(tile)
    return outer, inner


def _reduce(sch: Schedule, reduction: Any, vector: bool) -> None:
    """Reduce in a register, a vector of results at a time."""
    spatial, window = split_axes(sch, reduction)
    sch.reorder(*window, *spatial)
    if prod(int(sch.get(loop).extent) for loop in window) <= UNROLLED:
        for loop in window:
            sch.unroll(loop)
    if vector:
        sch.vectorize(spatial[-1])
    start = sch.decompose_reduction(reduction, window[0])
    if vector:
        sch.vectorize(sch.get_loops(start)[-1])


def _vectorizable(stmt: Any, lanes: int) -> bool:
    """Whether all loads are contiguous, or all the same, along the last spatial axis."""
    spatial = [axis for axis in stmt.iter_vars if int(axis.iter_type) == 0]
    steps = _steps(stmt, spatial[-1], lanes)
    return all(step in (0, 1) for step in steps)


def _transposed(stmt: Any, lanes: int) -> int | None:
    """The axis along which loads are contiguous, where they are not along the last one."""
    *others, last = stmt.iter_vars
    if all(step in (0, 1) for step in _steps(stmt, last, lanes)):
        return None
    for at, axis in enumerate(others):
        long = int(axis.dom.extent) >= lanes // 2
        if long and all(step in (0, 1) for step in _steps(stmt, axis, lanes)):
            return at
    return None


def _steps(stmt: Any, axis: Any, lanes: int) -> list[int | None]:
    """How far each load moves in memory as `axis` takes a step; None where steps differ."""
    count = min(lanes, int(axis.dom.extent))
    found = []
    for read in stmt.reads:
        if buffer_of(read).same_as(stmt.body.buffer):
            continue
        offsets = [_offset(read, stmt, axis, value) for value in range(count)]
        moves = {None if a is None or b is None else b - a for a, b in pairwise(offsets)}
        found.append(moves.pop() if len(moves) == 1 else None if moves else 0)
    return found


def _offset(read: Any, stmt: Any, axis: Any, value: int) -> int | None:
    """Where a load starts, with one axis at `value` and the others at 0; None where data say so."""
    analyzer = Analyzer()
    for each in stmt.iter_vars:
        at = value if each.var.same_as(axis.var) else 0
        analyzer.bind(each.var, each.dom.min + at)
    offset = 0
    for dim, extent in zip(read.region, buffer_of(read).shape, strict=True):
        start = analyzer.simplify(dim.min)
        if not isinstance(start, tir.IntImm) or not isinstance(extent, tir.IntImm):
            return None
        offset = offset * int(extent) + int(start)
    return offset
