"""Schedule a blocked convolution, and the max-pool and activation that follow it, as one kernel.

The un-pooled result lives in registers where the pool's windows tile it, else in a strip of rows
in the cache; bias and activation are applied to what the pool leaves, on its way to memory, and it
leaves blocks of channels on that way, too, if that is what follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm_passes.namespaces import Schedule, ScheduleRule
from tvm_passes.schedules.loops import cut_off_last, vectorize_tile
from tvm_passes.schedules.machine import STACK, machine_of
from tvm_passes.schedules.plain import tile_plain
from tvm_passes.schedules.structure import Layer, layer_of, split_axes
from tvm_passes.schedules.tiles import Tiles, candidates

SPACE = 64
"""Candidates that tuning may choose from."""


class BlockedConv2d(ScheduleRule):
    """A dlight schedule rule for convolutions whose result is ``NCHW{b}c``, on CPUs.

    Composes with others in ``dlight.ApplyDefaultSchedule``; where a tunable schedule is asked
    for, gives a list of them, the most promising first.
    """

    def apply(self, func: Any, target: Any, tunable: bool) -> Schedule | list[Schedule] | None:
        """Schedule `func` if it computes such a layer for a target of kind llvm."""
        if str(target.kind.name) != "llvm":
            return None
        ranked = ranked_tiles(func, target)
        if not ranked:
            return None
        return [schedule(func, tiles) for tiles in ranked] if tunable else schedule(func, ranked[0])


def ranked_tiles(func: Any, target: Any) -> list[Tiles]:
    """The most promising tilings of the layer that `func` computes; none if it is no such layer."""
    layer = layer_of(Schedule(func))
    return [] if layer is None else candidates(layer.nest, machine_of(target))[:SPACE]


def schedule(func: Any, tiles: Tiles) -> Schedule:
    """The layer of `func`, tiled.

    Raises
    ------
    ValueError
        If it is no such layer.
    """
    sch = Schedule(func)
    layer = layer_of(sch)
    if layer is None:
        raise ValueError("expected a blocked convolution")
    for item in (*layer.pool_padding, *layer.epilogue[:-1]):
        sch.compute_inline(item)
    loops = _tile_output(sch, layer, tiles)
    _place(sch, layer, tiles, loops)
    if tiles.in_registers:
        _convolve_in_registers(sch, layer.convolution)
    else:
        _convolve_strip(sch, layer.convolution, tiles)
    if layer.pool is not None:
        _pool_in_registers(sch, layer.pool)
    _unroll(sch, layer.epilogue[-1], 3 if tiles.in_registers else 2)
    return sch


@dataclass(frozen=True)
class _Loops:
    """Loops of the output: over strips of rows, groups of channel blocks, tiles along a row."""

    strip: Any
    group: Any
    tile: Any


def _tile_output(sch: Schedule, layer: Layer, tiles: Tiles) -> _Loops:
    last = layer.epilogue[-1]
    if layer.plain is None:
        image, block, row, column, lane = sch.get_loops(last)
        group, block = sch.split(block, [None, tiles.blocks])
        strip, row = sch.split(row, [None, tiles.strip])
        outside = [image, strip, group]
    else:
        part = tiles.blocks, tiles.strip, None
        image, strip, group, row = tile_plain(sch, layer.plain, layer.nest.block, part)
        sch.compute_at(last, row, preserve_unit_loops=True)
        block, row, column, lane = sch.get_loops(last)[-4:]
        outside = []
    width = tiles.pixels if tiles.in_registers else tiles.pooled
    tile, column = sch.split(column, [None, width])
    if tiles.in_registers:
        sch.reorder(*outside, row, tile, block, column, lane)
    else:
        sch.reorder(*outside, block, row, tile, column, lane)
    cut_off_last(sch, tile)
    if not tiles.parallel:
        return _Loops(strip, group, tile)
    if layer.copy is not None and tiles.copy_per_strip:
        strip = sch.fuse(image, strip)
    else:
        strip = group = sch.fuse(image, strip, group)
    sch.parallel(strip)
    return _Loops(strip, group, tile)


def _place(sch: Schedule, layer: Layer, tiles: Tiles, loops: _Loops) -> None:
    """Compute each block where its result is used: maxima and accumulators for a tile."""
    if layer.pool is not None:
        sch.compute_at(layer.pool, loops.tile, preserve_unit_loops=True)
    at = loops.tile if tiles.in_registers else loops.group
    sch.compute_at(layer.convolution, at, preserve_unit_loops=True)
    if layer.copy is None:
        return
    if tiles.copy_per_strip:
        sch.compute_at(layer.copy, loops.strip, preserve_unit_loops=True)
    elif tiles.parallel:
        sch.parallel(sch.fuse(*sch.get_loops(layer.copy)[:-2]))


def _convolve_in_registers(sch: Schedule, convolution: Any) -> None:
    """Accumulate the windows of one tile of outputs in registers that the pool reads."""
    spatial, reduction = split_axes(sch, convolution)
    sch.reorder(*reduction, *spatial)
    vectorize_tile(sch, *spatial)
    _unroll(sch, sch.decompose_reduction(convolution, reduction[0]), 4)


def _convolve_strip(sch: Schedule, convolution: Any, tiles: Tiles) -> None:
    """Compute a strip of rows, a register tile at a time, for the pool to read from the cache."""
    (image, block, row, column, lane), reduction = split_axes(sch, convolution)
    tile, column = sch.split(column, [None, tiles.pixels])
    sch.reorder(image, row, tile, *reduction, block, column, lane)
    stored = sch.cache_write(convolution, 0, STACK)
    sch.reverse_compute_at(stored, tile, preserve_unit_loops=True)
    cut_off_last(sch, tile)
    vectorize_tile(sch, block, column, lane)
    for item in (sch.decompose_reduction(convolution, reduction[0]), stored):
        _unroll(sch, item, 3)


def _pool_in_registers(sch: Schedule, pool: Any) -> None:
    """Take the maxima of a tile of windows, each in a register."""
    spatial, reduction = split_axes(sch, pool)
    sch.reorder(*reduction, *spatial)
    for loop in reduction:
        sch.unroll(loop)
    vectorize_tile(sch, *spatial)
    _unroll(sch, sch.decompose_reduction(pool, reduction[0]), 5)


def _unroll(sch: Schedule, item: Any, count: int) -> None:
    """Vectorize the innermost of a block's last `count` loops, and unroll the others."""
    vectorize_tile(sch, *sch.get_loops(item)[-count:])
