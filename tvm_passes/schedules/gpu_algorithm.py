"""How a GPU computes a convolution, as written or by Winograd's filtering: which is faster."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from tvm_passes.cuda.gpu import Gpu
from tvm_passes.describe import WINOGRAD
from tvm_passes.schedules import gpu_tiles, gpu_winograd_tiles
from tvm_passes.schedules.families import FAMILIES, NONE_BARRED, UNFIT, Barred, takes
from tvm_passes.schedules.gpu_conv2d import LayerOf
from tvm_passes.schedules.gpu_space import gpu_of, parts_of
from tvm_passes.schedules.gpu_tiles import FLOAT, FMAS
from tvm_passes.schedules.gpu_winograd_tiles import Filtering, ProductTile, in_sequence
from tvm_passes.schedules.winograd_windows import pool_in_tile


@dataclass(frozen=True)
class Filtered:
    """A layer computed by Winograd's filtering.

    Parameters
    ----------
    filtering
        Its extents.
    tile
        Of the products.
    origin
        Zeros above and left of the data.
    """

    filtering: Filtering
    tile: ProductTile
    origin: tuple[int, int]

    @property
    def takes_pool(self) -> bool:
        """Whether the layer's pool is in the tile."""
        return self.filtering.window != (1, 1)


@dataclass(frozen=True)
class GpuChooser:
    """Chooses computations for a GPU.

    Parameters
    ----------
    target
        The GPU.
    allow
        Without ``winograd`` in it, sums are taken as they are written.
    barred
        Layers that are not to be computed by some families of tiles.
    """

    target: Any
    allow: Collection[str] = ()
    barred: Barred = NONE_BARRED

    def filtered(self, layer: LayerOf, weight: Callable[[], np.ndarray]) -> Filtered | str:
        """The layer by Winograd's filtering, where that should take the least time.

        Parameters
        ----------
        layer
            The convolution, and the max-pool that alone reads it, if any.
        weight
            Gives the weights, in the order OIHW.

        Returns
        -------
        Filtered or str
            The last where sums are taken as they are written: why, if others are allowed.
        """
        families = [family for family in FAMILIES if takes(layer.conv, family)]
        if WINOGRAD not in self.allow:
            return ""
        if not families:
            return UNFIT
        ways = list(_ways(layer, gpu_of(self.target)))
        if not ways:
            return "it has too few filters or tiles for a block of threads"
        faster = [way for way in ways if way[0] < direct_seconds(layer, self.target)]
        for _, way in sorted(faster, key=lambda way: way[0]):
            if not self.barred.holds(weight(), way.filtering.family):
                return way
        return "calibration keeps it from that" if faster else "that should take longer"


def _ways(layer: LayerOf, gpu: Gpu) -> Iterator[tuple[float, Filtered]]:
    """Winograd's ways to compute a layer, each with its seconds."""
    conv, pool = layer.conv, layer.pool
    batch, *image = layer.shape
    height, width = image[:2] if conv.channels_last else image[1:]
    rows, columns = (side.out for side in _unpooled(layer))
    for family in FAMILIES:
        if not takes(conv, family):
            continue
        window = (1, 1)
        if pool is not None and pool_in_tile(pool, family, rows, columns):
            window = pool.kernel
        filtering = Filtering(
            family,
            batch,
            conv.channels,
            conv.filters,
            height,
            width,
            rows - rows % window[0],
            columns - columns % window[1],
            window,
            conv.channels_last,
            conv.groups,
        )
        tile = gpu_winograd_tiles.best(filtering, gpu)
        if tile is not None:
            kernels = gpu_winograd_tiles.kernel_seconds(filtering, tile, gpu)
            if pool is not None and window != pool.kernel:
                kernels.append(_pool_seconds(layer, gpu))
            yield in_sequence(kernels), Filtered(filtering, tile, conv.padding[:2])


def direct_seconds(layer: LayerOf, target: Any) -> float:
    """What the sums as they are written should take, the pool in their kernel or not."""
    alone = replace(layer, pool=None)
    if layer.pool is None or parts_of(layer, target) > 1:
        return in_sequence(_summed(layer, target))
    apart = [*_summed(alone, target), _pool_seconds(layer, gpu_of(target))]
    return min(in_sequence(_summed(layer, target)), in_sequence(apart))


def _summed(layer: LayerOf, target: Any) -> list[float]:
    """Seconds of the kernel that sums, and of that which adds where `parts_of` splits sums."""
    gpu, parts = gpu_of(target), parts_of(layer, target)
    if parts > 1:
        nest = replace(layer, pool=None).nest
        nest = replace(nest, groups=parts, channels=nest.channels // parts)
    else:
        nest = layer.nest
    tile = gpu_tiles.best(nest, gpu.multiprocessors)
    sums = gpu_tiles.arithmetic(nest) / gpu.multiprocessors * FMAS / gpu.fp32_per_clock
    cycles = max(gpu_tiles.expected(nest, tile, gpu.multiprocessors), sums)
    conv = layer.conv
    weights = conv.filters * conv.channels // conv.groups * prod(conv.kernel)
    result = _elements(layer) if parts == 1 else parts * _elements(replace(layer, pool=None))
    moved = FLOAT * (prod(layer.shape) + weights + result)
    kernels = [DIRECT_OVER_MODEL * max(cycles / gpu.clock_hz, moved / gpu.bytes_per_second)]
    if parts > 1:
        kernels.append(FLOAT * (result + _elements(layer)) / gpu.bytes_per_second)
    return kernels


DIRECT_OVER_MODEL = 2.0
"""How much longer than the tiles' model says: 1.4 to 2.5 times in the fastest tile of 12 of 13
layers on an H100, 2.0 in the middle (scripts/records/gpu-tiles-h100.json)."""


def _pool_seconds(layer: LayerOf, gpu: Gpu) -> float:
    """A max-pool of its own."""
    moved = _elements(replace(layer, pool=None)) + _elements(layer)
    return FLOAT * moved / gpu.bytes_per_second


def _elements(layer: LayerOf) -> int:
    """Of the result."""
    nest = layer.nest
    return nest.batch * layer.conv.filters * nest.rows.out * nest.columns.out


def _unpooled(layer: LayerOf) -> tuple[gpu_tiles.Axis, gpu_tiles.Axis]:
    nest = replace(layer, pool=None).nest
    return nest.rows, nest.columns
