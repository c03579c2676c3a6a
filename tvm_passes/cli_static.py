"""``tvm-reorder bench --static``: its options, and how its results are printed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tvm_passes.cli_options import JSON, MODEL, QUIET, progress
from tvm_passes.compile import silent
from tvm_passes.cuda.gpu import read_gpu
from tvm_passes.cuda.static import (
    SHOWN,
    VERSIONS,
    WINOGRAD,
    VersionReport,
    report_json,
    static_reports,
)

FLAG = "--static"


@click.command(name="static")
@MODEL
@click.option("--gpu", default="h100", show_default=True, help="A name in targets/cuda.")
@click.option(
    "--version",
    "versions",
    multiple=True,
    type=click.Choice((*VERSIONS, WINOGRAD)),
    help="May be given again  [default: all but winograd]",
)
@click.option("--fast-math", is_flag=True, help="Let kernels approximate.")
@JSON
@QUIET
def static_command(
    model: Path, gpu: str, versions: tuple[str, ...], fast_math: bool, as_json: bool, quiet: bool
) -> None:
    """Line up a GPU's kernels of both orders of MODEL, without a GPU: bench --static MODEL.

    Registers, shared memory, spills, turns lost to bank conflicts, occupancy; the instructions that
    all threads execute, by kind; the bytes that they move; and the least time by the numbers in
    targets/cuda. Both orders are compiled under TVM's own schedules (original, reordered) and
    under ours (scheduled, fused); winograd is fused with --allow winograd.

    \b
    Example:
      tvm-reorder bench --static model.onnx --gpu a100
    """
    found = read_gpu(gpu)
    step = silent if quiet or as_json else progress
    reports = list(static_reports(model, found, versions, fast_math=fast_math, step=step))
    if as_json:
        document = {
            "model": str(model),
            "gpu": gpu,
            "fast_math": fast_math,
            "versions": [report_json(report) for report in reports],
        }
        click.echo(json.dumps(document, indent=2))
        return
    out = Console()
    out.print(f"{model.name} on {found.name}", highlight=False, markup=False, soft_wrap=True)
    for report in reports:
        out.print(_kernels(report))
    out.print(_totals(reports))
    for report in reports:
        for kernel in report.kernels:
            if kernel.counts.unknown or not kernel.counts.finished:
                line = f"{report.version}: {kernel.name}: some trip counts are not known"
                out.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)


def _kernels(report: VersionReport) -> Table:
    """A row a kernel: what it takes, and what bounds it."""
    table = Table(title=report.version, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("kernel", overflow="fold", min_width=12)
    for header in (
        "calls",
        "blocks",
        "thr",
        "regs",
        "smem",
        "spill",
        "confl.",
        "occ.",
        "µs",
        "bound",
    ):
        table.add_column(header, justify="right", no_wrap=True)
    for kernel in report.kernels:
        taken = kernel.taken
        table.add_row(
            escape(kernel.name),
            *map(str, (kernel.calls, kernel.blocks, taken.threads, taken.registers, taken.shared)),
            str(taken.spill_stores + taken.spill_loads),
            "-" if kernel.conflicts is None else f"{kernel.conflicts:.0%}",
            f"{kernel.occupancy:.0%}",
            f"{kernel.estimate.seconds * 1e6:.2f}",
            kernel.estimate.bound,
        )
    return table


def _totals(reports: Sequence[VersionReport]) -> Table:
    """A column a version: everything that all threads execute, in thousands."""
    table = Table(title="thousands, all threads", title_justify="left")
    table.add_column("")
    for report in reports:
        table.add_column(report.version, justify="right", no_wrap=True)
    for kind in SHOWN:
        counts = [report.instructions()[kind] for report in reports]
        if any(counts):
            table.add_row(kind, *(f"{count / 1e3:,.1f}" for count in counts))
    totals = [sum(report.instructions().values()) for report in reports]
    table.add_row("all instructions", *(f"{count / 1e3:,.1f}" for count in totals))
    requested = [report.requested_bytes for report in reports]
    table.add_row("bytes, requested", *(f"{count / 1e3:,.1f}" for count in requested))
    unique = [report.unique_bytes for report in reports]
    table.add_row("bytes, each once", *(f"{count / 1e3:,.1f}" for count in unique))
    table.add_row("kernels", *(str(sum(k.calls for k in report.kernels)) for report in reports))
    table.add_row("least µs", *(f"{report.seconds * 1e6:.2f}" for report in reports))
    return table
