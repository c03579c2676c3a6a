"""Show the inner loops of convolution kernels: multiply-adds, loads, spills, share of the peak.

Each block is compiled for each target, and the innermost loop with the most multiply-adds is
looked at, in LLVM's assembly.  Where this machine is that target, its kernel is timed as well, on
one thread, beside the measured peak.  Run it with the Python of the Relax environment.

Example: python scripts/inner_loops.py --only vgg3_3 --target x86-64-v4 --output loops.json
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from tvm_passes.bench.assembly import Loop, main_loop
from tvm_passes.bench.block import Block, read_blocks
from tvm_passes.bench.files import model_file, write_folder
from tvm_passes.bench.script import run_script
from tvm_passes.measure import set_threads
from tvm_passes.output import check_file, write_text
from tvm_passes.rules import RELAX
from tvm_passes.target import parse_target

ROOT = Path(__file__).parent.parent
NEON = '{"kind": "llvm", "mtriple": "aarch64-linux-gnu"}'
TARGETS = ("x86-64-v3", "x86-64-v4", NEON)


def compiled(block: Block, target: Any) -> tuple[Any, Any]:
    """The scheduled kernel of a block's convolution, alone in a module, and what it becomes."""
    from tvm import transform

    from tvm_passes.frontends import load_model
    from tvm_passes.namespaces import build_module, tir
    from tvm_passes.relax.pipeline import passes_before_schedules
    from tvm_passes.schedules.rules import schedules
    from tvm_passes.schedules.tuned import workload_of

    with tempfile.TemporaryDirectory() as folder, target:
        write_folder(block, Path(folder))
        mod = load_model(model_file(Path(folder)), RELAX)
        kernels = transform.Sequential(passes_before_schedules(target))(mod).functions.values()
    workloads = [workload_of(func)["main"] for func in kernels if isinstance(func, tir.PrimFunc)]
    ((best, *_),) = filter(None, (schedules(func, target) for func in workloads))
    scheduled = best().mod
    return scheduled["main"], build_module(scheduled, target)


def seconds(func: Any, library: Any) -> float:
    """Time a kernel; the best of some, as others on the machine only slow it down."""
    from tvm_passes.bench.worker import measure
    from tvm_passes.namespaces import buffers, tensor

    random = np.random.default_rng(0)
    shapes = [tuple(map(int, buffer.shape)) for buffer in buffers(func)]
    arrays = [tensor(random.standard_normal(shape, np.float32)) for shape in shapes]
    kernel = library["main"]  # which takes as long to find as a small one to run
    set_threads(1)
    return min(float(measure(lambda: kernel(*arrays), 0.05)["seconds"]) for _ in range(7))


def runs_here(target: Any) -> bool:
    """Whether a target's widest vectors are this machine's."""
    from tvm.target import Target

    from tvm_passes.schedules.machine import machine_of

    here = Target(parse_target("host"))
    triples = {str(each.attrs["mtriple"]) for each in (target, here) if "mtriple" in each.attrs}
    return len(triples) < 2 and machine_of(target).lanes == machine_of(here).lanes


def look_at(block: Block, target: Any, *, timed: bool) -> dict[str, Any]:
    """Figures of a block's kernel."""
    func, library = compiled(block, target)
    loop = main_loop(library.mod.inspect_source("asm"), "main")
    if loop is None:
        raise ValueError(f"no loop in the kernel of {block.name}")
    found = {"block": block.name, **figures(loop)}
    if timed:
        found["gflops"] = round(block.flops / seconds(func, library) / 1e9, 1)
    return found


def figures(loop: Loop) -> dict[str, Any]:
    """An inner loop's instructions: those that multiply and add, load, and touch the stack."""
    count = loop.instructions
    return {
        "instructions": sum(count.values()),
        "multiply_adds": count.get("multiply-add", 0),
        "loads": count.get("load", 0) + count.get("broadcast", 0),
        "stores": count.get("store", 0),
        "spills": loop.spills,
        "share": round(count.get("multiply-add", 0) / sum(count.values()), 3),
    }


def measured(
    blocks: list[Block], targets: tuple[str, ...], *, timed: bool
) -> Iterator[dict[str, Any]]:
    """Look at all blocks, target by target."""
    from tvm.target import Target

    from tvm_passes.bench.peaks import peaks

    for name in targets:
        target = Target({"num-cores": 1, **parse_target_or_other(name)})
        runs = timed and runs_here(target)
        before = peaks(target, 1)["gflops"] if runs else 0.0
        loops = [look_at(block, target, timed=runs) for block in blocks]
        peak = max(before, peaks(target, 1)["gflops"]) if runs else None
        for loop in loops if peak else ():
            loop["of_peak"] = round(loop["gflops"] / peak, 3)
        yield {"target": str(target.attrs.get("mcpu", "")) or name, "peak": peak, "loops": loops}


def parse_target_or_other(name: str) -> dict[str, Any]:
    """A target as elsewhere, or that of another architecture, which is not linked here."""
    return dict(json.loads(name)) if name == NEON else parse_target(name)


@click.command(help=__doc__)
@click.option(
    "--blocks",
    type=click.Path(path_type=Path),
    default=ROOT / "scripts" / "blocks.json",
    help="File of blocks [default: scripts/blocks.json].",
)
@click.option("--only", default="", help="Names of blocks, all by default.")
@click.option("--target", "targets", multiple=True, default=TARGETS, show_default=True)
@click.option("--time/--no-time", "timed", default=True, help="Run what this machine can run.")
@click.option("--output", type=click.Path(path_type=Path))
def inner_loops(
    blocks: Path, only: str, targets: tuple[str, ...], timed: bool, output: Path | None
) -> None:
    """Run."""
    if output is not None:
        check_file(output, apart_from=(blocks,))
    chosen = read_blocks(blocks, tuple(filter(None, only.split(","))))
    document: dict[str, Any] = {"date": date.today().isoformat(), "targets": []}
    for found in measured(list(chosen), targets, timed=timed):
        document["targets"].append(found)
        report(found, Console())
        if output is not None:
            write_text(output, json.dumps(document, indent=1) + "\n")


def report(found: dict[str, Any], out: Console) -> None:
    """Print a target's table."""
    names = ("block", "instructions", "multiply_adds", "loads", "stores", "spills", "share")
    names += ("gflops", "of_peak") if found["peak"] else ()
    title = found["target"] + (f", peak {found['peak']:.1f} GFLOP/s" if found["peak"] else "")
    table = Table(title=title, title_justify="left", box=None)
    for name in names:
        table.add_column(name.replace("_", " "), justify="left" if name == "block" else "right")
    for loop in found["loops"]:
        table.add_row(*(str(loop[name]) for name in names))
    out.print(table)


if __name__ == "__main__":
    run_script("inner_loops", inner_loops)
