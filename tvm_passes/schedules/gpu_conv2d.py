"""A convolution and the max-pool that reads it, as tensor expressions in a GPU's tiles.

Sums are taken in the order in which TVM's own operator of the layout takes them.  All extents but
the result's are whole tiles, so that only loads and stores at the edges need conditions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from dataclasses import fields as dataclass_fields
from math import ceil
from typing import Any

from tvm import te

from tvm_passes.namespaces import tir
from tvm_passes.schedules.gpu_tiles import Axis, Nest, Tile
from tvm_passes.schedules.operators import Conv2d, MaxPool2d, Pair, Sides

TILE = "tvm_passes.tile"
"""Annotation of the block that sums: the fields of `Tile`, in their order."""
LAYER = "tvm_passes.layer"
"""Annotation of the same block: the fields of `LayerOf`, in their order."""

SPREAD_RANK = 5

NO_POOL = MaxPool2d((1, 1), (1, 1), (1, 1), (0, 0, 0, 0))


@dataclass(frozen=True)
class LayerOf:
    """What a kernel computes, whatever its tile.

    Parameters
    ----------
    shape
        Of the data: [n, c, h, w], or [n, h, w, c] if `conv.channels_last`.
    conv
        The convolution; its block is left open.
    pool
        The max-pool that reads it, if any.
    """

    shape: tuple[int, ...]
    conv: Conv2d
    pool: MaxPool2d | None

    @property
    def nest(self) -> Nest:
        """Its loops."""
        return nest_of(self.shape, self.conv, self.pool)

    def numbers(self) -> list[int]:
        """All of it, for an annotation."""
        conv, pool = self.conv, self.pool
        found = [*self.shape, conv.channels, conv.filters, conv.groups, int(conv.channels_last)]
        found += [*conv.kernel, *conv.strides, *conv.dilation, *conv.padding]
        if pool is not None:
            found += [*pool.kernel, *pool.strides, *pool.dilation, *pool.padding]
            found += [int(pool.ceil_mode)]
        return found

    @staticmethod
    def of(numbers: Any) -> LayerOf:
        """The inverse of `numbers`."""
        n, c, h, w, channels, filters, groups, last, *rest = (int(number) for number in numbers)
        kernel, strides, dilation, padding = _windows(rest[:10])
        conv = Conv2d(
            channels, filters, groups, kernel, strides, dilation, padding, bool(last), block=1
        )
        pool = None
        if rest[10:]:
            *of, ceil_mode = rest[10:]
            pool = MaxPool2d(*_windows(of), bool(ceil_mode))
        return LayerOf((n, c, h, w), conv, pool)


def _windows(numbers: Sequence[int]) -> tuple[Pair, Pair, Pair, Sides]:
    """Extents, steps, spacing and padding of windows."""
    a, b, c, d, e, f, top, left, bottom, right = numbers
    return (a, b), (c, d), (e, f), (top, left, bottom, right)


def conv2d(
    data: te.Tensor, weight: te.Tensor, conv: Conv2d, pool: MaxPool2d | None, tile: Tile
) -> te.Tensor:
    """The layer.

    Parameters
    ----------
    data
        [n, c, h, w], or [n, h, w, c] if `conv.channels_last`.
    weight
        As `tvm_passes.schedules.conv2d.pack_weight` makes it, in blocks of the tile's filters.
    conv
        The convolution.
    pool
        The max-pool that reads it, if any.
    tile
        What a block of threads computes.

    Returns
    -------
    te.Tensor
        [n, filters, h, w], or [n, h, w, filters] if `conv.channels_last`.
    """
    batch = int(data.shape[0])
    sides = [_Side.of(data, conv, pool, tile, axis) for axis in (0, 1)]
    whole = tile.stage[2] == conv.kernel[1]
    source = (_spread if whole else _gathered)(data, conv, sides, batch)
    layer = LayerOf(tuple(map(int, data.shape)), conv, pool)
    sums = _sums(source, weight, layer, sides, tile)
    value = sums if pool is None else _maxima(sums, sides)
    rows, columns = sides
    block = tile.block_filters

    def stored(n: Any, k: Any, y: Any, x: Any) -> Any:
        if pool is not None:
            return value(n, k // block, y, x, k % block)
        return value(n, k // block, *rows.at(y), *columns.at(x), k % block)

    out = (rows.axis.out, columns.axis.out)
    if conv.channels_last:
        return te.compute(
            (batch, *out, conv.filters), lambda n, y, x, k: stored(n, k, y, x), name="stored"
        )
    return te.compute((batch, conv.filters, *out), stored, name="stored")


def nest_of(shape: tuple[int, ...], conv: Conv2d, pool: MaxPool2d | None) -> Nest:
    """The loops of a layer whose data has a shape."""
    batch, *_ = shape
    return Nest(
        batch,
        conv.groups,
        conv.filters // conv.groups,
        conv.channels // conv.groups,
        _axis(shape, conv, pool, 0),
        _axis(shape, conv, pool, 1),
        conv.channels_last,
    )


def _extent(shape: Any, conv: Conv2d, axis: int) -> int:
    return int(shape[axis + (1 if conv.channels_last else 2)])


def _unpooled(shape: Any, conv: Conv2d, axis: int) -> int:
    """Rows or columns of the convolution's own result."""
    extent = _extent(shape, conv, axis) + conv.padding[axis] + conv.padding[axis + 2]
    return (extent - (conv.kernel[axis] - 1) * conv.dilation[axis] - 1) // conv.strides[axis] + 1


