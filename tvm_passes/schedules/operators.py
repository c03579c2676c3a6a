"""What a conv2d and a max_pool2d compute, read off a call of either dialect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import gcd, prod
from typing import Any

import numpy as np

from tvm_passes.decline import Decline, KernelReason

Pair = tuple[int, int]
Sides = tuple[int, int, int, int]

DTYPES = ("float32", "float16")
LAYOUTS = ("NCHW", "NHWC")


@dataclass(frozen=True)
class Conv2d:
    """What a convolution computes, whatever the layout of its data.

    Parameters
    ----------
    channels, filters, groups
        Channels of the data and of the result, and groups.
    kernel, strides, dilation
        Along rows and columns.
    padding
        Zeros on top, left, bottom, right.
    channels_last
        Whether the source layout is NHWC: then sums go over rows, columns, channels of the
        kernel; else over channels, rows, columns.
    block
        Channels of a block of the result.
    dtype
        Element type of data, weights and result; sums are in float32 at least.
    """

    channels: int
    filters: int
    groups: int
    kernel: Pair
    strides: Pair
    dilation: Pair
    padding: Sides
    channels_last: bool
    block: int
    dtype: str = "float32"

    @property
    def depthwise(self) -> bool:
        """Whether each channel is convolved by itself."""
        return self.groups == self.channels == self.filters and self.groups > 1

    @property
    def pointwise(self) -> bool:
        """Whether windows are single elements, all of them real."""
        return self.kernel == (1, 1) and not any(self.padding)


@dataclass(frozen=True)
class MaxPool2d:
    """A max-pool's window, step, spacing and padding (top, left, bottom, right)."""

    kernel: Pair
    strides: Pair
    dilation: Pair
    padding: Sides
    ceil_mode: bool = False

    def reach(self, axis: int) -> int:
        """Elements from the first to the last that a window reads along rows (0) or columns (1)."""
        return (self.kernel[axis] - 1) * self.dilation[axis] + 1

    def windows(self, axis: int, extent: int) -> int:
        """Windows over so many elements of an axis."""
        room = extent + sum(self.padding[axis::2]) - self.reach(axis)
        return window_count(room, self.strides[axis], self.ceil_mode)


