"""The plain description of a pooling site: what the adapters write and the decision reads.

A site is one pool and the chain of elementwise ops above it.  Nothing here imports TVM: an
adapter describes a site once, and `tvm_passes.legality` decides for both dialects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from math import inf, prod
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tvm_passes.rule import Rule

Shape = tuple["int | None", ...]
"""Extents of a tensor, outermost axis first; `None` where the extent is symbolic."""

Bounds = tuple[float, float]
"""The least and the greatest value that data may have."""

ALL: Bounds = (-inf, inf)

NO_PARAMS: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor operand of an elementwise op, other than the data that flows down the chain.

    Parameters
    ----------
    shape
        The operand's extents, aligned to the data's axes: the rank is that of the data, and an
        axis that is broadcast has extent 1.
    value
        The constant's values, or None where they are unknown at compile time.
    stored
        Whether it is a constant or an argument of the function, perhaps reshaped, and so nothing
        that is computed where it is used.
    dtype
        Its element type, where that is known.
    unsettled
        Whether an op divides by it truly or multiplies by its reciprocal, as kernels are cut.
    """

    shape: Shape
    value: np.ndarray | None = None
    stored: bool = True
    dtype: str = ""
    unsettled: bool = False


@dataclass(frozen=True, slots=True)
class Move:
    """An op that moves elements and computes none: a reshape, a transposition or padding.

    Parameters
    ----------
    op
        The dialect's name of the op.
    in_shape, out_shape
        Extents of its data and of its result.
    axes
        For a transposition: which axis of the data each axis of the result is.
    padded
        The axes that it pads.
    fills
        Whether the padding is a number, not a copy of elements.
    fill
        That number; None where it is not known at compile time.
    """

    op: str
    in_shape: Shape
    out_shape: Shape
    axes: tuple[int, ...] | None = None
    padded: tuple[int, ...] = ()
    fills: bool = False
    fill: float | None = None


@dataclass(frozen=True, slots=True)
class ElementwiseOp:
    """One op of the chain above a pool, described on the axes that the pool reads.

    Parameters
    ----------
    op
        The dialect's name of the op, for example ``nn.leaky_relu``.
    rule
        The row of the rule table that this op matched.
    shape
        Extents of the data that flows down the chain into this op.
    dtype
        Element type of the result.
    params
        The rule's named parameters: numbers, or `Operand` for tensors.  One that is not known at
        compile time is absent.
    consumers
        How many ops of the function read the result.
    is_output
        Whether the result leaves the function (or the dataflow block) by itself.
    bounds
        Bounds of that data, as far as the ops above prove them.
    crosses
        What lies between it and the pool and moves elements, nearest the pool first.
    stuck
        The tensor parameter that cannot be written on the axes that the pool reads, or nothing.
    computed
        Extents of the data where the op stands, if they are not `shape`.
    data_dtype
        Element type of the data, if it is not that of the result.
    unsettled
        Whether a constant that it reads is an unsettled `Operand`.
    """

    op: str
    rule: Rule
    shape: Shape
    dtype: str
    params: Mapping[str, object] = field(default_factory=lambda: NO_PARAMS)
    consumers: int = 1
    is_output: bool = False
    bounds: Bounds = ALL
    crosses: tuple[Move, ...] = ()
    stuck: str = ""
    computed: Shape | None = None
    data_dtype: str = ""
    unsettled: bool = False

    @property
    def reads(self) -> str:
        """Element type of the data that flows down the chain into it."""
        return self.data_dtype or self.dtype

    @property
    def evaluations(self) -> int:
        """How many elements it computes, a symbolic extent counted as 1."""
        return elements(self.shape if self.computed is None else self.computed)


@dataclass(frozen=True, slots=True)
class Pool:
    """A pooling op, its window in the order of its spatial axes.

    Parameters
    ----------
    op
        The dialect's name of the op.
    selects
        Whether every output is one of its inputs (a maximum or a minimum), so that order is all
        that matters.
    layout
        Layout of the data, for example ``NCHW``, ``NHWC`` or ``NCHW16c``; for people alone where
        `axes` are given.
    kernel, strides, dilation
        Window extents, steps and spacing, one number a spatial axis, in elements.  Empty where
        every window is part of the data, as those of global and adaptive pools and reductions.
    padding
        Elements added before each spatial axis, then after each: ``(top, left, bottom, right)``.
    in_shape, out_shape
        Extents of the data and of the result, in `layout`.
    dtype
        Element type of the data.
    ceil_mode
        Whether the number of windows is rounded up, so that the last may reach past the padding.
    out_layout
        Layout of the result; empty for that of the data.
    axes
        Positions of the pooled axes, where it is not the kernel that counts them.
    drops_axes
        Whether the result lacks the pooled axes.
    minimum
        Whether it selects the least of its inputs, not the greatest.
    opposite
        The op that selects the other end; empty where there is none, and it is the negation of
        the pool of the negated data.
    """

    op: str
    selects: bool
    layout: str
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    in_shape: Shape
    out_shape: Shape
    dtype: str
    ceil_mode: bool = False
    out_layout: str = ""
    axes: tuple[int, ...] | None = None
    drops_axes: bool = False
    minimum: bool = False
    opposite: str = ""

    def spatial_axes(self) -> tuple[int, ...] | None:
        """Positions of the pooled axes, or None for a layout that splits one.

        >>> Pool("", True, "NCHW16c", (2, 2), (2, 2), (1, 1), (0,) * 4, (), (), "").spatial_axes()
        (2, 3)
        """
        if not self.kernel:
            return self.axes
        return layout_axes(self.layout, len(self.kernel))


