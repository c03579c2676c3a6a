"""``tvm-reorder bench``: its options, and how its results are printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tvm_passes.bench.bench import BUSY_LOAD, Bench, Request
from tvm_passes.bench.results import busy, troubles
from tvm_passes.bench.runtimes import BENCH_PEERS, GPU_PEERS
from tvm_passes.bench.sites import counted, site_times
from tvm_passes.bench.verdict import (
    FASTER,
    LEAST_ROUNDS,
    NOT_SIGNIFICANT,
    SLOWER,
    compare,
    scipy_stats,
)
from tvm_passes.bench.versions import DEFAULT_VERSIONS, VERSIONS
from tvm_passes.cli_options import ALLOW, DIALECT, QUIET, numbers, progress, split
from tvm_passes.cli_static import FLAG, static_command
from tvm_passes.compile import silent
from tvm_passes.errors import InputError
from tvm_passes.interruption import INTERRUPTED, Asked
from tvm_passes.output import check_file, write_text
from tvm_passes.records import open_records
from tvm_passes.target import GPUS, parse_target, require_device

COLOURS = {FASTER: "green", SLOWER: "red"}


class BenchGroup(click.Group):
    """A group whose command ``run`` need not be named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``run`` in front of what is no command of the group."""
        if FLAG in args and args[0] not in self.commands:
            args = ["static", *(arg for arg in args if arg != FLAG)]
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(name="bench", cls=BenchGroup)
def bench_command() -> None:
    """Time versions of generated kernels against each other: bench [run] MODEL|BLOCK...

    \b
    Example:
      tvm-reorder bench model.onnx --output model.json
      tvm-reorder bench compare before.json after.json
      tvm-reorder bench --static model.onnx --gpu h100
    """


bench_command.add_command(static_command)


def shipped_blocks() -> Path:
    """The file of blocks: inside an installed wheel, else beside the sources."""
    package = Path(str(resources.files("tvm_passes")))
    installed = package / "bench" / "blocks.json"
    return installed if installed.is_file() else package.parent / "scripts" / "blocks.json"


def _readable(_context: click.Context, _option: click.Parameter, value: Path | None) -> Path | None:
    """A folder of records; none that cannot be read."""
    if value is not None:
        open_records(value)
    return value


def _known(known: Sequence[str]) -> Any:
    def check(context: click.Context, option: click.Parameter, value: str) -> tuple[str, ...]:
        names = split(context, option, value)
        unknown = [name for name in names if name not in known]
        if unknown:
            raise click.BadParameter(f"no {unknown[0]!r}: expected of {', '.join(known)}")
        return names

    return check


ALL_VERSIONS = tuple(dict.fromkeys(name for names in VERSIONS.values() for name in names))


@bench_command.command(name="run")
@click.argument("sources", nargs=-1, required=True, metavar="MODEL|BLOCK...")
@click.option("--target", help="As for compile  [default: this machine's CPU]")
@DIALECT
@click.option("--threads", default="1", show_default=True, callback=numbers)
@click.option(
    "--versions",
    default=",".join(DEFAULT_VERSIONS),
    show_default=True,
    callback=_known(ALL_VERSIONS),
    help=f"Of {', '.join(ALL_VERSIONS)}.",
)
@click.option(
    "--peers",
    default="",
    callback=_known([peer.name for peer in BENCH_PEERS]),
    help="Other runtimes, such as onnxruntime,openvino,torch,inductor,tensorflow,xla.",
)
@click.option(
    "--peers-python",
    type=click.Path(path_type=Path),
    default=Path(".venv/peers/bin/python"),
    show_default=True,
    help="Interpreter of an environment with the extra peers.",
)
@click.option(
    "--blocks",
    type=click.Path(path_type=Path),
    default=shipped_blocks,
    help="File that names blocks  [default: the shipped one]",
)
@click.option(
    "--tuned",
    type=click.Path(path_type=Path),
    callback=_readable,
    help="Folder of records of tune  [default: those that ship for the CPU]",
)
@ALLOW
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of inputs and weights."
)
@click.option("--rounds", type=click.IntRange(1), default=31, show_default=True)
@click.option("--figures/--no-figures", default=True, help="Look at each kernel, too.")
@click.option("--output", type=click.Path(path_type=Path), help="Write every sample there, JSON.")
@QUIET
def run_command(
    sources: tuple[str, ...],
    target: str | None,
    dialect: str | None,
    threads: tuple[int, ...],
    versions: tuple[str, ...],
    peers: tuple[str, ...],
    peers_python: Path,
    blocks: Path,
    tuned: Path | None,
    allow: tuple[str, ...],
    seed: int,
    rounds: int,
    figures: bool,
    output: Path | None,
    quiet: bool,
) -> int:
    """Time the versions of each MODEL or BLOCK: original, reordered, scheduled, fused, tuned.

    On a GPU (--target cuda) its own clock tells the times, and the peers are torch, that is cuDNN,
    and inductor. Outputs are compared first. Exit code 1: one differs by more than rounding, or
    none runs. What was measured before an interruption is in the output.

    \b
    Example:
      tvm-reorder bench mnist1 model.onnx --threads 1,2 --peers onnxruntime --output out.json
    """
    scipy_stats()  # before anything is measured
    if output is not None:
        check_file(output, apart_from=[Path(s) for s in sources if Path(s).exists()])
    config = require_device(parse_target(target)) if target else None
    on_gpu = config is not None and config["kind"] in GPUS
    if on_gpu:
        _check_peers(peers, str(target))
    request = Request(
        sources=sources,
        blocks=blocks,
        python=Path(sys.executable),
        peers_python=peers_python.absolute(),
        threads=threads,
        target=config,
        dialect=dialect,
        versions=versions,
        peers=peers,
        rounds=rounds,
        seed=seed,
        allow=allow,
        tuned=tuned,
        figures=figures and not on_gpu,
    )
    bench = Bench(request, silent if quiet else progress)
    for line in _doubts(bench.environment["load"], rounds):
        _warn(line)
    results: list[dict[str, Any]] = []
    document = {"environment": bench.environment, "seed": seed, "results": results}
    try:
        for entry in bench.entries():
            results.append(entry)
            if output is not None:
                write_text(output, json.dumps(document, indent=1) + "\n")
            if not quiet:
                _print(entry, Console())
    except BaseException as stop:
        code = _asked_for(stop)
        if code is None:
            raise
        _warn(f"interrupted; what was measured is in {output}" if output else "interrupted")
        return code
    for line in (*troubles(results), *no_figures(results), *busy(results)):
        _warn(line)
    return 1 if any(entry["differing"] or not entry["versions"] for entry in results) else 0


def _doubts(load: float, rounds: int) -> Iterator[str]:
    """What makes a measurement say little, known before it begins."""
    if load > BUSY_LOAD:
        yield f"the machine is busy (load {load:.1f}): times are doubtful"
    if rounds < LEAST_ROUNDS:
        yield f"of fewer than {LEAST_ROUNDS} rounds every verdict is {NOT_SIGNIFICANT!r}"


def _asked_for(stop: BaseException) -> int | None:
    """The exit code that a signal asked for by an exception, or by what TVM makes of it."""
    if isinstance(stop, KeyboardInterrupt):
        return INTERRUPTED
    asked = click.get_current_context().find_object(Asked)
    return asked.code if asked else None


def _check_peers(peers: Sequence[str], target: str) -> None:
    """Refuse peers that would run on the CPU beside versions that run on a GPU."""
    others = [peer for peer in peers if peer not in GPU_PEERS]
    if others:
        raise InputError(
            f"{others[0]} runs on the CPU here: for the target {target} expected peers of "
            f"{', '.join(GPU_PEERS)}"
        )


def no_figures(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Versions whose kernels could not be looked at, and why."""
    for entry in results:
        for version, figures in entry["figures"].items():
            if "error" in figures:
                yield f"no figures of {version} of {entry['block']}: {figures['error']}"


