"""The tiles of a layer as a search space of MetaSchedule's, and those that measuring has found.

A workload is a layer in its smallest tile; a point of its space is a trace that samples the fields
of another tile and notes them on the block that sums.  The kernel of that tile is then stated anew,
for its weights are packed for it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import tvm
from tvm import te

from tvm_passes.cuda.gpu import Gpu, known_gpus, read_gpu
from tvm_passes.namespaces import Schedule, blocks_of, meta_schedule
from tvm_passes.schedules.gpu_conv2d import LAYER, LayerOf, conv2d, flat, tile_of
from tvm_passes.schedules.gpu_tiles import (
    Tile,
    arithmetic,
    best,
    candidates,
    expected,
    ranked,
    smallest,
)
from tvm_passes.schedules.tuned import NAME, workload_of

CHOICE = "tvm_passes.choice."
"""Beginning of the names of annotations that note the fields of a tile."""

UNKNOWN = "a100"
"""Stands for GPUs of an architecture that targets/cuda does not know."""

SPACE = 256
"""Tiles that tuning may choose from: the most promising."""


def gpu_of(target: Any) -> Gpu:
    """The first GPU of a target's architecture in targets/cuda; of others, an A100."""
    arch = str(dict(target.attrs).get("arch", "")) if target is not None else ""
    found = [gpu for gpu in map(read_gpu, known_gpus()) if gpu.arch == arch]
    return found[0] if found else read_gpu(UNKNOWN)


def multiprocessors_of(target: Any) -> int:
    """How many a target has."""
    return gpu_of(target).multiprocessors


def choose(layer: LayerOf, target: Any) -> Tile:
    """The best of the records in ``Database.current()``, or else the model's choice."""
    found = recorded(layer, target)
    return best(layer.nest, multiprocessors_of(target)) if found is None else found


def parts_of(layer: LayerOf, target: Any) -> int:
    """Into how many sums over channels each sum falls, for layers of too few threads.

    Decided by the convolution alone, so that what it computes has the same bits whatever reads it.
    """
    nest = replace(layer, pool=None).nest
    multiprocessors = multiprocessors_of(target)

    def cycles(parts: int) -> float:
        split = replace(nest, groups=parts, channels=nest.channels // parts)
        return expected(split, best(split, multiprocessors), multiprocessors)

    whole = cycles(1)
    if nest.groups > 1 or whole < STARVED * arithmetic(nest) / multiprocessors:
        return 1
    times = {
        parts: cycles(parts)
        for parts in PARTS
        if nest.channels % parts == 0 and nest.channels // parts >= LEAST_CHANNELS
    }
    if min(times.values(), default=whole) * WORTH > whole:
        return 1
    return next(parts for parts in PARTS if times[parts] <= ENOUGH * min(times.values()))


PARTS = (2, 4, 8)
LEAST_CHANNELS = 16
"""Of a part: two stages of a 3x3 kernel."""
STARVED, WORTH, ENOUGH = 2.5, 1.5, 1.25
"""What a layer takes as a multiple of its multiply-adds alone to be split; the least gain, for the
parts are written, read and added by another kernel; and how near to the fastest is enough."""


def recorded(layer: LayerOf, target: Any) -> Tile | None:
    """The tile of the fastest record in ``Database.current()``, if any."""
    database = meta_schedule.Database.current()
    if database is None:
        return None
    found = database.query_schedule(workload(layer), target, NAME)
    return None if found is None else chosen(found)


def workload(layer: LayerOf) -> tvm.IRModule:
    """A layer as records name it."""
    return workload_of(stated(layer, smallest(layer.nest)))


def stated(layer: LayerOf, tile: Tile) -> Any:
    """A layer in a tile, as a PrimFunc of data, packed weights and the result."""
    conv = replace(layer.conv, block=tile.block_filters)
    blocks = -(-conv.filters // tile.block_filters)
    terms = (conv.channels // conv.groups, *conv.kernel)
    order = (1, 2, 0) if conv.channels_last else (0, 1, 2)
    data = te.placeholder(layer.shape, name="data")
    shape = (blocks, *(terms[at] for at in order), tile.block_filters)
    weight = te.placeholder(shape, name="weight")
    return te.create_prim_func([data, weight, conv2d(data, weight, conv, layer.pool, tile)])


def layer_in(func: Any) -> tuple[LayerOf, bool] | None:
    """The layer that a function computes, and whether it computes nothing more; None: no layer."""
    sch = Schedule(func)
    blocks = blocks_of(sch)
    noted = [sch.get(item).annotations for item in blocks]
    marked = [annotations for annotations in noted if LAYER in annotations]
    if len(marked) != 1:
        return None
    layer = LayerOf.of(marked[0][LAYER])
    return layer, len(blocks) == (3 if layer.pool is None else 4)


def tiles_of(layer: LayerOf, target: Any) -> list[Tile]:
    """The space: tiles, the most promising first."""
    return ranked(layer.nest, multiprocessors_of(target))[:SPACE]


def sampled(mod: tvm.IRModule, tiles: list[Tile], number: int) -> Schedule:
    """A point of the space: the fields of a tile as sampling decisions on a workload."""
    sch = Schedule(mod)
    sums = _sums(sch)
    for name, values in zip(_fields(), zip(*map(flat, tiles), strict=True), strict=True):
        options = sorted(set(values))
        share = [1 / len(options)] * len(options)
        decision = options.index(values[number])
        value = sch.sample_categorical(options, share, decision=decision)
        sch.annotate(sums, CHOICE + name, value)
    return sch


def chosen(sch: Schedule) -> Tile | None:
    """The tile of a point of the space; None if it does not fit the layer."""
    alone = Schedule(sch.mod)  # whose trace may grow
    notes = alone.get(_sums(alone)).annotations
    layer = LayerOf.of(notes[LAYER])
    _, tile = tile_of([0, *(int(notes[CHOICE + name]) for name in _fields())])
    return tile if tile in set(candidates(layer.nest)) else None


def _sums(sch: Schedule) -> Any:
    """The block that sums."""
    blocks = blocks_of(sch)
    return next(item for item in blocks if LAYER in sch.get(item).annotations)


def _fields() -> list[str]:
    """Names of the numbers of a tile."""
    return [*list(Tile.__dataclass_fields__)[:-1], "stage_channels", "stage_rows", "stage_columns"]
