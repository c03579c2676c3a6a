"""Is one version faster than another: the ratio of their times, its interval, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

LEVEL = 0.05
"""How often a true difference of zero may be called significant."""

RESAMPLES = 2000
FASTER, SLOWER, NOT_SIGNIFICANT = "faster", "slower", "not significant"


@dataclass(frozen=True)
class Ratio:
    """Time of the base over time of another: above 1 the other is faster.

    Parameters
    ----------
    ratio
        Median of the rounds' ratios, or ratio of the medians where there are no common rounds.
    low, high
        Bootstrap interval of it, at 1 - `LEVEL`.
    p
        Of the sign test: how likely so uneven a split of faster and slower rounds is by chance.
    verdict
        `FASTER` or `SLOWER` where the interval leaves out 1 and `p` is below `LEVEL`.
    """

    ratio: float
    low: float
    high: float
    p: float
    verdict: str

    def as_dict(self) -> dict[str, Any]:
        """All of it, in plain values."""
        return asdict(self)


def compare(base: Sequence[float], other: Sequence[float], *, paired: bool = True) -> Ratio:
    """Compare samples in seconds.

    Parameters
    ----------
    base, other
        One sample a round.
    paired
        Whether the n-th samples of both are of the same round, so that what slows a round
        slows both.  If not, the ratio is that of the medians, and the sign test shuffles both: runs
        on different days have no common rounds.
    """
    random = np.random.default_rng(0)
    first, second = (np.log(np.asarray(row)) for row in (base, other))
    rounds = min(len(first), len(second))
    if paired:
        logs = first[:rounds] - second[:rounds]
        middle, medians = np.median(logs), _medians(logs, random)
    else:
        logs = random.permutation(first)[:rounds] - random.permutation(second)[:rounds]
        middle = np.median(first) - np.median(second)
        medians = _medians(first, random) - _medians(second, random)
    low, high = np.quantile(medians, [LEVEL / 2, 1 - LEVEL / 2])
    p = sign_test(int(np.sum(logs > 0)), int(np.sum(logs < 0)))
    return Ratio(
        ratio=math.exp(middle),
        low=math.exp(low),
        high=math.exp(high),
        p=p,
        verdict=_verdict(low, high, p),
    )


def _medians(values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Of each resample, as large as the sample."""
    return np.median(values[random.integers(0, len(values), (RESAMPLES, len(values)))], axis=1)


def _verdict(low: float, high: float, p: float) -> str:
    if p >= LEVEL or low <= 0 <= high:
        return NOT_SIGNIFICANT
    return FASTER if low > 0 else SLOWER


def sign_test(above: int, below: int) -> float:
    """Two-sided probability of a split at least this uneven if both sides are equally likely.

    It holds for samples of any distribution, outliers included, as long as rounds are independent.
    """
    n = above + below
    tail = sum(math.comb(n, k) for k in range(max(above, below), n + 1))
    return min(1.0, 2 * tail / 2**n)
