"""Read Relay calls as the blocked kernels see them, or say why they cannot."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relay

from tvm_passes.decline import Decline
from tvm_passes.schedules.operators import Conv2d, ConvCall, oihw
from tvm_passes.schedules.operators import read_conv2d as read

CONV2D, MAX_POOL2D = "nn.conv2d", "nn.max_pool2d"


def op_name(expr: relay.Expr) -> str:
    """The op that an expression calls, or an empty string."""
    if isinstance(expr, relay.Call) and isinstance(expr.op, tvm.ir.Op):
        return str(expr.op.name)
    return ""


def shape_of(expr: relay.Expr) -> tuple[int, ...] | None:
    """Extents of a typed tensor, or None where one is dynamic."""
    ty = expr.checked_type
    if not isinstance(ty, relay.TensorType):
        return None
    if not all(isinstance(extent, tvm.tir.IntImm) for extent in ty.shape):
        return None
    return tuple(int(extent) for extent in ty.shape)


def dtype_of(expr: relay.Expr) -> str:
    """The element type of a typed tensor."""
    return str(expr.checked_type.dtype)


def weight_of(call: relay.Call) -> np.ndarray:
    """The constant weights of a convolution, in the order OIHW."""
    return oihw(call.args[1].data.numpy(), str(call.attrs.kernel_layout))


def read_conv2d(call: relay.Call, block: int) -> Conv2d | Decline:
    """A convolution in blocks of `block` channels."""
    data, weight = call.args
    return read(
        ConvCall(
            op=CONV2D,
            attrs=call.attrs,
            data=shape_of(data),
            weight=shape_of(weight),
            result=shape_of(call),
            dtypes=(dtype_of(data), dtype_of(weight), dtype_of(call)),
            constant=isinstance(weight, relay.Constant),
        ),
        block,
    )