def _axis(shape: Any, conv: Conv2d, pool: MaxPool2d | None, axis: int) -> Axis:
    of = pool or NO_POOL
    return Axis(
        of.windows(axis, _unpooled(shape, conv, axis)),
        conv.kernel[axis],
        conv.strides[axis],
        conv.dilation[axis],
        of.kernel[axis],
        of.strides[axis],
        of.dilation[axis],
    )


@dataclass(frozen=True)
class _Side:
    """Rows or columns: how un-pooled elements are grouped, and where they read.

    Un-pooled element `outer`, `inner` is number ``outer * step + inner * spacing`` from the first
    that a window reads, which is `before` ahead of the convolution's own first.
    """

    axis: Axis
    extent: int
    unpooled: int
    padding: int
    before: int
    out: int
    outer: int
    inner: int
    step: int
    spacing: int
    masked: bool

    @staticmethod
    def of(data: te.Tensor, conv: Conv2d, pool: MaxPool2d | None, tile: Tile, n: int) -> _Side:
        axis = _axis(data.shape, conv, pool, n)
        size = (tile.out_rows, tile.out_columns)[n]
        out = ceil(axis.out / size) * size
        group = (tile.group_rows, tile.group_columns)[n]
        before = 0 if pool is None else pool.padding[n]
        unpooled = _unpooled(data.shape, conv, n)
        last = (axis.out - 1) * axis.pool_stride + axis.reach
        whole = _windows_apart(data, conv, pool)
        step, spacing = (axis.pool_stride, axis.pool_dilation) if whole else (group, 1)
        outer = out if whole else ceil(((out - 1) * axis.pool_stride + axis.reach) / group)
        return _Side(
            axis,
            _extent(data.shape, conv, n),
            unpooled,
            conv.padding[n],
            before,
            out,
            outer,
            axis.pool if whole else group,
            step,
            spacing,
            pool is not None and (before > 0 or last - before > unpooled),
        )

    @property
    def lane(self) -> int:
        """Input elements from one outer index to the next."""
        return self.step * self.axis.stride

    @property
    def span(self) -> int:
        """Input elements that all sums read."""
        inner = (self.inner - 1) * self.spacing * self.axis.stride
        return (
            (self.outer - 1) * self.lane + inner + (self.axis.kernel - 1) * self.axis.dilation + 1
        )

    def offset(self, inner: Any, k: Any) -> Any:
        """Input elements from an outer index's first to kernel element `k` of `inner`."""
        return inner * (self.spacing * self.axis.stride) + k * self.axis.dilation

    def real(self, index: Any) -> Any:
        """Where in the data an input element is, if inside."""
        return index - self.before * self.axis.stride - self.padding

    def holds(self, index: Any) -> list[Any]:
        """Conditions for an index to be one of the data's, where it may not be."""
        least = self.before * self.axis.stride + self.padding
        inside = self.span - least <= self.extent
        return ([index >= 0] if least else []) + ([] if inside else [index < self.extent])

    def at(self, element: Any) -> tuple[Any, Any]:
        """Outer and inner index of an un-pooled element."""
        return element // self.step, element % self.step

    def window(self, out: Any, k: Any) -> tuple[Any, Any]:
        """Outer and inner index of element `k` of a pooling window."""
        if self.step == self.axis.pool_stride and self.inner == self.axis.pool:
            return out, k
        return self.at(out * self.axis.pool_stride + k * self.axis.pool_dilation)

    def inside(self, out: Any, k: Any) -> list[Any]:
        """Conditions for element `k` of a window to be one of the convolution's."""
        if not self.masked:
            return []
        element = out * self.axis.pool_stride + k * self.axis.pool_dilation - self.before
        return [element >= 0, element < self.unpooled]


def _windows_apart(data: te.Tensor, conv: Conv2d, pool: MaxPool2d | None) -> bool:
    """Whether there is a pool, no two windows of which share an element."""
    if pool is None:
        return False
    return not any(_axis(data.shape, conv, pool, n).overlaps for n in (0, 1))


