"""Which tile of a convolution, and of the max-pool behind it, a block of GPU threads computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import ceil, prod

from tvm_passes.schedules.gpu_banks import (
    WARP,
    Offsets,
    Pooling,
    gathered,
    group_conflicts,
    row_conflicts,
    staged,
)

MULTIPROCESSORS = 108
"""An A100's (NVIDIA A100 whitepaper, table 4), for GPUs that targets/cuda does not know."""
FMAS = 128
"""float32 multiply-adds that a multiprocessor starts each cycle, sm_80's 64 aside."""
SHARED = 48 << 10
"""Bytes of shared memory that a block may have without asking for more."""
SCHEDULERS = 4
"""Warps that a multiprocessor starts an instruction of each cycle."""
IN_FLIGHT = 12
"""Independent multiply-adds of a scheduler that hide the latency of shared memory."""
FLOAT = 4
VECTOR = 4
"""Elements of the widest load."""

ACCUMULATORS = 72
"""Registers of a thread for sums, which leaves room for operands and addresses below 168."""
LEAST_THREADS, MOST_THREADS = 32, 384
COLUMN_THREADS = (1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 14, 16, 28, 32)
COMPARED, ABOUT = 16, 1.03
"""How many tiles are compared for bank conflicts, and how much slower than the best they may be."""
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
    """The tile that the model below expects to be fastest on so many multiprocessors.

    Of those about as fast, the first whose data get into shared memory without bank conflicts.
    """
    first, *others = ranked(nest, multiprocessors)[:COMPARED]
    most = ABOUT * expected(nest, first, multiprocessors)
    near = [first, *(t for t in others if expected(nest, t, multiprocessors) <= most)]
    return next((tile for tile in near if offsets(nest, tile).turns == 0), first)


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
    """Tiles whose un-pooled elements are shared: groups may not straddle the tile's edge.

    Of what lies between the elements of dilated windows, which nothing reads, TVM keeps nothing.
    """
    dilated = (nest.rows.pool_dilation > 1, nest.columns.pool_dilation > 1)
    for group_rows, group_columns in ((1, 1), (1, 2), (1, 4), (2, 2), (2, 4), (1, 8)):
        if (dilated[0] and group_rows > 1) or (dilated[1] and group_columns > 1):
            continue
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
    height, width = _summed(nest, tile)
    weights = prod(tile.stage) * tile.block_filters
    unpooled = 0
    if nest.overlaps:
        group = tile.group_columns * tile.block_filters
        apart = group + (group_offset(nest, tile) - group) % WARP
        unpooled = ceil(_allocated(nest, tile, height) * width * apart / group)
    return FLOAT * (data_words(nest, tile) + weights + unpooled)


def data_words(nest: Nest, tile: Tile) -> int:
    """Words for a stage of data, padding included."""
    channels, lanes, rows, columns = _staged(nest, tile)
    columns += 1  # TVM allocates some more at times
    reads = row_reads(nest, tile)
    columns += next(more for more in range(WARP) if reads[(columns + more) % WARP] == min(reads))
    between = lanes * WARP if lanes > 1 else 0
    return channels * (lanes * rows * columns + between + WARP)


def _staged(nest: Nest, tile: Tile) -> tuple[int, int, int, int]:
    """Channels, lanes, rows and columns of a stage of data."""
    channels, kernel_rows, kernel_columns = tile.stage
    height, width = _summed(nest, tile)
    rows = (height - 1) * nest.rows.stride + (kernel_rows - 1) * nest.rows.dilation + 1
    columns = (width - 1) * nest.columns.stride + (kernel_columns - 1) * nest.columns.dilation + 1
    lanes = _lanes(nest, tile)
    return channels, lanes, rows, ceil(columns / lanes)


def row_reads(nest: Nest, tile: Tile) -> tuple[float, ...]:
    """Turns besides the first that a warp's read of data takes, by the offset of a row.

    Lanes read a row's elements side by side, and those of threads along rows `_row_step` rows
    apart: that is to be in other banks.
    """
    threads = (tile.row_threads, tile.filter_threads, tile.column_threads)
    return row_conflicts(threads, tile.rows if _gathers(nest, tile) else _row_step(nest, tile))


