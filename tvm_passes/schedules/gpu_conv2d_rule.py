"""Schedule a convolution, its max-pool, bias and activation as one kernel for GPUs.

    max_pool2d(conv2d(x, w)) -> bias -> activation = one kernel: the un-pooled sums stay on the chip

Data and weights are staged through shared memory; sums are in registers.  Where pooling windows
share elements, the un-pooled sums go to shared memory, too; else a thread has whole windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from tvm_passes.namespaces import PARALLEL_DATA, Schedule, ScheduleRule, blocks_of
from tvm_passes.schedules.gpu_banks import WARP
from tvm_passes.schedules.gpu_conv2d import LAYER, SPREAD_RANK, TILE, LayerOf, tile_of
from tvm_passes.schedules.gpu_space import layer_in, stated, tiles_of
from tvm_passes.schedules.gpu_tiles import VECTOR, Tile, group_offset, offsets

CHANNELS, LANES, ROWS = 1, 2, 3
"""Their axes in the padded data."""
CHANNELS_GATHERED, ROWS_GATHERED = 3, 4
"""Their axes in gathered data."""
COLUMN_GROUPS = 4
"""Their axis in the un-pooled sums."""

MOST_UNROLLED = 4096
"""Multiply-adds without a branch, at most: 64 KiB of instructions, half of what sm_80 caches."""


class TiledConv2d(ScheduleRule):
    """A dlight schedule rule for what `tvm_passes.schedules.gpu_conv2d.conv2d` states.

    Where a tunable schedule is asked for, gives a list of them, a tile each, the most promising
    first; what computes more than the layer has its weights packed for one tile, and one schedule.
    """

    def apply(self, func: Any, target: Any, tunable: bool) -> Schedule | list[Schedule] | None:
        """Schedule `func` if it computes such a layer for a GPU."""
        if "gpu" not in [str(key) for key in target.keys]:
            return None
        if layer_of(Schedule(func)) is None:
            return None
        if not tunable:
            return schedule(func)
        layer, alone = layer_in(func) or (None, False)
        if layer is None or not alone:
            return [schedule(func)]
        return [schedule(stated(layer, tile)) for tile in tiles_of(layer, target)]


@dataclass(frozen=True)
class Layer:
    """The blocks of a layer, and its tile.

    Parameters
    ----------
    spread
        The padded data.
    sums
        The convolution.
    maxima
        The pool, if any.
    epilogue
        Elementwise blocks, the last of which writes the result.
    tile, channels_last, of
        As annotated.
    """

    spread: Any
    sums: Any
    maxima: Any | None
    epilogue: tuple[Any, ...]
    tile: Tile
    channels_last: bool
    of: LayerOf

    @property
    def shares(self) -> bool:
        """Whether threads read each other's un-pooled sums."""
        return self.of.nest.overlaps


def layer_of(sch: Schedule) -> Layer | None:
    """The layer that a function computes, or None where it is none."""
    blocks = blocks_of(sch)
    marked = [n for n, item in enumerate(blocks) if TILE in sch.get(item).annotations]
    if len(marked) != 1 or marked[0] != 1:
        return None
    sums = blocks[1]
    last, tile = tile_of(sch.get(sums).annotations[TILE])
    maxima = blocks[2] if len(blocks) > 2 and _reduces(sch, blocks[2]) else None
    epilogue = tuple(blocks[2 if maxima is None else 3 :])
    if not epilogue or any(_reduces(sch, item) for item in epilogue):
        return None
    of = LayerOf.of(sch.get(sums).annotations[LAYER])
    return Layer(blocks[0], sums, maxima, epilogue, tile, last, of)


def schedule(func: Any) -> Schedule:
    """The layer of `func` on threads.

    Raises
    ------
    ValueError
        If it is no such layer.
    """
    sch = Schedule(func)
    layer = layer_of(sch)
    if layer is None:
        raise ValueError("expected a tiled convolution")
    for item in layer.epilogue[:-1]:
        sch.compute_inline(item)
    if layer.shares:
        _share(sch, layer)
    else:
        _keep(sch, layer)
    return sch