@cache
def layout_axes(layout: str, rank: int) -> tuple[int, ...] | None:
    """Positions of the last `rank` of the axes D, H and W, or None for a layout that splits one.

    >>> layout_axes("NHWC", 2)
    (1, 2)
    """
    wanted = "DHW"[-rank:]
    axes = [c for c in layout if c.isalpha()]
    if any(axes.count(c) != 1 or c.lower() in axes for c in wanted):
        return None
    return tuple(axes.index(c) for c in wanted)


@dataclass(frozen=True, slots=True)
class Producer:
    """What the topmost op of the chain reads.

    Parameters
    ----------
    op
        The dialect's name of the op, or ``parameter`` for an argument of the function.
    rounded
        Whether the value is known to be rounded and stored as it is: no multiplication in it can
        be contracted with an addition that consumes it.
    reads_activation
        Whether the op may itself be an activation that no rule covers.
    macs_per_output
        Multiply-adds an output element takes, or None where that is not known.
    stays
        Whether it is known that no compiler drops it, or takes it for one with a cast below it.
    """

    op: str
    rounded: bool
    reads_activation: bool
    macs_per_output: int | None = None
    stays: bool = False


CALLER = "a caller"
"""What reads a result outside: of a function that may be inlined, or of one of its blocks."""

BINDING = "a function or a binding"
"""What computes or reads a value and calls no op: inlined, it is whatever is inside."""


@dataclass(frozen=True, slots=True)
class Site:
    """A pool, the chain of elementwise ops above it, nearest the pool first, and its producer.

    Parameters
    ----------
    function
        Name of the function the site is in.
    index
        Position among the function's pools, in the order in which they are computed.
    arithmetic_below
        Ops below the pool that a compiler may fold arithmetic above them into.
    unknown_below
        Ops below the pool of which it is not known whether they stay, and what they are.
    casts_below
        Ops below the pool that may begin with a cast of integers that they read.
    absorbers
        Layers above the chain and ops below the pool through which a compiler may fold a factor
        into a layer's weights.
    sums_below
        Ops in kernels with what sinks that may add.
    products_below
        Ops in such kernels that may multiply.
    told_below
        Ops in such kernels, if they add, whose code depends on what is known of their data.
    small_below
        Whether such kernels have results of less than `unstored` elements.
    joined_below
        Whether such kernels read what is computed beside the pool.
    unstored
        How many elements a tensor has to have for kernels to store it, wherever they are cut.
    location
        Source location carried by the pool (its span), or an empty string.
    in_dataflow
        Whether it is known that nothing around it has effects.
    """

    function: str
    index: int
    pool: Pool
    chain: tuple[ElementwiseOp, ...]
    producer: Producer
    arithmetic_below: tuple[str, ...] = ()
    unknown_below: tuple[str, ...] = ()
    casts_below: tuple[str, ...] = ()
    absorbers: tuple[str, ...] = ()
    sums_below: tuple[str, ...] = ()
    products_below: tuple[str, ...] = ()
    told_below: tuple[str, ...] = ()
    small_below: bool = False
    joined_below: bool = False
    unstored: int = 0
    location: str = ""
    in_dataflow: bool = True

    @property
    def name(self) -> str:
        """The site's name in remarks, unique in its module: ``main/nn.max_pool2d#0``."""
        return f"{self.function}/{self.pool.op}#{self.index}"


def elements(shape: Shape) -> int:
    """Number of elements of a tensor, a symbolic extent counted as 1.

    >>> elements((None, 3, 4))
    12
    """
    return prod(1 if extent is None else extent for extent in shape)


def extents(shape: Shape) -> str:
    """A shape for people.

    >>> extents((None, 3, 4))
    '?x3x4'
    """
    return "x".join("?" if extent is None else str(extent) for extent in shape)
