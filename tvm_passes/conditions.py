"""Conditions of the rule table's rows, on an op's parameters and the pool below it."""

from __future__ import annotations

import math

import numpy as np

from tvm_passes.decline import Condition, Decline, Reason
from tvm_passes.site import ElementwiseOp, Operand, Pool, extents


def finite_slope_not_negative(param: str) -> Condition:
    """Condition: the number `param`, or every number of it, is finite and at least 0."""

    def check(op: ElementwiseOp, _pool: Pool) -> Decline | None:
        values = finite(op, param)
        if isinstance(values, Decline):
            return values
        if np.any(values < 0):
            return Decline(
                Reason.NEGATIVE_SLOPE,
                f"{op.op} with {param}={values.min():g} falls where its input is negative",
                f'train with {param} >= 0, or allow "quasi-convex"',
            )
        return None

    return check


def factor_not_negative(param: str) -> Condition:
    """Condition: every number of the factor `param` is finite and at least 0."""

    def check(op: ElementwiseOp, _pool: Pool) -> Decline | None:
        values = finite(op, param)
        if isinstance(values, Decline):
            return values
        return _negative(op, param, values) if np.any(values < 0) else None

    return check


def factor_not_positive(param: str) -> Condition:
    """Condition: every number of the factor `param` is finite and at most 0."""

    def check(op: ElementwiseOp, _pool: Pool) -> Decline | None:
        values = finite(op, param)
        if isinstance(values, Decline):
            return values
        return _positive(op, param, values) if np.any(values > 0) else None

    return check


def slope_negative(param: str) -> Condition:
    """Condition: the number `param`, or some number of it, is below 0, and all are finite."""

    def check(op: ElementwiseOp, _pool: Pool) -> Decline | None:
        values = finite(op, param)
        if isinstance(values, Decline):
            return values
        return None if np.any(values < 0) else _positive(op, param, values)

    return check


def divisor_negative(param: str) -> Condition:
    """Condition: every number of the divisor `param` is finite and below 0."""

    def check(op: ElementwiseOp, _pool: Pool) -> Decline | None:
        values = finite(op, param)
        if isinstance(values, Decline):
            return values
        return None if np.all(values < 0) else _positive(op, param, values)

    return check


def divisor_positive(param: str) -> Condition:
    """Condition: every number of the divisor `param` is finite and above 0."""

    def check(op: ElementwiseOp, _pool: Pool) -> Decline | None:
        values = finite(op, param)
        if isinstance(values, Decline):
            return values
        if np.any(values == 0):
            return _divides_by_0(op)
        return _negative(op, param, values) if np.any(values < 0) else None

    return check


def signs_differ(param: str, *, divides: bool = False) -> Condition:
    """Condition: every number of `param` is finite, some are above 0 and some below.

    None is 0 if it `divides`.
    """

    def check(op: ElementwiseOp, _pool: Pool) -> Decline | None:
        values = finite(op, param)
        if isinstance(values, Decline):
            return values
        if divides and np.any(values == 0):
            return _divides_by_0(op)
        if np.any(values > 0) and np.any(values < 0):
            return None
        return _negative(op, param, values) if np.any(values < 0) else _positive(op, param, values)

    return check


def equal_to(param: str, number: float) -> Condition:
    """Condition: every number of `param` is `number`."""

    def check(op: ElementwiseOp, _pool: Pool) -> Decline | None:
        values = finite(op, param)
        if isinstance(values, Decline):
            return values
        if np.all(values == number):
            return None
        return Decline(
            Reason.NO_RULE,
            f"no rule covers {op.op} with {param}={values.max():g}, only with {number:g}",
            "add a rule if the op is monotone: rules=RULES + (Rule(...),)",
        )

    return check


def ordered_bounds(low: str, high: str) -> Condition:
    """Condition: `low` <= `high`, neither of them NaN."""

    def check(op: ElementwiseOp, _pool: Pool) -> Decline | None:
        bounds = op.params.get(low), op.params.get(high)
        for param, bound in zip((low, high), bounds, strict=True):
            if not isinstance(bound, int | float):
                return not_constant(op, param)
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

    One that is computed could be contracted with the op, and be in a kernel with other ops that
    read it once the op is below the pool.  An infinite one is left alone because the pool starts
    from the finite lowest value: the maximum of nothing but -inf is that value before the swap and
    -inf after it.
    """

    def check(op: ElementwiseOp, pool: Pool) -> Decline | None:
        operand = op.params.get(param)
        if not isinstance(operand, Operand):
            return not_constant(op, param)
        if operand.value is not None and not operand.value.size:
            return not_constant(op, param)
        axes = pool.spatial_axes() or ()
        if any(operand.shape[axis] != 1 for axis in axes):
            return Decline(
                Reason.VARIES_IN_WINDOW,
                f"{op.op} reads a tensor of shape {extents(operand.shape)}, "
                f"which varies over the pooled axes of {pool.layout}",
                "only a tensor that is constant over the pooled axes can sink",
            )
        if not operand.stored:
            return Decline(
                Reason.ROUNDING,
                f"{param} of {op.op} is computed, and may be in another kernel once {op.op} is "
                "below the pool",
                "fold constants before the pass runs",
            )
        if operand.value is not None and not np.all(np.isfinite(operand.value)):
            return _not_finite(op, param)
        return None

    return check


def data_within(low: float, high: float, *, above: bool = False, below: bool = False) -> Condition:
    """Condition: the data are proved to lie in the function's domain.

    Parameters
    ----------
    low, high
        The least and the greatest number of the domain.
    above, below
        Whether the data must be above `low`, or below `high`: the function is infinite there.
    """

    def check(op: ElementwiseOp, _pool: Pool) -> Decline | None:
        least, most = op.bounds
        starts = low < least if above else low <= least
        ends = most < high if below else most <= high
        if starts and ends:
            return None
        domain = f"{'(' if above else '['}{low:g}, {high:g}{')' if below else ']'}"
        return Decline(
            Reason.DOMAIN,
            f"{op.op} is defined on {domain}, and all that is proved of its data is that they "
            f"lie in [{least:g}, {most:g}]",
            "clip its input to the domain",
        )

    return check


def finite(op: ElementwiseOp, param: str) -> np.ndarray | Decline:
    """The numbers of a parameter, or why they are not known or not finite."""
    value = op.params.get(param)
    if isinstance(value, Operand):
        value = value.value
    if not isinstance(value, int | float | np.ndarray):
        return not_constant(op, param)
    values = np.asarray(value)
    if not values.size:
        return not_constant(op, param)
    return values if np.all(np.isfinite(values)) else _not_finite(op, param)


def _negative(op: ElementwiseOp, param: str, values: np.ndarray) -> Decline:
    return Decline(
        Reason.NEGATIVE_SLOPE,
        f"{op.op} with {param}={values.min():g} falls as its input grows",
        "nothing to do: the maximum becomes a minimum",
    )


def _positive(op: ElementwiseOp, param: str, values: np.ndarray) -> Decline:
    return Decline(
        Reason.POSITIVE_SLOPE,
        f"{op.op} with {param}={values.max():g} does not fall as its input grows",
        "nothing to do: another row is about it",
    )


def _divides_by_0(op: ElementwiseOp) -> Decline:
    return Decline(Reason.NOT_FINITE, f"{op.op} divides by 0", "check the model's weights")


def not_constant(op: ElementwiseOp, param: str) -> Decline:
    """The refusal of a parameter that is not known at compile time."""
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
