"""Winograd convolution on blocks of channels, and the max-pool behind it, as tensor expressions.

Tiles of the input are transformed, multiplied with transformed weights by a matrix product at each
element of the tile, and transformed back; channels are the lanes of vectors throughout.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import te

from tvm_passes.namespaces import tir
from tvm_passes.schedules.conv2d import stored
from tvm_passes.schedules.operators import Conv2d, MaxPool2d, Pair, oihw
from tvm_passes.schedules.transforms import DTYPE, by_pairs, by_parity, choose
from tvm_passes.schedules.winograd_windows import (
    maxima_of_parts,
    maxima_of_windows,
    taken_along,
)
from tvm_passes.winograd import Winograd


def winograd_conv2d(
    data: te.Tensor, weight: te.Tensor, conv: Conv2d, pool: MaxPool2d | None, family: Winograd
) -> te.Tensor:
    """The layer.

    Parameters
    ----------
    data
        [n, c/b, h, w, b].
    weight
        As `pack_transformed` makes it.
    conv
        A convolution that `family` takes.
    pool
        The max-pool that reads it, if any; one that is `taken_along`.
    family
        The tile.

    Returns
    -------
    te.Tensor
        [n, filters/b, h, w, b]; channels past the last filter hold what zero weights give.
    """
    rows, columns = (_windows(data, conv, axis) for axis in (0, 1))
    along = None if pool is None else taken_along(pool, family, rows, columns)
    if pool is not None and along is None:
        raise ValueError(f"expected a pool that {family} takes along, found {pool}")
    extents = (rows, columns) if along is None else along.extents
    transformed = _transformed(data, conv, family, extents)
    tiles = _tiles(
        matrix_products(transformed, weight, conv.channels // conv.groups, conv.groups), family
    )
    if pool is None or along is None:
        return _image(tiles, rows, columns)
    if along.windows is None:
        return stored(_pooled_tiles(tiles, pool, *extents), conv)
    return stored(maxima_of_windows(maxima_of_parts(tiles, *along.windows), *along.windows), conv)


def pack_transformed(weight: np.ndarray, layout: str, conv: Conv2d, family: Winograd) -> np.ndarray:
    """Weights for `winograd_conv2d`.

    Parameters
    ----------
    weight
        In `layout`, some order of the letters O, I, H and W; I counts the channels of a group.
    layout
        For example ``OIHW``.
    conv
        The convolution.
    family
        The tile.

    Returns
    -------
    np.ndarray
        [tile, tile, filters/b, c/groups/b, b, b], the last axis that of filters, zeros past the
        last channel and filter.
    """
    transformed = family.transform(oihw(weight, layout)).astype(weight.dtype)
    short = [(0, -extent % conv.block) for extent in transformed.shape[2:]]
    padded = np.pad(transformed, [(0, 0), (0, 0), *short])
    tile, _, filters, channels = padded.shape
    split = (tile, tile, filters // conv.block, conv.block, channels // conv.block, conv.block)
    return np.ascontiguousarray(padded.reshape(split).transpose(0, 1, 2, 4, 5, 3))


def _transformed(data: te.Tensor, conv: Conv2d, family: Winograd, outputs: Pair) -> te.Tensor:
    """B^T d B of each tile: [tile, tile, n, rows, columns, c/b, b]."""
    batch, outer, _, _, inner = (int(extent) for extent in data.shape)
    m, size = family.outputs, family.tile
    down, across = (-(-extent // m) for extent in outputs)
    source = _padded(data, conv, down * m + size - m, across * m + size - m)

    def rows(*at: Any) -> Any:
        n, y, x, o, e, s, i = at
        column = [source(n, o, y * m + r, x * m + s, i) for r in range(size)]
        return choose(e, [by_parity(row, column) for row in family.data])

    half = te.compute((batch, down, across, outer, size, size, inner), rows, name="rows")

    def columns(*at: Any) -> Any:
        e, v, n, y, x, o, i = at
        row = [half(n, y, x, o, e, s, i) for s in range(size)]
        return choose(v, [by_parity(column, row) for column in family.data])

    shape = (size, size, batch, down, across, outer, inner)
    return te.compute(shape, columns, name="transformed")


def _padded(data: te.Tensor, conv: Conv2d, rows: int, columns: int) -> te.Tensor:
    """The data with zeros around it, up to the end of the last tile."""
    batch, outer, height, width, inner = (int(extent) for extent in data.shape)
    top, left = conv.padding[:2]

    def value(n: Any, o: Any, y: Any, x: Any, i: Any) -> Any:
        inside = tir.all(y >= top, y < height + top, x >= left, x < width + left)
        return tir.if_then_else(inside, data(n, o, y - top, x - left, i), tir.const(0, DTYPE))

    return te.compute((batch, outer, rows, columns, inner), value, name="padded")


def matrix_products(
    tiles: te.Tensor, weight: te.Tensor, channels: int, groups: int = 1
) -> te.Tensor:
    """The sum over the channels of a group, for each element of a tile by itself.

    What fills the last block of channels is not read.

    Parameters
    ----------
    tiles
        [tile, tile, n, rows, columns, c/b, b].
    weight
        [tile, tile, filters/b, c/groups/b, b, b].
    channels
        Of a group.
    groups
        Of the convolution; whole blocks each, if there are several.

    Returns
    -------
    te.Tensor
        [tile, tile, n, filters/b, rows, columns, b].
    """
    size, _, batch, down, across, _, _ = (int(extent) for extent in tiles.shape)
    blocks, per_group, block = (int(weight.shape[axis]) for axis in (2, 3, 5))
    if channels % block:
        channel = te.reduce_axis((0, channels), "c")
        axes, outer, inner = [channel], channel // block, channel % block
    else:
        outer = te.reduce_axis((0, per_group), "co")
        inner = te.reduce_axis((0, block), "ci")
        axes = [outer, inner]

    def value(*at: Any) -> Any:
        e, v, n, o, y, x, i = at
        group = 0 if groups == 1 else o // (blocks // groups) * per_group
        product = tiles(e, v, n, y, x, outer + group, inner) * weight(e, v, o, outer, inner, i)
        return te.sum(product, axis=axes)

    shape = (size, size, batch, blocks, down, across, block)
    return te.compute(shape, value, name="products")


def _tiles(products: te.Tensor, family: Winograd) -> te.Tensor:
    """A^T p A of each tile: [n, filters/b, rows, columns, m, m, b]."""
    size, _, batch, blocks, down, across, block = (int(extent) for extent in products.shape)
    m = family.outputs

    def rows(*at: Any) -> Any:
        n, o, y, x, a, v, i = at
        column = [products(e, v, n, o, y, x, i) for e in range(size)]
        return choose(a, [by_pairs(row, column) for row in family.output])

    half = te.compute((batch, blocks, down, across, m, size, block), rows, name="half")

    def columns(*at: Any) -> Any:
        n, o, y, x, a, c, i = at
        row = [half(n, o, y, x, a, v, i) for v in range(size)]
        return choose(c, [by_pairs(column, row) for column in family.output])

    return te.compute((batch, blocks, down, across, m, m, block), columns, name="tiles")


def _image(tiles: te.Tensor, rows: int, columns: int) -> te.Tensor:
    """Tiles side by side: [n, filters/b, rows, columns, b]."""
    batch, blocks, _, _, m, _, block = (int(extent) for extent in tiles.shape)

    def value(n: Any, o: Any, y: Any, x: Any, i: Any) -> Any:
        return tiles(n, o, y // m, x // m, y % m, x % m, i)

    return te.compute((batch, blocks, rows, columns, block), value, name="image")


def _pooled_tiles(tiles: te.Tensor, pool: MaxPool2d, rows: int, columns: int) -> te.Tensor:
    """The maximum over each window: [n, filters/b, rows, columns, b]."""
    batch, blocks, _, _, m, _, block = (int(extent) for extent in tiles.shape)
    (height, width), down, across = pool.kernel, m // pool.kernel[0], m // pool.kernel[1]
    kh, kw = te.reduce_axis((0, height), "kh"), te.reduce_axis((0, width), "kw")

    def value(n: Any, o: Any, y: Any, x: Any, i: Any) -> Any:
        element = (y % down * height + kh, x % across * width + kw)
        return te.max(tiles(n, o, y // down, x // across, *element, i), axis=[kh, kw])

    shape = (batch, blocks, rows // height, columns // width, block)
    return te.compute(shape, value, name="pooled")


def _windows(data: te.Tensor, conv: Conv2d, axis: int) -> int:
    padding = conv.padding[axis] + conv.padding[axis + 2]
    return int(data.shape[2 + axis]) + padding - conv.kernel[axis] + 1
