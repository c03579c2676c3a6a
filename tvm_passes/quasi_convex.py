"""The rows of functions that fall, then rise: max f(S) = max(f(min S), f(max S)).

Where the kernel's two branches are monotone that is exact; the others waver by some ulp where they
are flat.
"""

from __future__ import annotations

from math import inf

from tvm_passes.conditions import constant_in_window, equal_to, slope_negative
from tvm_passes.decline import Direction
from tvm_passes.ranges import between
from tvm_passes.rising import CALLED
from tvm_passes.rule import RELAX, Form, Rule, forms

QUASI_CONVEX: tuple[Rule, ...] = (
    Rule(
        name="abs",
        direction=Direction.QUASI_CONVEX,
        forms=forms("abs", "relax.abs"),
        image=between(0.0, inf),
        rounds_result=True,
        nan="NaN",
        negative_zero="+0",
        infinity="+inf",
        source="|x|",
    ),
    Rule(
        name="square",
        direction=Direction.QUASI_CONVEX,
        forms={RELAX: (Form("relax.square"),)},
        image=between(0.0, inf),
        is_arithmetic=True,
        nan="NaN",
        negative_zero="+0",
        infinity="+inf",
        source="x * x",
    ),
    Rule(
        name="square as a power",
        direction=Direction.QUASI_CONVEX,
        forms=forms(Form("power", args={"exponent": 1}), Form("relax.power", args={"exponent": 1})),
        dtypes=CALLED,
        conditions=(constant_in_window("exponent"), equal_to("exponent", 2)),
        image=between(0.0, inf),
        is_arithmetic=True,
        is_call=True,
        is_exact=False,
        nan="NaN",
        negative_zero="+0",
        infinity="+inf",
        source="x^2, by the math library or as x * x",
    ),
    # x where x > 0, else alpha * x: for alpha < 0 it falls as far as 0.
    Rule(
        name="leaky_relu_negative",
        direction=Direction.QUASI_CONVEX,
        forms=forms(
            Form("nn.leaky_relu", attrs={"alpha": "alpha"}),
            Form("relax.nn.leakyrelu", attrs={"alpha": "alpha"}),
        ),
        conditions=(slope_negative("alpha"),),
        nan="NaN",
        negative_zero="+0",
        infinity="+inf",
        source="x > 0 ? x : alpha * x, alpha < 0",
    ),
    Rule(
        name="prelu_negative",
        direction=Direction.QUASI_CONVEX,
        forms=forms(
            Form("nn.prelu", args={"alpha": 1}, axis="axis"),
            Form("relax.nn.prelu", args={"alpha": 1}, axis="axis"),
        ),
        conditions=(constant_in_window("alpha"), slope_negative("alpha")),
        is_arithmetic=True,
        nan="NaN",
        negative_zero="+0",
        infinity="+inf",
        source="x > 0 ? x : alpha * x, some alpha < 0",
    ),
    *(
        Rule(
            name=name,
            direction=Direction.QUASI_CONVEX,
            forms={RELAX: (Form(f"relax.nn.{name}"),)},
            is_call=True,
            is_exact=False,
            nan="NaN",
            negative_zero="-0",
            infinity="-inf to NaN, +inf kept",
            source=source,
        )
        for name, source in (
            ("gelu", "x / 2 (1 + erf(x / sqrt(2)))"),
            ("gelu_tanh", "x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))"),
            ("silu", "x sigmoid(x)"),
        )
    ),
)
