"""How long a kernel takes at least, by what it executes and moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from tvm_passes.cuda.execution import Counts
from tvm_passes.cuda.gpu import Gpu
from tvm_passes.cuda.resources import WARP, Resources

FP32 = ("FFMA", "FADD", "FMUL", "IMAD", "HFMA2")
SPECIAL = ("MUFU",)
SHARED = ("LDS", "STS")
NO_LANES = ("BRA", "EXIT", "BAR", "BSSY", "BSYNC", "NOP", "LDG", "STG", "CALL", "RET")
"""Neither of those nor of the ALU, which everything else is put down to."""


@dataclass(frozen=True)
class Estimate:
    """The least time of a kernel, in seconds.

    Parameters
    ----------
    seconds
        The longest of the bounds.
    bound
        Its name: memory, issue, fp32, alu, special or shared.
    """

    seconds: float
    bound: str


def estimate(
    gpu: Gpu,
    taken: Resources,
    counts: Counts,
    blocks: int,
    unique_bytes: int,
    conflicts: float = 0.0,
) -> Estimate:
    """The roofline of a kernel.

    Parameters
    ----------
    gpu
        Where it runs.
    taken
        What it takes.
    counts
        What a thread executes.
    blocks
        How many it starts; the busiest multiprocessor decides.
    unique_bytes
        Of all its arguments, each moved once.
    conflicts
        Turns that accesses to shared memory lose to bank conflicts, of those that they take.
    """
    warps = ceil(taken.threads / WARP) * ceil(blocks / gpu.multiprocessors)
    cycles = {
        name: number * warps * WARP / lanes
        for name, (number, lanes) in _lanes(gpu, counts.instructions).items()
    }
    cycles["shared"] *= 1 + conflicts
    bounds = {name: count / gpu.clock_hz for name, count in cycles.items()}
    bounds["memory"] = unique_bytes / gpu.bytes_per_second
    bound = max(bounds, key=lambda name: bounds[name])
    return Estimate(bounds[bound], bound)


def _lanes(gpu: Gpu, executed: Mapping[str, int]) -> Mapping[str, tuple[int, int]]:
    """Instructions of a thread, and lanes a clock, by what executes them."""

    def count(kinds: tuple[str, ...]) -> int:
        return sum(executed.get(kind, 0) for kind in kinds)

    total = sum(executed.values())
    named = count(FP32) + count(SPECIAL) + count(SHARED) + count(NO_LANES)
    return {
        "issue": (total, gpu.schedulers * WARP),
        "fp32": (count(FP32), gpu.fp32_per_clock),
        "special": (count(SPECIAL), gpu.special_per_clock),
        "shared": (count(SHARED), gpu.shared_per_clock),
        "alu": (total - named, gpu.alu_per_clock),
    }
