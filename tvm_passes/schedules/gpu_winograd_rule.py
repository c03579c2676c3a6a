"""Schedule the three kernels of a Winograd convolution on threads of a GPU.

Transforms are in the registers of a thread, which has a tile of one channel or filter: neighbours
have neighbouring tiles, and where channels come last, four of them by eight channels, so that loads
and stores are of a sector of memory or half of one.  Products are tiles in registers of operands in
shared memory.
"""

from __future__ import annotations

from typing import Any

from tvm_passes.namespaces import Schedule, ScheduleRule, blocks_of
from tvm_passes.schedules.gpu_tiles import VECTOR
from tvm_passes.schedules.gpu_winograd import DATA, PRODUCTS, RESULT
from tvm_passes.schedules.gpu_winograd_tiles import TRANSFORM_THREADS, ProductTile
from tvm_passes.schedules.structure import split_axes


class WinogradKernels(ScheduleRule):
    """A dlight schedule rule for what `tvm_passes.schedules.gpu_winograd` states."""

    def apply(self, func: Any, target: Any, _tunable: bool) -> Schedule | None:
        """Schedule `func` if it is one of the kernels, for a GPU."""
        if "gpu" not in [str(key) for key in target.keys]:
            return None
        return schedule(func)


def schedule(func: Any) -> Schedule | None:
    """The kernel of `func` on threads; None if it is none of them."""
    sch = Schedule(func)
    blocks = blocks_of(sch)
    for item in blocks[:1]:
        noted = sch.get(item).annotations
        if DATA in noted and len(blocks) == TRANSFORM_BLOCKS:
            return _transform_data(sch, blocks, bool(int(noted[DATA][0])))
        if PRODUCTS in noted and len(blocks) == 1:
            return _multiply(sch, item, ProductTile(*map(int, noted[PRODUCTS])))
        if RESULT in noted and len(blocks) > TRANSFORM_BLOCKS:
            *kept, last = map(int, noted[RESULT])
            return _transform_back(sch, blocks, kept, bool(last))
    return None


THROUGH_REGISTERS = "tirx.manifest_shared_memory_local_stage"
"""TVM's annotation of a copy to shared memory that is to be a load, and a store after it."""
PIPELINE_STAGES, PIPELINE_ORDER = (0, 0, 0, 0, 1), (0, 3, 1, 4, 2)
"""Of a load and a store of each operand, and of the products: how many stages behind the loads they
are, and when in a stage's turn they come."""

TRANSFORM_BLOCKS = 3
"""Of each transform: what it reads, one axis of it transformed, and both."""


TOGETHER = 8
"""Channels that neighbouring threads take where channels come last: a sector of memory."""


def _transform_data(sch: Schedule, blocks: list[Any], channels_last: bool) -> Schedule:
    patch, half, transformed = blocks
    row, column, *elements = sch.get_loops(transformed)
    if channels_last:
        group, channels, *tiles, lanes = elements
        channels, near = sch.split(channels, [None, TOGETHER])
        elements = [group, channels, *tiles, near, lanes]
    sch.reorder(*elements, row, column)
    thread = _on_threads(sch, sch.fuse(*elements))
    _in_registers(sch, (half, patch), thread)
    _unroll(sch, row, column)
    return sch


def _transform_back(
    sch: Schedule, blocks: list[Any], kept: list[int], channels_last: bool
) -> Schedule:
    """Transform back and pool where a tile's results are stored."""
    *inside, output = blocks
    reads = inside[:TRANSFORM_BLOCKS]
    pool = [item for item in inside[TRANSFORM_BLOCKS:] if split_axes(sch, item)[1]]
    for item in inside[TRANSFORM_BLOCKS + len(pool) :]:
        sch.compute_inline(item)
    image, *spatial = sch.get_loops(output)
    filters, row, column = [spatial[-1], *spatial[:-1]] if channels_last else spatial
    down, row = sch.split(row, [None, kept[0]])
    across, column = sch.split(column, [None, kept[1]])
    elements = [image, filters, down, across]
    if channels_last:
        filters, near = sch.split(filters, [None, TOGETHER])
        across, tiles = sch.split(across, [None, VECTOR])
        elements = [image, filters, down, across, near, tiles]
    sch.reorder(*elements, row, column)
    thread = _on_threads(sch, sch.fuse(*elements))
    _in_registers(sch, (*pool, *reversed(reads)), thread)
    _unroll(sch, row, column)
    return sch


