"""Hold what a GPU's hardware counters say of kernels against what was told from machine code alone.

Blocks are compiled in their versions, on all cores, and counted as `tvm-reorder bench --static`
does.  Then Nsight Compute (``ncu``) runs each once and reads the counters.  Clocks are left alone,
so time is compared in cycles.

.venv/relax/bin/python scripts/gpu_counters.py --output gpu-counters.json
    [--blocks vgg1_2,resnet1] [--versions original,fused,winograd] [--gpu h100]
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tvm_passes.bench.block import Block, read_blocks
from tvm_passes.bench.environment import environment
from tvm_passes.bench.files import inputs_of, model_file, write_folder
from tvm_passes.bench.run_gpu import build
from tvm_passes.cli_bench import shipped_blocks
from tvm_passes.cuda.compiler import kernel_compiler
from tvm_passes.cuda.gpu import Gpu, read_gpu
from tvm_passes.cuda.resources import WARP
from tvm_passes.cuda.static import KernelReport, report_version
from tvm_passes.errors import TvmPassesError
from tvm_passes.frontends import load_model
from tvm_passes.output import LIBRARY
from tvm_passes.relax import engine
from tvm_passes.target import CUDA, parse_target, require_device

METRICS = {
    "nanoseconds": "gpu__time_duration.sum",
    "cycles": "sm__cycles_elapsed.max",
    "FFMA": "smsp__sass_thread_inst_executed_op_ffma_pred_on.sum",
    "all": "smsp__inst_executed.sum",
    "LDG": "smsp__inst_executed_op_global_ld.sum",
    "STG": "smsp__inst_executed_op_global_st.sum",
    "LDS": "smsp__inst_executed_op_shared_ld.sum",
    "STS": "smsp__inst_executed_op_shared_st.sum",
    "turns": "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum",
    "conflicts": "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum",
    "read": "dram__bytes_read.sum",
    "written": "dram__bytes_write.sum",
    "registers": "launch__registers_per_thread",
    "occupancy": "sm__warps_active.avg.pct_of_peak_sustained_active",
    "issued": "smsp__issue_active.avg.pct_of_peak_sustained_active",
}
"""What is read of a kernel; instructions but FFMA are those of warps."""


@dataclass(frozen=True)
class Job:
    """One version of a block, and where it goes."""

    block: str
    version: str
    folder: str
    gpu: str
    target: dict[str, Any]


def prepare(job: Job) -> list[dict[str, Any]]:
    """Compile a version; what is known of its kernels, in the order of their starts."""
    folder = Path(job.folder)
    (block,) = read_blocks(shipped_blocks(), [job.block])
    write_folder(block, folder)
    mod = load_model(model_file(folder), engine.DIALECT)
    engine.export(build(mod, job.version, job.target), folder / LIBRARY)
    gpu = read_gpu(job.gpu)
    report = report_version(mod, gpu, job.version, kernel_compiler(gpu.arch))
    return [stated(kernel, gpu) for kernel in report.kernels]


def stated(kernel: KernelReport, gpu: Gpu) -> dict[str, Any]:
    """What machine code says of one start of a kernel, in the units of `METRICS`.

    But conflicts are a share of the turns that it takes at least.
    """
    threads = kernel.blocks * kernel.taken.threads
    counts = kernel.counts.instructions
    warps = {kind: counts.get(kind, 0) * threads / WARP for kind in ("LDG", "STG", "LDS", "STS")}
    return warps | {
        "name": kernel.name,
        "FFMA": counts.get("FFMA", 0) * threads,
        "all": sum(counts.values()) * threads / WARP,
        "conflicts": kernel.conflicts,
        "bytes": kernel.unique_bytes,
        "registers": kernel.taken.registers,
        "occupancy": 100 * kernel.occupancy,
        "cycles": kernel.estimate.seconds * gpu.clock_hz,
        "bound": kernel.estimate.bound,
    }


def run_all(folder: Path) -> None:
    """Run each compiled version once: what ``ncu`` looks at."""
    for each in sorted(folder.iterdir(), key=lambda path: path.name):
        engine.load(each / LIBRARY, (), CUDA)(*inputs_of(each))


def profiled(folder: Path, log: Path) -> list[dict[str, str]]:
    """What ``ncu`` reads of each start of a kernel.

    Raises
    ------
    TvmPassesError
        If it is not there, or fails.
    """
    ncu = shutil.which("ncu")
    if ncu is None:
        raise TvmPassesError("no ncu on the PATH: install NVIDIA Nsight Compute")
    command = [ncu, "--csv", "--page", "raw", "--clock-control", "none", "--print-units", "base"]
    command += ["--metrics", ",".join(METRICS.values())]
    command += [sys.executable, __file__, "--run", str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    log.write_text(done.stdout + done.stderr)
    if done.returncode:
        raise TvmPassesError(f"ncu failed: see {log}")
    lines = done.stdout.splitlines()
    start = next((n for n, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        raise TvmPassesError(f"ncu saw no kernel: see {log}")
    _units, *rows = csv.DictReader(io.StringIO("\n".join(lines[start:])))
    return rows


def counted(row: Mapping[str, str]) -> dict[str, Any]:
    """The metrics of a row by our names; None where the GPU has no such counter."""
    found: dict[str, Any] = {"name": row["Kernel Name"].partition("(")[0]}
    for name, metric in METRICS.items():
        text = row.get(metric, "").replace(",", "")
        found[name] = float(text) if text.replace(".", "").isdigit() else None
    return found


def matched(
    reports: Mapping[str, Sequence[dict[str, Any]]], rows: Sequence[Mapping[str, str]]
) -> dict[str, list[dict[str, Any]]]:
    """What was stated beside what was counted: each version starts each of its kernels once.

    Raises
    ------
    TvmPassesError
        If other kernels ran than were stated.
    """
    left = [counted(row) for row in rows]
    found: dict[str, list[dict[str, Any]]] = {}
    for key, kernels in sorted(reports.items()):
        by_name = {kernel["name"]: kernel for kernel in kernels}
        ran, left = left[: len(by_name)], left[len(by_name) :]
        if {row["name"] for row in ran} != set(by_name):
            raise TvmPassesError(f"{key}: expected the kernels {', '.join(by_name)}: {ran}")
        found[key] = [{"stated": by_name[row["name"]], "counted": row} for row in ran]
    if left:
        raise TvmPassesError(f"more kernels ran than were stated: {left}")
    return found


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", default=",".join(b.name for b in blocks()))
    parser.add_argument("--versions", default="original,scheduled,fused,winograd")
    parser.add_argument("--gpu", default="h100", help="a name in targets/cuda")
    parser.add_argument("--output", type=Path, default=Path("gpu-counters.json"))
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def blocks() -> Sequence[Block]:
    """The shipped blocks."""
    return read_blocks(shipped_blocks())


def main() -> int:
    """Compare; the exit code is 2 without a GPU or ncu."""
    options = arguments()
    if options.run is not None:
        run_all(options.run)
        return 0
    try:
        chosen = [b.name for b in read_blocks(shipped_blocks(), options.blocks.split(","))]
        target = require_device(parse_target(CUDA))
        if read_gpu(options.gpu).arch != target["arch"]:
            raise TvmPassesError(f"this GPU is {target['arch']}: give another --gpu")
        with tempfile.TemporaryDirectory() as scratch:
            jobs = [
                Job(block, version, f"{scratch}/{block}-{version}", options.gpu, dict(target))
                for block in chosen
                for version in options.versions.split(",")
            ]
            with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
                found = list(pool.map(prepare, jobs))
            names = [Path(job.folder).name for job in jobs]
            rows = profiled(Path(scratch), options.output.with_suffix(".log"))
        kernels = matched(dict(zip(names, found, strict=True)), rows)
    except TvmPassesError as err:
        print(f"gpu_counters: {err}", file=sys.stderr)
        return 2
    document = {"gpu": asdict(read_gpu(options.gpu)), "target": target}
    document |= {"environment": environment(), "kernels": kernels}
    options.output.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
