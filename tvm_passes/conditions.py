"""Conditions of the rule table's rows, on an op's parameters and the pool below it."""

from __future__ import annotations

import math

import numpy as np

from tvm_passes.decline import Condition, Decline, Reason
from tvm_passes.site import ElementwiseOp, Operand, Pool, extents


def finite_slope_not_negative(param: str) -> Condition:
    """Condition: the number `param` is finite and at least 0."""

    def check(op: ElementwiseOp, _pool: Pool) -> Decline | None:
        value = op.params.get(param)
        if not isinstance(value, int | float):
            return _not_constant(op, param)
        if not math.isfinite(value):
            return _not_finite(op, param)
        if value < 0:
            return Decline(
                Reason.NEGATIVE_SLOPE,
                f"{op.op} with {param}={value:g} falls where its input is negative",
                f"train with {param} >= 0",
            )
        return None

    return check


def ordered_bounds(low: str, high: str) -> Condition:
    """Condition: `low` <= `high`, neither of them NaN."""

    def check(op: ElementwiseOp, _pool: Pool) -> Decline | None:
        bounds = op.params.get(low), op.params.get(high)
        for param, bound in zip((low, high), bounds, strict=True):
            if not isinstance(bound, int | float):
                return _not_constant(op, param)
            if math.isnan(bound):
                return _not_finite(op, param)
        if bounds[0] > bounds[1]:  # type: ignore[operator]
            return Decline(
                Reason.INVERTED_BOUNDS,
                f"{op.op} has {low}={bounds[0]:g} above {high}={bounds[1]:g}",
                "swap the bounds",
            )
        return None

    return check


def constant_in_window(param: str) -> Condition:
    """Condition: the tensor `param` does not vary over the pooled axes, and is finite if known.

    An infinite addend is left alone because the pool starts from the finite lowest value: the
    maximum of nothing but -inf is that value before the swap and -inf after it.
    """

    def check(op: ElementwiseOp, pool: Pool) -> Decline | None:
        operand = op.params.get(param)
        if not isinstance(operand, Operand):
            return _not_constant(op, param)
        axes = pool.spatial_axes() or ()
        if any(operand.shape[axis] != 1 for axis in axes):
            return Decline(
                Reason.VARIES_IN_WINDOW,
                f"{op.op} adds a tensor of shape {extents(operand.shape)}, "
                f"which varies over the pooled axes of {pool.layout}",
                "only a tensor that is constant over the pooled axes can sink",
            )
        if not operand.stored:
            return Decline(
                Reason.ROUNDING,
                f"{param} of {op.op} is computed, and may be contracted with {op.op}",
                "fold constants before the pass runs",
            )
        if operand.value is not None and not np.all(np.isfinite(operand.value)):
            return _not_finite(op, param)
        return None

    return check


def _not_constant(op: ElementwiseOp, param: str) -> Decline:
    return Decline(
        Reason.NOT_CONSTANT,
        f"{param} of {op.op} is not known at compile time",
        "bind the parameters before the pass runs",
    )


def _not_finite(op: ElementwiseOp, param: str) -> Decline:
    return Decline(
        Reason.NOT_FINITE,
        f"{param} of {op.op} is NaN or infinite",
        "check the model's weights",
    )
