"""Whether a kernel ever falls from one value to the next, checked value by value.

A rule's swap is exact where the function *as compiled* is monotone: where no two neighbouring
values of the element type have outputs in the wrong order.  By transitivity no other two have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Kernel = Callable[[np.ndarray], np.ndarray]
"""An elementwise function of a one-dimensional array of any length."""

FLOAT_BITS = {
    # dtype: bits, bits of the fraction
    "float16": (16, 10),
    "bfloat16": (16, 7),
    "float32": (32, 23),
    "float64": (64, 52),
}


class Line:
    """All finite values of an element type, in increasing order, by index.

    A float's -0.0 comes just before its +0.0; there are no NaNs.
    """

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.bits, fraction = FLOAT_BITS.get(dtype, (0, 0))
        if self.bits:
            self._unsigned = np.dtype(f"uint{self.bits}")
            # Magnitudes below that of infinity, whose exponent is all ones.
            self.zero = ((1 << (self.bits - fraction - 1)) - 1) << fraction
            self.stop = 2 * self.zero
        else:
            info = np.iinfo(dtype)
            self.zero, self.stop = -int(info.min), int(info.max) - int(info.min) + 1

    def values(self, start: int, stop: int) -> np.ndarray:
        """The values with these indices; ``bfloat16`` is that of ml_dtypes."""
        if not self.bits:
            return np.arange(start - self.zero, stop - self.zero).astype(self.dtype)
        sign = 1 << (self.bits - 1)
        middle = min(max(self.zero, start), stop)
        bits = np.arange(stop - start, dtype=self._unsigned)
        if start < middle:  # the bits of a negative float fall as it grows
            bits[: middle - start] = sign + self.zero - 1 - start - bits[: middle - start]
        if middle < stop:
            first, last = middle - self.zero, stop - self.zero
            bits[middle - start :] = np.arange(first, last, dtype=bits.dtype)
        return bits.view(storage(self.dtype))

    def index(self, value: float) -> int:
        """The index of a finite value, +0.0 for 0."""
        if not self.bits:
            return int(value) + self.zero
        rounded = np.array(value, storage(self.dtype)).reshape(1)
        rank = int(ranks(rounded, self.dtype)[0])
        return self.zero + rank if np.signbit(value) == 0 else self.zero - 1 + rank


def storage(dtype: str) -> np.dtype[Any]:
    """The NumPy dtype that holds an element type."""
    if dtype == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(dtype)


def comparable(values: np.ndarray, dtype: str) -> np.ndarray:
    """The same numbers in a type that NumPy compares; TVM 0.19 hands bfloat16 over as uint16."""
    if dtype != "bfloat16":
        return values
    return (values.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


def ranks(values: np.ndarray, dtype: str) -> np.ndarray:
    """How many values of the type lie between 0 and each, with its sign; both zeros are 0."""
    if dtype not in FLOAT_BITS:
        return values.astype(np.int64)
    bits = FLOAT_BITS[dtype][0]
    raw = values.view(f"uint{bits}")
    magnitude = (raw & raw.dtype.type((1 << (bits - 1)) - 1)).astype(np.int64)
    return np.where(raw >> raw.dtype.type(bits - 1), -magnitude, magnitude)


@dataclass(frozen=True)
class Inversion:
    """Two neighbouring inputs with outputs in the wrong order."""

    inputs: tuple[float, float]
    outputs: tuple[float, float]
    ulps: int
    relative: float


@dataclass
class Report:
    """What a sweep found: counts, and the inversion of the most ulps."""

    values: int = 0
    inversions: int = 0
    nans: int = 0
    worst: Inversion | None = None
    nan_inputs: list[float] = field(default_factory=list)

    @property
    def monotone(self) -> bool:
        """Whether no output was in the wrong order, and none was NaN."""
        return self.inversions == 0 and self.nans == 0


def windows(
    start: int, stop: int, size: int, sample: int | None = None, seed: int = 0
) -> list[tuple[int, int]]:
    """Ranges of at most `size` indices that cover all; neighbours share one, so no pair is lost.

    With `sample`, that many of them at random, or all where there are no more.
    """
    step = size - 1
    count = max(1, -(-(stop - start - 1) // step))
    chosen: Iterable[int] = range(count)
    if sample is not None and sample < count:
        rng = np.random.default_rng(seed)
        chosen = sorted(rng.choice(count, sample, replace=False).tolist())
    return [(start + n * step, min(start + n * step + size, stop)) for n in chosen]


def sweep(
    kernel: Kernel,
    line: Line,
    ranges: Iterable[tuple[int, int]],
    *,
    out_dtype: str | None = None,
    falling: bool = False,
) -> Report:
    """Run a kernel on ranges of indices and look at every pair of neighbours in them.

    Parameters
    ----------
    kernel
        The function as compiled.
    line
        Its inputs.
    ranges
        Half-open ranges of indices of `line`, for example from `windows`.
    out_dtype
        Element type of the outputs, by default that of the inputs.
    falling
        Look for outputs that rise instead of outputs that fall.
    """
    report = Report()
    for start, stop in ranges:
        inputs = line.values(start, stop)
        outputs = kernel(inputs)
        _inspect(report, line.dtype, inputs, outputs, out_dtype or line.dtype, falling)
    return report


def _inspect(
    report: Report,
    dtype: str,
    inputs: np.ndarray,
    outputs: np.ndarray,
    out_dtype: str,
    falling: bool,
) -> None:
    report.values += len(inputs)
    numbers = comparable(outputs, out_dtype)
    before, after = (numbers[1:], numbers[:-1]) if falling else (numbers[:-1], numbers[1:])
    if np.all(before <= after):  # false where either is NaN
        return
    nans = np.isnan(numbers)
    if nans.any():
        report.nans += int(nans.sum())
        few = comparable(inputs[nans][:3], dtype)
        report.nan_inputs = (report.nan_inputs + few.astype(float).tolist())[:3]
    found = np.flatnonzero(before > after)
    report.inversions += len(found)
    if len(found):
        _keep_worst(report, comparable(inputs, dtype), outputs, out_dtype, found)


def _keep_worst(
    report: Report, inputs: np.ndarray, outputs: np.ndarray, out_dtype: str, found: np.ndarray
) -> None:
    rank = ranks(outputs, out_dtype)
    gaps = np.abs(rank[found + 1] - rank[found])
    at = int(found[int(gaps.argmax())])
    ulps = int(gaps.max())
    if report.worst is not None and report.worst.ulps >= ulps:
        return
    first, second = (float(value) for value in comparable(outputs[at : at + 2], out_dtype))
    scale = max(abs(first), abs(second))
    report.worst = Inversion(
        inputs=(float(inputs[at]), float(inputs[at + 1])),
        outputs=(first, second),
        ulps=ulps,
        relative=abs(first - second) / scale if np.isfinite(scale) else float("inf"),
    )


@dataclass(frozen=True)
class Wavering:
    """By how much max(f(min S), f(max S)) misses max f(S), over all sets S of the values looked at.

    Parameters
    ----------
    count
        How many values are the largest of some set by more than its ends.
    worst_ulp, worst
        By how much at most, in values of the type between both, and in roundings of 1.
    at
        The value that is missed most, in roundings of 1.
    """

    count: int
    worst_ulp: int
    worst: float
    at: float


def wavering(kernel: Kernel, line: Line) -> Wavering:
    """Look at all sets of values of a float type of 16 bits.

    The ends that show least of f(x) are where f is least on either side of x.
    """
    inputs = line.values(0, line.stop)
    outputs = kernel(inputs)
    numbers = comparable(outputs, line.dtype).astype(np.float64)
    rank = ranks(outputs, line.dtype)
    shown = np.maximum(np.minimum.accumulate(rank), np.minimum.accumulate(rank[::-1])[::-1])
    missed = rank - shown
    order = np.argsort(rank, kind="stable")
    ends = numbers[order][np.searchsorted(rank[order], shown)]
    eps = 2.0 ** -FLOAT_BITS[line.dtype][1]
    with np.errstate(invalid="ignore"):
        apart = np.where(missed > 0, numbers - ends, 0.0) / eps
    worst = int(apart.argmax())
    at = float(comparable(inputs[worst : worst + 1], line.dtype)[0])
    return Wavering(int((missed > 0).sum()), int(missed.max()), float(apart[worst]), at)