def _keep(sch: Schedule, layer: Layer) -> None:
    """Sums and maxima in the registers of the thread that stores them."""
    tile, (n, k, y, x) = layer.tile, _output(sch, layer)
    whole = layer.maxima is None
    height = tile.rows * (tile.group_rows if whole else 1)
    width = tile.group_columns if whole else 1
    kb, kt, k = sch.split(k, [None, tile.filter_threads, tile.filters])
    yb, yt, y = sch.split(y, [None, tile.row_threads, height])
    xb, xt, x = sch.split(x, [None, tile.column_threads, width])
    own = (y, x, k) if layer.channels_last else (k, y, x)
    sch.reorder(n, yb, xb, kb, yt, kt, xt, *own)
    thread = _bind(sch, (n, yb, xb), kb, (yt, kt, xt))
    for item in (layer.maxima, layer.sums):
        if item is not None:
            sch.compute_at(item, thread, preserve_unit_loops=True)
            sch.set_scope(item, 0, "local")
    _sum(sch, layer, layer.sums, _axes(sch, layer.sums))
    if layer.maxima is not None:
        _take_maxima(sch, layer.maxima)
    for loop in own:
        sch.unroll(loop)


def _share(sch: Schedule, layer: Layer) -> None:
    """Sums in registers, then in shared memory, from which threads pool."""
    tile, (n, k, y, x) = layer.tile, _output(sch, layer)
    kb, k = sch.split(k, [None, tile.block_filters])
    yb, y = sch.split(y, [None, tile.out_rows])
    xb, x = sch.split(x, [None, tile.out_columns])
    sch.reorder(n, yb, xb, kb, k, y, x)
    for item in (layer.maxima, layer.sums):  # before the threads, which blur what is read
        sch.compute_at(item, kb, preserve_unit_loops=True)
    filters, rows = tile.stores
    ks, k = sch.split(k, [None, filters])
    ys, y = sch.split(y, [None, rows])
    own = (y, x, k) if layer.channels_last else (y, k, x)
    sch.reorder(ks, ys, *own)
    _, thread = sch.split(sch.fuse(*own), [None, tile.threads])
    _bind(sch, (n, yb, xb), kb, (thread,))
    sch.compute_at(layer.maxima, thread, preserve_unit_loops=True)
    sch.set_scope(layer.maxima, 0, "local")
    sch.set_scope(layer.sums, 0, "shared")
    spatial, reduction = _axes(sch, layer.sums)
    n, kb, yo, yi, xo, xi, ki = spatial
    kt, ki = sch.split(ki, [tile.filter_threads, tile.filters])
    sch.reorder(n, kb, yo, kt, xo, yi, xi, ki)
    own_thread = sch.fuse(n, kb, yo, kt, xo)
    if int(sch.get(own_thread).extent) != tile.threads:
        raise ValueError(f"expected a tile of {tile.threads} threads to be in the layer")
    sch.bind(own_thread, "threadIdx.x")
    stored = sch.cache_write(layer.sums, 0, "local")
    sch.reverse_compute_at(stored, own_thread, preserve_unit_loops=True)
    offset = group_offset(layer.of.nest, tile)
    sch.storage_align(stored, 0, axis=COLUMN_GROUPS, factor=WARP, offset=offset)
    for loop in list(sch.get_loops(stored))[-3:]:
        sch.unroll(loop)
    _sum(sch, layer, layer.sums, ([yi, xi, ki], reduction))
    _take_maxima(sch, layer.maxima)


def _output(sch: Schedule, layer: Layer) -> tuple[Any, Any, Any, Any]:
    """Loops of the result: over images, filters, rows, columns."""
    loops = list(sch.get_loops(layer.epilogue[-1]))
    n, a, b, c = loops
    return (n, c, a, b) if layer.channels_last else (n, a, b, c)


def _bind(sch: Schedule, spatial: Any, filters: Any, threads: Any) -> Any:
    """Bind loops to blocks and threads; the loop over the threads."""
    first = sch.fuse(*spatial)
    sch.bind(first, "blockIdx.x")
    sch.bind(filters, "blockIdx.y")
    thread = sch.fuse(*threads) if len(threads) > 1 else threads[0]
    sch.bind(thread, "threadIdx.x")
    return thread


