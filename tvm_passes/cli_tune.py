"""``tvm-reorder tune``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tvm_passes.cli_options import ALLOW, DIALECT, MODEL, QUIET, TARGET
from tvm_passes.measure_trials import Tracker
from tvm_passes.records import Records
from tvm_passes.tune import Order, tune_model


class Address(click.ParamType):  # type: ignore[type-arg]
    """HOST:PORT."""

    name = "host:port"

    def convert(self, value: str, param: object, ctx: object) -> tuple[str, int]:  # noqa: ARG002
        """Split an address."""
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit():
            self.fail(f"expected HOST:PORT, found {value!r}")
        return host, int(port)


@click.command(name="tune")
@MODEL
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the records; what it holds already is not measured again.",
)
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Schedules to measure, all kernels together.",
)
@TARGET
@DIALECT
@ALLOW
@click.option("--rpc-tracker", type=Address(), help="Measure on the servers of this RPC tracker.")
@click.option("--rpc-key", help="The key of those servers.")
@QUIET
def tune_command(
    model: Path,
    output: Path,
    trials: int,
    target: str,
    dialect: str | None,
    allow: tuple[str, ...],
    rpc_tracker: tuple[str, int] | None,
    rpc_key: str | None,
    quiet: bool,
) -> None:
    """Measure schedules for the kernels of MODEL, and keep the records in a folder.

    Killed and called again, it goes on where it was.  The records are a MetaSchedule database.

    \b
    Example:
      tvm-reorder tune model.onnx --target host --trials 200 -o records
      tvm-reorder compile model.onnx --target host --tuned records -o compiled
    """
    if (rpc_tracker is None) != (rpc_key is None):
        raise click.UsageError("--rpc-tracker and --rpc-key go together")
    tracker = None if rpc_tracker is None else Tracker(*rpc_tracker, rpc_key or "")
    command = shlex.join(["tvm-reorder", *sys.argv[1:]])
    bar = Progress(
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet,
    )
    with bar:
        line = bar.add_task("preparing", total=None)
        records = tune_model(
            model,
            output,
            Order(target, trials, dialect, tracker, command, allow),
            lambda done, total, what: bar.update(
                line, completed=done, total=total, description=what
            ),
        )
    if not quiet:
        _print(records)


def _print(records: Records) -> None:
    table = Table(title=f"{records.page['trials']} trials in {records.folder}")
    table.add_column("operands")
    for name in ("trials", "untuned ms", "tuned ms", "gain"):
        table.add_column(name, justify="right")
    for row in records.page["kernels"]:
        times = (f"{row[name] * 1e3:.3f}" for name in ("untuned_s", "tuned_s"))
        table.add_row(row["name"], str(row["trials"]), *times, f"{row['gain']:.2f}x")
    Console().print(table)
