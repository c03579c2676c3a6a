"""The command ``tvm-reorder``."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table

from tvm_passes.calibrate import MAX_ERROR
from tvm_passes.cli_bench import bench_command
from tvm_passes.cli_options import ALLOW, DIALECT, JSON, MODEL, QUIET, TARGET, Positive, progress
from tvm_passes.cli_tune import tune_command
from tvm_passes.cli_verify import verify_command
from tvm_passes.compile import Calibration, Compiled, compile_model, silent
from tvm_passes.cost import cost
from tvm_passes.decision import Decision
from tvm_passes.describe import WINOGRAD
from tvm_passes.errors import TvmPassesError
from tvm_passes.inspect import diff, inspect_model, site_json
from tvm_passes.interruption import INTERRUPTED, Asked, leaving_on_signals
from tvm_passes.output import LIBRARY, check_file, write_text
from tvm_passes.remarks import Kind, to_yaml

KINDS = tuple(kind.value.lower() for kind in Kind)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 2 for wrong usage, 1 for any other refusal."""
    if argv is not None:
        return _run(argv, Asked())
    for stream in (sys.stdout, sys.stderr):  # a process of its own, not a caller's
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    with leaving_on_signals() as asked:
        code = _run(None, asked)
    return code if asked.code is None else asked.code


def _run(argv: Sequence[str] | None, asked: Asked) -> int:
    """Run the command; a user's error is said, not raised."""
    try:
        return _call(argv, asked)
    except click.exceptions.NoArgsIsHelpError as err:
        err.show()
        return err.exit_code
    except click.ClickException as err:
        click.echo(f"tvm-reorder: error: {_in_a_line(err)}", err=True)
        return err.exit_code
    except TvmPassesError as err:
        click.echo(f"tvm-reorder: error: {err}", err=True)
        return 1


def _in_a_line(err: click.ClickException) -> str:
    """What the command line's library says, and for wrong usage where to read what is right."""
    said = " ".join(err.format_message().split()).removesuffix(".")
    command = err.ctx and err.ctx.command_path if isinstance(err, click.UsageError) else None
    return f"{said}; see `{command} --help`" if command else said


def _call(argv: Sequence[str] | None, asked: Asked) -> int:
    """Call the command; what it raises after a signal is what became of the signal's exception."""
    try:
        code = cli.main(args=argv, prog_name="tvm-reorder", standalone_mode=False, obj=asked)
    except click.Abort:
        return _interrupted()
    except BaseException:
        if asked.code is None:
            raise
        return _interrupted() if asked.code == INTERRUPTED else asked.code
    return code if isinstance(code, int) else 0


def _interrupted() -> int:
    click.echo("tvm-reorder: interrupted; what was there before is untouched", err=True)
    return INTERRUPTED


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="tvm-passes", prog_name="tvm-reorder")
def cli() -> None:
    """Sink activations below max-pools: max_pool(f(x)) = f(max_pool(x)) for monotone f.

    \b
    Example:
      tvm-reorder inspect model.tflite
      tvm-reorder compile model.tflite --target llvm -o compiled
    """


@cli.command(name="compile")
@MODEL
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write."
)
@TARGET
@DIALECT
@click.option("--reorder/--no-reorder", default=True, help="Run the pass, or TVM's own alone.")
@click.option(
    "--tuned",
    type=click.Path(path_type=Path),
    help="Folder of records of `tune`; by default those that ship for the target's CPU.",
)
@click.option(
    "--fast-math", is_flag=True, help="Let a GPU's kernels approximate, which changes results."
)
@ALLOW
@click.option(
    "--remarks",
    "kinds",
    multiple=True,
    type=click.Choice((*KINDS, "all", "none")),
    default=("passed", "missed"),
    show_default=True,
    help="Kinds of remarks to print, one a line; may be given again.",
)
@click.option(
    "--remarks-output",
    type=click.Path(path_type=Path),
    help="Write every remark there, as LLVM's optimization records (YAML).",
)
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path),
    help="An .npz or .npy file of inputs: layers that Winograd's filtering, if allowed, computes "
    "less exactly on them than --max-error are computed as they are written.",
)
@click.option(
    "--max-error",
    type=Positive(),
    help="What an output may then be off by, relative to the largest of its layer.  "
    f"[default: {MAX_ERROR}]",
)
@QUIET
def compile_command(
    model: Path,
    output: Path,
    target: str,
    dialect: str | None,
    reorder: bool,
    tuned: Path | None,
    fast_math: bool,
    allow: tuple[str, ...],
    kinds: tuple[str, ...],
    remarks_output: Path | None,
    calibrate: Path | None,
    max_error: float | None,
    quiet: bool,
) -> None:
    """Compile MODEL into a folder with lib.so and manifest.json, and a GPU's kernels.

    MODEL is a .keras, .tflite or .onnx file or a SavedModel folder.

    \b
    Example:
      tvm-reorder compile model.tflite --target x86-64-v3 -o compiled --remarks all
      tvm-reorder compile model.tflite --target sm_90 -o compiled
    """
    calibration = _calibration(calibrate, max_error, allow)
    if remarks_output is not None:
        check_file(remarks_output, apart_from=(model, output))
    compiled = compile_model(
        model,
        output,
        target=target,
        dialect=dialect,
        reorder=reorder,
        tuned=tuned,
        fast_math=fast_math,
        allow=allow,
        calibration=calibration,
        step=silent if quiet else progress,
    )
    if remarks_output is not None:
        write_text(remarks_output, to_yaml(compiled.remarks))
    if not quiet:
        _say(compiled, kinds, reorder)