def _sum(sch: Schedule, layer: Layer, sums: Any, loops: tuple[list[Any], list[Any]]) -> None:
    """Sum in registers, stage by stage of the data and weights in shared memory."""
    tile, (spatial, reduction) = layer.tile, loops
    order = (1, 2, 0) if layer.channels_last else (0, 1, 2)
    parts = [sch.split(r, [None, tile.stage[at]]) for r, at in zip(reduction, order, strict=True)]
    outer, inner = [part[0] for part in parts], [part[1] for part in parts]
    sch.reorder(*outer, *inner, *spatial)
    weights = sch.cache_read(sums, 1, "shared")
    sch.set_scope(layer.spread, 0, "shared")
    for item in (layer.spread, weights):
        sch.compute_at(item, outer[-1], preserve_unit_loops=True)
    _fetch_weights(sch, weights, tile)
    _fetch_data(sch, layer)
    *pixels, lane = spatial
    if tile.filters % VECTOR == 0:
        lane, vector = sch.split(lane, [None, VECTOR])
        sch.vectorize(vector)
    for loop in (*pixels, lane):
        sch.unroll(loop)
    unrolled = tile.accumulators
    for loop in reversed(inner):
        unrolled *= int(sch.get(loop).extent)
        if unrolled <= MOST_UNROLLED or loop.same_as(inner[-1]):
            sch.unroll(loop)
        else:
            break
    sch.decompose_reduction(sums, outer[0])


def _fetch_weights(sch: Schedule, weights: Any, tile: Tile) -> None:
    """Copy a stage of weights, which lie side by side, in the widest loads."""
    vector = VECTOR if tile.block_filters % VECTOR == 0 else 1
    fused = sch.fuse(*list(sch.get_loops(weights))[-5:])
    _, thread, lanes = sch.split(fused, [None, tile.threads, vector])
    sch.bind(thread, "threadIdx.x")
    sch.vectorize(lanes)


def _fetch_data(sch: Schedule, layer: Layer) -> None:
    """Copy a stage of data, neighbours in memory by neighbouring threads.

    In NCHW a thread copies all channels of a place one after another: where that is takes as many
    instructions as 50 copies do.  In NHWC neighbouring threads copy neighbouring channels.
    """
    count = len(sch.get(layer.spread).iter_vars)
    loops = list(sch.get_loops(layer.spread))[-count:]
    spread = count == SPREAD_RANK
    if spread:
        n, c, lane, row, column = loops
        before, places = [c, lane, row, column], [n, row, column, lane]
    else:
        *outer, c, yo, yi, xi, xo = loops
        before, places = [c, yo, yi, xi, xo], [*outer, yo, yi, xi, xo]
    channels, *extents = (int(sch.get(loop).extent) for loop in before)
    extents = extents if spread else [1, extents[0], prod(extents[1:])]
    sch.reorder(*places, c)
    if layer.channels_last:
        places.append(c)
    _, thread = sch.split(sch.fuse(*places), [None, layer.tile.threads])
    sch.bind(thread, "threadIdx.x")
    if not layer.channels_last:
        sch.unroll(c)
    lanes, rows, columns = extents
    found = offsets(layer.of.nest, layer.tile, (channels, lanes, rows, columns))
    axis = ROWS if spread else ROWS_GATHERED
    sch.storage_align(layer.spread, 0, axis=axis, factor=WARP, offset=found.row)
    if lanes > 1:
        sch.storage_align(layer.spread, 0, axis=LANES, factor=WARP, offset=found.lane)
    if layer.channels_last and channels > 1:
        axis = CHANNELS if spread else CHANNELS_GATHERED
        sch.storage_align(layer.spread, 0, axis=axis, factor=WARP, offset=found.channel)


def _take_maxima(sch: Schedule, maxima: Any) -> None:
    """Maxima of whole windows in registers."""
    spatial, reduction = _axes(sch, maxima)
    sch.reorder(*reduction, *spatial)
    for loop in (*reduction, *spatial):
        sch.unroll(loop)


def _axes(sch: Schedule, item: Any) -> tuple[list[Any], list[Any]]:
    """The loops of a block's own axes: the spatial ones, then those it reduces over."""
    axes = sch.get(item).iter_vars
    loops = list(sch.get_loops(item))[-len(axes) :]
    pairs = list(zip(loops, axes, strict=True))
    spatial = [loop for loop, axis in pairs if int(axis.iter_type) == PARALLEL_DATA]
    return spatial, [loop for loop, axis in pairs if int(axis.iter_type) != PARALLEL_DATA]


def _reduces(sch: Schedule, item: Any) -> bool:
    return any(int(axis.iter_type) != PARALLEL_DATA for axis in sch.get(item).iter_vars)