def _spread(data: te.Tensor, conv: Conv2d, sides: list[_Side], batch: int) -> te.Tensor:
    """The data with zeros around it, [n, c, w mod lane, h, w / lane].

    So neighbouring threads, a lane apart, read neighbouring elements: other banks.
    """
    rows, columns = sides
    lane = columns.lane

    def value(n: Any, c: Any, rest: Any, y: Any, x: Any) -> Any:
        return _element(data, conv, sides, (n, c, y, x * lane + rest))

    shape = (batch, conv.channels, lane, rows.span, ceil(columns.span / lane))
    return te.compute(shape, value, name="spread")


def _gathered(data: te.Tensor, conv: Conv2d, sides: list[_Side], batch: int) -> te.Tensor:
    """What each sum reads at each kernel element, [n, ky, kx, c, yo, yi, xi, xo].

    For stages of fewer elements than a kernel's row, in which no data is read twice.
    """
    rows, columns = sides

    def value(n: Any, ry: Any, rx: Any, c: Any, yo: Any, yi: Any, xi: Any, xo: Any) -> Any:
        row = yo * rows.lane + rows.offset(yi, ry)
        column = xo * columns.lane + columns.offset(xi, rx)
        return _element(data, conv, sides, (n, c, row, column))

    within = (rows.outer, rows.inner, columns.inner, columns.outer)
    return te.compute((batch, *conv.kernel, conv.channels, *within), value, name="gathered")


def _element(data: te.Tensor, conv: Conv2d, sides: list[_Side], at: tuple[Any, ...]) -> Any:
    """The data, or zero outside of it."""
    n, c, y, x = at
    row, column = (side.real(index) for side, index in zip(sides, (y, x), strict=True))
    conditions = [
        c for side, index in zip(sides, (row, column), strict=True) for c in side.holds(index)
    ]
    element = data(n, row, column, c) if conv.channels_last else data(n, c, row, column)
    if not conditions:
        return element
    return tir.if_then_else(tir.all(*conditions), element, tir.const(0, data.dtype))


def _sums(
    source: te.Tensor, weight: te.Tensor, layer: LayerOf, sides: list[_Side], tile: Tile
) -> te.Tensor:
    conv, (rows, columns) = layer.conv, sides
    lane = columns.lane
    rc = te.reduce_axis((0, conv.channels // conv.groups), "rc")
    ry, rx = (te.reduce_axis((0, extent), "r") for extent in conv.kernel)
    block = tile.block_filters
    blocks = ceil(conv.filters / block)
    gathered = len(source.shape) != SPREAD_RANK

    def value(n: Any, kb: Any, yo: Any, yi: Any, xo: Any, xi: Any, ki: Any) -> Any:
        channel = rc
        if conv.groups > 1:
            group = kb * block // (conv.filters // conv.groups)
            channel = group * (conv.channels // conv.groups) + rc
        if gathered:
            element = source(n, ry, rx, channel, yo, yi, xi, xo)
        else:
            column = columns.offset(xi, rx)
            row = yo * rows.lane + rows.offset(yi, ry)
            element = source(n, channel, column % lane, row, xo + column // lane)
        at = (kb, ry, rx, rc, ki) if conv.channels_last else (kb, rc, ry, rx, ki)
        axes = [ry, rx, rc] if conv.channels_last else [rc, ry, rx]
        return te.sum(element * weight(*at), axis=axes)

    shape = (
        source.shape[0], blocks, rows.outer, rows.inner, columns.outer, columns.inner, block
    )  # fmt: skip
    annotations = {
        TILE: [int(conv.channels_last), *flat(tile)],
        LAYER: layer.numbers(),
    }
    return te.compute(shape, value, name="sums", attrs=annotations)


def _maxima(sums: te.Tensor, sides: list[_Side]) -> te.Tensor:
    rows, columns = sides
    ry, rx = (te.reduce_axis((0, side.axis.pool), "r") for side in sides)

    def value(n: Any, kb: Any, y: Any, x: Any, ki: Any) -> Any:
        element = sums(n, kb, *rows.window(y, ry), *columns.window(x, rx), ki)
        inside = [*rows.inside(y, ry), *columns.inside(x, rx)]
        if inside:
            lowest = tir.min_value(sums.dtype)
            element = tir.Select(tir.all(*inside), element, lowest)
        return te.max(element, axis=[ry, rx])

    shape = (sums.shape[0], sums.shape[1], rows.out, columns.out, sums.shape[6])
    return te.compute(shape, value, name="maxima")


def flat(tile: Tile) -> list[int]:
    """The fields of a tile, those of its stage one by one."""
    *fields, stage = astuple(tile)
    return [*fields, *stage]


def tile_of(values: Any) -> tuple[bool, Tile]:
    """Whether channels are last, and the tile, of a block's annotation `TILE`."""
    last, *fields = (int(value) for value in values)
    names = [field.name for field in dataclass_fields(Tile)][:-1]
    stage = (fields[-3], fields[-2], fields[-1])
    return bool(last), Tile(**dict(zip(names, fields, strict=False)), stage=stage)
