"""Relax ops on values in blocks of channels: one function an op, None where it needs them plain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from tvm import relax
from tvm.relax import op

from tvm_passes.blocked import Blocked, rows_of
from tvm_passes.relax.blocked_values import Values, is_tensor
from tvm_passes.relax.convolution import (
    AVG_POOL2D,
    MAX_POOL2D,
    is_constant,
    layout_of,
    op_name,
    read_matmul,
    shape_of,
)
from tvm_passes.schedules.algorithm import Algorithm


def convolution(call: relax.Call, algorithm: Algorithm, values: Values) -> relax.Expr:
    """conv2d, and the max-pool of its result if it is taken along, as one kernel."""
    (data, weight), conv = call.args, algorithm.conv
    found = values.of(data)
    if algorithm.needs_blocks:
        found = values.in_blocks(data, conv.channels_last, conv.block)
    source = values.plain(data) if found is None or not found.is_read_by(conv) else found.value
    return _layer(source, weight.value.numpy(), layout_of(call), algorithm, values)


def matmul(call: relax.Call, values: Values) -> Blocked | None:
    """A product with a constant matrix, as a convolution of 1x1 windows on a row of pixels."""
    conv = read_matmul(call, values.block)
    if conv is None:
        return None
    found = values.of(call.args[0])
    if found is not None and (len(found.shape) == 4 or not found.channels_last):
        found = None
    data = found.value if found else values.plain(call.args[0])
    if not found:
        data = values.emit(op.reshape(data, rows_of(shape_of(data) or ())))
    weight = call.args[1].value.numpy()[None, None]
    value = _layer(data, weight, "HWIO", Algorithm(conv, None), values)
    return Blocked(value, shape_of(call) or (), True, conv.block)


def _layer(
    data: relax.Expr,
    weight: np.ndarray,
    layout: str,
    algorithm: Algorithm,
    values: Values,
) -> relax.Expr:
    return values.kernel(algorithm.compute, data, relax.const(algorithm.pack(weight, layout)))


def pool(call: relax.Call, values: Values) -> Blocked | None:
    """max_pool2d and avg_pool2d of a blocked value."""
    found = _spatial(call, values)
    if found is None:
        return None
    attrs = call.attrs
    make = op.nn.max_pool2d if op_name(call) == MAX_POOL2D else op.nn.avg_pool2d
    value = make(
        found.value,
        attrs.pool_size,
        attrs.strides,
        attrs.padding,
        attrs.dilation,
        attrs.ceil_mode,
        attrs.count_include_pad,
        layout=f"NCHW{found.block}c",
    )
    return _like(found, call, values.emit(value))


def adaptive_pool(call: relax.Call, values: Values) -> Blocked | None:
    """adaptive_avg_pool2d of a blocked value."""
    found = _spatial(call, values)
    if found is None:
        return None
    layout = f"NCHW{found.block}c"
    value = op.nn.adaptive_avg_pool2d(found.value, call.attrs.output_size, layout)
    return _like(found, call, values.emit(value))


def _spatial(call: relax.Call, values: Values) -> Blocked | None:
    """The operand of a pool, where it is in blocks and the pool has its layout."""
    found = values.of(call.args[0])
    layouts = {str(call.attrs.layout), str(call.attrs.out_layout) or str(call.attrs.layout)}
    if found is None or len(found.shape) != 4:
        return None
    return found if layouts == {"NHWC" if found.channels_last else "NCHW"} else None


def mean(call: relax.Call, values: Values) -> Blocked | None:
    """The mean over rows and columns, their extents kept as 1."""
    found = values.of(call.args[0])
    if found is None or len(found.shape) != 4 or call.attrs.axis is None:
        return None
    axes = sorted(int(axis) % 4 for axis in call.attrs.axis)
    if axes != ([1, 2] if found.channels_last else [2, 3]) or not call.attrs.keepdims:
        return None
    return _like(found, call, values.emit(op.mean(found.value, [2, 3], keepdims=True)))


def concat(call: relax.Call, values: Values) -> Blocked | None:
    """Concatenation of channels, whole blocks of each operand."""
    if not isinstance(call.args[0], relax.Tuple) or call.attrs.axis is None:
        return None
    found = [values.of(item) for item in call.args[0].fields]
    first = found[0]
    if first is None or int(call.attrs.axis) % len(first.shape) != first.axis:
        return None
    whole = [item for item in found if item is not None and _joins(item, first)]
    if len(whole) != len(found) or any(item.channels % item.block for item in whole[:-1]):
        return None
    return _like(first, call, values.emit(op.concat([item.value for item in whole], 1)))


def _joins(item: Blocked, other: Blocked) -> bool:
    ranks = len(item.shape), len(other.shape)
    return ranks == (4, 4) and (item.block, item.axis) == (other.block, other.axis)


def elementwise(call: relax.Call, values: Values) -> Blocked | None:
    """An elementwise op, one of whose operands is in blocks and of the result's shape."""
    shape = shape_of(call)
    found = [values.of(arg) for arg in call.args if is_tensor(arg)]
    like = next((item for item in found if item is not None and item.shape == shape), None)
    if like is None:
        return None
    args = [_operand(arg, like, values) for arg in call.args]
    if any(arg is None for arg in args):
        return None
    value = relax.Call(call.op, args, call.attrs, call.ty_args, call.span)
    return _like(like, call, values.emit(value))


def _operand(arg: relax.Expr, like: Blocked, values: Values) -> relax.Expr | None:
    """An operand of an elementwise op in the same blocks, or None."""
    if not is_tensor(arg):
        return arg
    if shape_of(arg) == like.shape:
        return values.in_blocks(arg, like.channels_last, like.block).value
    array = like.constant(arg.value.numpy()) if is_constant(arg) else None
    return None if array is None else relax.const(array)


def _like(found: Blocked, call: relax.Call, value: relax.Expr) -> Blocked:
    return replace(found, value=value, shape=shape_of(call) or ())


ELEMENTWISE = frozenset(
    f"relax.{name}"
    for name in (
        "abs", "add", "clip", "divide", "erf", "exp", "maximum", "minimum", "multiply", "negative",
        "nn.gelu", "nn.gelu_tanh", "nn.leakyrelu", "nn.relu", "nn.silu", "nn.softplus",
        "sigmoid", "square", "subtract", "tanh",
    )
)  # fmt: skip
"""Elementwise ops.  Channels that fill the last block hold what they make of it: none is read."""

OPS: Mapping[str, Callable[[relax.Call, Values], Blocked | None]] = {
    MAX_POOL2D: pool,
    AVG_POOL2D: pool,
    "relax.nn.adaptive_avg_pool2d": adaptive_pool,
    "relax.mean": mean,
    "relax.concat": concat,
    "relax.matmul": matmul,
    **dict.fromkeys(ELEMENTWISE, elementwise),
}
"""Every op that may give a blocked value, beside conv2d."""
