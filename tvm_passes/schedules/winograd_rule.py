"""Schedule a Winograd convolution, and the max-pool and activation that follow it, as one kernel.

Groups of tiles are transformed, multiplied and transformed back while they are in the cache; the
maxima of a pool's windows, or of their parts in a tile, are taken in registers on the way back.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

from tvm_passes.namespaces import Schedule, ScheduleRule
from tvm_passes.schedules.conv2d_rule import SPACE
from tvm_passes.schedules.loops import cut_off_last, vectorize_tile
from tvm_passes.schedules.machine import STACK, machine_of
from tvm_passes.schedules.plain import tile_plain
from tvm_passes.schedules.structure import (
    BLOCKED_RANK,
    ELEMENTWISE,
    MAXIMUM,
    SUM,
    Plain,
    extents,
    is_static,
    kind_of,
    split_axes,
    without_plain,
)
from tvm_passes.schedules.winograd_tiles import WinogradNest, WinogradTiles, candidates

TILED_RANK = 7
"""Axes of transformed inputs and products: two of the tile, and those of tiles and channels."""


ACROSS, CHANNEL_BLOCK = 4, 5
"""The axes of transformed inputs that count the tiles of a row, and blocks of channels."""

LINE = 16
"""float32 elements of a cache line.

An odd number of lines from tile to tile spreads those of a register tile over all sets of L1.
"""


@dataclass(frozen=True)
class WinogradLayer:
    """The blocks of a Winograd convolution with what surrounds it.

    Parameters
    ----------
    copy
        The padded input.
    half_transformed, transformed
        One axis of each tile transformed, and both.
    products
        The sums over channels.
    half, tiles
        One axis of each tile of products transformed back, and both.
    pool
        The maximum over windows in a tile, if any.
    parts
        The maxima over parts of windows in a tile, if they cross from one to the next.
    epilogue
        Elementwise blocks after that, the last of which writes the result in blocks.
    plain
        What takes the result out of them, if anything does.
    nest
        The extents.
    """

    copy: Any
    half_transformed: Any
    transformed: Any
    products: Any
    half: Any
    tiles: Any
    pool: Any | None
    parts: Any | None
    epilogue: tuple[Any, ...]
    plain: Plain | None
    nest: WinogradNest


class WinogradConv2d(ScheduleRule):
    """A dlight schedule rule for `tvm_passes.schedules.winograd.winograd_conv2d`, on CPUs.

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


def ranked_tiles(func: Any, target: Any) -> list[WinogradTiles]:
    """The most promising tilings of the layer that `func` computes; none if it is no such layer."""
    layer = winograd_layer_of(Schedule(func))
    return [] if layer is None else candidates(layer.nest, machine_of(target))[:SPACE]


def winograd_layer_of(sch: Schedule) -> WinogradLayer | None:
    """The layer that a function computes, or None where it is no Winograd convolution."""
    blocks, plain = without_plain(sch)
    stmts = [sch.get(item) for item in blocks]
    kinds = [kind_of(stmt) for stmt in stmts]
    expected = [ELEMENTWISE] * 3 + [SUM] + [ELEMENTWISE] * 2
    if kinds[:6] != expected or len(blocks) == 6 or not all(map(is_static, stmts)):
        return None
    pooled = kinds[6] == MAXIMUM
    in_parts = not pooled and len(_spatial(stmts[6])) == TILED_RANK
    epilogue = tuple(blocks[7 if pooled or in_parts else 6 :])
    if any(kind != ELEMENTWISE for kind in kinds[7:]) or not epilogue:
        return None
    if not all(_alone_reads(sch, one, other) for one, other in pairwise(blocks[:6])):
        return None
    ranks = [len(_spatial(stmts[at])) for at in (2, 3, 5, -1)]
    if ranks != [TILED_RANK, TILED_RANK, TILED_RANK, BLOCKED_RANK]:
        return None
    nest = _nest(stmts[2], stmts[3], stmts[5], stmts[6], stmts[-1])
    copy, half_transformed, transformed, products, half, tiles = blocks[:6]
    return WinogradLayer(
        copy=copy,
        half_transformed=half_transformed,
        transformed=transformed,
        products=products,
        half=half,
        tiles=tiles,
        pool=blocks[6] if pooled else None,
        parts=blocks[6] if in_parts else None,
        epilogue=epilogue,
        plain=plain,
        nest=nest,
    )


