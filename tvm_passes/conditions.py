"""Conditions of the rule table's rows, on an op's parameters and the pool below it."""

from __future__ import annotations

import math

import numpy as np

from tvm_passes.decline import Condition, Decline, Reason
from tvm_passes.ranges import within
from tvm_passes.rule import FLOATS, INTEGERS
from tvm_passes.site import ElementwiseOp, Operand, Pool, extents


def finite_slope_not_negative(param: str) -> Condition:
    """Condition: the number `param`, or every number of it, is finite and at least 0."""

    def check(op: ElementwiseOp, _pool: Pool) -> Decline | None:
        values = _finite(op, param)
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
        values = _finite(op, param)
        if isinstance(values, Decline):
            return values
        return _negative(op, param, values) if np.any(values < 0) else None

    return check


def factor_not_positive(param: str) -> Condition:
    """Condition: every number of the factor `param` is finite and at most 0."""

    def check(op: ElementwiseOp, _pool: Pool) -> Decline | None:
        values = _finite(op, param)
        if isinstance(values, Decline):
            return values
        return _positive(op, param, values) if np.any(values > 0) else None

    return check


def slope_negative(param: str) -> Condition:
    """Condition: the number `param`, or some number of it, is below 0, and all are finite."""

    def check(op: ElementwiseOp, _pool: Pool) -> Decline | None:
        values = _finite(op, param)
        if isinstance(values, Decline):
            return values
        return None if np.any(values < 0) else _positive(op, param, values)

    return check


def divisor_negative(param: str) -> Condition:
    """Condition: every number of the divisor `param` is finite and below 0."""

    def check(op: ElementwiseOp, _pool: Pool) -> Decline | None:
        values = _finite(op, param)
        if isinstance(values, Decline):
            return values
        return None if np.all(values < 0) else _positive(op, param, values)

    return check


def divisor_positive(param: str) -> Condition:
    """Condition: every number of the divisor `param` is finite and above 0."""

    def check(op: ElementwiseOp, _pool: Pool) -> Decline | None:
        values = _finite(op, param)
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
        values = _finite(op, param)
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
        values = _finite(op, param)
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


def rounded_to_bfloat16(*params: str) -> Condition:
    """Condition: of bfloat16, the bounds `params` are numbers of bfloat16, where they are used.

    TVM computes it in float32, and rounds where a kernel ends: a bound that bfloat16 does not hold,
    or that the kernel itself computes, would reach the ops below the pool as it is.
    """

    def check(op: ElementwiseOp, _pool: Pool) -> Decline | None:
        if op.reads != "bfloat16":
            return None
        for param in params:
            bound = op.params.get(param)
            if isinstance(bound, Operand):
                is_rounded = bound.stored
            else:
                is_rounded = isinstance(bound, int | float) and _is_bfloat16(bound)
            if not is_rounded:
                return Decline(
                    Reason.ROUNDING,
                    f"{param} of {op.op} is not rounded to bfloat16 until a kernel ends",
                    "use bounds that bfloat16 holds, and that are constants or arguments",
                )
        return None

    return check


def _is_bfloat16(number: float) -> bool:
    """Whether the lower half of the number, which float32 holds, is 0."""
    rounded = np.float32(number)
    return float(rounded) == number and not int(rounded.view(np.uint32)) & 0xFFFF


def replaced_later(op: ElementwiseOp, _pool: Pool) -> Decline:
    """Decline, whatever the op's parameters are."""
    return Decline(
        Reason.NOT_MONOTONE,
        f"FastMath follows, and replaces {op.op} by what falls in places",
        "run FastMath before this pass, or disable it, as below opt_level 4",
    )


def constant_in_window(param: str, *, contracts: bool = True) -> Condition:
    """Condition: the tensor `param` does not vary over the pooled axes, and is finite if known.

    An infinite one is left alone because the pool starts from the finite lowest value: the
    maximum of nothing but -inf is that value before the swap and -inf after it.

    Parameters
    ----------
    param
        Name of the parameter.
    contracts
        Whether a compiler may contract the op with the arithmetic that computes the tensor.
    """

    def check(op: ElementwiseOp, pool: Pool) -> Decline | None:
        operand = op.params.get(param)
        if not isinstance(operand, Operand):
            return _not_constant(op, param)
        if operand.value is not None and not operand.value.size:
            return _not_constant(op, param)
        axes = pool.spatial_axes() or ()
        if any(operand.shape[axis] != 1 for axis in axes):
            return Decline(
                Reason.VARIES_IN_WINDOW,
                f"{op.op} reads a tensor of shape {extents(operand.shape)}, "
                f"which varies over the pooled axes of {pool.layout}",
                "only a tensor that is constant over the pooled axes can sink",
            )
        if contracts and not operand.stored:
            return Decline(
                Reason.ROUNDING,
                f"{param} of {op.op} is computed, and may be contracted with {op.op}",
                "fold constants before the pass runs",
            )
        if operand.value is not None and not np.all(np.isfinite(operand.value)):
            return _not_finite(op, param)
        return None

    return check


