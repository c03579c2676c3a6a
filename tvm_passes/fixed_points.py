"""Numbers that an op maps to themselves, bit by bit, as TVM computes it."""

from __future__ import annotations

import math

from tvm_passes.decline import FixedPoint
from tvm_passes.site import ElementwiseOp


def nothing(_op: ElementwiseOp, _value: float) -> bool:
    """None that is known."""
    return False


def zero(_op: ElementwiseOp, value: float) -> bool:
    """+0."""
    return value == 0 and math.copysign(1, value) > 0


def not_negative(op: ElementwiseOp, value: float) -> bool:
    """+0 and all numbers above it."""
    return value > 0 or zero(op, value)


def inside(low: str, high: str) -> FixedPoint:
    """The numbers from the parameter `low` to the parameter `high`."""

    def check(op: ElementwiseOp, value: float) -> bool:
        bounds = op.params.get(low), op.params.get(high)
        if not all(isinstance(bound, int | float) for bound in bounds):
            return False
        return bounds[0] <= value <= bounds[1]  # type: ignore[operator]

    return check
