"""Numbers that an op maps to themselves, bit by bit, as TVM computes it."""

from __future__ import annotations

import math

import numpy as np

from tvm_passes.decline import FixedPoint
from tvm_passes.site import ElementwiseOp, Operand


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


def not_below(param: str) -> FixedPoint:
    """The numbers that no value of a tensor parameter is above."""
    return _on_one_side(param, 1)


def not_above(param: str) -> FixedPoint:
    """The numbers that no value of a tensor parameter is below."""
    return _on_one_side(param, -1)


def _on_one_side(param: str, sign: int) -> FixedPoint:
    def check(op: ElementwiseOp, value: float) -> bool:
        operand = op.params.get(param)
        if not isinstance(operand, Operand) or operand.value is None:
            return False
        with np.errstate(over="ignore"):
            bounds, fill = (np.asarray(v, np.float64) for v in (operand.value, value))
            if "float" in op.dtype:
                fill = fill.astype(operand.value.dtype).astype(np.float64)
        same = (bounds == fill) & (np.signbit(bounds) == np.signbit(fill))
        return bool(np.all((sign * bounds < sign * fill) | same))

    return check