def no_overflow(
    zero_point: str, in_scale: str = "", scale: str = "", out_zero_point: str = ""
) -> Condition:
    """Condition: (q - z) s / t + y stays within 32 bits until it saturates.

    TVM subtracts the zero point, rounds the product and adds the other zero point in 32 bits, and
    would wrap around.

    Parameters
    ----------
    zero_point, in_scale, scale, out_zero_point
        The names of z, s, t and y; without a scale and y only q - z counts.
    """

    def check(op: ElementwiseOp, _pool: Pool) -> Decline | None:
        found = [
            _finite(op, param) for param in (zero_point, in_scale, scale, out_zero_point) if param
        ]
        for values in found:
            if isinstance(values, Decline):
                return values
        if "int" not in op.reads:  # which the row does not take
            return None
        zero, *rest = (np.asarray(values, np.float64) for values in found)
        ends = np.iinfo(op.reads)
        reach = np.max(np.maximum(np.abs(ends.min - zero), np.abs(ends.max - zero)))
        fits = not np.any(zero) or reach < 2 * HALF
        if rest:
            before, after, out = rest
            fits &= bool(np.max(before / after) * reach <= HALF and np.max(np.abs(out)) < HALF)
        if fits:
            return None
        return Decline(
            Reason.DTYPE,
            f"{op.op} of {op.reads} may wrap around before it saturates",
            "use zero points and scales that keep the numbers within 32 bits",
        )

    return check


HALF = 2.0**30
"""Half of what 32 bits hold: a product and a zero point of no more do not wrap around."""


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


def converts_in_range() -> Condition:
    """Condition: a cast to integers is of data that are proved to be among them.

    Past them integers wrap around, and what becomes of a floating-point number is undefined.
    """

    def check(op: ElementwiseOp, _pool: Pool) -> Decline | None:
        if op.dtype not in INTEGERS:
            return None
        least, most = within(op.bounds, op.reads)
        ends = np.iinfo(op.dtype)
        if ends.min - 1 < least and most < ends.max + 1:  # a fraction is cut off
            return None
        return Decline(
            Reason.DOMAIN,
            f"{op.op} makes {op.dtype} of {op.reads}, and all that is proved of its data is that "
            f"they lie in [{_shown(least)}, {_shown(most)}]",
            f"clip its input to what {op.dtype} holds",
        )

    return check


def converted_right() -> Condition:
    """Condition: a cast is none of float64 to float16, which Relay's kernels get wrong."""

    def check(op: ElementwiseOp, _pool: Pool) -> Decline | None:
        if (op.reads, op.dtype) != ("float64", "float16"):
            return None
        return Decline(
            Reason.NOT_MONOTONE,
            f"{op.op} makes float16 of float64, which Relay's kernels get wrong",
            "cast to float32 first",
        )

    return check


def between_floats() -> Condition:
    """Condition: a cast is from one floating-point type to another."""

    def check(op: ElementwiseOp, _pool: Pool) -> Decline | None:
        if op.reads in FLOATS and op.dtype in FLOATS:
            return None
        return Decline(
            Reason.DTYPE,
            f"{op.op} makes {op.dtype} of {op.reads}",
            "nothing to do: another row is about it",
        )

    return check


def softplus_as_checked(beta: str, threshold: str) -> Condition:
    """Condition: the kernel does not fall where it goes over from log(1 + exp(x)) to x.

    Checked value by value for a threshold of 20, and betas that scale without rounding.
    """

    def check(op: ElementwiseOp, _pool: Pool) -> Decline | None:
        slope, switch = op.params.get(beta), op.params.get(threshold)
        for param, value in ((beta, slope), (threshold, switch)):
            if not isinstance(value, int | float):
                return _not_constant(op, param)
        if math.frexp(slope)[0] == 0.5 and switch == 20:  # type: ignore[arg-type]
            return None
        return Decline(
            Reason.NOT_MONOTONE,
            f"{op.op} with {beta}={slope:g}, {threshold}={switch:g} may fall where it goes over "
            "to x",
            f"use {threshold}=20 and a power of 2 as {beta}",
        )

    return check


def falls_as_computed() -> Condition:
    """Condition: never holds, of a function whose kernel falls where the function does not."""

    def check(op: ElementwiseOp, _pool: Pool) -> Decline | None:
        return Decline(
            Reason.NOT_MONOTONE,
            f"the kernel of {op.op} falls here and there, by an ulp or two: its terms are rounded "
            "one by one",
            "nothing to do, unless the model may take another activation",
        )

    return check


def _shown(value: float) -> str:
    """A number, an integer in full."""
    return str(int(value)) if math.isfinite(value) and value == int(value) else f"{value:g}"


def _finite(op: ElementwiseOp, param: str) -> np.ndarray | Decline:
    """The numbers of a parameter, or why they are not known or not finite."""
    value = op.params.get(param)
    if isinstance(value, Operand):
        value = value.value
    if not isinstance(value, int | float | np.ndarray):
        return _not_constant(op, param)
    values = np.asarray(value)
    if not values.size:
        return _not_constant(op, param)
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
