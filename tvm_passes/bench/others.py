"""What other processes take of the machine while something is measured."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")
MUCH = 0.1
"""Cores that others may use before times are called doubtful."""

BUSY_FIELDS = (0, 1, 2, 5, 6, 7)
"""Of the first line of /proc/stat: user, nice, system, irq, softirq, steal by other hosts."""

USER_FIELDS = slice(11, 13)
"""Of /proc/PID/stat, behind the name: ticks in user and kernel mode of all threads."""


class Others:
    """A clock of the CPU time that neither this process nor its workers take.

    Parameters
    ----------
    pids
        Of the workers, which are there until `cores` is called.
    """

    def __init__(self, pids: Iterable[int] = ()) -> None:
        self.pids = tuple(pids)
        self.start = self._now()

    def cores(self) -> float | None:
        """Cores in use by others on average since the start; None where Linux does not tell."""
        start, now = self.start, self._now()
        if start is None or now is None or now[1] <= start[1]:
            return None
        return max(0.0, (now[0] - start[0]) / (now[1] - start[1]))

    def _now(self) -> tuple[float, float] | None:
        """CPU seconds of others, and wall time."""
        try:
            fields = (PROC / "stat").read_text().partition("\n")[0].split()[1:]
            ticks = sum(int(fields[n]) for n in BUSY_FIELDS) - sum(map(_ticks, self.pids))
        except (OSError, IndexError, ValueError):
            return None
        seconds = ticks / os.sysconf("SC_CLK_TCK") - time.process_time()
        return seconds, time.perf_counter()


def _ticks(pid: int) -> int:
    """Of a process and its threads."""
    text = (PROC / str(pid) / "stat").read_text()
    return sum(map(int, text.rpartition(")")[2].split()[USER_FIELDS]))