def _warn(line: str) -> None:
    Console(stderr=True).print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)


def _print(entry: Mapping[str, Any], out: Console) -> None:
    """One source on one number of threads: a row for each version and each peer."""
    title = f"{entry['block']}, {entry['dialect']}, {_where(entry)}"
    if entry["interrupted"]:
        title += ", interrupted"
    table = Table(title=escape(title), title_justify="left")
    table.add_column("version", no_wrap=True)
    for header in ("median ms", "± MAD", "original / this"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in _rows(entry):
        table.add_row(*row)
    out.print(table)
    out.print(_bits(entry), highlight=False, markup=False, soft_wrap=True)
    if entry["figures"]:
        out.print(_figures(entry))
        out.print(_sites(entry))


def _where(entry: Mapping[str, Any]) -> str:
    """What it ran on: a GPU, or threads of this machine."""
    target = entry["target"] or {}
    if target.get("kind") in GPUS:
        return str(target.get("arch", target["kind"]))
    return "1 thread" if entry["threads"] == 1 else f"{entry['threads']} threads"


def _bits(entry: Mapping[str, Any]) -> str:
    """Which outputs are the same, bit by bit."""
    if not entry["versions"]:
        return "no version ran"
    others = [version for version in entry["versions"] if version not in entry["bitwise"]]
    if not others:
        return "outputs of all versions: bitwise equal"
    worst = entry["max_abs_difference"][entry["dialect"]]
    return f"outputs that differ from original: {', '.join(others)}, by {worst:.2g} at most"


def _figures(entry: Mapping[str, Any]) -> Table:
    """A row a version: what its kernels execute, allocate and reach."""
    table = Table(title="one run, counted in the compiled kernels", title_justify="left")
    table.add_column("version", no_wrap=True)
    headers = ("activations", "KiB used", "spills", "GFLOP/s", "GB/s", "% of roof")
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    for version, figures in entry["figures"].items():
        if "error" in figures:
            table.add_row(version, *["-"] * len(headers))
            continue
        found = counted(figures)
        place = entry.get("roofline", {}).get(version)
        reached = ["-"] * 3
        if place:
            reached = [f"{place[name]:.1f}" for name in ("gflops", "gbytes")]
            reached.append(f"{100 * place['share']:.0f}")
        kib = f"{found['bytes'] / 1024:,.0f}"
        numbers = (f"{found['evaluations']:,}", kib, str(found["spills"]))
        table.add_row(version, *numbers, *reached)
    return table


def _sites(entry: Mapping[str, Any]) -> Table:
    """A row a site: microseconds of its kernels in each version."""
    table = Table(title="µs of the kernels of each site", title_justify="left")
    table.add_column("site", no_wrap=True)
    for version in entry["versions"]:
        table.add_column(version, justify="right", no_wrap=True)
    for site, times in site_times(entry).items():
        cells = (f"{1e6 * times[v]:.1f}" if v in times else "-" for v in entry["versions"])
        table.add_row(site, *cells)
    return table


def _rows(entry: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    dialect = entry["dialect"]
    for version in entry["versions"]:
        found = entry["samples"][dialect][version]
        ratio = entry["version_ratios"].get(version)
        yield (version, *_times(found), *_ratio(ratio))
    for peer, variants in entry["samples"].items():
        if peer != dialect:
            variant = entry["fastest_variant"][peer]
            base = entry["samples"].get(dialect, {}).get("original")
            found = variants[variant]["samples"]
            ratio = compare(base["samples"], found).as_dict() if base else None
            yield (peer, *_times(variants[variant]), *_ratio(ratio))


def _times(found: Mapping[str, Any]) -> tuple[str, str]:
    return f"{found['median'] * 1e3:.4f}", f"{found['mad'] / found['median']:.1%}"


def _ratio(ratio: Mapping[str, Any] | None) -> tuple[str, str]:
    if ratio is None:
        return "", ""
    colour = COLOURS.get(ratio["verdict"], "yellow")
    numbers = [f"{ratio[name]:#.3g}".rstrip(".") for name in ("ratio", "low", "high")]
    return escape("{} [{}, {}]".format(*numbers)), f"[{colour}]{ratio['verdict']}"


@bench_command.command(name="compare")
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
def compare_command(before: Path, after: Path) -> None:
    """Compare two outputs of bench, or of scripts/bench_blocks.py: what they both have.

    \b
    Example:
      tvm-reorder bench compare before.json after.json
    """
    old, new = _samples(before), _samples(after)
    common = [key for key in old if key in new]
    if not common:
        raise InputError(f"{before} and {after} have no version of a block or model in common")
    title = escape(f"{before.name} / {after.name}")
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for header in ("block", "thr", "version"):
        table.add_column(header, overflow="fold", no_wrap=header == "thr")
    table.add_column("ms", justify="right", no_wrap=True)
    table.add_column("before / after", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for name, threads, version in common:
        key = (name, threads, version)
        ratio = compare(old[key], new[key], paired=False).as_dict()
        median = sorted(new[key])[len(new[key]) // 2]
        cells = (escape(name), str(threads), version, f"{median * 1e3:.4f}", *_ratio(ratio))
        table.add_row(*cells)
    Console().print(table)


def _samples(path: Path) -> dict[tuple[str, int, str], list[float]]:
    """Samples by block, threads and version."""
    with _an_output(path, "bench") as document:
        return {
            (entry["block"], entry["threads"], f"{runtime} {variant}"): found["samples"]
            for entry in document["results"]
            for runtime, variants in entry["samples"].items()
            for variant, found in variants.items()
        }


@contextmanager
def _an_output(path: Path, command: str) -> Iterator[Any]:
    """What a file of a command's output holds; what is not there makes an error of the user's."""
    try:
        yield json.loads(path.read_text())
    except OSError as err:
        raise InputError(f"cannot read {path}: {err.strerror}") from err
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        expected = "expected the JSON of its --output"
        raise InputError(f"{path} is no output of {command}: {expected}") from err


@bench_command.command(name="report")
@click.argument("result", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Page to write."
)
@click.option("--plots", type=click.Path(path_type=Path), help="Folder for SVG and PNG files.")
def report_command(result: Path, output: Path, plots: Path | None) -> None:
    """Write an output of bench as one HTML page that needs nothing else.

    \b
    Example:
      tvm-reorder bench report out.json -o out.html --plots plots
    """
    from tvm_passes.bench.plots import save
    from tvm_passes.bench.report import html_report

    check_file(output, apart_from=(result,))
    document = _document(result)
    drawn = save(document, plots) if plots else []
    write_text(output, html_report(document))
    written = [output, *drawn]
    click.echo(f"wrote {', '.join(map(str, written))}")


def _document(path: Path) -> dict[str, Any]:
    """A result of bench run."""
    with _an_output(path, "bench run") as document:
        if not all("version_ratios" in entry for entry in document["results"]):
            raise KeyError("version_ratios")
        return dict(document)