def _alone_reads(sch: Schedule, one: Any, other: Any) -> bool:
    readers = list(sch.get_consumers(one))
    return len(readers) == 1 and sch.get(readers[0]).same_as(sch.get(other))


def _spatial(stmt: Any) -> list[int]:
    return extents(stmt, reduction=False)


def _nest(transformed: Any, products: Any, tiles: Any, behind: Any, last: Any) -> WinogradNest:
    """The extents; `behind` is the block that reads the tiles."""
    size, _, batch, down, across, channel_blocks, _ = _spatial(transformed)
    given = outputs, _ = _spatial(tiles)[4], _spatial(tiles)[5]
    windows = (0, 0)
    if kind_of(behind) == MAXIMUM:
        height, width = extents(behind, reduction=True)
        given = outputs // height, outputs // width
    elif len(_spatial(behind)) == TILED_RANK:
        given = _spatial(behind)[4], _spatial(behind)[5]
        windows = _spatial(last)[2], _spatial(last)[3]
    return WinogradNest(
        batch=batch,
        down=down,
        across=across,
        blocks=_spatial(products)[3],
        block=_spatial(products)[6],
        channels=prod(extents(products, reduction=True)),
        channel_blocks=channel_blocks,
        tile=size,
        outputs=outputs,
        given=given,
        windows=windows,
    )


def schedule(func: Any, tiles: WinogradTiles) -> Schedule:
    """The layer of `func`, tiled.

    Raises
    ------
    ValueError
        If it is no such layer.
    """
    sch = Schedule(func)
    layer = winograd_layer_of(sch)
    if layer is None:
        raise ValueError("expected a Winograd convolution")
    for item in layer.epilogue[:-1]:
        sch.compute_inline(item)
    group, part, tile = _tile_output(sch, layer, tiles)
    for item in (layer.pool, layer.tiles, layer.half):
        if item is not None:
            _in_registers(sch, item, tile)
    if layer.parts is not None:
        _put_together(sch, layer, tiles.parallel)
    sch.compute_at(layer.products, part, preserve_unit_loops=True)
    _transform_inputs(sch, layer, None if tiles.whole else group, tiles.parallel)
    multiply(sch, layer.products, tiles)
    return sch


def _tile_output(sch: Schedule, layer: WinogradLayer, tiles: WinogradTiles) -> tuple[Any, Any, Any]:
    """The loops over groups of tiles, over parts of the filters, and over tiles."""
    if layer.parts is None and layer.plain is not None:
        group, part, across, inside = _tile_plain(sch, layer, layer.plain, tiles)
    else:
        group, part, across, inside = _tile_blocked(sch, layer, tiles)
    if tiles.whole:
        group = part = sch.fuse(group, part)
    if tiles.parallel:
        sch.parallel(group)
    vectorize_tile(sch, *inside)
    return group, part, across


_Loops = tuple[Any, Any, Any, list[Any]]
"""Those of `_tile_output`, and those inside of a tile: rows, columns, channels of a block."""


def _tile_blocked(sch: Schedule, layer: WinogradLayer, tiles: WinogradTiles) -> _Loops:
    if layer.parts is not None:
        image, channel, down, across, row, column, lane = sch.get_loops(layer.parts)
    else:
        image, channel, row, column, lane = sch.get_loops(layer.epilogue[-1])
        down, row = sch.split(row, [None, layer.nest.given[0]])
        across, column = sch.split(column, [None, layer.nest.given[1]])
    strip, down = sch.split(down, [None, tiles.rows])
    segment, across = sch.split(across, [None, tiles.columns])
    part, channel = sch.split(channel, [None, tiles.blocks])
    sch.reorder(image, strip, segment, part, channel, down, across, row, column, lane)
    return sch.fuse(image, strip, segment), part, across, [row, column, lane]


