"""Bounds of the values that flow down a chain: what a function's domain is proved from.

Bounds are of the numbers as they are computed, in the element type, NaN left aside.  Where
arithmetic rounds they are widened by one step.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tvm_passes.site import ALL, Bounds, ElementwiseOp, Move, Operand

Image = Callable[[ElementwiseOp], Bounds]
"""Bounds of an op's results, from its parameters and the bounds of its data."""


def anything(_op: ElementwiseOp) -> Bounds:
    """No bounds."""
    return ALL


def same(op: ElementwiseOp) -> Bounds:
    """The results are among the data, or between them."""
    return op.bounds


def between(low: float, high: float) -> Image:
    """The results lie in [low, high] whatever the data."""
    return lambda _op: (low, high)


def not_negative(op: ElementwiseOp) -> Bounds:
    """The results are max(x, 0)."""
    low, high = op.bounds
    return max(low, 0.0), max(high, 0.0)


def clipped(low: str, high: str) -> Image:
    """The results are max(min(x, high), low)."""

    def image(op: ElementwiseOp) -> Bounds:
        bounds = op.params.get(low), op.params.get(high)
        if not all(isinstance(bound, int | float) for bound in bounds):
            return ALL
        least, most = (_rounded(float(bound), op.dtype) for bound in bounds)  # type: ignore[arg-type]
        return max(min(op.bounds[0], most), least), max(min(op.bounds[1], most), least)

    return image


def added(param: str, sign: int = 1) -> Image:
    """The results are x + param, or x - param for a `sign` of -1."""

    def image(op: ElementwiseOp) -> Bounds:
        low, high = (sign * end for end in values_of(op, param))
        low, high = min(low, high), max(low, high)
        least, most = op.bounds[0] + low, op.bounds[1] + high
        # A sum of numbers that are not negative is none, however it is rounded.
        floor = 0.0 if op.bounds[0] >= 0 and low >= 0 else -np.inf
        return max(_below(least, op.dtype), floor), _above(most, op.dtype)

    return image


def subtracted(param: str) -> Image:
    """The results are param - x."""

    def image(op: ElementwiseOp) -> Bounds:
        low, high = values_of(op, param)
        return _below(low - op.bounds[1], op.dtype), _above(high - op.bounds[0], op.dtype)

    return image


def negated(op: ElementwiseOp) -> Bounds:
    """The results are -x."""
    return -op.bounds[1], -op.bounds[0]


def scaled(param: str) -> Image:
    """The results are x * param, or x / param, of factors that are not negative."""

    def image(op: ElementwiseOp) -> Bounds:
        is_positive = values_of(op, param)[0] >= 0
        return (
            0.0 if is_positive and op.bounds[0] >= 0 else -np.inf,
            0.0 if is_positive and op.bounds[1] <= 0 else np.inf,
        )

    return image


def converted(op: ElementwiseOp) -> Bounds:
    """The results are the data in another element type, rounded to it or towards 0."""
    low, high = within(op.bounds, op.reads)
    if "float" in op.dtype:
        return _rounded(low, op.dtype), _rounded(high, op.dtype)
    return (
        math.floor(low) if math.isfinite(low) else low,
        math.ceil(high) if math.isfinite(high) else high,
    )


def within(bounds: Bounds, dtype: str) -> Bounds:
    """The bounds, and those of the element type where that is one of integers."""
    if "int" not in dtype:
        return bounds
    ends = np.iinfo(dtype)
    return max(bounds[0], ends.min), min(bounds[1], ends.max)


def at_least(param: str) -> Image:
    """The results are max(x, param)."""

    def image(op: ElementwiseOp) -> Bounds:
        low, high = values_of(op, param)
        return max(op.bounds[0], low), max(op.bounds[1], high)

    return image


def at_most(param: str) -> Image:
    """The results are min(x, param)."""

    def image(op: ElementwiseOp) -> Bounds:
        low, high = values_of(op, param)
        return min(op.bounds[0], low), min(op.bounds[1], high)

    return image


def filled(bounds: Bounds, move: Move) -> Bounds:
    """Bounds of data with these after something has moved them, and perhaps filled numbers in."""
    if not move.fills:
        return bounds
    if move.fill is None:
        return ALL
    return min(bounds[0], move.fill), max(bounds[1], move.fill)


def values_of(op: ElementwiseOp, param: str) -> Bounds:
    """The least and the greatest value of a tensor parameter."""
    operand = op.params.get(param)
    if not isinstance(operand, Operand) or operand.value is None or operand.value.size == 0:
        return ALL
    values = np.asarray(operand.value)
    low, high = float(values.min()), float(values.max())
    return ALL if np.isnan(low) else (low, high)


def _rounded(value: float, dtype: str) -> float:
    if "int" in dtype:
        return value
    with np.errstate(over="ignore"):
        return float(np.asarray(value, _numpy(dtype)))


def _below(value: float, dtype: str) -> float:
    number = _numpy(dtype).type(_rounded(value, dtype))
    return float(np.nextafter(number, _numpy(dtype).type(-np.inf)))


def _above(value: float, dtype: str) -> float:
    number = _numpy(dtype).type(_rounded(value, dtype))
    return float(np.nextafter(number, _numpy(dtype).type(np.inf)))


def _numpy(dtype: str) -> np.dtype:
    return np.dtype(dtype if dtype in ("float16", "float32", "float64") else "float32")
