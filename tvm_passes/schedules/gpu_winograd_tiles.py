"""Tiles of the matrix products of a Winograd convolution on a GPU, and how long its kernels take.

Three kernels: tiles of the input are transformed, multiplied with transformed weights at each
element of the tile, and transformed back, with the maxima of a pool whose windows lie in a tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, prod

from tvm_passes.cuda.gpu import Gpu
from tvm_passes.cuda.resources import Resources
from tvm_passes.schedules.gpu_banks import WARP
from tvm_passes.schedules.gpu_tiles import FLOAT, FMAS, SHARED, VECTOR
from tvm_passes.winograd import Winograd

TRANSFORM_THREADS = 128
"""Of a block that transforms, a tile of a channel each."""

LEAST_THREADS, MOST_THREADS = 64, 256
"""Of a block that multiplies: two to eight warps, whose sums take up to half of its registers."""


@dataclass(frozen=True)
class ProductTile:
    """What a block of threads multiplies, at one element of the tile.

    Parameters
    ----------
    filter_threads, tile_threads
        Threads along filters, and along tiles.
    filters, tiles
        Of a thread, `VECTOR` of them side by side.
    stage
        Channels between two barriers.
    """

    filter_threads: int
    tile_threads: int
    filters: int
    tiles: int
    stage: int

    @property
    def threads(self) -> int:
        """Threads of the block."""
        return self.filter_threads * self.tile_threads

    @property
    def block_filters(self) -> int:
        """Filters of the block."""
        return self.filter_threads * self.filters

    @property
    def block_tiles(self) -> int:
        """Tiles of the block."""
        return self.tile_threads * self.tiles

    def split_filters(self, count: int) -> tuple[int, int, int, int]:
        """Filters by block, group, thread and element of a vector."""
        return _split(count, self.filters, self.filter_threads)

    def split_tiles(self, count: int) -> tuple[int, int, int, int]:
        """Tiles in the same way."""
        return _split(count, self.tiles, self.tile_threads)

    @property
    def shared_bytes(self) -> int:
        """Shared memory of the block: a stage of both operands."""
        return FLOAT * self.stage * (self.block_filters + self.block_tiles)


def _split(count: int, own: int, threads: int) -> tuple[int, int, int, int]:
    return count // (own * threads), own // VECTOR, threads, VECTOR


@dataclass(frozen=True)
class Filtering:
    """The extents of a layer that Winograd's filtering computes.

    Parameters
    ----------
    family
        The tile.
    batch, channels, filters
        Images, and channels of the data and of the result.
    height, width
        Of the data.
    rows, columns
        Of the convolution's result, as far as it is used.
    window
        Rows and columns of a pooling window; 1 without a pool in the tile.
    channels_last
        Whether data and result are [n, h, w, c].
    groups
        Of channels and filters; the sums of each are over its own channels.
    """

    family: Winograd
    batch: int
    channels: int
    filters: int
    height: int
    width: int
    rows: int
    columns: int
    window: tuple[int, int] = (1, 1)
    channels_last: bool = False
    groups: int = 1

    @property
    def of_group(self) -> tuple[int, int]:
        """Channels and filters of a group."""
        return self.channels // self.groups, self.filters // self.groups

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles of an image, down and across."""
        return ceil(self.rows / self.family.outputs), ceil(self.columns / self.family.outputs)

    @property
    def tiles(self) -> int:
        """Tiles of all images."""
        return self.batch * prod(self.grid)

    def padded(self, tile: ProductTile) -> tuple[int, int, int]:
        """Channels and filters of a group, and tiles, in whole blocks."""
        sizes = (tile.stage, tile.block_filters, tile.block_tiles)
        pairs = zip((*self.of_group, self.tiles), sizes, strict=True)
        channels, filters, tiles = (ceil(extent / size) * size for extent, size in pairs)
        return channels, filters, tiles


def candidates(filtering: Filtering) -> Iterator[ProductTile]:
    """Tiles that fit a multiprocessor, and are not twice as large as the layer."""
    channels, most_filters = filtering.of_group
    stage = max(size for size in (16, 8, 4) if size == 4 or size <= channels)
    for filters, tiles, rows, columns in product((8, 4), (8, 4), (4, 8, 16, 32), (4, 7, 8, 14, 16)):
        tile = ProductTile(rows, columns, filters, tiles, stage)
        if not LEAST_THREADS <= tile.threads <= MOST_THREADS or tile.shared_bytes > SHARED:
            continue
        if tile.block_filters < 2 * most_filters and tile.block_tiles < 2 * filtering.tiles:
            yield tile


@dataclass(frozen=True)
class Transform:
    """What a kernel that transforms does.

    Parameters
    ----------
    tiles
        How many, a thread each.
    slots
        Issue slots of a thread.
    bytes
        Of its arguments, each moved once.
    """

    tiles: int
    slots: float
    bytes: int

    def seconds(self, gpu: Gpu) -> float:
        """The longer of what issues and of what moves; the busiest multiprocessor decides."""
        blocks = ceil(ceil(self.tiles / TRANSFORM_THREADS) / gpu.multiprocessors)
        cycles = blocks * TRANSFORM_THREADS * self.slots / FMAS
        return TRANSFORM_OVER_LEAST * max(cycles / gpu.clock_hz, self.bytes / gpu.bytes_per_second)


