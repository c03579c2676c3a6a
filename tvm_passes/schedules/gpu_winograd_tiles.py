"""Tiles of the matrix products of a Winograd convolution on a GPU, and how long its kernels take.

Three kernels: tiles of the input are transformed, multiplied with transformed weights at each
element of the tile, and transformed back, with the maxima of a pool whose windows lie in a tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil, prod

from tvm_passes.cuda.gpu import Gpu
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

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles of an image, down and across."""
        return ceil(self.rows / self.family.outputs), ceil(self.columns / self.family.outputs)

    @property
    def tiles(self) -> int:
        """Tiles of all images."""
        return self.batch * prod(self.grid)

    def padded(self, tile: ProductTile) -> tuple[int, int, int]:
        """Channels, filters and tiles in whole blocks."""
        pairs = (
            (self.channels, tile.stage),
            (self.filters, tile.block_filters),
            (self.tiles, tile.block_tiles),
        )
        channels, filters, tiles = (ceil(extent / size) * size for extent, size in pairs)
        return channels, filters, tiles


def candidates(filtering: Filtering) -> Iterator[ProductTile]:
    """Tiles that fit a multiprocessor, and are not twice as large as the layer."""
    stage = max(size for size in (16, 8, 4) if size == 4 or size <= filtering.channels)
    for filters, tiles, rows, columns in product((8, 4), (8, 4), (4, 8, 16, 32), (4, 7, 8, 14, 16)):
        tile = ProductTile(rows, columns, filters, tiles, stage)
        if not LEAST_THREADS <= tile.threads <= MOST_THREADS or tile.shared_bytes > SHARED:
            continue
        if tile.block_filters < 2 * filtering.filters and tile.block_tiles < 2 * filtering.tiles:
            yield tile


@dataclass(frozen=True)
class Work:
    """What a kernel does.

    Parameters
    ----------
    blocks, threads
        How many, and threads of each.
    slots
        Issue slots of a thread, those that wait for shared memory included.
    fmas
        Of a thread.
    bytes
        Of its arguments, each moved once.
    """

    blocks: int
    threads: int
    slots: float
    fmas: float
    bytes: int

    def seconds(self, gpu: Gpu) -> float:
        """The longer of what issues and of what moves; the busiest multiprocessor decides."""
        lanes = ceil(self.threads / WARP) * WARP * ceil(self.blocks / gpu.multiprocessors)
        cycles = lanes * max(self.slots / FMAS, self.fmas / gpu.fp32_per_clock)
        return max(cycles / gpu.clock_hz, self.bytes / gpu.bytes_per_second)


LAUNCH = 0.9e-6
"""Seconds between two kernels of a stream: 3.8 us a kernel that runs for 2.9 (NVIDIA, "Getting
Started with CUDA Graphs", on a V100, from memory: the page could not be read to check it)."""


def seconds(filtering: Filtering, tile: ProductTile, gpu: Gpu) -> float:
    """The three kernels, one after another."""
    return sum(work.seconds(gpu) + LAUNCH for work in works(filtering, tile))


def best(filtering: Filtering, gpu: Gpu) -> ProductTile | None:
    """The tile with which a layer should take the least time; None if it is too small for any."""
    found = list(candidates(filtering))
    return min(found, key=lambda tile: seconds(filtering, tile, gpu)) if found else None


def works(filtering: Filtering, tile: ProductTile) -> tuple[Work, Work, Work]:
    """Of the kernel that transforms the data, that which multiplies, that which transforms back."""
    size, m = filtering.family.tile, filtering.family.outputs
    channels, filters, tiles = filtering.padded(tile)
    stored = m * m // prod(filtering.window)
    data = filtering.batch * filtering.channels * filtering.height * filtering.width
    result = filtering.filters * filtering.tiles * stored
    weights, transformed, products = (
        size * size * rows * columns
        for rows, columns in ((channels, filters), (channels, tiles), (filters, tiles))
    )
    inward = LOAD * size * size + TERM * 2 * size * size * size
    outward = 2 * size * size + TERM * size * m * (size + m) + STORE * stored
    return (
        _transform(channels * tiles, inward, FLOAT * (data + transformed)),
        Work(
            size * size * (filters // tile.block_filters) * (tiles // tile.block_tiles),
            tile.threads,
            channels / tile.stage * _stage_slots(tile),
            channels * tile.filters * tile.tiles,
            FLOAT * (weights + transformed + products),
        ),
        _transform(filtering.filters * filtering.tiles, outward, FLOAT * (products + result)),
    )


LOAD, TERM, STORE = 8, 0.3, 6
"""Instructions of a thread that transforms, with those that tell where: for an element of the data
and its store, for each of the terms of a row times a column, and for a result: round numbers after
a look at kernels for sm_90, 0.7 to 1.4 times what bench --static counts of F(4x4, 3x3)."""


def _transform(count: int, slots: float, moved: int) -> Work:
    return Work(ceil(count / TRANSFORM_THREADS), TRANSFORM_THREADS, slots, 0, moved)


COPY, STAGE = 4, 30
"""Instructions to copy a vector to shared memory, and to go on to the next stage: the same, within
1% for the two products looked at."""


def _stage_slots(tile: ProductTile) -> float:
    """Issue slots of a thread in a stage."""
    vectors = tile.stage * (tile.block_filters + tile.block_tiles) / VECTOR / tile.threads
    loads = (tile.filters + tile.tiles) / VECTOR
    issued = tile.stage * (tile.filters * tile.tiles + loads)
    return max(issued, tile.stage * _shared_slots(tile)) + COPY * ceil(vectors) + STAGE


def _shared_slots(tile: ProductTile) -> float:
    """Issue slots that go by while a thread reads one channel of both operands.

    32 words a cycle and multiprocessor, against 128 lanes (CUDA C++ Programming Guide,
    "Arithmetic Instructions"); lanes that read the same word share it.
    """
    across = min(WARP, tile.tile_threads)
    down = ceil(WARP / across)
    turns = ceil(VECTOR * across / WARP) * tile.tiles + ceil(VECTOR * down / WARP) * tile.filters
    return FMAS / WARP * turns / VECTOR
