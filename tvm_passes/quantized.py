"""The rows of quantized models: scaling, rounding and saturating, none of which ever falls."""

from __future__ import annotations

from tvm_passes.conditions import constant_in_window, divisor_positive
from tvm_passes.decline import Condition, Direction
from tvm_passes.kernel_conditions import no_overflow
from tvm_passes.rule import RELAX, RELAY, Form, Rule

BYTES = frozenset({"int8", "uint8"})
SCALES = {"scale": 1, "zero_point": 2}
RESCALES = {"in_scale": 1, "in_zero_point": 2, "scale": 3, "zero_point": 4}


def _constant(*params: str) -> tuple[Condition, ...]:
    return tuple(constant_in_window(param) for param in params)


def _forms(op: str) -> dict[str, tuple[Form, ...]]:
    return {
        RELAY: (Form(f"qnn.{op}", args=SCALES, axis="axis"),),
        RELAX: (Form(f"relax.{op}", args=SCALES, axis="axis"),),
    }


QUANTIZED: tuple[Rule, ...] = (
    # clip(round(x / s) + z), s > 0: each step is monotone, and so is the saturation.  Relay makes
    # a division of it before it simplifies; in Relax no compiler folds or contracts it.
    *(
        Rule(
            name=f"quantize ({dialect})",
            direction=Direction.NON_DECREASING,
            forms={dialect: _forms("quantize")[dialect]},
            dtypes=frozenset({"float32"}),
            results=BYTES,
            conditions=(*_constant("scale", "zero_point"), divisor_positive("scale")),
            is_arithmetic=dialect == RELAY,
            is_scale=dialect == RELAY,
            rounds_result=True,
            nan="any number",
            negative_zero="the zero point",
            infinity="the least and the greatest number",
            source="clip(round(x / s) + z), s > 0",
        )
        for dialect in (RELAY, RELAX)
    ),
    # (q - z) * s, s > 0: q - z is exact in int32.
    Rule(
        name="dequantize",
        direction=Direction.NON_DECREASING,
        forms=_forms("dequantize"),
        dtypes=BYTES,
        results=frozenset({"float32"}),
        conditions=(
            *_constant("scale", "zero_point"),
            divisor_positive("scale"),
            no_overflow("zero_point"),
        ),
        is_arithmetic=True,
        is_scale=True,
        nan="no integer is NaN",
        negative_zero="no integer is -0",
        infinity="no integer is infinite",
        source="(q - z) * s, s > 0",
    ),
    # clip(round((q - z) * s / t) + y), in integers of 64 bits.
    Rule(
        name="requantize",
        direction=Direction.NON_DECREASING,
        forms={RELAY: (Form("qnn.requantize", args=RESCALES, axis="axis"),)},
        dtypes=BYTES | {"int32"},
        results=BYTES,
        conditions=(
            *_constant(*RESCALES),
            divisor_positive("in_scale"),
            divisor_positive("scale"),
            no_overflow("in_zero_point", "in_scale", "scale", "zero_point"),
        ),
        rounds_result=True,
        nan="no integer is NaN",
        negative_zero="no integer is -0",
        infinity="no integer is infinite",
        source="clip(round((q - z) * s / t) + y), s > 0, t > 0",
    ),
)
