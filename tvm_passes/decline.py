"""Why an op stays above its pool: the reasons, and what a rule's condition looks like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from tvm_passes.site import ElementwiseOp, Pool


class Direction(Enum):
    """How a function moves as its input grows."""

    NON_DECREASING = "non-decreasing"
    NON_INCREASING = "non-increasing"
    QUASI_CONVEX = "quasi-convex"
    BY_CHANNEL = "monotone, up or down by channel"


class Ends(Enum):
    """The ends of a window that a function of its elements has its maximum at.

    For functions that a selecting pool commutes with; for a minimum everything is the other way.
    """

    SAME = "the pool's"
    """max f(S) = f(max S) for f that never falls."""

    OTHER = "the opposite pool's"
    """max f(S) = f(min S) for f that never rises."""

    BOTH = "both"
    """max f(S) = max(f(min S), f(max S)) for f that falls, then rises, or is monotone."""


class Reason(Enum):
    """Why an op stays above its pool."""

    NOT_SELECTING = "not-a-max-pool"
    NO_ACTIVATION = "no-activation"
    NO_RULE = "no-rule"
    NOT_DATAFLOW = "not-dataflow"
    NOT_MONOTONE = "not-monotone"
    QUASI_CONVEX = "quasi-convex"
    LAYOUT = "layout"
    EMPTY_WINDOW = "window-in-padding"
    DOES_NOT_PAY = "does-not-pay"
    SHARED = "shared"
    OUTPUT = "function-output"
    DTYPE = "dtype"
    SHAPE = "changes-shape"
    NOT_CONSTANT = "not-constant"
    NOT_FINITE = "not-finite"
    NEGATIVE_SLOPE = "negative-slope"
    POSITIVE_SLOPE = "positive-slope"
    INVERTED_BOUNDS = "inverted-bounds"
    PAD_VALUE = "pad-value"
    VARIES_IN_WINDOW = "varies-in-window"
    DOMAIN = "domain"
    ROUNDING = "rounding"
    FOLDING = "folding"


class KernelReason(Enum):
    """Why a convolution stays with TVM's own operator, or its pool a kernel of its own."""

    LAYOUT = "kernel-layout"
    NOT_CONSTANT = "weights-not-constant"
    DTYPE = "kernel-dtype"
    SHAPE = "dynamic-shape"
    GROUPS = "groups"
    SLOWER_FUSED = "slower-fused"
    POOL_GAPS = "pool-gaps"
    UNPOOLED_READ = "unpooled-read"
    OPT_LEVEL = "opt-level"


@dataclass(frozen=True)
class Decline:
    """A refusal: its reason, the facts, and what the user can do about it."""

    reason: Reason | KernelReason
    detail: str
    suggestion: str


FixedPoint = Callable[[ElementwiseOp, float], bool]
"""Whether the op maps a number to itself, bit by bit, as TVM computes it."""

Condition = Callable[[ElementwiseOp, Pool], "Decline | None"]
"""A condition of a rule, on the op's parameters and the pool below it."""
