"""Statistics of samples: median and its spread."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Samples:
    """Seconds and CPU seconds of a call, one sample a round."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, seconds: float, cpu: float) -> None:
        """Add a round's."""
        self.seconds.append(seconds)
        self.cpu.append(cpu)

    @property
    def median(self) -> float:
        """Median of the seconds."""
        return float(np.median(self.seconds))

    @property
    def mad(self) -> float:
        """Median absolute deviation of the seconds from their median."""
        return mad(self.seconds)

    @property
    def cores(self) -> float:
        """Cores in use: the median of CPU time over wall time."""
        return float(np.median(np.divide(self.cpu, self.seconds)))

    def as_dict(self) -> dict[str, Any]:
        """All of it, in plain values."""
        return {
            "median": self.median,
            "mad": self.mad,
            "cores": self.cores,
            "samples": self.seconds,
            "cpu": self.cpu,
        }


def mad(values: Iterable[float]) -> float:
    """Median absolute deviation from the median."""
    array = np.asarray(list(values))
    return float(np.median(np.abs(array - np.median(array))))


def geometric_mean(values: Iterable[float]) -> float | None:
    """Geometric mean of positive numbers; None of none."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else None
