"""Is one version faster than another: the ratio of their times, its interval, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tvm_passes.errors import MissingExtraError

LEVEL = 0.05
"""How often a true difference of zero may be called significant."""

LEAST_ROUNDS = 6
"""Rounds of which a sign test can say as much: all on one side have a p of 2 to the 1 - n."""

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
        Of the sign test, which holds for any distribution: how likely so uneven a split of faster
        and slower rounds is by chance.
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

    Raises
    ------
    MissingExtraError
        If SciPy is not installed.
    """
    stats, random = scipy_stats(), np.random.default_rng(0)
    first, second = (np.log(np.asarray(row)) for row in (base, other))
    rounds = min(len(first), len(second))
    samples: tuple[np.ndarray, ...] = (first, second)
    statistic: Callable[..., Any] = _between_medians
    if paired:
        logs = first[:rounds] - second[:rounds]
        middle, samples, statistic = np.median(logs), (logs,), np.median
    else:
        logs = random.permutation(first)[:rounds] - random.permutation(second)[:rounds]
        middle = np.median(first) - np.median(second)
    low = high = middle
    if min(map(len, samples)) > 1:  # there is nothing to draw from one
        low, high = stats.bootstrap(
            samples,
            statistic,
            n_resamples=RESAMPLES,
            confidence_level=1 - LEVEL,
            method="percentile",
            rng=random,
        ).confidence_interval
    faster, slower = int(np.sum(logs > 0)), int(np.sum(logs < 0))
    split = faster + slower
    p = float(stats.binomtest(faster, split).pvalue) if split else 1.0
    return Ratio(
        ratio=math.exp(middle),
        low=math.exp(low),
        high=math.exp(high),
        p=p,
        verdict=_verdict(low, high, p),
    )


def scipy_stats() -> Any:
    """SciPy's statistics.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        from scipy import stats
    except ImportError:
        raise MissingExtraError("bench", "SciPy", "comparing times") from None
    return stats


def _between_medians(first: np.ndarray, second: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.asarray(np.median(first, axis=axis) - np.median(second, axis=axis))


def _verdict(low: float, high: float, p: float) -> str:
    if p >= LEVEL or low <= 0 <= high:
        return NOT_SIGNIFICANT
    return FASTER if low > 0 else SLOWER