def _calibration(
    samples: Path | None, max_error: float | None, allow: Collection[str]
) -> Calibration | None:
    """What is asked of Winograd's filtering, if it is allowed."""
    if samples is None:
        if max_error is not None:
            raise click.UsageError("--max-error is for --calibrate, which is not given")
        return None
    if WINOGRAD not in allow:
        raise click.UsageError(f"--calibrate is for --allow {WINOGRAD}, which is not given")
    return Calibration(samples, MAX_ERROR if max_error is None else max_error)


def _say(compiled: Compiled, kinds: Collection[str], reorder: bool) -> None:
    """Print what was compiled: notes, remarks of these kinds, and files."""
    if compiled.note:
        click.echo(compiled.note)
    if reorder and not compiled.remarks:
        click.echo("no pool to sink anything below")
    for remark in compiled.remarks:
        if "all" in kinds or remark.kind.value.lower() in kinds:
            click.echo(f"remark: {remark}")
    code = compiled.device_code
    if code is not None:
        fast = ", fast math" if code.options.fast_math else ""
        click.echo(
            f"{len(code.resources)} kernels for {code.options.arch} by {code.compiler}{fast}"
        )
    if LIBRARY not in compiled.files:
        click.echo("kernels to inspect, not to run: this TVM has no CUDA runtime")
    click.echo(f"wrote {compiled.folder}: {', '.join(compiled.files)}")


@cli.command(name="inspect")
@MODEL
@TARGET
@DIALECT
@ALLOW
@JSON
@click.option("--diff", "as_diff", is_flag=True, help="Print the IR's difference, too.")
@QUIET
def inspect_command(
    model: Path,
    target: str,
    dialect: str | None,
    allow: tuple[str, ...],
    as_json: bool,
    as_diff: bool,
    quiet: bool,
) -> None:
    """Show what the pass would do to MODEL, and why; compile nothing.

    MODEL is a .keras, .tflite or .onnx file or a SavedModel folder.

    \b
    Example:
      tvm-reorder inspect model.onnx --diff
      tvm-reorder inspect model.onnx --json | jq '.sites[].reason'
    """
    step = silent if quiet or as_json else progress
    found = inspect_model(model, target=target, dialect=dialect, allow=allow, step=step)
    lines = diff(found.before, found.after) if as_diff else []
    if as_json:
        document = {
            "model": str(model),
            "dialect": found.dialect,
            "sites": [site_json(decision) for decision in found.decisions],
        } | ({"diff": list(lines)} if as_diff else {})
        click.echo(json.dumps(document, indent=2))
        return
    out = Console()
    out.print(sites_table(found.decisions))
    for line in _explain(found.decisions):
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    if lines:
        shown = Syntax("\n".join(lines), "diff", background_color="default", word_wrap=True)
        out.print(shown) if out.is_terminal else click.echo("\n".join(lines))


def sites_table(decisions: Sequence[Decision]) -> Table:
    """A table of sites: what sinks, what does not and why, and what is saved."""
    title = "1 pooling site" if len(decisions) == 1 else f"{len(decisions)} pooling sites"
    table = Table(title=title, title_justify="left")
    table.add_column("site", no_wrap=True)
    table.add_column("decision")
    table.add_column("sunk, or why not")
    table.add_column("evaluations", justify="right", no_wrap=True)
    table.add_column("layer\nsaved", justify="right")
    for decision in decisions:
        numbers = cost(decision)
        saved = numbers.arithmetic_saved
        table.add_row(
            escape(decision.site.name),
            "[green]passed" if decision.passed else "[yellow]missed",
            escape(_what(decision)),
            f"{numbers.evaluations_before} → {numbers.evaluations_after}"
            if decision.passed and numbers.evaluations_before is not None
            else "",
            "" if saved is None else f"{saved:.2%}",
        )
    return table


def _what(decision: Decision) -> str:
    sunk = ", ".join(op.op for op in reversed(decision.sunk))
    return sunk or (decision.decline.reason.value if decision.decline else "")


def _explain(decisions: Sequence[Decision]) -> Iterator[str]:
    """Why ops stay, a line for each site where some do."""
    for decision in decisions:
        decline = decision.decline
        if decline is not None:
            why = f"{decline.reason.value}: {decline.detail}; {decline.suggestion}"
            yield f"{decision.site.name}: {why}"


cli.add_command(bench_command)
cli.add_command(tune_command)
cli.add_command(verify_command)

if __name__ == "__main__":
    sys.exit(main())
