"""What a kernel takes of a multiprocessor, as ptxas reports it, and how many blocks then fit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tvm_passes.errors import DeviceCompilerError

ENTRY = re.compile(r"Compiling entry function '([^']+)' for")
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
BOUNDS = re.compile(r"__launch_bounds__\((\d+)[^)]*\)\s*(\w+)\s*\(")

WARP = 32
MAX_THREADS = 1024
"""Threads of a block: CUDA C++ Programming Guide, table "Technical Specifications"."""
MAX_STATIC_SHARED = 48 << 10
"""Bytes of shared memory that a kernel may declare without asking for more when it starts."""
BLOCK_REGISTERS = 65536
"""Registers of a block, of every architecture since sm_53 but sm_62."""


@dataclass(frozen=True)
class Resources:
    """What one kernel takes.

    Parameters
    ----------
    registers
        Of a thread.
    shared
        Bytes of a block.
    stack, spill_stores, spill_loads
        Bytes of a thread in local memory, which is off the chip.
    threads
        Of a block.
    """

    registers: int
    shared: int
    stack: int
    spill_stores: int
    spill_loads: int
    threads: int


def read_resources(log: str, source: str) -> Mapping[str, Resources]:
    """What ``ptxas -v`` reports, by kernel.

    Parameters
    ----------
    log
        Of the compiler.
    source
        The CUDA C, which bounds the threads of each kernel.
    """
    threads = {name: int(number) for number, name in BOUNDS.findall(source)}
    found = {}
    for part in re.split(r"(?=Compiling entry function)", log)[1:]:
        entry, registers = ENTRY.match(part), REGISTERS.search(part)
        if entry is None or registers is None:
            continue
        spills, shared = SPILLS.search(part), SHARED.search(part)
        stack, stores, loads = (int(n) for n in spills.groups()) if spills else (0, 0, 0)
        found[entry[1]] = Resources(
            registers=int(registers[1]),
            shared=int(shared[1]) if shared else 0,
            stack=stack,
            spill_stores=stores,
            spill_loads=loads,
            threads=threads.get(entry[1], 1),
        )
    return found


def check_limits(name: str, taken: Resources, arch: str) -> None:
    """Make sure that a GPU can start a kernel.

    Raises
    ------
    DeviceCompilerError
        If a block takes more than there is.
    """
    limits = (
        ("threads a block", taken.threads, MAX_THREADS),
        ("bytes of shared memory a block", taken.shared, MAX_STATIC_SHARED),
        ("registers a block", taken.registers * taken.threads, BLOCK_REGISTERS),
    )
    for what, needs, most in limits:
        if needs > most:
            raise DeviceCompilerError(
                f"kernel {name} takes {needs} {what}, {arch} has {most}: "
                "choose smaller tiles, or leave the schedule to tvm-reorder"
            )