def _gathers(nest: Nest, tile: Tile) -> bool:
    """Whether a stage has fewer elements than a row of the kernel: its data are gathered."""
    return tile.stage[2] < nest.columns.kernel


def offsets(nest: Nest, tile: Tile, extents: tuple[int, int, int, int] | None = None) -> Offsets:
    """Where in the banks staged data begin.

    Parameters
    ----------
    extents
        Of the array, if known: channels, lanes, rows and columns, or, where data are gathered,
        channels, 1, groups of rows, and what each has.
    """
    reads, last = row_reads(nest, tile), nest.channels_last
    if _gathers(nest, tile):
        groups = tile.row_threads * tile.rows
        height, width = _summed(nest, tile)
        channels, _, rows, within = extents or (tile.stage[0], 1, groups, height // groups * width)
        return gathered(channels, rows, within, reads, channels_last=last)
    most = data_words(nest, tile)
    return staged(extents or _staged(nest, tile), reads, most, channels_last=last)


def group_offset(nest: Nest, tile: Tile) -> int:
    """Where in the banks a group of columns of shared un-pooled sums begins after the one before.

    Of the places with the fewest conflicts, that which leaves the least memory unused.
    """
    filters, rows = tile.stores
    passes = ceil(tile.block_filters / filters) * ceil(tile.out_rows / rows)
    turns = group_conflicts(
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
    channels, lanes, rows, columns = _staged(nest, tile)
    stages = nest.channels * nest.rows.kernel * nest.columns.kernel / prod(tile.stage)
    weights = ceil(prod(tile.stage) * tile.block_filters / _vector(tile) / tile.threads)
    if nest.channels_last:
        places, copies = ceil(channels * lanes * rows * columns / tile.threads), 1
    else:
        places, copies = ceil(lanes * rows * columns / tile.threads), channels
    sums = tile.accumulators * prod(tile.stage) + _loads(nest, tile)
    stage = COPY * places * copies + WEIGHTS * weights + STAGE_BY_STAGE
    results: float = RESULT * (tile.accumulators // tile.filters)
    if nest.overlaps:
        results += (
            SHARED_RESULT * tile.out_rows * tile.out_columns * tile.block_filters / (tile.threads)
        )
    return stages * (sums + stage) + PLACE * places + results


PLACE, COPY, WEIGHTS, STAGE_BY_STAGE = 50, 5, 2, 10
"""Instructions to tell where a thread copies from, once; and in each stage to copy one element,
four weights, and to go on to the next stage."""
RESULT, SHARED_RESULT = 20, 300
"""Instructions to write a result, and to take it from shared un-pooled sums.

All are round numbers near the best fit of 100 kernels for sm_90, of layers of scripts/blocks.json
in both layouts with and without their pools.  For half of those the sum is within 5% of what bench
--static counts, for 8 in 10 0.7 to 1.1 times that; 0.4 to 0.7 times for 11x11 kernels in NHWC."""


def shared_slots(nest: Nest, tile: Tile) -> float:
    """Issue slots that go by while a thread's reads of shared memory take their turns.

    Four: 32 lanes a cycle and multiprocessor against 128 (CUDA C++ Programming Guide, "Arithmetic
    Instructions").
    """
    terms = nest.channels * nest.rows.kernel * nest.columns.kernel
    turns = _loads(nest, tile) + min(row_reads(nest, tile)) * _loaded(nest, tile)
    return SCHEDULERS * terms / prod(tile.stage) * turns


def _loads(nest: Nest, tile: Tile) -> float:
    """Instructions of a thread that read shared memory in a stage."""
    return _loaded(nest, tile) + tile.filters / _vector(tile) * prod(tile.stage)


def _loaded(nest: Nest, tile: Tile) -> int:
    """Elements of data that a thread reads from shared memory in a stage."""
    channels, kernel_rows, kernel_columns = tile.stage
    pixels = tile.accumulators // tile.filters
    if _gathers(nest, tile):
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
