"""Read a Relax conv2d and max_pool2d as the blocked kernels see them, or say why they cannot."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from tvm_passes.decline import Decline, KernelReason
from tvm_passes.schedules.conv2d import Conv2d, MaxPool2d

CONV2D, MAX_POOL2D, AVG_POOL2D = "relax.nn.conv2d", "relax.nn.max_pool2d", "relax.nn.avg_pool2d"
DTYPES = ("float32", "float16")
LAYOUTS = ("NCHW", "NHWC")


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


def read_conv2d(call: relax.Call, block: int) -> Conv2d | Decline:
    """A convolution in blocks of `block` channels."""
    attrs, (data, weight) = call.attrs, call.args
    layouts = (str(attrs.data_layout), str(attrs.out_layout))
    if layouts[0] not in LAYOUTS or layouts[1] not in ("", layouts[0]):
        return Decline(
            KernelReason.LAYOUT,
            f"{CONV2D} reads {layouts[0]} and writes {layouts[1] or layouts[0]}",
            "use NCHW or NHWC for both",
        )
    if not is_constant(weight):
        return Decline(
            KernelReason.NOT_CONSTANT,
            f"the weights of {CONV2D} are not known at compile time",
            "bind the parameters before the pass runs",
        )
    dtype = str(call.ty.dtype)
    if dtype not in DTYPES or {str(data.ty.dtype), str(weight.ty.dtype)} != {dtype}:
        return Decline(
            KernelReason.DTYPE,
            f"{CONV2D} of {data.ty.dtype} and {weight.ty.dtype} gives {dtype}",
            "only float32 and float16, the same for all, have a blocked kernel",
        )
    shape = shape_of(data)
    if shape is None or shape_of(call) is None:
        return Decline(
            KernelReason.SHAPE,
            f"{CONV2D} reads extents that are not known at compile time",
            "compile for fixed shapes",
        )
    extents = dict(zip(str(attrs.kernel_layout), shape_of(weight) or (), strict=True))
    conv = Conv2d(
        channels=shape[layouts[0].index("C")],
        filters=extents["O"],
        groups=int(attrs.groups),
        kernel=(extents["H"], extents["W"]),
        strides=_pair(attrs.strides),
        dilation=_pair(attrs.dilation),
        padding=_sides(attrs.padding),
        channels_last=layouts[0] == "NHWC",
        block=block,
        dtype=dtype,
    )
    if conv.groups > 1 and not conv.depthwise and conv.filters // conv.groups % block:
        return Decline(
            KernelReason.GROUPS,
            f"{CONV2D} has {conv.groups} groups of {conv.filters // conv.groups} filters, "
            f"no multiple of {block}",
            "use groups of more filters",
        )
    return conv


def read_matmul(call: relax.Call, block: int) -> Conv2d | None:
    """A product [..., m, k] by a constant [k, n], as a 1x1 convolution of [1, 1, m, k]."""
    data, weight = call.args
    shape, matrix = shape_of(data), shape_of(weight)
    dtype = str(call.ty.dtype)
    if shape is None or matrix is None or len(matrix) != 2 or len(shape) < 2:
        return None
    if not is_constant(weight) or dtype not in DTYPES:
        return None
    if {str(data.ty.dtype), str(weight.ty.dtype)} != {dtype}:
        return None
    channels, filters = matrix
    one = (1, 1)
    return Conv2d(channels, filters, 1, one, one, one, (0, 0, 0, 0), True, block, dtype)


def read_max_pool2d(call: relax.Call, conv: Conv2d) -> MaxPool2d | None:
    """A max-pool of a convolution's result, where both have one layout and windows leave no gap.

    TVM's schedules refuse what reads only some rows of what they compute.
    """
    attrs = call.attrs
    layout = "NHWC" if conv.channels_last else "NCHW"
    if str(attrs.layout) != layout or str(attrs.out_layout) not in ("", layout):
        return None
    kernel, strides, dilation = map(_pair, (attrs.pool_size, attrs.strides, attrs.dilation))
    if any(step > extent for step, extent in zip(strides, kernel, strict=True)):
        return None
    return MaxPool2d(
        kernel=kernel,
        strides=strides,
        dilation=dilation,
        padding=_sides(attrs.padding),
        ceil_mode=bool(attrs.ceil_mode),
    )


def _pair(values: Any) -> tuple[int, int]:
    first, *rest = (int(value) for value in values)
    return first, rest[0] if rest else first


def _sides(values: Any) -> tuple[int, int, int, int]:
    """Padding at top, left, bottom, right, from TVM's three ways of writing it."""
    sides = [int(value) for value in values]
    return tuple((sides * 4)[:4])  # type: ignore[return-value]
