"""Conditions of the rule table's rows on how TVM's kernels compute an op, by element type."""

from __future__ import annotations

import math

import numpy as np

from tvm_passes.conditions import finite, not_constant
from tvm_passes.decline import Condition, Decline, Reason
from tvm_passes.ranges import within
from tvm_passes.rule import FLOATS, INTEGERS
from tvm_passes.site import ElementwiseOp, Operand, Pool


def rounded_to_bfloat16(*params: str) -> Condition:
    """Condition: of bfloat16, the bounds `params` are numbers of bfloat16, where they are used.

    TVM computes it in float32, and rounds where a kernel ends: a number that bfloat16 does not hold
    would reach the ops below the pool as it is.
    """

    def check(op: ElementwiseOp, _pool: Pool) -> Decline | None:
        if op.reads != "bfloat16":
            return None
        for param in params:
            bound = op.params.get(param)
            is_rounded = isinstance(bound, int | float) and _is_bfloat16(bound)
            if not (isinstance(bound, Operand) or is_rounded):
                return Decline(
                    Reason.ROUNDING,
                    f"{param} of {op.op} is not rounded to bfloat16 until a kernel ends",
                    "use bounds that bfloat16 holds",
                )
        return None

    return check


def _is_bfloat16(number: float) -> bool:
    """Whether the lower half of the number, which float32 holds, is 0."""
    rounded = np.float32(number)
    return float(rounded) == number and not int(rounded.view(np.uint32)) & 0xFFFF


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
            finite(op, param) for param in (zero_point, in_scale, scale, out_zero_point) if param
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
                return not_constant(op, param)
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


def replaced_later(op: ElementwiseOp, _pool: Pool) -> Decline:
    """Decline, whatever the op's parameters are."""
    return Decline(
        Reason.NOT_MONOTONE,
        f"FastMath follows, and replaces {op.op} by what falls in places",
        "run FastMath before this pass, or disable it, as below opt_level 4",
    )


def unchecked_there(op: ElementwiseOp, _pool: Pool) -> Decline:
    """Decline, whatever the op's parameters are."""
    return Decline(
        Reason.NOT_MONOTONE,
        f"the GPU's math library computes {op.op}, and may fall in places, as CUDA's tanh does",
        'allow it with allow={"device-math"}, or --allow device-math',
    )


def _shown(value: float) -> str:
    """A number, an integer in full."""
    return str(int(value)) if math.isfinite(value) and value == int(value) else f"{value:g}"
