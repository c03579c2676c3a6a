"""Relay expressions that put tensors in blocks of channels, and take them out again.

They say what a kernel's operands and result stand for; the kernel itself never runs them.
"""

from __future__ import annotations

from math import prod

import numpy as np
from tvm import relay

from tvm_passes.blocked import Blocked, rows_of
from tvm_passes.schedules.operators import Conv2d
from tvm_passes.winograd import Winograd, as_array


def pack(value: relay.Expr, like: Blocked) -> relay.Expr:
    """A plain tensor of `like.shape` as [n, c/block, h, w, block], zeros past the last channel."""
    n, c, h, w = nchw(like)
    b = like.block
    if len(like.shape) != 4:
        value = relay.reshape(value, rows_of(like.shape))
    axis = 3 if like.channels_last else 1
    if c % b:
        value = relay.nn.pad(value, [(0, -c % b if at == axis else 0) for at in range(4)])
    if like.channels_last:
        return relay.transpose(relay.reshape(value, (n, h, w, -1, b)), (0, 3, 1, 2, 4))
    return relay.transpose(relay.reshape(value, (n, -1, b, h, w)), (0, 1, 3, 4, 2))


def unpack(value: relay.Expr, like: Blocked) -> relay.Expr:
    """[n, c/block, h, w, block] as the plain tensor of `like.shape`."""
    n, c, h, w = nchw(like)
    axis = 3 if like.channels_last else 1
    order = (0, 2, 3, 1, 4) if like.channels_last else (0, 1, 4, 2, 3)
    extents = (n, h, w, -1) if like.channels_last else (n, -1, h, w)
    value = relay.reshape(relay.transpose(value, order), extents)
    if c % like.block:
        value = relay.strided_slice(value, begin=[0], end=[c], axes=[axis])
    return value if len(like.shape) == 4 else relay.reshape(value, like.shape)


def unpack_weight(
    value: relay.Expr, *, conv: Conv2d, layout: str, shape: tuple[int, ...]
) -> relay.Expr:
    """What `tvm_passes.schedules.conv2d.pack_weight` has packed, in its own layout and shape."""
    order = "OHWI" if conv.channels_last else "OIHW"
    extents = dict(zip(layout, shape, strict=True))
    value = relay.transpose(value, (0, 4, 1, 2, 3))
    packed = [-1 if letter in "OI" else extents[letter] for letter in order]
    if conv.depthwise:
        packed[order.index("I")] = 1
    else:
        packed[0] = -(-conv.filters // conv.block) * conv.block
    value = relay.reshape(value, packed)
    ends = [extents[letter] for letter in order]
    value = relay.strided_slice(value, begin=[0] * 4, end=ends)
    return relay.transpose(value, [order.index(letter) for letter in layout])


def unpack_transformed(
    value: relay.Expr, *, family: Winograd, conv: Conv2d, layout: str, shape: tuple[int, ...]
) -> relay.Expr:
    """What `tvm_passes.schedules.winograd.pack_transformed` has packed, in its own layout, shape.

    The transform has more elements than the weights: a left inverse gives them, but for rounding.
    """
    extents = dict(zip(layout, shape, strict=True))
    inverse = np.linalg.pinv(as_array(family.weight))
    both = relay.const(np.kron(inverse, inverse).astype("float32"))
    value = relay.reshape(relay.transpose(value, (0, 1, 2, 5, 3, 4)), (family.tile**2, -1))
    value = relay.nn.dense(both, relay.transpose(value, (1, 0)))
    taps, filters, channels = family.taps, extents["O"], extents["I"]
    packed = -(-channels // conv.block) * conv.block
    value = relay.reshape(value, (taps, taps, -1, packed))
    value = relay.strided_slice(value, begin=[0] * 4, end=[taps, taps, filters, channels])
    return relay.transpose(value, ["HWOI".index(letter) for letter in layout])


def unpack_constant(value: relay.Expr, shape: tuple[int, ...]) -> relay.Expr:
    """A scalar, or a value a channel in blocks, as the constant of `shape` that it stands for."""
    size = prod(int(extent) for extent in shape)
    value = relay.strided_slice(relay.reshape(value, (-1,)), begin=[0], end=[size])
    return relay.reshape(value, shape)


def nchw(like: Blocked) -> tuple[int, int, int, int]:
    """The extents of a value's images, channels, rows and columns."""
    a, b, c, d = like.shape if len(like.shape) == 4 else rows_of(like.shape)
    return (a, d, b, c) if like.channels_last else (a, b, c, d)


def blocked_shape(like: Blocked) -> tuple[int, int, int, int, int]:
    """The extents of a value in blocks."""
    n, c, h, w = nchw(like)
    return (n, -(-c // like.block), h, w, like.block)
