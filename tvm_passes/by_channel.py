"""The rows of functions that rise in some channels and fall in others.

Of each channel one end of a window is the greatest: max f(S) = max(f(min S), f(max S)), exactly.
"""

from __future__ import annotations

from tvm_passes.conditions import constant_in_window, signs_differ
from tvm_passes.decline import Direction
from tvm_passes.rule import Form, Rule, forms

BY_CHANNEL: tuple[Rule, ...] = (
    Rule(
        name="multiply_by_channel",
        direction=Direction.BY_CHANNEL,
        forms=forms(
            Form("multiply", args={"factor": 1}, commutes=True),
            Form("relax.multiply", args={"factor": 1}, commutes=True),
        ),
        conditions=(constant_in_window("factor"), signs_differ("factor")),
        is_arithmetic=True,
        is_scale=True,
        nan="NaN",
        negative_zero="either zero",
        infinity="either infinity; NaN for s = 0",
        source="x * s, s of both signs",
    ),
    Rule(
        name="divide_by_channel",
        direction=Direction.BY_CHANNEL,
        forms=forms(Form("divide", args={"divisor": 1}), Form("relax.divide", args={"divisor": 1})),
        conditions=(constant_in_window("divisor"), signs_differ("divisor", divides=True)),
        is_arithmetic=True,
        is_scale=True,
        nan="NaN",
        negative_zero="either zero",
        infinity="either infinity",
        source="x / s, s of both signs",
    ),
)