def _on_threads(sch: Schedule, loop: Any) -> Any:
    blocks, thread = sch.split(loop, [None, TRANSFORM_THREADS])
    sch.bind(blocks, "blockIdx.x")
    sch.bind(thread, "threadIdx.x")
    return thread


def _in_registers(sch: Schedule, items: tuple[Any, ...], thread: Any) -> None:
    """Compute what a thread needs, last to first, in straight-line code."""
    for item in items:
        sch.set_scope(item, 0, "local")
        sch.compute_at(item, thread, preserve_unit_loops=True)
        spatial, window = split_axes(sch, item)
        sch.reorder(*window, *spatial)
        _unroll(sch, *window, *spatial)


def _multiply(sch: Schedule, item: Any, tile: ProductTile) -> Schedule:
    """Tiles in registers, stage by stage of the operands in shared memory.

    Threads load what they copy of the next stage before they multiply one, and store it to shared
    memory after, so that nothing waits for the loads.
    """
    row, column, group, *spatial, channels = sch.get_loops(item)
    filter_block, filter_group, filter_thread, filters = spatial[:4]
    tile_block, tile_group, tile_thread, tiles = spatial[4:]
    stage, channel = sch.split(channels, [None, tile.stage])
    own = (filter_group, filters, tile_group, tiles)
    grid = (row, column, group, filter_block, tile_block)
    sch.reorder(*grid, filter_thread, tile_thread, stage, channel, *own)
    sch.bind(sch.fuse(row, column), "blockIdx.z")
    sch.bind(sch.fuse(group, filter_block), "blockIdx.y")
    sch.bind(tile_block, "blockIdx.x")
    thread = sch.fuse(filter_thread, tile_thread)
    sch.bind(thread, "threadIdx.x")
    stored = sch.cache_write(item, 0, "local")
    sch.reverse_compute_at(stored, thread, preserve_unit_loops=True)
    *own_sums, lanes = list(sch.get_loops(stored))[-8:]
    _unroll(sch, *own_sums)
    sch.vectorize(lanes)
    for operand in (0, 1):
        _fetch(sch, item, operand, tile, (stage, channel))
    _unroll(sch, channel, *own)
    sch.annotate(stage, "software_pipeline_stage", PIPELINE_STAGES)
    sch.annotate(stage, "software_pipeline_order", PIPELINE_ORDER)
    sch.decompose_reduction(item, stage)
    return sch


def _fetch(sch: Schedule, item: Any, operand: int, tile: ProductTile, loops: Any) -> None:
    """Copy a stage of an operand to shared memory, and what a thread needs of it to registers."""
    stage, channel = loops
    shared = sch.cache_read(item, operand, "shared")
    own = sch.cache_read(item, operand, "local")
    sch.compute_at(own, channel, preserve_unit_loops=True)
    *vectors, lanes = list(sch.get_loops(own))[-8:]
    _unroll(sch, *vectors)
    sch.vectorize(lanes)
    sch.compute_at(shared, stage, preserve_unit_loops=True)
    sch.annotate(shared, THROUGH_REGISTERS, 1)
    elements = sch.fuse(*list(sch.get_loops(shared))[-8:])
    _, thread, lanes = sch.split(elements, [None, tile.threads, VECTOR])
    sch.bind(thread, "threadIdx.x")
    sch.vectorize(lanes)


def _unroll(sch: Schedule, *loops: Any) -> None:
    for loop in loops:
        sch.unroll(loop)
