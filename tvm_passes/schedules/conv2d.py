"""A convolution on blocks of channels, and the max-pool that reads it, as tensor expressions.

The result is blocked, ``NCHW{b}c``: [n, c/b, h, w, b], so that a vector holds channels.  Sums are
taken in the order in which TVM's own operator of the source layout takes them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from tvm import te, topi

from tvm_passes.namespaces import tir
from tvm_passes.schedules.operators import Conv2d, MaxPool2d


def conv2d(data: te.Tensor, weight: te.Tensor, conv: Conv2d, pool: MaxPool2d | None) -> te.Tensor:
    """The layer.

    Parameters
    ----------
    data
        [n, c, h, w], [n, h, w, c] if `conv.channels_last`, or blocked, [n, c/b, h, w, b].
    weight
        As `pack_weight` makes it.
    conv
        The convolution.
    pool
        The max-pool that reads it, if any.

    Returns
    -------
    te.Tensor
        [n, filters/b, h, w, b]; channels past the last filter hold what zero weights give.
    """
    above = 0 if pool is None else pool.padding[0]
    if pool is not None and above:
        conv = _with_rows_above(conv, above)
    view = _View(data, conv)
    source = _padded(view, conv)
    rows, columns = (_windows(view, conv, axis) for axis in (0, 1))
    blocks = -(-conv.filters // conv.block)
    reduce = _depthwise if conv.depthwise else _dense
    out = te.compute(
        (view.batch, blocks, rows, columns, conv.block),
        reduce(source, weight, view, conv),
        name="conv2d",
    )
    if pool is not None and above:
        out, pool = _masked(out, pool), replace(pool, padding=(0, 0, 0, 0))
    return stored(out if pool is None else _pooled(out, conv, pool), conv)


def _with_rows_above(conv: Conv2d, above: int) -> Conv2d:
    """The convolution with rows of its own in place of the pool's padding on top.

    Then no strip of rows has a lower bound, only an upper one.
    """
    top, left, bottom, right = conv.padding
    return replace(conv, padding=(top + above * conv.strides[0], left, bottom, right))


def _masked(out: te.Tensor, pool: MaxPool2d) -> te.Tensor:
    """The convolution with the pool's padding, which on top are rows that it has computed."""
    top, left, bottom, right = pool.padding
    n, blocks, rows, columns, block = (int(extent) for extent in out.shape)

    def value(i: Any, o: Any, y: Any, x: Any, c: Any) -> Any:
        inside = tir.all(y >= top, y < rows, x >= left, x < columns + left)
        return tir.if_then_else(inside, out(i, o, y, x - left, c), tir.min_value(out.dtype))

    shape = (n, blocks, rows + bottom, columns + left + right, block)
    return te.compute(shape, value, name="masked")


def stored(value: te.Tensor, conv: Conv2d) -> te.Tensor:
    """The result in its element type: what a schedule takes to be the epilogue's beginning."""
    return te.compute(value.shape, lambda *at: value(*at).astype(conv.dtype), name="stored")


def _pooled(out: te.Tensor, conv: Conv2d, pool: MaxPool2d) -> te.Tensor:
    return topi.nn.pool2d(
        out,
        list(pool.kernel),
        list(pool.strides),
        list(pool.dilation),
        list(pool.padding),
        "max",
        pool.ceil_mode,
        f"NCHW{conv.block}c",
    )


