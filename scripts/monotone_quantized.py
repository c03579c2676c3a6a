"""The functions of quantized models that check_monotone.py checks: they change the element type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monotone_ops import RISES, Candidate, Words

from tvm_passes.rules import RELAX, RELAY

BYTES = ("int8", "uint8")
Number = Mapping[str, float]

QUANTIZE: Sequence[Number] = ({"scale": 0.02, "zero_point": 3}, {"scale": 0.3, "zero_point": 0})
DEQUANTIZE = QUANTIZE
REQUANTIZE: Sequence[Number] = (
    {"in_scale": 0.02, "in_zero_point": 3, "scale": 0.3, "zero_point": 2},
    {"in_scale": 0.3, "in_zero_point": 0, "scale": 0.02, "zero_point": 3},
)
SUMS: Sequence[Number] = ({"in_scale": 0.01, "in_zero_point": 0, "scale": 0.02, "zero_point": 3},)
"""What a convolution of 8-bit numbers gives: the row wants no zero point and a scale of a half."""


def quantized(dialect: str) -> list[Candidate]:
    """The candidates of a dialect: from float32 to bytes, back, and between integers."""
    found = [
        _candidate(dialect, "quantize", "float32", result, params)
        for result in BYTES
        for params in QUANTIZE
    ]
    found += [
        _candidate(dialect, "dequantize", reads, "float32", params)
        for reads in BYTES
        for params in DEQUANTIZE
    ]
    if dialect == RELAY:
        found += [
            _candidate(dialect, "requantize", reads, result, params)
            for reads in (*BYTES, "int32")
            for result in BYTES
            for params in (SUMS if reads == "int32" else REQUANTIZE)
        ]
    return found


def _candidate(dialect: str, op: str, reads: str, result: str, params: Number) -> Candidate:
    def build(o: Words, x: Any) -> Any:
        numbers = [
            o.typed(value, "int32" if "zero" in name else "float32")
            for name, value in params.items()
        ]
        typed = {} if op == "dequantize" else {"out_dtype": result}
        if dialect == RELAX:
            return getattr(o.ops, op)(x, *numbers, **typed)
        return getattr(o.ops.qnn.op, op)(x, *numbers, **typed)

    shown = ", ".join(f"{name}={value:g}" for name, value in params.items())
    name = f"{op} {reads} to {result}({shown})"
    return Candidate(name, RISES, build, None, (dialect,), result, reads=(reads,))
