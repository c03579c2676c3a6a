"""How to tile a convolution, and a pool on it: candidates, each with the cycles it should take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import ceil, gcd

from tvm_passes.schedules.machine import Machine


@dataclass(frozen=True)
class Nest:
    """The extents of a convolution in blocks of channels, and of the pool that reads it.

    Parameters
    ----------
    batch, blocks, block
        Images, blocks of output channels, and channels of a block.
    rows, columns
        Extents of the convolution's result.
    out_rows, out_columns
        Extents of what is stored: the pool's, or the convolution's where there is none.
    reduction
        Multiply-adds an output element takes.
    kernel_rows, stride
        Rows of input that a row of the convolution reads, and the step between rows.
    kernel_columns, column_stride
        The same of columns.
    row_bytes
        Bytes of one padded row of the input, all channels; 0 where the input is not copied.
    read_bytes
        Bytes of a row of what the convolution reads, of which every block of the result needs
        all; 0 where each block reads channels of its own.
    pool, pool_stride
        Window and step of the pool along rows and columns, 1 where there is none.
    pool_padded
        Whether windows may reach into padding.
    """

    batch: int
    blocks: int
    block: int
    rows: int
    columns: int
    out_rows: int
    out_columns: int
    reduction: int
    kernel_rows: int = 1
    stride: int = 1
    row_bytes: int = 0
    read_bytes: int = 0
    pool: tuple[int, int] = (1, 1)
    pool_stride: tuple[int, int] = (1, 1)
    pool_padded: bool = False
    kernel_columns: int = 1
    column_stride: int = 1

    @property
    def disjoint(self) -> bool:
        """Whether the pool's windows tile the convolution: no two share an element."""
        return self.pool == self.pool_stride and not self.pool_padded


@dataclass(frozen=True)
class Tiles:
    """The decisions of a schedule.

    Parameters
    ----------
    in_registers
        Take the maximum over accumulators in registers; else over a strip of rows in the cache.
    blocks
        Blocks of output channels that a register tile holds.
    pixels
        Outputs along a row that a register tile holds: the pool's where `in_registers`, else the
        convolution's.
    strip
        Rows of the output computed from one copy of the input's rows.
    pooled
        Outputs along a row whose maxima are taken together from a strip.
    copy_per_strip
        Pad the input's rows strip by strip; else all of it first.
    parallel
        Whether to use TVM's threads.
    """

    in_registers: bool
    blocks: int
    pixels: int
    strip: int
    pooled: int = 4
    copy_per_strip: bool = True
    parallel: bool = True


PARALLEL_CYCLES = 40_000
"""Work below which waking TVM's threads costs more than it saves: about 10 microseconds."""

WAKE_CYCLES = PARALLEL_CYCLES // 2
"""What another loop on threads takes, such as a copy of all of the input: what two threads save of
that work.  Without it a layer of 14x14 pixels took 49.5 us where 41.3 are possible (Zen 4)."""


def candidates(nest: Nest, machine: Machine) -> list[Tiles]:
    """Every tiling worth a try, the most promising first."""
    found = [
        tiles
        for in_registers, blocks, pixels in _register_tiles(nest, machine)
        for tiles in _strips(nest, machine, in_registers, blocks, pixels)
    ]
    return sorted(found, key=lambda tiles: _rank(nest, tiles, machine))


def _rank(nest: Nest, tiles: Tiles, machine: Machine) -> tuple[int, int]:
    """Cycles, and, where they are the same, how often weights come from beyond L2."""
    large = 4 * nest.reduction * nest.block * nest.blocks > machine.l2 * CACHE_SHARE
    strips = ceil(nest.out_rows / tiles.strip)
    return round(cycles(nest, tiles, machine)), strips if large else 0


L1_BYTES, L2_BYTES, L3_BYTES, MEMORY_BYTES = 64, 26, 20, 3.5
"""Bytes of weights that a core gets each cycle from where they are, while it multiplies.

L1: two vectors of 32 bytes (Fog).  Others measured on layers of 13x13 and 14x14 pixels, 8 blocks a
tile from L2 and L3, 1 block from memory (Zen 4).
"""


def cycles(nest: Nest, tiles: Tiles, machine: Machine) -> float:
    """Cycles that the busiest thread should need, by ports, latencies and recomputed rows."""
    rows = tiles.strip if tiles.in_registers else _rows_of_a_strip(nest, tiles)
    first, again = _weight_bytes(nest, tiles, machine)
    strip = rows * _row(nest, tiles, machine, again)
    strip += _tile(nest, tiles, machine, first) - _tile(nest, tiles, machine, again)
    strip *= nest.reduction
    vectors = machine.vectors(nest.block) * tiles.blocks
    if not tiles.in_registers:
        taps = nest.pool[0] * nest.pool[1]
        outputs = tiles.strip * nest.out_columns * (2 + taps)
        strip += vectors * (rows * nest.columns + outputs) / machine.loads
        strip += _strip_cycles(nest, tiles, machine)
    strips = ceil(nest.out_rows / tiles.strip)
    groups = nest.blocks // tiles.blocks
    copies = _copy_cycles(nest, tiles, machine)
    if not (tiles.parallel and machine.cores > 1):
        return nest.batch * strips * (groups * strip + copies)
    if tiles.copy_per_strip and nest.row_bytes:
        rounds = ceil(nest.batch * strips / machine.cores)
        return rounds * (groups * strip + copies)
    rounds = ceil(nest.batch * strips * groups / machine.cores)
    first = WAKE_CYCLES + nest.batch * strips * copies / machine.cores if nest.row_bytes else 0.0
    return rounds * strip + first


