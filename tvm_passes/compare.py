"""Compare two arrays bit by bit, and say of what kind each difference is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np


class Difference(Enum):
    """What two values of unequal bits differ in, the harmless kinds first."""

    ZERO_SIGN = "zero-sign"
    """Both are zero: a window that holds +0 and -0 yields either, and the order decides which."""

    NAN = "nan"
    """A NaN is at play, given or made of an infinity: TVM's maximum keeps or drops one as the order
    has it."""

    INFINITY = "infinity"
    """An infinity is at play: TVM's maximum starts from the lowest finite number."""

    ROUNDING = "rounding"
    """Both are close, and a rule is at play that is exact in real numbers alone, or a GPU that is
    compared with a CPU."""

    DIFFERENT = "different"
    """Any other: the rewrite has changed the result."""

    @property
    def allowed(self) -> bool:
        """Whether the contract of the passes leaves this open."""
        return self is not Difference.DIFFERENT


ROUNDINGS = 64
"""Of the largest number or of 1.  What max(f(min), f(max)) misses of gelu, silu, mish and
hard_swish themselves is 2, over all float16 values; other layers add to it."""

CPU_BOUND = 1e-4
"""Of the largest number or of 1.  A GPU fuses multiply-adds, and sums means and products with
matrices in another order than a CPU: on the networks of the tests that makes 1e-5 at most."""


Where = bool | np.ndarray
"""Everywhere or nowhere, or for each value of a result."""


@dataclass(frozen=True)
class Example:
    """One differing value: where it was met, and its two values."""

    sample: str
    index: tuple[int, ...]
    original: np.generic
    reordered: np.generic


@dataclass(frozen=True)
class Finding:
    """The differences of one kind.

    Parameters
    ----------
    kind
        What they differ in.
    count
        How many values.
    worst_ulp
        The largest `ulp_distance` among them; None where one of two values is NaN.
    first
        The first of them.
    """

    kind: Difference
    count: int
    worst_ulp: int | None
    first: Example


def compare(
    original: np.ndarray,
    reordered: np.ndarray,
    sample: str = "",
    *,
    infinity: Where = False,
    nan: Where = False,
    bound: float = 0.0,
) -> tuple[Finding, ...]:
    """The differences between two results, one finding a kind.

    Parameters
    ----------
    original, reordered
        Results of one shape and dtype.
    sample
        Name of the inputs that gave them.
    infinity, nan
        Whether those inputs hold infinities, or NaN, or by value of the result, whether what it
        is computed from does; there every difference but a zero's sign is put down to them.
    bound
        Values that are no further apart than this, times the largest of them or 1, differ in
        rounding.

    Raises
    ------
    ValueError
        If shapes or dtypes differ.
    """
    if (original.shape, original.dtype) != (reordered.shape, reordered.dtype):
        raise ValueError(f"{original.dtype}{original.shape}, {reordered.dtype}{reordered.shape}")
    rest = raw_bits(original) != raw_bits(reordered)
    if not rest.any():
        return ()
    findings = []
    for kind, mask in _masks(original, reordered, infinity, nan, bound):
        found = rest & mask
        rest &= ~mask
        if found.any():
            findings.append(_finding(kind, found, original, reordered, sample))
    return tuple(findings)