def window_count(room: int, stride: int, ceil_mode: bool) -> int:
    """Windows along an axis that has so much room beside one of them."""
    return (-(-room // stride) if ceil_mode else room // stride) + 1


@dataclass(frozen=True)
class ConvCall:
    """A call of a dialect's conv2d.

    Parameters
    ----------
    op
        The op's name.
    attrs
        Its attributes: both dialects give them the same names.
    data, weight, result
        Extents of the tensors, None where one is not known.
    dtypes
        Their element types.
    constant
        Whether the weights are known at compile time.
    """

    op: str
    attrs: Any
    data: tuple[int, ...] | None
    weight: tuple[int, ...] | None
    result: tuple[int, ...] | None
    dtypes: tuple[str, str, str]
    constant: bool


def read_conv2d(call: ConvCall, block: int) -> Conv2d | Decline:
    """A convolution in blocks of `block` channels, or why there is no kernel for it.

    Groups of other than whole blocks are in smaller ones, which have filters of one group alone.
    """
    attrs = call.attrs
    layout = str(attrs.data_layout)
    decline = _layout_or_dtype(call, layout, str(attrs.out_layout) or layout)
    if decline is not None:
        return decline
    if call.data is None or call.weight is None or call.result is None:
        return Decline(
            KernelReason.SHAPE,
            f"{call.op} reads extents that are not known at compile time",
            "compile for fixed shapes",
        )
    if not all((*call.data, *call.weight, *call.result)):
        return Decline(KernelReason.SHAPE, f"{call.op} has no elements", "compile for some")
    extents = dict(zip(str(attrs.kernel_layout), call.weight, strict=True))
    conv = Conv2d(
        channels=call.data[layout.index("C")],
        filters=call.result[layout.index("C")],
        groups=int(attrs.groups),
        kernel=(extents["H"], extents["W"]),
        strides=pair(attrs.strides),
        dilation=pair(attrs.dilation),
        padding=sides(attrs.padding),
        channels_last=layout == "NHWC",
        block=block,
        dtype=call.dtypes[2],
    )
    if conv.groups == 1 or conv.depthwise:
        return conv
    return _in_blocks_of_a_group(conv, call.op)


LEAST_BLOCK, UNROLLED_TERMS = 4, 64
"""In blocks of fewer channels, sums of fewer terms are often slower than TVM's own kernel, which
LLVM unrolls and vectorizes along columns: in 3x3 windows 14 to 29 GFLOP/s against 11 to 26 here.
Of more terms TVM's kernels do 2 to 4, these 7 to 28 (Zen 4, code for SSE, AVX2 and AVX-512)."""


def _in_blocks_of_a_group(conv: Conv2d, op: str) -> Conv2d | Decline:
    """A convolution in blocks that have filters of one group alone."""
    filters, channels = conv.filters // conv.groups, conv.channels // conv.groups
    block, terms = gcd(filters, conv.block), channels * prod(conv.kernel)
    narrow = block < min(conv.block, LEAST_BLOCK)  # GPUs' blocks are of one channel
    if narrow and terms < UNROLLED_TERMS:
        return Decline(
            KernelReason.GROUPS,
            f"{op} has groups of {filters} filters, no multiple of {LEAST_BLOCK}, and sums of "
            f"{terms} terms, which TVM's own kernel has unrolled",
            f"use groups of a multiple of {LEAST_BLOCK} filters",
        )
    return replace(conv, block=block)


def _layout_or_dtype(call: ConvCall, layout: str, out_layout: str) -> Decline | None:
    if layout not in LAYOUTS or out_layout != layout:
        return Decline(
            KernelReason.LAYOUT,
            f"{call.op} reads {layout} and writes {out_layout}",
            "use NCHW or NHWC for both",
        )
    if not call.constant:
        return Decline(
            KernelReason.NOT_CONSTANT,
            f"the weights of {call.op} are not known at compile time",
            "bind the parameters before the pass runs",
        )
    if call.dtypes[2] not in DTYPES or len({*call.dtypes}) > 1:
        return Decline(
            KernelReason.DTYPE,
            f"{call.op} of {call.dtypes[0]} and {call.dtypes[1]} gives {call.dtypes[2]}",
            "only float32 and float16, the same for all, have a blocked kernel",
        )
    return None


def read_max_pool2d(
    attrs: Any, conv: Conv2d, data: tuple[int, ...], result: tuple[int, ...]
) -> MaxPool2d | Decline:
    """A max-pool of a convolution's result, or why it stays a kernel of its own.

    TVM's schedules refuse what reads only some rows of what they compute.

    Parameters
    ----------
    attrs
        The pool's attributes.
    conv
        The convolution.
    data, result
        Extents of what the pool reads and gives, in the convolution's layout.
    """
    layout = "NHWC" if conv.channels_last else "NCHW"
    if str(attrs.layout) != layout or str(attrs.out_layout) not in ("", layout):
        return Decline(
            KernelReason.LAYOUT,
            f"the max-pool behind reads {attrs.layout}, the convolution writes {layout}",
            "use one layout for both",
        )
    kernel, strides, dilation = map(pair, (attrs.pool_size, attrs.strides, attrs.dilation))
    if any(step > extent for step, extent in zip(strides, kernel, strict=True)):
        return Decline(
            KernelReason.POOL_GAPS,
            f"windows of {kernel[0]}x{kernel[1]} in steps of {strides[0]}x{strides[1]} leave gaps",
            "the max-pool stays a kernel of its own",
        )
    pool = MaxPool2d(kernel, strides, dilation, sides(attrs.padding), bool(attrs.ceil_mode))
    return _of_windows(pool, images_of(data, conv)[1:], images_of(result, conv)[1:])


def _of_windows(pool: MaxPool2d, extents: Sequence[int], windows: Sequence[int]) -> MaxPool2d:
    """The pool with so many windows.

    Where it rounds up, Relax leaves out a last window that begins past the data, as PyTorch does,
    and Relay does not.
    """
    if all(pool.windows(n, extents[n]) == windows[n] for n in range(2)):
        return pool
    ends = ((windows[n] - 1) * pool.strides[n] + pool.reach(n) for n in range(2))
    before = pool.padding[:2]
    bottom, right = (max(end - extents[n] - before[n], 0) for n, end in enumerate(ends))
    return replace(pool, padding=(*before, bottom, right), ceil_mode=False)


UNPOOLED_READ = Decline(
    KernelReason.UNPOOLED_READ,
    "the convolution's result is read by a max-pool and something else",
    "the max-pool stays a kernel of its own",
)


def oihw(weight: np.ndarray, layout: str) -> np.ndarray:
    """Weights in the order OIHW."""
    return weight.transpose([layout.index(letter) for letter in "OIHW"])


def images_of(shape: tuple[int, ...], conv: Conv2d) -> tuple[int, int, int]:
    """Images, rows and columns of a convolution's data."""
    n, a, b, c = shape
    return (n, a, b) if conv.channels_last else (n, b, c)


def pair(values: Iterable[Any]) -> Pair:
    """Values along rows and columns, from one or two."""
    first, *rest = (int(value) for value in values)
    return first, rest[0] if rest else first


def sides(values: Iterable[Any]) -> Sides:
    """Padding at top, left, bottom, right, from TVM's three ways of writing it."""
    found = [int(value) for value in values]
    top, left, bottom, right = (found * 4)[:4]
    return top, left, bottom, right
