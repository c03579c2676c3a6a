"""Which tile of a convolution, and of the max-pool behind it, a block of GPU threads computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import ceil, prod

import numpy as np

MULTIPROCESSORS = 108
"""An A100's (NVIDIA A100 whitepaper, table 4), for GPUs that targets/cuda does not know."""
FMAS = 128
"""float32 multiply-adds that a multiprocessor starts each cycle, sm_80's 64 aside."""
WARP = 32
SHARED = 48 << 10
"""Bytes of shared memory that a block may have without asking for more."""
SCHEDULERS = 4
"""Warps that a multiprocessor starts an instruction of each cycle."""
IN_FLIGHT = 12
"""Independent multiply-adds of a scheduler that hide the latency of shared memory."""
FAR = WARP << 10
"""A stride that no two threads' words have in common, a multiple of the banks."""
FLOAT = 4
VECTOR = 4
"""Elements of the widest load."""

ACCUMULATORS = 72
"""Registers of a thread for sums, which leaves room for operands and addresses below 168."""
LEAST_THREADS, MOST_THREADS = 32, 384
COLUMN_THREADS = (1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 14, 16, 28, 32)
STAGE = 72
"""Terms of each sum between two barriers, at most, where one does not have to be more."""


@dataclass(frozen=True)
class Axis:
    """Rows or columns of a layer.

    Parameters
    ----------
    out
        Extent of the result.
    kernel, stride, dilation
        Of the convolution.
    pool, pool_stride, pool_dilation
        Of the max-pool, 1 where there is none.
    """

    out: int
    kernel: int
    stride: int
    dilation: int
    pool: int = 1
    pool_stride: int = 1
    pool_dilation: int = 1

    @property
    def reach(self) -> int:
        """Un-pooled elements that a pooling window spans."""
        return (self.pool - 1) * self.pool_dilation + 1

    @property
    def overlaps(self) -> bool:
        """Whether neighbouring windows share elements."""
        return self.reach > self.pool_stride


@dataclass(frozen=True)
class Nest:
    """A layer's loops.

    Parameters
    ----------
    batch, filters, channels
        Images, filters of a group, channels of a group.
    groups
        Groups.
    rows, columns
        The spatial axes.
    channels_last
        Whether channels are innermost in the sums and in memory.
    """

    batch: int
    groups: int
    filters: int
    channels: int
    rows: Axis
    columns: Axis
    channels_last: bool

    @property
    def pooled(self) -> bool:
        """Whether there is a pool."""
        return max(self.rows.pool, self.columns.pool) > 1

    @property
    def overlaps(self) -> bool:
        """Whether un-pooled elements belong to several windows, so that threads share them."""
        return self.rows.overlaps or self.columns.overlaps


