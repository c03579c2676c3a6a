"""What compilers make of ops that are next to each other, in numbers that round.

A rewrite that brings two such ops together, or parts them, would change the results.  Read off
Relay's SimplifyExpr and TIR's simplifier.
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
    "qnn.dequantize": frozenset({"argmax", "argmin", "argsort"}),
}
"""By op, the ops below it that it may be taken for one with.

int32(float32(x)) becomes x; casts below a clip whose bounds they hold are dropped, rounded or not;
c / sqrt(x) becomes c rsqrt(x); what two integers are dequantized to may be equal.  Ops of quantized
models become casts and others first.
"""

NEUTRAL: Mapping[str, float] = {
    **dict.fromkeys(("add", "nn.bias_add", "subtract", "relax.add", "relax.subtract"), 0.0),
    **dict.fromkeys(("multiply", "divide", "relax.multiply", "relax.divide"), 1.0),
}
"""The number with which an op does nothing, and is dropped."""

COMMUTES = frozenset({"add", "multiply", "relax.add", "relax.multiply"})
CASTS = frozenset({"cast", "relax.astype"})
CLIPS = frozenset({"clip", "relax.clip"})
LEAKY = frozenset({"nn.leaky_relu", "relax.nn.leakyrelu"})
ABS = frozenset({"abs", "relax.abs"})
SELECTING = frozenset({"maximum", "minimum", "relax.maximum", "relax.minimum"})

VANISHING = CASTS | CLIPS | LEAKY | ABS | SELECTING | NEUTRAL.keys()
"""Ops that a compiler may drop."""

SELECTIONS = frozenset(
    ("nn.leaky_relu", "nn.prelu", "where", "relax.nn.leakyrelu", "relax.nn.prelu", "relax.where")
)
"""Ops that choose between their data and something else: TIR may put a sum below inside."""


PROVED = frozenset(
    name
    for op in (
        *("abs", "nn.prelu", "where", "sign", "isnan", "isinf", "isfinite"),
        *("greater", "greater_equal", "less", "less_equal", "equal", "not_equal"),
    )
    for name in (op, f"relax.{op}")
)
"""Ops that LLVM compiles otherwise if it can prove that their data are never negative, or NaN."""


SUMS = frozenset({"add", "nn.bias_add", "subtract", "relax.add", "relax.subtract"})
"""Ops that multiply nothing."""


def adds(op: ElementwiseOp) -> bool:
    """Whether an op may add to a product."""
    return op.rule.is_arithmetic and not op.rule.is_scale


def multiplies(op: ElementwiseOp) -> bool:
    """Whether an op may give a product."""
    return op.rule.is_arithmetic and op.op not in SUMS


def adds_own(op: ElementwiseOp) -> bool:
    """Whether an op may be several, one of which adds to a product of another."""
    return any(pattern.adds_products for pattern in op.rule.patterns)


def heeds_proofs(op: ElementwiseOp) -> bool:
    """Whether an op, or one that it is spelled with, is among those."""
    return op.op in PROVED or any("where" in pattern.ops for pattern in op.rule.patterns)


def heeds_readers(op: ElementwiseOp) -> bool:
    """Whether it matters to an op what reads its result."""
    return op.rule.is_arithmetic or op.op in MERGED or op.op in SELECTIONS


def heeds_what_it_reads(op: ElementwiseOp) -> bool:
    """Whether it matters to an op what computes its data."""
    return op.rule.is_arithmetic or is_merged(op.op) or heeds_proofs(op)


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


def may_vanish(call: CallView) -> bool:
    """Whether a compiler may drop a call, so that what it reads meets what reads it.

    So it may be where an operand is computed, or bound to a number later, and so may the absolute
    value of what is not negative.
    """
    op, args = call.op, call.args
    if op in CASTS:
        return isinstance(args[0], Operand) and args[0].dtype == call.dtype
    if op in CLIPS:
        attrs = call.attrs
        low, high = (attrs.a_min, attrs.a_max) if op == "clip" else args[1:]
        return _covers(low, high, call.dtype)
    if op in LEAKY:
        return _rounded(call.attrs.alpha, call.dtype) == 1.0
    if op in SELECTING:
        return all(map(_is_computed, args))
    return op in ABS or (op in NEUTRAL and _may_do_nothing(call))


def _may_do_nothing(call: CallView) -> bool:
    """Whether what an op of two operands gives may be one of them, which is not known."""
    first, second = call.args
    number = NEUTRAL[call.op]
    of_first = not _is_known(first) and _may_be(number, second)
    return of_first or (call.op in COMMUTES and not _is_known(second) and _may_be(number, first))


def may_vanish_op(op: ElementwiseOp) -> bool:
    """`may_vanish` of an op of a chain."""
    if op.op in CASTS:
        return op.reads == op.dtype
    if op.op in CLIPS:
        return _covers(op.params.get("low"), op.params.get("high"), op.dtype)
    if op.op in LEAKY:
        return _rounded(op.params.get("alpha"), op.dtype) == 1.0
    if op.op in SELECTING:
        return any(map(_is_computed, op.params.values()))
    if op.op in NEUTRAL and op.rule.direction is not Direction.NON_INCREASING:
        return any(_may_be(NEUTRAL[op.op], operand) for operand in op.params.values())
    return op.op in ABS


def _is_computed(argument: object) -> bool:
    """Whether an operand may be what another is made of: max(v, v) is v, min(max(v, w), v) too."""
    return isinstance(argument, Operand) and not argument.stored


def _rounded(number: object, dtype: str) -> float:
    """A number as kernels of an element type hold it."""
    if not isinstance(number, int | float):
        return 1.0
    return float(np.float32(number) if dtype == "bfloat16" else np.dtype(dtype).type(number))


def _is_known(argument: object) -> bool:
    return isinstance(argument, Operand) and argument.value is not None


def _may_be(number: float, argument: object) -> bool:
    """Whether an operand may be nothing but this number."""
    if not isinstance(argument, Operand) or argument.value is None:
        return True
    values = argument.value
    return not values.size or bool(values.flat[0] == number and (values == number).all())


def _covers(low: object, high: object, dtype: str) -> bool:
    """Whether bounds hold all numbers of an element type, or may."""
    if not (isinstance(low, int | float) and isinstance(high, int | float)):
        return True
    if dtype in INTEGERS:
        limits = np.iinfo(dtype)
        return low <= limits.min and high >= limits.max
    if dtype == "bfloat16":
        return low <= -BFLOAT16_MAX and high >= BFLOAT16_MAX
    most = np.finfo(dtype).max
    return bool(most.dtype.type(low) <= -most and most.dtype.type(high) >= most)


BFLOAT16_MAX = float.fromhex("0x1.fep127")