def blocked(data: te.Tensor, block: int, channels_last: bool) -> te.Tensor:
    """[n, c, h, w] or [n, h, w, c] as [n, c/block, h, w, block], zeros past the last channel."""
    n, c, h, w = _nchw(data.shape, channels_last)

    def value(i: Any, o: Any, y: Any, x: Any, inner: Any) -> Any:
        channel = o * block + inner
        element = data(i, y, x, channel) if channels_last else data(i, channel, y, x)
        if c % block == 0:
            return element
        return tir.if_then_else(channel < c, element, tir.const(0, data.dtype))

    return te.compute((n, -(-c // block), h, w, block), value, name="blocked")


def unblocked(data: te.Tensor, channels: int, channels_last: bool) -> te.Tensor:
    """[n, c/b, h, w, b] as [n, channels, h, w] or [n, h, w, channels]."""
    n, _, h, w, block = (int(extent) for extent in data.shape)
    if channels_last:
        return te.compute(
            (n, h, w, channels),
            lambda i, y, x, c: data(i, c // block, y, x, c % block),
            name="unblocked",
        )
    return te.compute(
        (n, channels, h, w),
        lambda i, c, y, x: data(i, c // block, y, x, c % block),
        name="unblocked",
    )


def pack_weight(weight: np.ndarray, layout: str, conv: Conv2d) -> np.ndarray:
    """Weights for `conv2d`.

    Parameters
    ----------
    weight
        In `layout`, some order of the letters O, I, H and W; I counts the channels of a group.
    layout
        For example ``OIHW``.
    conv
        The convolution.

    Returns
    -------
    np.ndarray
        [filters/b, c/groups, kh, kw, b], or [filters/b, kh, kw, c/groups, b] if
        `conv.channels_last`, zeros past the last filter.
    """
    order = "OHWI" if conv.channels_last else "OIHW"
    ordered = weight.transpose([layout.index(letter) for letter in order])
    short = {"O": -conv.filters % conv.block}
    padded = np.pad(ordered, [(0, short.get(letter, 0)) for letter in order])
    split = padded.reshape(-1, conv.block, *padded.shape[1:])
    return np.ascontiguousarray(np.moveaxis(split, 1, -1))


class _View:
    """Data of any of the layouts, read by channel."""

    def __init__(self, data: te.Tensor, conv: Conv2d) -> None:
        self.data = data
        self.blocked = len(data.shape) == 5
        self.channels_last = conv.channels_last and not self.blocked
        shape = [int(extent) for extent in data.shape]
        if self.blocked:
            self.batch, self.outer, self.rows, self.columns, self.inner = shape
        else:
            self.batch, channels, self.rows, self.columns = _nchw(shape, self.channels_last)
            self.outer, self.inner = (1, channels) if self.channels_last else (channels, 1)

    def shape(self, rows: int, columns: int) -> tuple[int, ...]:
        """Extents of the same layout with other rows and columns."""
        if self.blocked:
            return (self.batch, self.outer, rows, columns, self.inner)
        if self.channels_last:
            return (self.batch, rows, columns, self.inner)
        return (self.batch, self.outer, rows, columns)

    def index(self, n: Any, outer: Any, y: Any, x: Any, inner: Any) -> tuple[Any, ...]:
        """Where an element is, of channel `inner` of block `outer`."""
        if self.blocked:
            return (n, outer, y, x, inner)
        return (n, y, x, inner) if self.channels_last else (n, outer, y, x)

    def rows_columns(self, index: tuple[Any, ...]) -> tuple[int, int]:
        """Positions of rows and columns in an index of this layout."""
        at = 1 if self.channels_last else len(index) - 2 - self.blocked
        return at, at + 1


def _nchw(shape: Any, channels_last: bool) -> tuple[int, int, int, int]:
    a, b, c, d = (int(extent) for extent in shape)
    return (a, d, b, c) if channels_last else (a, b, c, d)


def _padded(view: _View, conv: Conv2d) -> te.Tensor:
    """The data with its zeros around it."""
    if not any(conv.padding):
        return view.data
    top, left, bottom, right = conv.padding
    zero = tir.const(0, view.data.dtype)

    def value(*index: Any) -> Any:
        row, column = view.rows_columns(index)
        y, x = index[row] - top, index[column] - left
        inside = tir.all(y >= 0, y < view.rows, x >= 0, x < view.columns)
        moved = list(index)
        moved[row], moved[column] = y, x
        return tir.if_then_else(inside, view.data(*moved), zero)

    shape = view.shape(view.rows + top + bottom, view.columns + left + right)
    return te.compute(shape, value, name="padded")


def _windows(view: _View, conv: Conv2d, axis: int) -> int:
    extent = (view.rows, view.columns)[axis] + conv.padding[axis] + conv.padding[axis + 2]
    reach = (conv.kernel[axis] - 1) * conv.dilation[axis] + 1
    return (extent - reach) // conv.strides[axis] + 1


def _dense(source: te.Tensor, weight: te.Tensor, view: _View, conv: Conv2d) -> Any:
    """Sums over the channels of a group."""
    per_group = conv.channels // conv.groups
    whole = conv.groups == 1
    kh, kw = (te.reduce_axis((0, extent), "k") for extent in conv.kernel)
    ends_in_block = not view.channels_last and per_group % view.inner > 0
    if ends_in_block:
        # What is of another group, or fills the last block, is never read: it may be no number,
        # and then 0 times it is none.
        channels = [te.reduce_axis((0, per_group), "c")]
        position = channels[0]
    else:
        inner_extent = per_group if view.channels_last else view.inner
        outer_extent = per_group // inner_extent
        channels = [
            te.reduce_axis((0, outer_extent), "co"),
            te.reduce_axis((0, inner_extent), "ci"),
        ]
        position = channels[0] * inner_extent + channels[1]
    axes = [kh, kw, *channels] if conv.channels_last else [*channels, kh, kw]

    def place(group: Any) -> tuple[Any, Any]:
        """The block that holds the channel of a group, and where it is there."""
        if ends_in_block:
            channel = position if whole else group * per_group + position
            return channel // view.inner, channel % view.inner
        co, ci = channels
        if whole:
            return co, ci
        if view.channels_last:
            return co, ci + group * per_group
        first = group * outer_extent
        return co + first, ci

    def value(n: Any, o: Any, y: Any, x: Any, i: Any) -> Any:
        co, ci = place(o * conv.block // (conv.filters // conv.groups))
        row = y * conv.strides[0] + kh * conv.dilation[0]
        column = x * conv.strides[1] + kw * conv.dilation[1]
        element = source(*view.index(n, co, row, column, ci))
        at = (o, kh, kw, position, i) if conv.channels_last else (o, position, kh, kw, i)
        return te.sum(_product(element, weight(*at), conv.dtype), axis=axes)

    return value


def _depthwise(source: te.Tensor, weight: te.Tensor, _view: _View, conv: Conv2d) -> Any:
    """Sums over the window alone; the data is blocked as the result is."""
    kh, kw = (te.reduce_axis((0, extent), "k") for extent in conv.kernel)

    def value(n: Any, o: Any, y: Any, x: Any, i: Any) -> Any:
        row = y * conv.strides[0] + kh * conv.dilation[0]
        column = x * conv.strides[1] + kw * conv.dilation[1]
        at = (o, kh, kw, 0, i) if conv.channels_last else (o, 0, kh, kw, i)
        return te.sum(
            _product(source(n, o, row, column, i), weight(*at), conv.dtype), axis=[kh, kw]
        )

    return value


def _product(element: Any, weight: Any, dtype: str) -> Any:
    """The product in the element type of sums."""
    if dtype == "float16":
        element, weight = element.astype("float32"), weight.astype("float32")
    return element * weight
