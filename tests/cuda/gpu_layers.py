"""Convolutions and max-pools as the GPU schedules see them, and what NumPy makes of them."""

from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from tvm import te

from tvm_passes.schedules.conv2d import pack_weight
from tvm_passes.schedules.gpu_conv2d import LayerOf, conv2d
from tvm_passes.schedules.gpu_tiles import candidates
from tvm_passes.schedules.operators import Conv2d, MaxPool2d

LOWEST = np.finfo(np.float32).min


@dataclass(frozen=True)
class Case:
    """One layer: `data` is [n, c, h, w], whatever the layout that the kernel reads."""

    data: tuple[int, int, int, int]
    conv: Conv2d
    pool: MaxPool2d | None

    @property
    def shape(self):
        n, c, h, w = self.data
        return (n, h, w, c) if self.conv.channels_last else self.data

    @property
    def layer(self):
        return LayerOf(self.shape, self.conv, self.pool)

    @property
    def nest(self):
        return self.layer.nest

    def func(self, tile, activation=None):
        """The layer in a tile, as a PrimFunc of data, weights and the result."""
        conv = replace(self.conv, block=tile.block_filters)
        data = te.placeholder(self.shape, name="data")
        weight = te.placeholder(self.weights(tile)[1].shape, name="weight")
        out = conv2d(data, weight, conv, self.pool, tile)
        if activation is not None:
            out = te.compute(out.shape, lambda *at: activation(out(*at)), name="activation")
        return te.create_prim_func([data, weight, out])

    def weights(self, tile, seed=0):
        """Small whole numbers, so that sums are exact in any order: OIHW, and packed."""
        conv = self.conv
        shape = (conv.filters, conv.channels // conv.groups, *conv.kernel)
        plain = np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)
        return plain, pack_weight(plain, "OIHW", replace(conv, block=tile.block_filters))

    def inputs(self, seed=1):
        """Small whole numbers, in the kernel's layout."""
        data = np.random.default_rng(seed).integers(-4, 5, self.data).astype(np.float32)
        return data, np.ascontiguousarray(data.transpose(0, 2, 3, 1) if self.last else data)

    @property
    def last(self):
        return self.conv.channels_last

    def expected(self, data, weight):
        """The result in the kernel's layout."""
        out = convolved(data, weight, self.conv)
        out = out if self.pool is None else pooled(out, self.pool)
        return out.transpose(0, 2, 3, 1) if self.last else out


def largest_tile(case):
    """A tile of many sums a thread, which small layers would not choose by themselves."""
    return max(candidates(case.nest), key=lambda tile: (tile.accumulators, -tile.threads))


def conv(channels, filters, kernel, stride=1, padding=0, **more):
    """A square convolution."""
    defaults = {"groups": 1, "dilation": (1, 1), "channels_last": False, "block": 0}
    sides = (padding,) * 4 if isinstance(padding, int) else padding
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    strides = (stride, stride)
    return Conv2d(
        channels, filters, kernel=kernel, strides=strides, padding=sides, **defaults | more
    )


def pool(kernel, stride, padding=0, dilation=1, *, ceil_mode=False):
    """A square max-pool."""
    sides = (padding,) * 4 if isinstance(padding, int) else padding
    return MaxPool2d((kernel,) * 2, (stride,) * 2, (dilation,) * 2, sides, ceil_mode)


def convolved(data, weight, conv):
    top, left, bottom, right = conv.padding
    padded = np.pad(data, ((0, 0), (0, 0), (top, bottom), (left, right)))
    rows, columns = (
        (padded.shape[2 + n] - (conv.kernel[n] - 1) * conv.dilation[n] - 1) // conv.strides[n] + 1
        for n in (0, 1)
    )
    out = np.zeros((data.shape[0], conv.filters, rows, columns), np.float32)
    channels, filters = conv.channels // conv.groups, conv.filters // conv.groups
    for i, j in np.ndindex(*conv.kernel):
        seen = shifted(padded, (i, j), conv.dilation, conv.strides, (rows, columns))
        for group in range(conv.groups):
            c = slice(group * channels, (group + 1) * channels)
            k = slice(group * filters, (group + 1) * filters)
            out[:, k] += np.einsum("nchw,kc->nkhw", seen[:, c], weight[k, :, i, j])
    return out


def pooled(data, pool):
    extents = []
    for n in (0, 1):
        reach = (pool.kernel[n] - 1) * pool.dilation[n] + 1
        room = data.shape[2 + n] + pool.padding[n] + pool.padding[n + 2] - reach
        steps = ceil(room / pool.strides[n]) if pool.ceil_mode else room // pool.strides[n]
        extents.append(steps + 1)
    top, left, bottom, right = pool.padding
    more = [extent * step for extent, step in zip(extents, pool.strides, strict=True)]
    sides = ((0, 0), (0, 0), (top, bottom + more[0]), (left, right + more[1]))
    padded = np.pad(data, sides, constant_values=LOWEST)
    windows = [
        shifted(padded, at, pool.dilation, pool.strides, extents) for at in np.ndindex(*pool.kernel)
    ]
    return np.max(windows, axis=0)


def shifted(data, at, dilation, strides, extents):
    rows, columns = (
        slice(i * d, i * d + (extent - 1) * s + 1, s)
        for i, d, s, extent in zip(at, dilation, strides, extents, strict=True)
    )
    return data[:, :, rows, columns]