def _strip_cycles(nest: Nest, tiles: Tiles, machine: Machine) -> float:
    """Cycles for which a pool waits for its strip, where that and what it is made of leave L2.

    Fitted to strips of 200 to 900 KiB (Zen 4); that data come from L3 is hidden by multiply-adds.
    """
    stored = _strip_bytes(nest, tiles)
    held = stored + nest.read_bytes * _input_rows(nest, tiles.strip)
    if held <= machine.l2 * L2_SHARE:
        return 0.0
    return stored / (L3_BYTES if held <= machine.l3 * CACHE_SHARE else MEMORY_BYTES)


def _strip_bytes(nest: Nest, tiles: Tiles) -> int:
    """Size of the rows of the convolution that a pool takes its maxima of."""
    return _rows_of_a_strip(nest, tiles) * nest.columns * tiles.blocks * nest.block * 4


def _row(nest: Nest, tiles: Tiles, machine: Machine, weight_bytes: float) -> float:
    """Cycles of a step of the reduction, summed over the tiles of a row."""
    window = nest.pool[0] * nest.pool[1] if tiles.in_registers else 1
    columns = nest.out_columns if tiles.in_registers else nest.columns
    full, rest = divmod(columns, tiles.pixels)
    row = full * _tile(nest, tiles, machine, weight_bytes)
    if rest:
        row += step(rest * window, tiles.blocks, nest, machine, weight_bytes)
    return row


def _tile(nest: Nest, tiles: Tiles, machine: Machine, weight_bytes: float) -> float:
    window = nest.pool[0] * nest.pool[1] if tiles.in_registers else 1
    return step(tiles.pixels * window, tiles.blocks, nest, machine, weight_bytes)


def step(
    pixels: int, blocks: int, nest: Nest, machine: Machine, weight_bytes: float = L1_BYTES
) -> float:
    """Cycles of one step of the reduction on a register tile, and its share of the epilogue.

    Each accumulator takes one multiply-add a step; the next one has to wait for it.  A step loads
    its weights, a vector each, of which `weight_bytes` arrive each cycle, and broadcasts inputs.
    """
    vectors = blocks * machine.vectors(nest.block)
    arithmetic = pixels * vectors / machine.fmas
    loads = (pixels + vectors) / max(machine.loads, 2)
    weights = 4 * blocks * nest.block / weight_bytes
    tile = max(arithmetic, machine.latency, loads, weights) + STEP_CYCLES
    return tile + pixels * vectors * 2 / nest.reduction


def _weight_bytes(nest: Nest, tiles: Tiles, machine: Machine) -> tuple[float, float]:
    """Bytes of weights that arrive each cycle, for the first tile of a strip and for the others.

    A strip goes over all weights, once for each group of blocks; the tiles of a strip come back to
    the weights of their group.
    """
    weights = 4 * nest.reduction * nest.block * nest.blocks
    of_group = weights * tiles.blocks / nest.blocks
    beyond = L3_BYTES if weights <= machine.l3 * CACHE_SHARE else MEMORY_BYTES
    source = nest.read_bytes * _input_rows(nest, tiles.strip)
    once = tiles.strip >= nest.out_rows
    first = L2_BYTES if once or weights + source <= machine.l2 * CACHE_SHARE else beyond
    if of_group <= machine.l1 * CACHE_SHARE:
        return first, L1_BYTES
    rows = nest.read_bytes * nest.kernel_rows
    return first, L2_BYTES if of_group + rows <= machine.l2 * L2_SHARE else beyond


CACHE_SHARE, L2_SHARE = 0.5, 0.75
"""What of a cache holds what a loop comes back to, where the rest streams by."""

STEP_CYCLES = 0.75
"""What a step takes beside loads and multiply-adds, counters and addresses.

Fitted to register tiles of 4, 8 and 12 accumulators on a 3x3 convolution of 3 channels (Zen 4).
"""