def _tile_plain(sch: Schedule, layer: WinogradLayer, plain: Plain, tiles: WinogradTiles) -> _Loops:
    """As where the result stays in blocks; that of a group of tiles leaves them before the next."""
    (height, width), last = layer.nest.given, layer.epilogue[-1]
    filled = tiles.blocks, tiles.rows * height, tiles.columns * width
    image, strip, part, _ = tile_plain(sch, plain, layer.nest.block, filled)
    sch.compute_at(last, part, preserve_unit_loops=True)
    channel, row, column, lane = sch.get_loops(last)[-4:]
    down, row = sch.split(row, [None, height])
    across, column = sch.split(column, [None, width])
    sch.reorder(channel, down, across, row, column, lane)
    return sch.fuse(image, strip), part, across, [row, column, lane]


def _in_registers(sch: Schedule, item: Any, tile: Any) -> None:
    """Compute what a tile of the result takes where it is used, in straight-line code."""
    sch.compute_at(item, tile, preserve_unit_loops=True)
    spatial, window = split_axes(sch, item)
    if window:
        sch.reorder(*window, *spatial)
    vectorize_tile(sch, *window, *spatial[-3:])
    if window:
        vectorize_tile(sch, *sch.get_loops(sch.decompose_reduction(item, window[0]))[-3:])


def _put_together(sch: Schedule, layer: WinogradLayer, parallel: bool) -> None:
    """Take the maxima of windows from those of their parts, all windows of a tile at once."""
    (height, width), last = layer.nest.windows_of_a_tile, layer.epilogue[-1]
    if layer.plain is None:
        image, channel, row, column, lane = sch.get_loops(last)
        down, row = sch.split(row, [None, height])
        outside = [image, channel, down]
        sch.reorder(*outside, row, column, lane)
    else:
        image, down, channel, _ = tile_plain(sch, layer.plain, layer.nest.block, (1, height, None))
        outside = [image, channel, down]
        sch.reorder(*outside)
        sch.compute_at(last, outside[-1], preserve_unit_loops=True)
        row, column, lane = sch.get_loops(last)[-3:]
    across, column = sch.split(column, [None, width])
    sch.reorder(across, row, column, lane)
    if parallel:
        sch.parallel(sch.fuse(*outside))
    vectorize_tile(sch, row, column, lane)


def _transform_inputs(sch: Schedule, layer: WinogradLayer, group: Any, parallel: bool) -> None:
    """Transform tile by tile; at `group` where there is one, else all of them first."""
    if group is not None:
        sch.compute_at(layer.transformed, group, preserve_unit_loops=True)
    (row, column, image, down, across, channel, lane), _ = split_axes(sch, layer.transformed)
    sch.reorder(image, down, across, channel, row, column, lane)
    sch.storage_align(layer.transformed, 0, ACROSS, 2 * LINE, LINE)
    if layer.nest.channels < layer.nest.block:  # TVM 0.19 has no stride that others do not divide
        sch.storage_align(layer.transformed, 0, CHANNEL_BLOCK, LINE, 0)
    sch.compute_at(layer.half_transformed, channel, preserve_unit_loops=True)
    vectorize_tile(sch, row, column, lane)
    vectorize_tile(sch, *sch.get_loops(layer.half_transformed)[-3:])
    if group is not None:
        sch.compute_at(layer.copy, group, preserve_unit_loops=True)
    *outer, _, lane = sch.get_loops(layer.copy)
    sch.vectorize(lane)
    if group is None and parallel:
        sch.parallel(sch.fuse(*outer))
        sch.parallel(sch.fuse(image, down, across))


def multiply(sch: Schedule, products: Any, tiles: WinogradTiles) -> None:
    """Matrix products, one for each element of a tile, a register tile at a time."""
    (row, column, image, channel, down, across, lane), reduction = split_axes(sch, products)
    channel, channels = sch.split(channel, [None, tiles.register_blocks])
    down, rows = sch.split(down, [None, tiles.register_rows])
    across, columns = sch.split(across, [None, tiles.register_columns])
    sch.reorder(
        row, column, image, channel, down, across, *reduction, channels, rows, columns, lane
    )
    stored = sch.cache_write(products, 0, STACK)
    sch.reverse_compute_at(stored, across, preserve_unit_loops=True)
    cut_off_last(sch, across)
    vectorize_tile(sch, channels, rows, columns, lane)
    for item in (sch.decompose_reduction(products, reduction[0]), stored):
        vectorize_tile(sch, *sch.get_loops(item)[-4:])