@dataclass(frozen=True)
class Tile:
    """What a block of threads computes.

    Parameters
    ----------
    filter_threads, row_threads, column_threads
        Threads along filters, rows and columns.
    filters
        Consecutive filters of a thread.
    rows
        Groups of rows of a thread; 1 where threads share un-pooled elements.
    group_rows, group_columns
        Un-pooled elements that a thread sums side by side, for each of its groups.
    out_rows, out_columns
        Rows and columns of the result that the block computes.
    stage
        Terms of each sum between two barriers, as extents of the reduction axes.
    """

    filter_threads: int
    row_threads: int
    column_threads: int
    filters: int
    rows: int
    group_rows: int
    group_columns: int
    out_rows: int
    out_columns: int
    stage: tuple[int, int, int]

    @property
    def threads(self) -> int:
        """Threads of the block."""
        return self.filter_threads * self.row_threads * self.column_threads

    @property
    def block_filters(self) -> int:
        """Filters of the block."""
        return self.filter_threads * self.filters

    @property
    def stores(self) -> tuple[int, int]:
        """Filters and rows of the result that the block stores side by side, a thread each."""
        filters = _divisor(self.block_filters, self.threads // self.out_columns)
        return filters, _divisor(self.out_rows, self.threads // (self.out_columns * filters))

    @property
    def accumulators(self) -> int:
        """Sums of a thread."""
        return self.filters * self.rows * self.group_rows * self.group_columns


def _divisor(of: int, most: int) -> int:
    """The largest divisor of `of` that is at most `most`, and 1 at least."""
    return max((d for d in range(1, of + 1) if of % d == 0 and d <= most), default=1)


@lru_cache(maxsize=256)
def best(nest: Nest, multiprocessors: int = MULTIPROCESSORS) -> Tile:
    """The tile that the model below expects to be fastest on so many multiprocessors."""
    return min(candidates(nest), key=lambda tile: _order(nest, tile, multiprocessors))


def ranked(nest: Nest, multiprocessors: int = MULTIPROCESSORS) -> list[Tile]:
    """All tiles, the most promising first."""
    return sorted(candidates(nest), key=lambda tile: _order(nest, tile, multiprocessors))


def _order(nest: Nest, tile: Tile, multiprocessors: int) -> tuple[float, int]:
    return expected(nest, tile, multiprocessors), tile.threads


def candidates(nest: Nest) -> Iterator[Tile]:
    """Tiles that fit a multiprocessor, and into the layer; at least one.

    TVM drops what a block would compute past the end of a layer that is smaller than it.
    """
    fitting = [tile for tile in _tiles(nest) if _fits(nest, tile)]
    busy = [tile for tile in fitting if tile.threads >= LEAST_THREADS]
    yield from busy or fitting or [smallest(nest)]


def _tiles(nest: Nest) -> Iterator[Tile]:
    for filters, filter_threads in product((8, 4, 2, 1), (16, 8, 4, 2, 1)):
        block = filters * filter_threads
        if block <= nest.filters and (nest.groups == 1 or nest.filters % block == 0):
            yield from _spatial(nest, filters, filter_threads)


def _spatial(nest: Nest, filters: int, filter_threads: int) -> Iterator[Tile]:
    if nest.overlaps:
        yield from _shared(nest, filters, filter_threads)
        return
    window = nest.rows.pool * nest.columns.pool
    groups = [(1, 1), (1, 2), (2, 2), (1, 4), (2, 4)] if window == 1 else [(0, 0)]
    for (group_rows, group_columns), rows in product(groups, (1, 2, 4)):
        height, width = group_rows or nest.rows.pool, group_columns or nest.columns.pool
        for row_threads, column_threads in product((1, 2, 4, 8, 16), COLUMN_THREADS):
            yield Tile(
                filter_threads,
                row_threads,
                column_threads,
                filters,
                rows,
                height,
                width,
                row_threads * rows * (group_rows or 1),
                column_threads * (group_columns or 1),
                stage_of(nest),
            )


def _shared(nest: Nest, filters: int, filter_threads: int) -> Iterator[Tile]:
    """Tiles whose un-pooled elements are shared: groups may not straddle the tile's edge."""
    for group_rows, group_columns in ((1, 1), (1, 2), (1, 4), (2, 2), (2, 4), (1, 8)):
        for out_rows, out_columns in product((1, 2, 3, 4, 6, 8), (1, 2, 3, 4, 6, 8, 12, 14, 16)):
            down, across = out_rows * nest.rows.pool_stride, out_columns * nest.columns.pool_stride
            if down % group_rows or across % group_columns:
                continue
            height = (out_rows - 1) * nest.rows.pool_stride + nest.rows.reach
            width = (out_columns - 1) * nest.columns.pool_stride + nest.columns.reach
            yield Tile(
                filter_threads,
                ceil(height / group_rows),
                ceil(width / group_columns),
                filters,
                1,
                group_rows,
                group_columns,
                out_rows,
                out_columns,
                stage_of(nest),
            )


def smallest(nest: Nest) -> Tile:
    """One result a block, for windows too large for any other tile."""
    rows, columns = nest.rows, nest.columns
    if nest.overlaps:
        return Tile(1, rows.reach, columns.reach, 1, 1, 1, 1, 1, 1, (1, 1, 1))
    return Tile(1, 1, 1, 1, 1, rows.pool, columns.pool, 1, 1, (1, 1, 1))


def stage_of(nest: Nest) -> tuple[int, int, int]:
    """Extents of the innermost part of the sums, in the order in which they are taken."""
    extents = (nest.channels, nest.rows.kernel, nest.columns.kernel)
    order = (1, 2, 0) if nest.channels_last else (0, 1, 2)
    left, stage = STAGE, [1, 1, 1]
    for at in reversed(order):
        stage[at] = _divisor(extents[at], left)
        left //= stage[at]
        if stage[at] < extents[at]:
            break
    return stage[0], stage[1], stage[2]


def shared_bytes(nest: Nest, tile: Tile) -> int:
    """Shared memory of a block: a stage of data and weights, and shared un-pooled elements."""
    channels, kernel_rows, kernel_columns = tile.stage
    height, width = _summed(nest, tile)
    rows = (height - 1) * nest.rows.stride + (kernel_rows - 1) * nest.rows.dilation + 1
    columns = (width - 1) * nest.columns.stride + (kernel_columns - 1) * nest.columns.dilation + 1
    lanes = _lanes(nest, tile)
    columns = lanes * (ceil(columns / lanes) + 1)
    row, _ = row_offset(nest, tile)
    columns += (row - columns) % WARP
    data = channels * (rows * columns + WARP)
    weights = prod(tile.stage) * tile.block_filters
    unpooled = 0
    if nest.overlaps:
        group = tile.group_columns * tile.block_filters
        apart = group + (group_offset(nest, tile) - group) % WARP
        unpooled = ceil(_allocated(nest, tile, height) * width * apart / group)
    return FLOAT * (data + weights + unpooled)


def row_offset(nest: Nest, tile: Tile) -> tuple[int, float]:
    """Where in the banks a row of data begins after the row before it.

    Lanes read a row's elements side by side, and those of threads along rows `_row_step` rows
    apart: that is to be in other banks.

    Returns
    -------
    tuple
        The offset, and the turns besides the first that a warp's read takes then, on average.
    """
    _, width = _summed(nest, tile)
    columns = (width - 1) * nest.columns.stride
    columns += (tile.stage[2] - 1) * nest.columns.dilation + 1
    lanes = _lanes(nest, tile)
    plain = lanes * ceil(columns / lanes)
    threads = (tile.row_threads, tile.filter_threads, tile.column_threads)
    turns = row_conflicts(threads, _row_step(nest, tile))
    return min(((plain + more) % WARP for more in range(WARP)), key=turns.__getitem__), min(turns)


@lru_cache(maxsize=1 << 16)
def _group_conflicts(
    threads: tuple[int, int, int], filters: int, stores: tuple[int, int, int], pooling: Pooling
) -> tuple[float, ...]:
    """Turns besides the first of a warp's write, and of its read, of shared un-pooled sums.

    Weighed by how often they are written and read, by the offset of a group of columns.
    """
    row, filter_thread, column = np.indices(threads).reshape(3, -1)
    across = threads[2]
    down, group, block, last = pooling.down, pooling.group, pooling.block, pooling.channels_last
    scaled = row * pooling.group_rows * across + column
    written = conflicts(scaled, filter_thread * filters)
    rows, kept, columns = stores
    order = (rows, columns, kept) if last else (rows, kept, columns)
    y, *rest = np.indices(order).reshape(3, -1)
    x, k = rest if last else reversed(rest)
    first = x * pooling.across
    scaled = y * down * across + first // group
    read = conflicts(scaled, first % group * block + k)
    return tuple(
        pooling.writes * write + pooling.reads * turns
        for write, turns in zip(written, read, strict=True)
    )


@dataclass(frozen=True)
class Pooling:
    """How shared un-pooled sums are read: steps of windows, groups, and how often."""

    down: int
    across: int
    group_rows: int
    group: int
    block: int
    writes: int
    reads: int
    channels_last: bool


def group_offset(nest: Nest, tile: Tile) -> int:
    """Where in the banks a group of columns of shared un-pooled sums begins after the one before.

    Of the places with the fewest conflicts, that which leaves the least memory unused.
    """
    filters, rows = tile.stores
    passes = ceil(tile.block_filters / filters) * ceil(tile.out_rows / rows)
    turns = _group_conflicts(
        (tile.row_threads, tile.filter_threads, tile.column_threads),
        tile.filters,
        (rows, filters, tile.out_columns),
        Pooling(
            nest.rows.pool_stride,
            nest.columns.pool_stride,
            tile.group_rows,
            tile.group_columns,
            tile.block_filters,
            tile.accumulators,
            passes * nest.rows.pool * nest.columns.pool,
            nest.channels_last,
        ),
    )
    plain = tile.group_columns * tile.block_filters
    return min(((plain + more) % WARP for more in range(WARP)), key=turns.__getitem__)


@lru_cache(maxsize=1 << 16)
def row_conflicts(threads: tuple[int, int, int], step: int) -> tuple[float, ...]:
    """Turns besides the first of a warp's read of data, by the offset of a row.

    Parameters
    ----------
    threads
        Along rows, filters and columns; those along filters read the same.
    step
        Rows from one thread's to the next's.
    """
    row, _, column = np.indices(threads).reshape(3, -1)
    return conflicts(row * step, column)


def conflicts(scaled: np.ndarray, added: np.ndarray) -> tuple[float, ...]:
    """Turns besides the first of a warp's access to words ``scaled * stride + added``.

    Parameters
    ----------
    scaled, added
        One number for each thread.

    Returns
    -------
    tuple
        Means over all warps, for the strides that begin in bank 0 to 31.
    """
    strides = FAR + np.arange(WARP)
    words = scaled[None, :] * strides[:, None] + added[None, :]
    total = np.zeros(WARP)
    starts = range(0, words.shape[1], WARP)
    for start in starts:
        own = np.unique(words[:, start : start + WARP], axis=1)  # lanes may read the same
        counts = ((own % WARP)[:, :, None] == np.arange(WARP)).sum(1)
        total += counts.max(1) - 1
    return tuple(float(turns) for turns in total / len(starts))


def _row_step(nest: Nest, tile: Tile) -> int:
    """Rows of data from one thread's first to that of the next along rows."""
    step = nest.rows.pool_stride if nest.pooled and not nest.overlaps else tile.group_rows
    return tile.rows * step * nest.rows.stride


def _allocated(nest: Nest, tile: Tile, height: int) -> int:
    """Rows times filters of shared un-pooled elements: TVM counts threads that store nothing, too.

    They are taken for more rows, or, where a block stores one row at a time, for more filters.
    """
    filters, rows = tile.stores
    if rows > 1:
        idle = ceil(tile.threads / (filters * tile.out_columns)) - rows
        return (height + idle * nest.rows.pool_stride) * tile.block_filters
    last = tile.block_filters - filters + ceil(tile.threads / tile.out_columns)
    return height * ceil(last / tile.block_filters) * tile.block_filters


def expected(nest: Nest, tile: Tile, multiprocessors: int = MULTIPROCESSORS) -> float:
    """Cycles that a layer takes, as far as its instructions and what hides latencies decide."""
    blocks = (
        nest.batch
        * nest.groups
        * ceil(nest.filters / tile.block_filters)
        * ceil(nest.rows.out / tile.out_rows)
        * ceil(nest.columns.out / tile.out_columns)
    )
    slots = max(instructions(nest, tile), shared_slots(nest, tile))
    warps = ceil(tile.threads / WARP)
    waves = ceil(blocks / multiprocessors)
    resident = min(waves, SHARED * 3 // shared_bytes(nest, tile)) * warps / SCHEDULERS
    hidden = min(1.0, resident) * min(1.0, max(1.0, resident) * tile.accumulators / IN_FLIGHT)
    return waves * slots * warps * WARP / FMAS / hidden


def arithmetic(nest: Nest) -> float:
    """Cycles of one multiprocessor for the multiply-adds alone of a layer without a pool."""
    sums = nest.batch * nest.groups * nest.filters * nest.rows.out * nest.columns.out
    return sums * nest.channels * nest.rows.kernel * nest.columns.kernel / FMAS


def instructions(nest: Nest, tile: Tile) -> float:
    """Instructions of a thread."""
    channels, kernel_rows, kernel_columns = tile.stage
    terms = nest.channels * nest.rows.kernel * nest.columns.kernel
    height, width = _summed(nest, tile)
    rows = (height - 1) * nest.rows.stride + (kernel_rows - 1) * nest.rows.dilation + 1
    columns = (width - 1) * nest.columns.stride + (kernel_columns - 1) * nest.columns.dilation + 1
    weights = ceil(prod(tile.stage) * tile.block_filters / _vector(tile) / tile.threads)
    if nest.channels_last:
        places, copies = ceil(channels * rows * columns / tile.threads), 1
    else:
        places, copies = ceil(rows * columns / tile.threads), channels
    stage = PLACE * places + COPY * places * copies + WEIGHTS * weights + STAGE_BY_STAGE
    loads = _loads(nest, tile)
    sums = tile.accumulators * prod(tile.stage)
    pixels = tile.accumulators // tile.filters
    return terms / prod(tile.stage) * (sums + loads + stage) + RESULT * pixels


PLACE, COPY, WEIGHTS, STAGE_BY_STAGE, RESULT = 45, 5, 10, 40, 40
"""Instructions to tell where a thread copies from, to copy one element, four weights, to go on to
the next stage, and to write a result: round numbers after a look at 31 kernels for sm_90.  For 52
others the sum is 1.0 to 1.5 times what bench --static counts, but for NHWC and 11x11 kernels: 1.4
to 2, and 3.8 once."""


def shared_slots(nest: Nest, tile: Tile) -> float:
    """Issue slots that go by while a thread's reads of shared memory take their turns.

    Four: 32 lanes a cycle and multiprocessor against 128 (CUDA C++ Programming Guide, "Arithmetic
    Instructions").
    """
    terms = nest.channels * nest.rows.kernel * nest.columns.kernel
    _, conflicts = row_offset(nest, tile)
    turns = _loads(nest, tile) + conflicts * _loaded(nest, tile)
    return SCHEDULERS * terms / prod(tile.stage) * turns


def _loads(nest: Nest, tile: Tile) -> float:
    """Instructions of a thread that read shared memory in a stage."""
    return _loaded(nest, tile) + tile.filters / _vector(tile) * prod(tile.stage)


def _loaded(nest: Nest, tile: Tile) -> int:
    """Elements of data that a thread reads from shared memory in a stage."""
    channels, kernel_rows, kernel_columns = tile.stage
    pixels = tile.accumulators // tile.filters
    if kernel_columns < nest.columns.kernel:
        return pixels * prod(tile.stage)
    down, across = tile.rows * tile.group_rows, tile.group_columns
    rows = min(
        (down - 1) * nest.rows.stride + (kernel_rows - 1) * nest.rows.dilation + 1,
        down * kernel_rows,
    )
    columns = min(
        (across - 1) * nest.columns.stride + (kernel_columns - 1) * nest.columns.dilation + 1,
        across * kernel_columns,
    )
    return channels * rows * columns


def _vector(tile: Tile) -> int:
    return VECTOR if tile.filters % VECTOR == 0 else 1


def _lanes(nest: Nest, tile: Tile) -> int:
    """Input columns from one thread's first to the next thread's."""
    step = nest.columns.pool_stride if nest.pooled and not nest.overlaps else tile.group_columns
    return step * nest.columns.stride


def _summed(nest: Nest, tile: Tile) -> tuple[int, int]:
    """Rows and columns of un-pooled elements of a block, those between windows included."""
    if nest.overlaps:
        return tile.row_threads * tile.group_rows, tile.column_threads * tile.group_columns
    return (
        (tile.out_rows - 1) * nest.rows.pool_stride + nest.rows.reach,
        (tile.out_columns - 1) * nest.columns.pool_stride + nest.columns.reach,
    )


def _fits(nest: Nest, tile: Tile) -> bool:
    return (
        tile.accumulators <= ACCUMULATORS
        and tile.threads <= MOST_THREADS
        and tile.out_rows <= nest.rows.out
        and tile.out_columns <= nest.columns.out
        and shared_bytes(nest, tile) <= SHARED
    )
