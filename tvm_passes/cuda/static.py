"""What kernels for a GPU take, execute and move, told from their machine code alone."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from tvm_passes.compile import Step, silent
from tvm_passes.cuda.compiler import KernelCompiler, compile_device_code, kernel_compiler
from tvm_passes.cuda.execution import Counts, Place, execute
from tvm_passes.cuda.gpu import Gpu
from tvm_passes.cuda.kernels import Kernels
from tvm_passes.cuda.resources import Resources
from tvm_passes.cuda.roofline import Estimate, estimate
from tvm_passes.cuda.sass import disassemble
from tvm_passes.dialects import require
from tvm_passes.errors import TargetError
from tvm_passes.frontends import load_model

VERSIONS = ("original", "reordered", "scheduled", "fused")
"""Both orders under TVM's own schedules, then both under ours."""
WINOGRAD = "winograd"
"""As fused, where sums may be taken in another order."""

SHOWN = ("FMNMX", "MUFU", "FFMA", "LDG", "STG", "LDS", "STS", "BAR")
"""Kinds of instructions that are counted by themselves."""


@dataclass(frozen=True)
class KernelReport:
    """One kernel.

    Parameters
    ----------
    name
        The kernel's.
    calls
        How often a run starts it.
    blocks
        Of threads, for each start.
    taken
        What it takes.
    counts
        What one thread of a block in the middle executes.
    occupancy
        Share of a multiprocessor's warps.
    unique_bytes
        Of its arguments.
    estimate
        The least time.
    conflicts
        Turns that accesses to shared memory lose to bank conflicts, of those that they take;
        None where that is not known, as of Relay's kernels.
    """

    name: str
    calls: int
    blocks: int
    taken: Resources
    counts: Counts
    occupancy: float
    unique_bytes: int
    estimate: Estimate
    conflicts: float | None = None

    @property
    def threads(self) -> int:
        """Threads of all its starts."""
        return self.calls * self.blocks * self.taken.threads


@dataclass(frozen=True)
class VersionReport:
    """The kernels of one version of a model."""

    version: str
    kernels: Sequence[KernelReport]

    def instructions(self) -> Counter[str]:
        """Instructions of all threads, by kind."""
        total: Counter[str] = Counter()
        for kernel in self.kernels:
            for kind, count in kernel.counts.instructions.items():
                total[kind] += count * kernel.threads
        return total

    @property
    def requested_bytes(self) -> int:
        """Bytes that all threads load from and store to global memory, caches included."""
        return sum((k.counts.loaded + k.counts.stored) * k.threads for k in self.kernels)

    @property
    def unique_bytes(self) -> int:
        """Bytes of all arguments, once for each start of a kernel."""
        return sum(kernel.unique_bytes * kernel.calls for kernel in self.kernels)

    @property
    def spilled(self) -> int:
        """Bytes of a thread that are spilled, over all kernels."""
        return sum(k.taken.spill_stores + k.taken.spill_loads for k in self.kernels)

    @property
    def conflicts(self) -> float:
        """The largest share of turns that a kernel loses to bank conflicts."""
        return max((kernel.conflicts or 0.0 for kernel in self.kernels), default=0.0)

    @property
    def seconds(self) -> float:
        """The least time of all kernels, one after another."""
        return sum(kernel.estimate.seconds * kernel.calls for kernel in self.kernels)


def static_reports(
    model: Path,
    gpu: Gpu,
    versions: Sequence[str] = (),
    *,
    fast_math: bool = False,
    step: Step = silent,
) -> Iterator[VersionReport]:
    """Look at the kernels of versions of a model file.

    Parameters
    ----------
    model
        A file or folder that `tvm_passes.frontends.load_model` reads.
    gpu
        What it is compiled for.
    versions
        Of those that the TVM at hand has: of `VERSIONS` and `WINOGRAD`, by Relay the first two; by
        default all of `VERSIONS`.
    fast_math
        Whether kernels may approximate.
    step
        Announces the steps.

    Raises
    ------
    TvmPassesError
        If the model or the environment is not as expected.
    """
    known = _maker().VERSIONS
    unknown = [version for version in versions if version not in known]
    if unknown:
        raise TargetError(f"{require()} has no version {unknown[0]}: expected {', '.join(known)}")
    compiler = kernel_compiler(gpu.arch, fast_math=fast_math)
    with step(f"reading {model.name}"):
        mod = load_model(model, require())
    for version in versions or [version for version in known if version != WINOGRAD]:
        with step(f"compiling {version} for {gpu.name}"):
            report = report_version(mod, gpu, version, compiler)
        yield report


def report_version(mod: Any, gpu: Gpu, version: str, compiler: KernelCompiler) -> VersionReport:
    """Look at the kernels of one version of a module."""
    found: Kernels = _maker().kernels_of(mod, {"kind": "cuda", "arch": gpu.arch}, version)
    code = compile_device_code(compiler.compiler, found.source, compiler.options)
    machine_code = disassemble(code.cubin)
    reports = []
    for launch in found.launches:
        blocks = prod(launch.grid)
        taken = code.resources[launch.name]
        middle = (launch.grid[0] // 2, launch.grid[1] // 2, launch.grid[2] // 2)
        banks = found.banks.get(launch.name)
        lost = None if banks is None else banks.share
        counts = execute(machine_code[launch.name], Place(middle))
        reports.append(
            KernelReport(
                launch.name,
                found.calls.get(launch.function, 0),
                blocks,
                taken,
                counts,
                gpu.occupancy(taken),
                launch.unique_bytes,
                estimate(gpu, taken, counts, blocks, launch.unique_bytes, lost or 0.0),
                lost,
            )
        )
    return VersionReport(version, tuple(reports))


def _maker() -> Any:
    """What makes kernels of the modules of the TVM at hand."""
    return importlib.import_module(f"tvm_passes.{require()}.gpu_versions")


def report_json(report: VersionReport) -> Mapping[str, Any]:
    """A report for programs."""
    return {
        "version": report.version,
        "seconds": report.seconds,
        "requested_bytes": report.requested_bytes,
        "unique_bytes": report.unique_bytes,
        "instructions": dict(sorted(report.instructions().items())),
        "kernels": [
            {
                "name": kernel.name,
                "calls": kernel.calls,
                "blocks": kernel.blocks,
                "threads": kernel.taken.threads,
                "registers": kernel.taken.registers,
                "shared_bytes": kernel.taken.shared,
                "spill_bytes": kernel.taken.spill_stores + kernel.taken.spill_loads,
                "occupancy": kernel.occupancy,
                "thread_instructions": dict(sorted(kernel.counts.instructions.items())),
                "unknown_branches": kernel.counts.unknown,
                "finished": kernel.counts.finished,
                "bank_conflicts": kernel.conflicts,
                "unique_bytes": kernel.unique_bytes,
                "seconds": kernel.estimate.seconds,
                "bound": kernel.estimate.bound,
            }
            for kernel in report.kernels
        ],
    }