def accumulators(machine: Machine) -> int:
    """Registers that a tile may fill.

    LLVM keeps broadcast inputs in registers from one column of the kernel to the next.  With 20
    to 28 accumulators of 32 registers it spilled; 16 leave it enough.  Of 16 registers, 12 made
    it spill 22 to 97 times an iteration, up to 1.6 times as slow as 10; with 8 no layer was faster.
    """
    return max(machine.registers // 2, min(10, machine.registers - 4))


def _register_tiles(nest: Nest, machine: Machine) -> Iterator[tuple[bool, int, int]]:
    """Whether the pool is in registers, blocks, and outputs along a row, as many as fit."""
    vectors = machine.vectors(nest.block)
    room = accumulators(machine)
    for blocks in range(1, nest.blocks + 1):
        if nest.blocks % blocks or blocks * vectors > room:
            continue
        rows, columns = nest.pool
        for pixels in range(1, room // (blocks * vectors) + 1):
            strip = rows * columns > 1 and _splits(nest.columns, pixels)
            if strip and _fits(nest, machine, blocks * vectors, 1, pixels):
                yield False, blocks, pixels
            windows = nest.disjoint and _splits(nest.out_columns, pixels)
            if windows and _fits(nest, machine, blocks * vectors, rows, pixels * columns):
                yield True, blocks, pixels


def _fits(nest: Nest, machine: Machine, vectors: int, rows: int, columns: int) -> bool:
    """Whether a tile's sums fit into registers beside the inputs that LLVM keeps there.

    LLVM unrolls a short kernel's columns and holds a broadcast input from the first one that
    reads it to the last: 5 pixels of an 11x11/4 convolution have 16 of them in common.
    """
    sums = vectors * rows * columns
    if sums > accumulators(machine) or machine.memory_operands:
        return sums <= accumulators(machine)
    held = sums + rows * _in_common(columns, nest.kernel_columns, nest.column_stride)
    return held <= machine.registers - machine.registers // OPERANDS


OPERANDS = 6
"""One in so many registers is for the weights and the inputs of a step.

On 16 registers 5 pixels by 2 vectors, with 4 inputs in common, do not spill and use 14 of them;
on NEON's 32 a tile of 16 sums spilled with 12 and 14 inputs in common, and does not with 6.
"""


@cache
def _in_common(columns: int, kernel_columns: int, stride: int) -> int:
    """Inputs of a row of `columns` sums that more than one column of the kernel reads, at most."""
    reads = [{column * stride + k for column in range(columns)} for k in range(kernel_columns)]
    splits = ((set().union(*reads[:k]), set().union(*reads[k:])) for k in range(1, len(reads)))
    return max((len(before & after) for before, after in splits), default=0)


def _splits(extent: int, width: int) -> bool:
    """Whether a loop splits into tiles of a width, the last of which can be cut off.

    TVM cannot cut off a partial one whose width has a factor in common with the extent: it has
    simplified the condition ``4 * tile + column < 14`` to ``2 * tile + column // 2 < 7``.  Nor
    is one cut off that follows a single whole one.
    """
    return extent % width == 0 or (width * 2 < extent and gcd(extent, width) == 1)


HEIGHTS = (1, 2, 3, 4, 6, 8, 12, 16, 32)


def _strips(
    nest: Nest, machine: Machine, in_registers: bool, blocks: int, pixels: int
) -> Iterator[Tiles]:
    """Heights of a strip, whose input is copied into half of L2, and whose rows all of it can hold.

    Strips that a pool reads are all of one height: TVM's CompactBufferAllocation keeps room for the
    whole result where the last strip is a shorter one.
    """
    whole = nest.row_bytes * _input_rows(nest, nest.out_rows)
    heights = {nest.out_rows, *(h for h in HEIGHTS if h < nest.out_rows)}
    if not in_registers:
        heights = {h for h in range(1, nest.out_rows + 1) if nest.out_rows % h == 0}
    parallel = _work(nest, machine) >= PARALLEL_CYCLES and machine.cores > 1
    pooled = max(width for width in range(1, 5) if _splits(nest.out_columns, width))
    for copy_per_strip in (True, False) if 0 < whole <= machine.l2 else (True,):
        for height in sorted(heights):
            tiles = Tiles(in_registers, blocks, pixels, height, pooled, copy_per_strip, parallel)
            copied = nest.row_bytes * _input_rows(nest, height) if copy_per_strip else 0
            stored = 0 if in_registers else _strip_bytes(nest, tiles)
            if height > 1 and (copied > machine.l2 // 2 or stored > machine.l2):
                break
            yield tiles


def _rows_of_a_strip(nest: Nest, tiles: Tiles) -> int:
    return min(nest.rows, (tiles.strip - 1) * nest.pool_stride[0] + nest.pool[0])


def _input_rows(nest: Nest, out_rows: int) -> int:
    rows = (out_rows - 1) * nest.pool_stride[0] + nest.pool[0]
    return (rows - 1) * nest.stride + nest.kernel_rows


def _copy_cycles(nest: Nest, tiles: Tiles, machine: Machine) -> float:
    """Cycles to copy the input of one strip, each vector loaded and stored."""
    rows = _input_rows(nest, tiles.strip)
    if not tiles.copy_per_strip:
        rows = tiles.strip * nest.pool_stride[0] * nest.stride
    return nest.row_bytes * rows / (4 * machine.lanes) * 2


def _work(nest: Nest, machine: Machine) -> float:
    vectors = nest.batch * nest.blocks * machine.vectors(nest.block) * nest.rows * nest.columns
    return vectors * nest.reduction / machine.fmas
