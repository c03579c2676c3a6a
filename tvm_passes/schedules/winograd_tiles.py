"""How to tile a Winograd convolution: candidates, each with the cycles it should take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod

from tvm_passes.schedules.machine import Machine
from tvm_passes.schedules.operators import Pair
from tvm_passes.schedules.tiles import PARALLEL_CYCLES, Nest, accumulators, step


@dataclass(frozen=True)
class WinogradNest:
    """The extents of a Winograd convolution.

    Parameters
    ----------
    batch
        Images.
    down, across
        Tiles of an image along its columns and its rows.
    blocks, block
        Blocks of output channels, and channels of a block.
    channels
        Channels that an output sums over.
    channel_blocks
        Blocks of input channels, those of all groups.
    tile, outputs
        Inputs and outputs of a tile along one axis.
    given
        What a tile gives along columns and rows: its outputs, the maxima of a pool's windows, or
        those of parts of them.
    windows
        Windows along columns and rows that are put together from parts, 0 where none are.
    """

    batch: int
    down: int
    across: int
    blocks: int
    block: int
    channels: int
    channel_blocks: int
    tile: int
    outputs: int
    given: Pair
    windows: Pair = (0, 0)

    @property
    def windows_of_a_tile(self) -> Pair:
        """Windows along columns and rows that begin in a tile, or more where there is one tile."""
        found = [
            max((n for n in _divisors(self.outputs) if (tiles - 1) * n <= count), default=1)
            for tiles, count in zip((self.down, self.across), self.windows, strict=True)
        ]
        return found[0], found[1]


@dataclass(frozen=True)
class WinogradTiles:
    """The decisions of a schedule.

    Parameters
    ----------
    rows, columns
        Tiles of a group: their transformed inputs and their products are in the cache together.
    blocks
        Blocks of output channels whose products are computed before they are transformed back.
    register_blocks, register_rows, register_columns
        Blocks and tiles whose products are in registers together.
    whole
        Transform all inputs first; else those of a group, before its products.
    parallel
        Whether to use TVM's threads.
    """

    rows: int
    columns: int
    blocks: int
    register_blocks: int
    register_rows: int
    register_columns: int
    whole: bool = False
    parallel: bool = True


def candidates(nest: WinogradNest, machine: Machine) -> list[WinogradTiles]:
    """Every tiling worth a try, the most promising first."""
    found = [
        WinogradTiles(rows, columns, blocks, *registers, whole, _worth_threads(nest, machine))
        for registers in _register_tiles(nest, machine)
        for rows, columns in _groups(nest, registers)
        for blocks in _divisors(nest.blocks, registers[0])
        for whole in (False, True)
    ]
    return sorted(found, key=lambda tiles: cycles(nest, tiles, machine))


def cycles(nest: WinogradNest, tiles: WinogradTiles, machine: Machine) -> float:
    """Cycles that the busiest thread should need."""
    return _tile_cycles(nest, tiles, machine) + _window_cycles(nest, tiles, machine)


def _tile_cycles(nest: WinogradNest, tiles: WinogradTiles, machine: Machine) -> float:
    """Cycles until all tiles are transformed back."""
    groups = nest.batch * nest.down * nest.across // (tiles.rows * tiles.columns)
    passes = nest.blocks // tiles.blocks
    inputs = _input_cycles(nest, tiles, machine)
    work = _pass_cycles(nest, tiles, machine)
    cores = machine.cores if tiles.parallel else 1
    if tiles.whole:
        total = ceil(groups / cores) if groups > cores else groups / cores
        return total * inputs + ceil(groups * passes / cores) * work
    return ceil(groups / cores) * (inputs + passes * work)


L3_BYTES = 12
"""Bytes that a core gets each cycle from a cache behind its L2."""

MEMORY_BYTES = 4
"""Bytes that a core gets each cycle from memory: read off layers of 512 channels (Zen 4)."""

STREAM_BYTES = 2.5
"""What one stream of addresses gets from behind L2: prefetching stops at the end of each page."""

L2_LATENCY = 1 / 256
"""Cycles a byte of weights adds to a product where it comes from L2, not L1 (Zen 4)."""


def _pass_cycles(nest: WinogradNest, tiles: WinogradTiles, machine: Machine) -> float:
    """Cycles of the products of a group with some blocks of filters, and of their way back."""
    count = tiles.rows * tiles.columns
    products = max(_product_cycles(nest, tiles, machine), _weight_cycles(nest, tiles, machine))
    data = nest.tile**2 * count * nest.channel_blocks * nest.block * 4
    sums = nest.tile**2 * count * tiles.blocks * nest.block * 4
    if data + sums > machine.l2 * 3 // 4 or tiles.whole:
        products += data / L3_BYTES
    if sums > machine.l2 // 2:
        products += 2 * sums / L3_BYTES
    return products + count * tiles.blocks * _output_cycles(nest, machine)


def _product_cycles(nest: WinogradNest, tiles: WinogradTiles, machine: Machine) -> float:
    """Cycles of the matrix products of a pass."""
    full, rest = divmod(tiles.columns, tiles.register_columns)
    product = Nest(1, nest.blocks, nest.block, 1, 1, 1, 1, reduction=nest.channels)
    pixels, blocks = tiles.register_rows * tiles.register_columns, tiles.register_blocks
    row = full * step(pixels, blocks, product, machine)
    if rest:
        row += step(tiles.register_rows * rest, blocks, product, machine)
    weights = blocks * nest.block * 4
    if weights * nest.channels > machine.l1 // 2:
        row += (full + (rest > 0)) * weights * L2_LATENCY
    registers = tiles.rows // tiles.register_rows * (tiles.blocks // blocks)
    return nest.tile**2 * nest.channels * registers * row


def _weight_cycles(nest: WinogradNest, tiles: WinogradTiles, machine: Machine) -> float:
    """Cycles until the weights of a pass are there, where L2 does not keep them for all groups."""
    a_block = nest.tile**2 * nest.block * nest.channels * 4
    if nest.blocks * a_block <= machine.l2 // 2:
        return 0
    source = L3_BYTES if nest.blocks * a_block <= machine.l3 // 2 else MEMORY_BYTES
    return tiles.blocks * a_block / min(source, STREAM_BYTES * tiles.register_blocks)


def _input_cycles(nest: WinogradNest, tiles: WinogradTiles, machine: Machine) -> float:
    """Cycles to copy the inputs of a group, with padding around them, and to transform them.

    Each row of a transform takes about half as many steps as it has elements; every element is
    loaded twice and stored twice, meanwhile: measured on layers of 1 to 16 channels (Zen 4).
    """
    vectors = nest.channel_blocks * machine.vectors(nest.block)
    copied = [n * nest.outputs + nest.tile - nest.outputs for n in (tiles.rows, tiles.columns)]
    transformed = tiles.rows * tiles.columns * nest.tile**2
    steps = transformed * max(nest.tile / machine.fmas, 4 / machine.loads)
    return vectors * (steps + copied[0] * copied[1] * 2 / machine.loads)


def _output_cycles(nest: WinogradNest, machine: Machine) -> float:
    """Cycles to transform the products of a tile with one block of filters back, and store them."""
    vectors = machine.vectors(nest.block)
    arithmetic = nest.outputs * nest.tile / 2 * (nest.tile + nest.outputs) / machine.fmas
    loads = (nest.tile**2 + 2 * nest.tile * nest.outputs + nest.outputs**2) / machine.loads
    return vectors * max(arithmetic, loads)


def _window_cycles(nest: WinogradNest, tiles: WinogradTiles, machine: Machine) -> float:
    """Cycles to put windows together: each part of a tile is loaded, each window stored."""
    if not prod(nest.windows):
        return 0
    parts = nest.down * nest.across * prod(nest.given)
    steps = (parts + prod(nest.windows)) / machine.loads
    vectors = nest.batch * nest.blocks * machine.vectors(nest.block)
    return steps * vectors / (machine.cores if tiles.parallel else 1)


def _register_tiles(nest: WinogradNest, machine: Machine) -> Iterator[tuple[int, int, int]]:
    """Blocks, rows and columns of tiles whose products fit into the registers."""
    room = accumulators(machine) // machine.vectors(nest.block)
    for blocks in _divisors(nest.blocks):
        for rows in _divisors(nest.down):
            for columns in range(1, nest.across + 1):
                fits = blocks * rows * columns <= room
                if fits and (rows == 1 or columns == nest.across):
                    yield blocks, rows, columns


def _groups(nest: WinogradNest, registers: tuple[int, int, int]) -> Iterator[tuple[int, int]]:
    """Rows and columns of tiles of a group: parts of a row, or whole rows."""
    _, rows, columns = registers
    if rows == 1:
        yield from ((1, n) for n in _divisors(nest.across) if columns <= n < nest.across)
    yield from ((n, nest.across) for n in _divisors(nest.down, rows))


def _worth_threads(nest: WinogradNest, machine: Machine) -> bool:
    tiles = nest.batch * nest.down * nest.across
    vectors = nest.blocks * machine.vectors(nest.block)
    products = tiles * nest.tile**2 * nest.channels * vectors
    return machine.cores > 1 and products / machine.fmas >= PARALLEL_CYCLES


def _divisors(extent: int, step: int = 1) -> list[int]:
    """Divisors of `extent` that `step` divides."""
    return [n for n in range(step, extent + 1, step) if extent % n == 0]
