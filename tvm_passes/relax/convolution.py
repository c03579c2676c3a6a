"""Read Relax calls as the blocked kernels see them, or say why they cannot."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from tvm_passes.blocked import rows_of
from tvm_passes.decline import Decline
from tvm_passes.schedules.operators import DTYPES, Conv2d, ConvCall, oihw
from tvm_passes.schedules.operators import read_conv2d as read

CONV2D, MAX_POOL2D, AVG_POOL2D = "relax.nn.conv2d", "relax.nn.max_pool2d", "relax.nn.avg_pool2d"


def op_name(expr: relax.Expr) -> str:
    """The op that an expression calls, or an empty string."""
    if isinstance(expr, relax.Call) and isinstance(expr.op, tvm.ir.Op):
        return str(expr.op.name)
    return ""


def shape_of(expr: relax.Expr) -> tuple[int, ...] | None:
    """Extents of a tensor, or None where one is symbolic."""
    ty = expr.ty
    if not isinstance(ty, relax.TensorType) or not isinstance(ty.shape, relax.ShapeExpr):
        return None
    if not all(isinstance(extent, tvm.tirx.IntImm) for extent in ty.shape.values):
        return None
    return tuple(int(extent) for extent in ty.shape.values)


def is_constant(expr: relax.Expr) -> bool:
    """Whether a value is known at compile time."""
    return isinstance(expr, tvm.ir.GenericConst)


def layout_of(call: relax.Call) -> str:
    """The layout of a convolution's weights."""
    return str(call.attrs.kernel_layout)


def weight_of(call: relax.Call) -> np.ndarray:
    """The constant weights of a convolution, in the order OIHW."""
    return oihw(call.args[1].value.numpy(), layout_of(call))


def read_conv2d(call: relax.Call, block: int) -> Conv2d | Decline:
    """A convolution in blocks of `block` channels."""
    data, weight = call.args
    return read(
        ConvCall(
            op=CONV2D,
            attrs=call.attrs,
            data=shape_of(data),
            weight=shape_of(weight),
            result=shape_of(call),
            dtypes=(str(data.ty.dtype), str(weight.ty.dtype), str(call.ty.dtype)),
            constant=is_constant(weight),
        ),
        block,
    )


def read_matmul(call: relax.Call, block: int) -> Conv2d | None:
    """A product [..., m, k] by a constant [k, n], as a 1x1 convolution of [1, 1, m, k]."""
    data, weight = call.args
    shape, matrix = shape_of(data), shape_of(weight)
    dtype = str(call.ty.dtype)
    if shape is None or matrix is None or len(matrix) != 2 or len(shape) < 2:
        return None
    if len(shape) == len(rows_of(shape)) and shape != rows_of(shape):
        return None  # its rows would be taken for those of an image
    if not is_constant(weight) or dtype not in DTYPES:
        return None
    if {str(data.ty.dtype), str(weight.ty.dtype)} != {dtype}:
        return None
    channels, filters = matrix
    one = (1, 1)
    return Conv2d(channels, filters, 1, one, one, one, (0, 0, 0, 0), True, block, dtype)
