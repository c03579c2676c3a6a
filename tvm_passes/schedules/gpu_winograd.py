"""Winograd convolution for GPUs, and the max-pool behind it: three kernels as tensor expressions.

All extents but the result's are whole tiles of the products, so that those need no conditions.
Filters and tiles are counted by block, group, thread and element of a vector: neighbouring threads
read neighbouring vectors, without bank conflicts, and a thread has several groups of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
from tvm import te

from tvm_passes.namespaces import tir
from tvm_passes.schedules.gpu_winograd_tiles import Filtering, ProductTile
from tvm_passes.schedules.operators import Pair
from tvm_passes.schedules.transforms import DTYPE, by_pairs, by_parity, choose

DATA = "tvm_passes.winograd.data"
"""Annotation of the block that takes tiles of the data, in the kernel that transforms them: whether
channels come last."""
PRODUCTS = "tvm_passes.winograd.products"
"""Annotation of the block that sums: the fields of `ProductTile`, in their order."""
RESULT = "tvm_passes.winograd.result"
"""Annotation of the block that takes products: rows and columns of the result of a tile, and
whether filters come last."""


def transformed_data(
    data: te.Tensor, filtering: Filtering, tile: ProductTile, origin: Pair
) -> te.Tensor:
    """B^T d B of each tile.

    Parameters
    ----------
    data
        [n, c, h, w], or [n, h, w, c].
    filtering, tile
        The extents, and the blocks of the products.
    origin
        Zeros above and left of the data.

    Returns
    -------
    te.Tensor
        [tile, tile, groups, channels of a group, *tiles], with zeros past a group's last channel
        and past the last tile.
    """
    family, (down, across) = filtering.family, filtering.grid
    size = family.tile
    channels, _, tiles = filtering.padded(tile)
    of_group, _ = filtering.of_group

    def element(at: Any, p: Any, r: Any, s: Any) -> Any:
        group, c = at // channels, at % channels
        row = p // across % down * family.outputs + r - origin[0]
        column = p % across * family.outputs + s - origin[1]
        inside = [row >= 0, row < filtering.height, column >= 0, column < filtering.width]
        if channels > of_group:
            inside.append(c < of_group)
        if tiles > filtering.tiles:
            inside.append(p < filtering.tiles)
        image = p // (down * across)
        channel = group * of_group + c
        place = (image, channel, row, column)
        if filtering.channels_last:
            place = (image, row, column, channel)
        return tir.if_then_else(tir.all(*inside), data(*place), tir.const(0, DTYPE))

    noted = {DATA: [int(filtering.channels_last)]}
    shape = (filtering.groups * channels, tiles, size, size)
    patch = te.compute(shape, element, name="patch", attrs=noted)

    def rows(c: Any, p: Any, e: Any, s: Any) -> Any:
        column = [patch(c, p, r, s) for r in range(size)]
        return choose(e, [by_parity(row, column) for row in family.data])

    half = te.compute(shape, rows, name="rows")

    split = tile.split_tiles(tiles)

    def columns(e: Any, v: Any, group: Any, c: Any, *at: Any) -> Any:
        of_all = group * channels + c
        row = [half(of_all, _joined(at, split), e, s) for s in range(size)]
        return choose(v, [by_parity(column, row) for column in family.data])

    extents = (size, size, filtering.groups, channels, *split)
    return te.compute(extents, columns, name="transformed")


def products(tiles: te.Tensor, weight: te.Tensor, tile: ProductTile) -> te.Tensor:
    """The sums over channels at each element of the tile: [tile, tile, groups, *filters, *tiles].

    Parameters
    ----------
    tiles
        As of `transformed_data`.
    weight
        As of `pack_transformed`.
    tile
        What a block of threads computes.
    """
    size, _, groups, channels, *columns = (int(extent) for extent in tiles.shape)
    rows = [int(extent) for extent in weight.shape[4:]]
    c = te.reduce_axis((0, channels), "c")

    def value(e: Any, v: Any, group: Any, *at: Any) -> Any:
        k, p = at[: len(rows)], at[len(rows) :]
        return te.sum(weight(e, v, group, c, *k) * tiles(e, v, group, c, *p), axis=c)

    noted = {PRODUCTS: list(astuple(tile))}
    return te.compute((size, size, groups, *rows, *columns), value, name="products", attrs=noted)


def result(found: te.Tensor, filtering: Filtering) -> te.Tensor:
    """A^T p A of each tile, or the maxima over its windows.

    Parameters
    ----------
    found
        As of `products`.
    filtering
        The extents.

    Returns
    -------
    te.Tensor
        [n, filters, h, w], or [n, h, w, filters].
    """
    family, (down, across) = filtering.family, filtering.grid
    size, m = family.tile, family.outputs
    window = filtering.window
    kept = (m // window[0], m // window[1])
    _, of_group = filtering.of_group
    counted = [int(extent) for extent in found.shape[3:]]
    filters, columns = counted[: len(counted) // 2], counted[len(counted) // 2 :]

    def element(n: Any, k: Any, y: Any, x: Any, e: Any, v: Any) -> Any:
        p = (n * down + y) * across + x
        group, k = k // of_group, k % of_group
        return found(e, v, group, *_parted(k, filters), *_parted(p, columns))

    tiles = (filtering.batch, filtering.filters, down, across)
    noted = {RESULT: [*kept, int(filtering.channels_last)]}
    taken = te.compute((*tiles, size, size), element, name="taken", attrs=noted)

    def rows(*at: Any) -> Any:
        *of, a, v = at
        column = [taken(*of, e, v) for e in range(size)]
        return choose(a, [by_pairs(row, column) for row in family.output])

    half = te.compute((*tiles, m, size), rows, name="half")

    def outputs(*at: Any) -> Any:
        *of, a, b = at
        row = [half(*of, a, v) for v in range(size)]
        return choose(b, [by_pairs(column, row) for column in family.output])

    value = te.compute((*tiles, m, m), outputs, name="outputs")
    if window != (1, 1):
        value = _maxima(value, window)

    def stored(n: Any, k: Any, y: Any, x: Any) -> Any:
        return value(n, k, y // kept[0], x // kept[1], y % kept[0], x % kept[1])

    extents = (filtering.rows // window[0], filtering.columns // window[1])
    if filtering.channels_last:
        shape = (filtering.batch, *extents, filtering.filters)
        return te.compute(shape, lambda n, y, x, k: stored(n, k, y, x), name="stored")
    return te.compute((*tiles[:2], *extents), stored, name="stored")


def _joined(at: Sequence[Any], extents: Sequence[int]) -> Any:
    """The index along axes taken as one."""
    index = at[0]
    for part, extent in zip(at[1:], extents[1:], strict=True):
        index = index * extent + part
    return index


def _parted(index: Any, extents: Sequence[int]) -> list[Any]:
    """The inverse of `_joined`."""
    found: list[Any] = []
    for extent in reversed(extents[1:]):
        found.insert(0, index % extent)
        index = index // extent
    return [index, *found]


def _maxima(outputs: te.Tensor, window: Pair) -> te.Tensor:
    """The maximum over each window of a tile."""
    *tiles, m, _ = (int(extent) for extent in outputs.shape)
    r, s = (te.reduce_axis((0, extent), "r") for extent in window)

    def value(*at: Any) -> Any:
        *of, a, b = at
        return te.max(outputs(*of, a * window[0] + r, b * window[1] + s), axis=[r, s])

    return te.compute((*tiles, m // window[0], m // window[1]), value, name="maxima")


def pack_transformed(weight: np.ndarray, filtering: Filtering, tile: ProductTile) -> np.ndarray:
    """Weights for `products`.

    Parameters
    ----------
    weight
        [filters, channels / groups, taps, taps].
    filtering, tile
        The extents, and the blocks of the products.

    Returns
    -------
    np.ndarray
        [tile, tile, groups, channels of a group, *filters], with zeros past a group's last channel
        and its last filter.
    """
    transformed = filtering.family.transform(weight).astype(weight.dtype)
    size, _, total, given = transformed.shape
    channels, filters, _ = filtering.padded(tile)
    of_group = total // filtering.groups
    grouped = transformed.reshape(size, size, filtering.groups, of_group, given).swapaxes(3, 4)
    short = [(0, channels - given), (0, filters - of_group)]
    padded = np.pad(grouped, [(0, 0), (0, 0), (0, 0), *short])
    return padded.reshape(*padded.shape[:4], *tile.split_filters(filters))