def merge(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """One finding a kind, of several comparisons; the first example of each stays."""
    merged: dict[Difference, Finding] = {}
    for finding in findings:
        known = merged.get(finding.kind)
        merged[finding.kind] = finding if known is None else _sum(known, finding)
    return tuple(merged[kind] for kind in Difference if kind in merged)


def raw_bits(array: np.ndarray) -> np.ndarray:
    """The array's bits, as unsigned integers of the same size."""
    return np.ascontiguousarray(array).view(f"u{array.itemsize}").reshape(array.shape)


def ulp_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How many steps lie between two numbers of a format: 1 from a float to its neighbour.

    Floats are ordered by their bits, both zeros as one number: the smallest denormal is 1 from
    zero and 2 from its negative, infinity is 1 from the largest finite number.  Integers are
    ordered as they are.  Meaningless for NaN.

    Parameters
    ----------
    a, b
        Arrays of one dtype.

    Returns
    -------
    numpy.ndarray
        uint64, in the shape that both broadcast to.
    """
    first, second = _ordered(a), _ordered(b)
    # From the lowest float64 to the highest is more than int64 holds; modulo 2**64 it is right.
    with np.errstate(over="ignore"):
        return np.maximum(first, second).view("u8") - np.minimum(first, second).view("u8")


def _ordered(array: np.ndarray) -> np.ndarray:
    """int64 in the order of the array's values."""
    array = np.asarray(array)
    if array.dtype.kind == "u":
        return (array.astype("u8") ^ np.uint64(1 << 63)).view("i8")
    if array.dtype.kind != "f":
        return array.astype("i8")
    sign = 1 << (8 * array.itemsize - 1)
    bits = raw_bits(array)
    magnitude = (bits & (sign - 1)).astype("i8")
    return np.where(bits & sign, -magnitude, magnitude)


def _masks(
    original: np.ndarray, reordered: np.ndarray, infinity: Where, nan: Where, bound: float
) -> list[tuple[Difference, np.ndarray | np.bool_]]:
    """Where each kind holds, of those values whose bits differ; the first that holds counts."""
    zero: np.ndarray | np.bool_ = np.bool_(False)
    overflow = lost = close = zero
    if original.dtype.kind == "f":
        zero, lost = original == reordered, np.isnan(original)
        # f overflows to -inf in a whole window: the maximum yields the number it starts from.
        close = _close(original, reordered, bound) if bound else close
        overflow = np.isinf(reordered) & (np.abs(original) == np.finfo(original.dtype).max)
    return [
        (Difference.ZERO_SIGN, zero),
        (Difference.NAN, (lost & infinity) | nan),
        (Difference.INFINITY, overflow | infinity),
        (Difference.ROUNDING, close),
        (Difference.DIFFERENT, np.bool_(True)),
    ]


def inexact_bound(dtype: np.dtype[Any]) -> float:
    """The bound for rules that are exact in real numbers alone: `ROUNDINGS`."""
    return ROUNDINGS * float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0


def cpu_bound(dtype: np.dtype[Any]) -> float:
    """The bound between a GPU and a CPU: `CPU_BOUND`, or a narrow format's own roundings."""
    return max(CPU_BOUND, inexact_bound(dtype)) if dtype.kind == "f" else 0.0


def _close(original: np.ndarray, reordered: np.ndarray, bound: float) -> np.ndarray:
    finite = np.isfinite(original) & np.isfinite(reordered)
    largest = np.max(np.abs(original), where=finite, initial=1)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(original.astype("f8") - reordered.astype("f8"))
    return finite & (apart <= bound * float(largest))


def _finding(
    kind: Difference, found: np.ndarray, original: np.ndarray, reordered: np.ndarray, sample: str
) -> Finding:
    a, b = original[found], reordered[found]
    is_float = a.dtype.kind == "f"
    has_nan = is_float and bool(np.isnan(a).any() or np.isnan(b).any())
    index = tuple(int(axis[0]) for axis in np.nonzero(np.atleast_1d(found)))[: found.ndim]
    return Finding(
        kind,
        count=len(a),
        worst_ulp=None if has_nan else int(ulp_distance(a, b).max()),
        first=Example(sample, index, a[0], b[0]),
    )


def _sum(a: Finding, b: Finding) -> Finding:
    known = a.worst_ulp is not None and b.worst_ulp is not None
    worst = max(a.worst_ulp or 0, b.worst_ulp or 0) if known else None
    return Finding(a.kind, a.count + b.count, worst, a.first)
