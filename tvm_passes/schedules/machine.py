"""What a schedule must know of a CPU: vectors, registers, caches, cores."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

from tvm_passes.namespaces import cpu_features, host_cpu

STACK = "global"
"""The scope of what registers hold: in it alone TVM puts less than 1,024 bytes on the stack.

LLVM drops what nothing reads on the stack.  In another scope it is memory of TVM's pool: the
accumulators of one loop stay in registers past the next, to be stored, and that one spills its own.
"""


@dataclass(frozen=True)
class Machine:
    """A CPU core, as far as register tiles and cache blocks depend on it.

    Parameters
    ----------
    lanes
        float32 elements of a vector register.
    registers
        Vector registers.
    fmas
        Fused multiply-adds of full vectors that a core starts each cycle.
    latency
        Cycles from a multiply-add's operands to its result.
    loads
        Full vectors that a core loads from L1 each cycle.
    memory_operands
        Whether a multiply-add broadcasts one of its operands from memory, so that no register
        holds it.
    l1, l2
        Bytes of a core's data caches.
    l3
        Bytes of the cache that cores share.
    cores
        Threads that TVM's pool runs on; where that is not known, a few: the pool has as many as it
        finds at run time.
    """

    lanes: int
    registers: int
    fmas: float
    latency: int
    loads: float
    memory_operands: bool
    l1: int = 32 << 10
    l2: int = 512 << 10
    l3: int = 16 << 20
    cores: int = 4

    def vectors(self, channels: int) -> int:
        """Vector registers that hold so many float32 channels."""
        return ceil(channels / self.lanes)


# Ports and latencies: Fog, "Instruction tables" (agner.org/optimize), and Intel's and Arm's
# optimization manuals.  Where the members of a family differ, the lesser of them: one 512-bit FMA
# a cycle (Zen 4, client parts), latency 4.
AVX512 = Machine(16, 32, 1, 4, 1, memory_operands=True)
AVX2 = Machine(8, 16, 2, 4, 2, memory_operands=False)
AVX = Machine(8, 16, 1, 5, 1, memory_operands=False)
SSE = Machine(4, 16, 1, 5, 2, memory_operands=False)
NEON = Machine(4, 32, 2, 4, 2, memory_operands=False)
SCALAR = Machine(4, 16, 1, 4, 1, memory_operands=False)

FAMILIES = (("avx512f", AVX512), ("avx2", AVX2), ("avx", AVX), ("sse2", SSE), ("neon", NEON))
"""The widest extension of a target decides."""


def machine_of(target: Any) -> Machine:
    """The CPU that a target compiles for.

    Caches and cores are asked of this machine if the target's CPU is the one it runs on; a
    target's ``num-cores`` goes before that.

    Parameters
    ----------
    target
        A ``tvm.target.Target`` of kind llvm.
    """
    features = cpu_features(target)
    family = next((machine for name, machine in FAMILIES if name in features), SCALAR)
    cores = int(target.attrs.get("num-cores", 0))
    if str(target.attrs.get("mcpu", "")) == host_cpu():
        caches = _host_caches()
        family = replace(
            family,
            l1=caches.get(1, family.l1),
            l2=caches.get(2, family.l2),
            l3=caches.get(3, family.l3),
            cores=len(os.sched_getaffinity(0)),
        )
    return replace(family, cores=cores) if cores else family


MIN_BLOCK = 8
"""Channels of a block at least, on targets with narrower vectors, too."""


def block_of(machine: Machine) -> int:
    """Channels of a block of a blocked layout."""
    return max(MIN_BLOCK, machine.lanes)


CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def _host_caches() -> Mapping[int, int]:
    """Bytes of the first core's data caches by level, as far as Linux tells them."""
    found: dict[int, int] = {}
    for folder in CACHES.glob("index*"):
        try:
            kind = (folder / "type").read_text().strip()
            level = (folder / "level").read_text().strip()
            size = (folder / "size").read_text().strip()
        except OSError:
            continue
        number = re.fullmatch(r"(\d+)([KM])", size)
        if kind != "Instruction" and number:
            found[int(level)] = int(number[1]) << {"K": 10, "M": 20}[number[2]]
    return found
