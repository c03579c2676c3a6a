"""The rows of non-increasing functions: max f(S) = f(min S), and min S = -max(-S), exactly."""

from __future__ import annotations

from math import inf

from tvm_passes.conditions import (
    constant_in_window,
    data_within,
    divisor_negative,
    factor_not_negative,
    factor_not_positive,
)
from tvm_passes.decline import Direction
from tvm_passes.ranges import between, negated, subtracted
from tvm_passes.rising import CALLED
from tvm_passes.rule import SELECTED, Form, Rule, forms

FALLING: tuple[Rule, ...] = (
    Rule(
        name="negative",
        direction=Direction.NON_INCREASING,
        forms=forms("negative", "relax.negative"),
        dtypes=SELECTED,
        image=negated,
        is_sign=True,
        nan="NaN",
        negative_zero="+0",
        infinity="+inf and -inf",
        source="-x",
    ),
    Rule(
        name="subtract_from",
        direction=Direction.NON_INCREASING,
        forms=forms(
            Form("subtract", args={"bias": 0}, data=1),
            Form("relax.subtract", args={"bias": 0}, data=1),
        ),
        conditions=(constant_in_window("bias"),),
        image=subtracted("bias"),
        is_arithmetic=True,
        nan="NaN",
        negative_zero="+0",
        infinity="+inf and -inf",
        source="b - x",
    ),
    Rule(
        name="multiply_negative",
        direction=Direction.NON_INCREASING,
        forms=forms(
            Form("multiply", args={"factor": 1}, commutes=True),
            Form("relax.multiply", args={"factor": 1}, commutes=True),
        ),
        conditions=(constant_in_window("factor"), factor_not_positive("factor")),
        is_arithmetic=True,
        is_scale=True,
        nan="NaN",
        negative_zero="+0",
        infinity="+inf and -inf; NaN for s = 0",
        source="x * s, s <= 0",
    ),
    Rule(
        name="divide_negative",
        direction=Direction.NON_INCREASING,
        forms=forms(Form("divide", args={"divisor": 1}), Form("relax.divide", args={"divisor": 1})),
        conditions=(constant_in_window("divisor"), divisor_negative("divisor")),
        is_arithmetic=True,
        is_scale=True,
        nan="NaN",
        negative_zero="+0",
        infinity="+inf and -inf",
        source="x / s, s < 0",
    ),
    # c / x falls on either side of 0, and jumps up between them.
    Rule(
        name="divide_into",
        direction=Direction.NON_INCREASING,
        forms=forms(
            Form("divide", args={"dividend": 0}, data=1),
            Form("relax.divide", args={"dividend": 0}, data=1),
        ),
        conditions=(
            constant_in_window("dividend"),
            factor_not_negative("dividend"),
            data_within(0.0, inf, above=True),
        ),
        image=between(0.0, inf),
        rounds_result=True,
        nan="NaN",
        negative_zero="-inf",
        infinity="-0 and +0",
        source="c / x, c >= 0, x > 0",
    ),
    Rule(
        name="rsqrt",
        direction=Direction.NON_INCREASING,
        forms=forms("rsqrt", "relax.rsqrt"),
        conditions=(data_within(0.0, inf, above=True),),
        image=between(0.0, inf),
        is_call=True,
        rounds_result=True,
        nan="NaN",
        negative_zero="-inf",
        infinity="-inf to NaN, +inf to 0",
        source="derivative -1 / (2 x sqrt(x)) < 0",
    ),
    Rule(
        name="acos",
        direction=Direction.NON_INCREASING,
        forms=forms("acos", "relax.acos"),
        dtypes=CALLED,
        conditions=(data_within(-1.0, 1.0),),
        image=between(0.0, 3.2),
        is_call=True,
        nan="NaN",
        negative_zero="pi/2",
        infinity="NaN",
        source="derivative -1 / sqrt(1 - x^2) < 0",
    ),
)
