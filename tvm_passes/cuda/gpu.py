"""What a GPU has: numbers from ``targets/cuda``, each with its source there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import ceil

from tvm_passes.cuda.resources import WARP, Resources
from tvm_passes.errors import TargetError
from tvm_passes.target import targets_folder

REGISTER_UNIT = 256
"""Registers that a warp is given at a time: CUDA Occupancy Calculator, sm_80 and later."""
SHARED_UNIT = 128
"""Bytes of shared memory that a block is given at a time: the same."""


@dataclass(frozen=True)
class Gpu:
    """A GPU, as far as a roofline depends on it; all but the first five of a multiprocessor.

    Parameters
    ----------
    name, arch
        The product, and its architecture.
    multiprocessors
        How many.
    clock_hz
        Boost clock.
    bytes_per_second
        Of its memory.
    fp32_per_clock, alu_per_clock, special_per_clock, shared_per_clock
        Lanes a clock: float32 multiply-adds; comparisons and integers; exp2, reciprocal and the
        like; words of shared memory.
    schedulers
        Warps that start an instruction each clock.
    warps, blocks, registers, shared_bytes
        How many fit.
    reserved_shared_bytes
        What each block takes besides its own.
    """

    name: str
    arch: str
    multiprocessors: int
    clock_hz: float
    bytes_per_second: float
    fp32_per_clock: int
    alu_per_clock: int
    special_per_clock: int
    shared_per_clock: int
    schedulers: int
    warps: int
    blocks: int
    registers: int
    shared_bytes: int
    reserved_shared_bytes: int

    def resident(self, taken: Resources) -> int:
        """Blocks of a kernel that a multiprocessor runs at a time."""
        warps = ceil(taken.threads / WARP)
        per_warp = ceil(max(taken.registers, 1) * WARP / REGISTER_UNIT) * REGISTER_UNIT
        by_registers = self.registers // self.schedulers // per_warp * self.schedulers // warps
        shared = ceil((taken.shared + self.reserved_shared_bytes) / SHARED_UNIT) * SHARED_UNIT
        return min(self.blocks, self.warps // warps, by_registers, self.shared_bytes // shared)

    def occupancy(self, taken: Resources) -> float:
        """Share of a multiprocessor's warps that a kernel fills."""
        return self.resident(taken) * ceil(taken.threads / WARP) / self.warps


def known_gpus() -> Sequence[str]:
    """Names of the GPUs that are known."""
    return sorted(path.parent.name for path in targets_folder().glob("cuda/*/gpu.json"))


def read_gpu(name: str) -> Gpu:
    """A GPU by its name.

    Raises
    ------
    TargetError
        If it is not known.
    """
    if name not in known_gpus():
        raise TargetError(f"no GPU {name!r}: expected {', '.join(known_gpus())}")
    found = json.loads((targets_folder() / "cuda" / name / "gpu.json").read_text())
    values = {
        field.name: found[field.name]["value"]
        if isinstance(found[field.name], dict)
        else found[field.name]
        for field in fields(Gpu)
    }
    return Gpu(**values)
