"""The rows of non-decreasing functions: max f(S) = f(max S)."""

from __future__ import annotations

from math import inf

from tvm_passes import fixed_points
from tvm_passes.conditions import (
    constant_in_window,
    data_within,
    divisor_positive,
    factor_not_negative,
    finite_slope_not_negative,
    ordered_bounds,
)
from tvm_passes.decline import Direction
from tvm_passes.kernel_conditions import (
    between_floats,
    converted_right,
    converts_in_range,
    rounded_to_bfloat16,
    softplus_as_checked,
)
from tvm_passes.ranges import (
    added,
    anything,
    at_least,
    at_most,
    between,
    clipped,
    converted,
    not_negative,
    same,
    scaled,
)
from tvm_passes.rule import FLOATS, INTEGERS, RELAX, RELAY, SELECTED, Form, Rule, forms

CALLED = frozenset({"float32", "float64"})
"""Where TVM calls the math library for functions that it has no float16 of."""

RISING: tuple[Rule, ...] = (
    # max(x, 0): each of both is non-decreasing, and so is their maximum.
    Rule(
        name="relu",
        direction=Direction.NON_DECREASING,
        forms=forms("nn.relu", "relax.nn.relu"),
        dtypes=SELECTED | INTEGERS,
        image=not_negative,
        fixes=fixed_points.not_negative,
        nan="0",
        negative_zero="+0",
        infinity="-inf to 0, +inf kept",
        source="max(x, 0)",
    ),
    # max(min(x, high), low); relu6 is clip(x, 0, 6) in both dialects.
    Rule(
        name="clip",
        direction=Direction.NON_DECREASING,
        forms=forms(
            Form("clip", attrs={"low": "a_min", "high": "a_max"}),
            Form("relax.clip", args={"low": 1, "high": 2}),
        ),
        dtypes=SELECTED | INTEGERS,
        conditions=(ordered_bounds("low", "high"), rounded_to_bfloat16("low", "high")),
        image=clipped("low", "high"),
        fixes=fixed_points.inside("low", "high"),
        nan="a bound",
        negative_zero="kept inside the bounds",
        infinity="the nearer bound",
        source="max(min(x, high), low)",
    ),
    # x where x > 0, else alpha * x: both pieces rise for alpha >= 0 and meet at 0.
    Rule(
        name="leaky_relu",
        direction=Direction.NON_DECREASING,
        forms=forms(
            Form("nn.leaky_relu", attrs={"alpha": "alpha"}),
            Form("relax.nn.leakyrelu", attrs={"alpha": "alpha"}),
        ),
        conditions=(finite_slope_not_negative("alpha"),),
        fixes=fixed_points.not_negative,
        nan="NaN; 0 for alpha = 0",
        negative_zero="kept; +0 for alpha = 0",
        infinity="kept; -inf to 0 for alpha = 0",
        source="x > 0 ? x : alpha * x",
    ),
    # 1 / (1 + exp(-x)): a composition of monotone steps, each correctly ordered after rounding.
    Rule(
        name="sigmoid",
        direction=Direction.NON_DECREASING,
        forms=forms("sigmoid", "relax.sigmoid"),
        image=between(0.0, 1.0),
        rounds_result=True,
        is_call=True,
        nan="NaN",
        negative_zero="1/2",
        infinity="0 and 1",
        source="1 / (1 + exp(-x))",
    ),
    Rule(
        name="tanh",
        direction=Direction.NON_DECREASING,
        forms=forms("tanh", "relax.tanh"),
        image=between(-1.0, 1.0),
        rounds_result=True,
        fixes=fixed_points.zero,
        is_call=True,
        nan="NaN",
        negative_zero="+0",
        infinity="-1 and +1",
        source="derivative 1 - tanh(x)^2 >= 0",
    ),
    # x + b: rounding to nearest is monotone, so the rounded sum is; integers wrap around.
    Rule(
        name="bias_add",
        direction=Direction.NON_DECREASING,
        forms={
            RELAY: (
                Form("nn.bias_add", args={"bias": 1}, axis="axis"),
                Form("add", args={"bias": 1}, commutes=True),
            ),
            RELAX: (Form("relax.add", args={"bias": 1}, commutes=True),),
        },
        conditions=(constant_in_window("bias"),),
        image=added("bias"),
        is_arithmetic=True,
        nan="NaN",
        negative_zero="+0 unless b is -0",
        infinity="kept",
        source="x + b",
    ),
    Rule(
        name="subtract",
        direction=Direction.NON_DECREASING,
        forms=forms(Form("subtract", args={"bias": 1}), Form("relax.subtract", args={"bias": 1})),
        conditions=(constant_in_window("bias"),),
        image=added("bias", -1),
        is_arithmetic=True,
        nan="NaN",
        negative_zero="kept unless b is -0",
        infinity="kept",
        source="x - b",
    ),
    # x * s and x / s: a product or quotient rounded to nearest is monotone.
    Rule(
        name="multiply",
        direction=Direction.NON_DECREASING,
        forms=forms(
            Form("multiply", args={"factor": 1}, commutes=True),
            Form("relax.multiply", args={"factor": 1}, commutes=True),
        ),
        conditions=(constant_in_window("factor"), factor_not_negative("factor")),
        image=scaled("factor"),
        is_arithmetic=True,
        is_scale=True,
        nan="NaN",
        negative_zero="kept",
        infinity="kept; NaN for s = 0",
        source="x * s, s >= 0",
    ),
    Rule(
        name="divide",
        direction=Direction.NON_DECREASING,
        forms=forms(Form("divide", args={"divisor": 1}), Form("relax.divide", args={"divisor": 1})),
        conditions=(constant_in_window("divisor"), divisor_positive("divisor")),
        image=scaled("divisor"),
        is_arithmetic=True,
        is_scale=True,
        nan="NaN",
        negative_zero="kept",
        infinity="kept",
        source="x / s, s > 0",
    ),
    Rule(
        name="maximum",
        direction=Direction.NON_DECREASING,
        forms=forms(
            Form("maximum", args={"bound": 1}, commutes=True),
            Form("relax.maximum", args={"bound": 1}, commutes=True),
        ),
        dtypes=SELECTED | INTEGERS,
        conditions=(constant_in_window("bound"),),
        image=at_least("bound"),
        fixes=fixed_points.not_below("bound"),
        nan="b, or NaN, by the order of the operands",
        negative_zero="kept; b above it",
        infinity="-inf to b, +inf kept",
        source="max(x, b)",
    ),
    Rule(
        name="minimum",
        direction=Direction.NON_DECREASING,
        forms=forms(
            Form("minimum", args={"bound": 1}, commutes=True),
            Form("relax.minimum", args={"bound": 1}, commutes=True),
        ),
        dtypes=SELECTED | INTEGERS,
        conditions=(constant_in_window("bound"),),
        image=at_most("bound"),
        fixes=fixed_points.not_above("bound"),
        nan="b, or NaN, by the order of the operands",
        negative_zero="kept; b below it",
        infinity="-inf kept, +inf to b",
        source="min(x, b)",
    ),
    # x where x > 0, else alpha * x, with a slope a channel.
    Rule(
        name="prelu",
        direction=Direction.NON_DECREASING,
        forms=forms(
            Form("nn.prelu", args={"alpha": 1}, axis="axis"),
            Form("relax.nn.prelu", args={"alpha": 1}, axis="axis"),
        ),
        conditions=(
            constant_in_window("alpha"),
            finite_slope_not_negative("alpha"),
        ),
        is_arithmetic=True,
        fixes=fixed_points.not_negative,
        nan="NaN; 0 for alpha = 0",
        negative_zero="kept; +0 for alpha = 0",
        infinity="kept; -inf to NaN for alpha = 0",
        source="x > 0 ? x : alpha * x",
    ),
    # Relay has no op for selu and softplus; its importers compose them.
    Rule(
        name="selu",
        direction=Direction.NON_DECREASING,
        forms={RELAX: (Form("relax.nn.selu"),)},
        is_arithmetic=True,
        is_call=True,
        nan="NaN",
        negative_zero="-0 or +0",
        infinity="-inf to -1.758, +inf kept",
        source="1.0507 (x > 0 ? x : 1.6733 (exp(x) - 1))",
    ),
    Rule(
        name="softplus",
        direction=Direction.NON_DECREASING,
        forms={
            RELAX: (Form("relax.nn.softplus", attrs={"beta": "beta", "threshold": "threshold"}),)
        },
        # The threshold of 20 is where log(1 + exp(x)) rounds to x in float32.
        dtypes=frozenset({"float32"}),
        conditions=(softplus_as_checked("beta", "threshold"),),
        image=between(0.0, inf),
        is_call=True,
        nan="NaN",
        negative_zero="log(2)",
        infinity="-inf to 0, +inf kept",
        source="log(1 + exp(x)), x from 20 on",
    ),
    Rule(
        name="erf",
        direction=Direction.NON_DECREASING,
        forms=forms("erf", "relax.erf"),
        image=between(-1.0, 1.0),
        rounds_result=True,
        is_call=True,
        nan="NaN",
        negative_zero="-0",
        infinity="-1 and +1",
        source="derivative 2 / sqrt(pi) exp(-x^2) > 0",
    ),
    Rule(
        name="exp",
        direction=Direction.NON_DECREASING,
        forms=forms("exp", "relax.exp"),
        image=between(0.0, inf),
        rounds_result=True,
        is_call=True,
        nan="NaN",
        negative_zero="1",
        infinity="-inf to 0, +inf kept",
        source="derivative exp(x) > 0",
    ),
    # Rounding to another element type keeps order.  A cast between floats hides no product from a
    # sum: LLVM narrows fptrunc(fpext(x) * y), and contracts what comes of it.
    *(
        Rule(
            name=name,
            direction=Direction.NON_DECREASING,
            forms=forms("cast", "relax.astype"),
            dtypes=dtypes,
            results=dtypes,
            conditions=(converted_right(), condition),
            image=converted,
            is_arithmetic=True,
            rounds_result=name == "cast",
            nan="NaN; of integers any number",
            negative_zero="kept; of integers 0",
            infinity="kept",
            source="the nearest number, or the next towards 0",
        )
        for name, dtypes, condition in (
            ("cast", FLOATS | INTEGERS, converts_in_range()),
            ("cast between floats", FLOATS, between_floats()),
        )
    ),
    # Rounding to an integer: steps upwards.
    *(
        Rule(
            name=name,
            direction=Direction.NON_DECREASING,
            forms=forms(name, f"relax.{name}"),
            image=same if name == "trunc" else anything,
            rounds_result=True,
            nan="NaN",
            negative_zero="-0",
            infinity="kept",
            source="a step function, upwards",
        )
        for name in ("floor", "ceil", "round", "trunc")
    ),
    Rule(
        name="sign",
        direction=Direction.NON_DECREASING,
        forms=forms("sign", "relax.sign"),
        image=between(-1.0, 1.0),
        rounds_result=True,
        nan="0",
        negative_zero="0",
        infinity="-1 and +1",
        source="-1, 0 or 1",
    ),
    *(
        Rule(
            name=name,
            direction=Direction.NON_DECREASING,
            forms=forms(name, f"relax.{name}"),
            dtypes=CALLED,
            image=image,
            is_call=True,
            nan="NaN",
            negative_zero="-0 or +0",
            infinity=infinity,
            source=source,
        )
        for name, image, infinity, source in (
            ("atan", between(-1.6, 1.6), "-pi/2 and +pi/2", "derivative 1 / (1 + x^2) > 0"),
            ("asinh", anything, "kept", "derivative 1 / sqrt(1 + x^2) > 0"),
            ("sinh", anything, "kept", "derivative cosh(x) > 0"),
        )
    ),
    # Functions that are not defined everywhere.
    *(
        Rule(
            name=name,
            direction=Direction.NON_DECREASING,
            forms=(forms(name, f"relax.{name}") if name == "log" else {RELAY: (Form(name),)}),
            conditions=(data_within(0.0, inf, above=True),),
            is_call=True,
            rounds_result=True,
            nan="NaN",
            negative_zero="-inf",
            infinity="-inf to NaN, +inf kept",
            source="derivative c / x > 0",
        )
        for name in ("log", "log2", "log10")
    ),
    Rule(
        name="sqrt",
        direction=Direction.NON_DECREASING,
        forms=forms("sqrt", "relax.sqrt"),
        conditions=(data_within(0.0, inf),),
        image=between(0.0, inf),
        rounds_result=True,
        nan="NaN",
        negative_zero="-0",
        infinity="-inf to NaN, +inf kept",
        source="derivative 1 / (2 sqrt(x)) > 0",
    ),
    # atanh adds its data to 1, and subtracts them from it.
    *(
        Rule(
            name=name,
            direction=Direction.NON_DECREASING,
            forms=forms(name, f"relax.{name}"),
            dtypes=CALLED,
            conditions=(condition,),
            image=image,
            is_arithmetic=name == "atanh",
            is_call=True,
            nan="NaN",
            negative_zero=zero,
            infinity=infinity,
            source=source,
        )
        for name, condition, image, zero, infinity, source in (
            (
                "acosh",
                data_within(1.0, inf),
                between(0.0, inf),
                "NaN",
                "-inf to NaN, +inf kept",
                "derivative 1 / sqrt(x^2 - 1) > 0",
            ),
            (
                "asin",
                data_within(-1.0, 1.0),
                between(-1.6, 1.6),
                "-0 or +0",
                "NaN",
                "derivative 1 / sqrt(1 - x^2) > 0",
            ),
            (
                "atanh",
                data_within(-1.0, 1.0, above=True, below=True),
                anything,
                "-0 or +0",
                "NaN",
                "derivative 1 / (1 - x^2) > 0",
            ),
        )
    ),
)