TRANSFORM_OVER_LEAST = 1.7
"""How much longer than the least a transform takes: of VGG16's conv1_2 and conv3_3 1.1 to 2.0
times, on an H100 with cold caches (scripts/records/gpu-counters-h100.json)."""

LAUNCH = 0.8e-6
"""Seconds between two kernels of a stream: what an empty one takes in a CUDA graph of a hundred, on
an H100 (scripts/records/gpu-tiles-h100.json)."""

ENQUEUE = 4.6e-6
"""Seconds that Relax's virtual machine takes to start a kernel: on an H100, whose own counters say
3.2 us of it, MNIST's first block takes 4.8 us as one kernel, and 9.2 as two."""


def in_sequence(seconds: Sequence[float]) -> float:
    """Kernels one after another, which cannot run before they are started."""
    return max(sum(seconds) + LAUNCH * len(seconds), ENQUEUE * len(seconds))


def kernel_seconds(filtering: Filtering, tile: ProductTile, gpu: Gpu) -> list[float]:
    """Each of the three kernels."""
    inward, outward = transforms(filtering, tile)
    return [inward.seconds(gpu), product_seconds(filtering, tile, gpu), outward.seconds(gpu)]


def best(filtering: Filtering, gpu: Gpu) -> ProductTile | None:
    """The tile with which a layer should take the least time; None if it is too small for any."""
    return min(
        candidates(filtering),
        key=lambda tile: sum(kernel_seconds(filtering, tile, gpu)),
        default=None,
    )


def transforms(filtering: Filtering, tile: ProductTile) -> tuple[Transform, Transform]:
    """Of the kernel that transforms the data, and of that which transforms back."""
    size, m = filtering.family.tile, filtering.family.outputs
    *of_group, tiles = filtering.padded(tile)
    channels, filters = (filtering.groups * extent for extent in of_group)
    stored = m * m // prod(filtering.window)
    data = filtering.batch * filtering.channels * filtering.height * filtering.width
    result = filtering.filters * filtering.tiles * stored
    transformed, products = (size * size * rows * tiles for rows in (channels, filters))
    inward = LOAD * size * size + TERM * 2 * size * size * size
    outward = 2 * size * size + TERM * size * m * (size + m) + STORE * stored
    return (
        Transform(channels * tiles, inward, FLOAT * (data + transformed)),
        Transform(filtering.filters * filtering.tiles, outward, FLOAT * (products + result)),
    )


LOAD, TERM, STORE = 8, 0.3, 6
"""Instructions of a thread that transforms, with those that tell where: for an element of the data
and its store, for each of the terms of a row times a column, and for a result: round numbers after
a look at kernels for sm_90, 0.7 to 1.4 times what bench --static counts of F(4x4, 3x3)."""


def product_seconds(filtering: Filtering, tile: ProductTile, gpu: Gpu) -> float:
    """The matrix products: stages in which warps hide each other's latencies, if there are enough.

    The busiest multiprocessor decides.
    """
    channels, filters, tiles = filtering.padded(tile)
    size = filtering.family.tile
    products = size * size * filtering.groups
    blocks = products * (filters // tile.block_filters) * (tiles // tile.block_tiles)
    waves = ceil(blocks / gpu.multiprocessors)
    together = max(1, min(waves, gpu.resident(_taken(tile))))
    stages, slots = channels / tile.stage, _stage_slots(tile, gpu)
    warps = ceil(tile.threads / WARP) / gpu.schedulers

    def cycles(resident: int) -> float:
        return stages * max(resident * warps * slots, slots + LATENCY)

    rounds, rest = divmod(waves, together)
    total = rounds * cycles(together) + (cycles(rest) if rest else 0.0)
    operands = channels * (filters + tiles) + filters * tiles
    moved = FLOAT * products * operands
    return max(total / gpu.clock_hz, moved / gpu.bytes_per_second)


def _taken(tile: ProductTile) -> Resources:
    """What a kernel should take: 71 to 153 registers of 4x4 to 8x8 sums."""
    registers = REGISTERS + 3 * tile.filters * tile.tiles // 2
    return Resources(registers, tile.shared_bytes, 0, 0, 0, tile.threads)


REGISTERS = 56
READ, COPY, STAGE, LATENCY = 5, 20, 160, 100
"""Issue slots that a vector read from shared memory takes, one copied to it, and going on to the
next stage; and the cycles of a stage besides that other warps can fill.

A fit of 72 kernels that were measured on an H100 (scripts/records/gpu-tiles-h100.json), 14 or 15
tiles of each of five layers: on average within 7%, and the tile chosen is 2% slower than the
fastest."""


def _stage_slots(tile: ProductTile, gpu: Gpu) -> float:
    """Issue slots of a warp in a stage."""
    vectors = tile.stage * (tile.block_filters + tile.block_tiles) / VECTOR / tile.threads
    reads = tile.stage * (tile.filters + tile.tiles) / VECTOR
    sums = tile.stage * tile.filters * tile.tiles * FMAS / gpu.fp32_per_clock
    return sums + READ * reads + COPY * ceil(vectors) + STAGE
