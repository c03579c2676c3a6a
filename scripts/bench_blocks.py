"""Time blocks of conv2d, bias, activation and max-pool against what else runs them on a CPU.

Each runtime is a process of its own, stopped while another is measured.  A peer is given the
activation before the pool and behind it, and whichever is faster counts.

Example: python scripts/bench_blocks.py --only mnist1,resnet1 --threads 1 --output blocks.json
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tvm_passes.bench.block import Block, read_blocks
from tvm_passes.bench.environment import environment, load
from tvm_passes.bench.files import write_folder
from tvm_passes.bench.results import MAIN, busy, result, summary, troubles
from tvm_passes.bench.runtimes import DEFAULT_PEERS, OURS, PEERS, Runtime
from tvm_passes.bench.session import Session, Settings
from tvm_passes.errors import TvmPassesError
from tvm_passes.output import check_file, write_text

ROOT = Path(__file__).parent.parent
ENVIRONMENTS = ("relax", "relay", "peers")
CHOICES = {runtime.name: runtime for runtime in (*OURS, *PEERS)}


def names(_context: click.Context, _option: click.Parameter, value: str) -> tuple[str, ...]:
    """Split at commas."""
    return tuple(filter(None, value.split(",")))


@click.command(help=__doc__)
@click.option(
    "--blocks",
    type=click.Path(path_type=Path),
    default=ROOT / "scripts" / "blocks.json",
    help="File of blocks [default: scripts/blocks.json].",
)
@click.option("--threads", default="1,2", show_default=True, callback=names)
@click.option("--peers", default=",".join(DEFAULT_PEERS), show_default=True, callback=names)
@click.option("--ours", default=",".join(r.name for r in OURS), show_default=True, callback=names)
@click.option("--only", default="", callback=names, help="Names of blocks, all by default.")
@click.option("--rounds", type=click.IntRange(1), default=15, show_default=True)
@click.option(
    "--seconds", type=float, default=0.03, show_default=True, help="A sample's length at least."
)
@click.option(
    "--trials",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of tvm_metaschedule, for each block; without any it is left out.",
)
@click.option(
    "--environments",
    type=click.Path(path_type=Path),
    default=ROOT / ".venv",
    help="Folder of the environments relax, relay and peers [default: .venv].",
)
@click.option(
    "--scratch",
    type=click.Path(path_type=Path),
    help="Folder for logs and tuning records, kept [default: a temporary one].",
)
@click.option(
    "--tuned",
    type=click.Path(path_type=Path),
    help="Records of ours, of one dialect [default: those that ship for the CPU].",
)
@click.option("--output", required=True, type=click.Path(path_type=Path))
def bench_blocks(
    blocks: Path,
    threads: tuple[str, ...],
    peers: tuple[str, ...],
    ours: tuple[str, ...],
    only: tuple[str, ...],
    rounds: int,
    seconds: float,
    trials: int,
    environments: Path,
    scratch: Path | None,
    tuned: Path | None,
    output: Path,
) -> None:
    """Run."""
    check_file(output, apart_from=(blocks,))
    chosen = runtimes((*ours, *peers))
    pythons = {name: environments.absolute() / name / "bin" / "python" for name in ENVIRONMENTS}
    each = [
        Settings(count, rounds, seconds, trials, tuned=tuned) for count in thread_counts(threads)
    ]
    document: dict[str, Any] = {"environment": environment(), "results": []}
    document["environment"] |= {"threads": [s.threads for s in each], "command": sys.argv}
    with tempfile.TemporaryDirectory() as temporary:
        folder = scratch or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = read_blocks(blocks, only)
        for entry in measure(found, chosen, pythons, each, folder, document):
            document["results"].append(entry)
            document["summary"] = summary(document["results"])
            write_text(output, json.dumps(document, indent=1) + "\n")
    report(document, Console())
    if any(wrong(entry, ours) for entry in document["results"]):
        sys.exit(1)


def measure(
    blocks: Sequence[Block],
    chosen: Sequence[Runtime],
    pythons: Mapping[str, Path],
    each: Sequence[Settings],
    folder: Path,
    document: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """Yield the result of each block on each number of threads; versions go to the document."""
    progress = Console(stderr=True)
    for settings in each:
        with Session(chosen, pythons, settings, folder) as session:
            for block in blocks:
                where = f"{block.name}, {settings.threads} threads"
                before = load()
                with progress.status(escape(where)):
                    write_folder(block, folder / block.name)
                    measured = session.measure(folder / block.name)
                document["environment"]["versions"] = session.versions
                entry = result(block.name, settings.threads, chosen, measured)
                progress.print(f"{where}: {_short(entry)}", highlight=False, soft_wrap=True)
                yield entry | {"load_before": before}


def _short(entry: Mapping[str, Any]) -> str:
    ratio = entry["ratio_to_best_peer"]
    return f"{ratio:.2f} of {entry['best_peer']}" if ratio else "no ratio"


def runtimes(wanted: Sequence[str]) -> list[Runtime]:
    """Runtimes by name."""
    unknown = [name for name in wanted if name not in CHOICES]
    if unknown:
        raise click.UsageError(f"no runtime {unknown[0]!r}: expected of {', '.join(CHOICES)}")
    return [CHOICES[name] for name in dict.fromkeys(wanted)]


def thread_counts(threads: Sequence[str]) -> list[int]:
    """Numbers of threads, at least 1 each."""
    if not threads or not all(count.isdigit() and int(count) for count in threads):
        raise click.UsageError(f"--threads {','.join(threads)!r}: expected numbers such as 1,2")
    return [int(count) for count in threads]


def wrong(entry: Mapping[str, Any], ours: Sequence[str]) -> bool:
    """Whether a result differs, or one of ours is missing."""
    return bool(entry["differing"]) or any(name not in entry["runtimes"] for name in ours)


def report(document: Mapping[str, Any], out: Console) -> None:
    """Print a table, means, and what went wrong."""
    results = document["results"]
    title = "median ms; ratio: best peer / tvm_passes"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("block", no_wrap=True)
    for header in ("thr", "ours", "± %", "untuned", "relay", "peer"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("best peer", no_wrap=True)
    table.add_column("ratio", justify="right", no_wrap=True)
    for entry in results:
        table.add_row(*_cells(entry))
    out.print(table)
    for key, numbers in document.get("summary", {}).items():
        mean, least = numbers["geometric_mean"], numbers["least"]
        out.print(f"{key}: geometric mean {mean:.2f}, least {least:.2f}", highlight=False)
    for line in (*troubles(results), *busy(results)):
        out.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)


def _cells(entry: Mapping[str, Any]) -> list[str]:
    def ms(name: str | None) -> str:
        seconds = entry["runtimes"].get(name)
        return "-" if seconds is None else f"{seconds * 1e3:#.3g}".rstrip(".")

    main, ratio, best = entry["runtimes"].get(MAIN), entry["ratio_to_best_peer"], entry["best_peer"]
    spread = f"{entry['mad'][MAIN] / main:.1%}".rstrip("%") if main else "-"
    colour = "green" if ratio and ratio >= 1 else "red"
    return [
        escape(entry["block"]),
        str(entry["threads"]),
        ms(MAIN),
        spread,
        ms("tvm_passes_untuned"),
        ms("tvm_passes_relay"),
        ms(best),
        best or "-",
        f"[{colour}]{ratio:.2f}" if ratio else "-",
    ]


def main() -> None:
    """Run the command; a user's error is one line, an interruption keeps what was measured."""
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        bench_blocks.main(standalone_mode=False)
    except click.ClickException as err:
        err.show()
        sys.exit(err.exit_code)
    except TvmPassesError as err:
        sys.exit(f"bench_blocks: error: {err}")
    except (click.Abort, KeyboardInterrupt):
        sys.exit("bench_blocks: interrupted; the blocks measured before are in the output")


if __name__ == "__main__":
    main()
