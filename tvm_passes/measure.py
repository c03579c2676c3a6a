"""Times of several runners side by side: interleaved rounds, medians and their spread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Timing:
    """Seconds a call took, one sample a round."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the samples, in seconds."""
        return float(np.median(self.samples))

    @property
    def mad(self) -> float:
        """Median absolute deviation of the samples from their median, in seconds."""
        return float(np.median(np.abs(np.asarray(self.samples) - self.median)))


def interleave(
    runners: Mapping[str, Callable[[], object]], rounds: int, seconds: float = 0.002
) -> dict[str, Timing]:
    """Time every runner once a round, so that a slow spell of the machine meets all of them.

    Parameters
    ----------
    runners
        What to call, by name.
    rounds
        Samples of each.
    seconds
        How long a sample lasts at least: a runner is called as often as that takes, and the
        sample is the mean of those calls.  A first sample of each warms up and is dropped.
    """
    calls = {name: _calls_for(run, seconds) for name, run in runners.items()}
    samples: dict[str, list[float]] = {name: [] for name in runners}
    order = list(runners)
    for n in range(rounds):
        for name in order if n % 2 == 0 else reversed(order):
            samples[name].append(_sample(runners[name], calls[name]))
    return {name: Timing(tuple(values)) for name, values in samples.items()}


def set_threads(threads: int) -> None:
    """Set the number of threads that TVM's kernels run on in this process."""
    import tvm

    tvm.get_global_func("runtime.config_threadpool")(1, threads)


def _calls_for(run: Callable[[], object], seconds: float) -> int:
    run()
    return max(1, round(seconds / max(_sample(run, 1), 1e-9)))


def _sample(run: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls
