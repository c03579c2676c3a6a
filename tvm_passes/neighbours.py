"""What Relay's SimplifyExpr makes of ops that are next to each other, in numbers that round.

A rewrite that brings two such ops together, or parts them, would change the results.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import TYPE_CHECKING

import numpy as np

from tvm_passes.decline import Direction
from tvm_passes.rule import INTEGERS
from tvm_passes.site import ElementwiseOp, Operand

if TYPE_CHECKING:
    from tvm_passes.describe import CallView

MERGED: Mapping[str, frozenset[str]] = {
    "cast": frozenset({"cast", "qnn.requantize"}),
    "relax.astype": frozenset({"relax.astype"}),
    "clip": frozenset({"cast"}),
    "sqrt": frozenset({"divide"}),
}
"""By op, the ops below it that it may be taken for one with.

int32(float32(x)) becomes x; casts below a clip whose bounds they hold are dropped, rounded or not;
c / sqrt(x) becomes c rsqrt(x).  Ops of quantized models become casts and others first.
"""

NEUTRAL: Mapping[str, float] = {"add": 0.0, "subtract": 0.0, "multiply": 1.0, "divide": 1.0}
"""The number with which an op is dropped."""

COMMUTES = frozenset({"add", "multiply"})

DROPPED = frozenset({"cast", "clip", *NEUTRAL})
"""Ops that are dropped where they do nothing."""


def may_merge(above: str, below: str) -> bool:
    """Whether two ops may be taken for one.

    >>> may_merge("clip", "cast"), may_merge("cast", "clip")
    (True, False)
    """
    return below in MERGED.get(above, ())


def is_merged(below: str) -> bool:
    """Whether an op may be taken for one with any other above it."""
    return any(below in ops for ops in MERGED.values())


def may_begin_with_cast(op: str, producers: Container[str]) -> bool:
    """Whether an op that reads integers may become a cast of these, and others.

    >>> may_begin_with_cast("qnn.requantize", ()), may_begin_with_cast("nn.relu", ())
    (True, False)
    """
    return op.startswith("qnn.") or op in producers


def is_dropped(call: CallView) -> bool:
    """Whether a call of one of `DROPPED` is dropped, so that what it reads meets what reads it."""
    args = call.args
    if call.op == "cast":
        return isinstance(args[0], Operand) and args[0].dtype == call.dtype
    if call.op == "clip":
        return _covers(call.attrs.a_min, call.attrs.a_max, call.dtype)
    operands = args if call.op in COMMUTES else args[1:]
    return any(_is_neutral(call.op, operand) for operand in operands)


def is_dropped_op(op: ElementwiseOp) -> bool:
    """`is_dropped` of an op of a chain."""
    if op.op not in DROPPED:
        return False
    if op.op == "cast":
        return op.reads == op.dtype
    if op.op == "clip":
        low, high = op.params.get("low"), op.params.get("high")
        if not (isinstance(low, int | float) and isinstance(high, int | float)):
            return False
        return _covers(low, high, op.dtype)
    rises = op.rule.direction is Direction.NON_DECREASING
    return rises and any(_is_neutral(op.op, operand) for operand in op.params.values())


def _is_neutral(op: str, operand: object) -> bool:
    if not isinstance(operand, Operand) or operand.value is None or operand.value.size != 1:
        return False
    return float(operand.value.item()) == NEUTRAL[op]


def _covers(low: float, high: float, dtype: str) -> bool:
    """Whether bounds hold all numbers of an element type."""
    if dtype in INTEGERS:
        limits = np.iinfo(dtype)
        return low <= limits.min and high >= limits.max
    most = BFLOAT16_MAX if dtype == "bfloat16" else float(np.finfo(dtype).max)
    return low <= -most and high >= most


BFLOAT16_MAX = float.fromhex("0x1.fep127")
