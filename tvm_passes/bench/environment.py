"""What a result depends on: command, CPU, caches, load, versions."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shlex
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tvm_passes.dialects import TVM

CPUINFO = Path("/proc/cpuinfo")
CPU = Path("/sys/devices/system/cpu/cpu0")
GOVERNOR = CPU / "cpufreq" / "scaling_governor"
ISA = re.compile(r"sse|ssse|avx|fma|f16c|bmi|amx|gfni|asimd|neon|sve|fp16|bf16|i8mm")


def environment() -> dict[str, Any]:
    """Describe this machine and this moment, in plain values; what Linux does not tell is None."""
    info = _cpuinfo()
    flags = (info.get("flags") or info.get("Features") or "").split()
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "isa": sorted(flag for flag in flags if ISA.match(flag)),
        "cores": len(os.sched_getaffinity(0)),
        "caches": caches(),
        "governor": _read(GOVERNOR),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "tvm-passes": version("tvm-passes"),
        "tvm": _tvm(),
        "load": load(),
    }


def _tvm() -> str | None:
    """Distribution and version of the TVM installed."""
    for name in TVM.values():
        with contextlib.suppress(PackageNotFoundError):
            return f"{name} {version(name)}"
    return None


def load() -> float:
    """Processes that ran or waited to, a mean over the last minute."""
    return os.getloadavg()[0]


def caches(folder: Path = CPU / "cache") -> dict[str, str]:
    """Sizes of the first core's caches, as ``L1 Data: 32K``."""
    found = {}
    for index in sorted(folder.glob("index*")):
        level, kind, size = (_read(index / name) for name in ("level", "type", "size"))
        found[f"L{level} {kind}"] = str(size)
    return found


def _cpuinfo() -> Mapping[str, str]:
    lines = (line.partition(":") for line in (_read(CPUINFO) or "").splitlines())
    info: dict[str, str] = {}
    for key, _, value in lines:
        info.setdefault(key.strip(), value.strip())
    return info


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
