"""What the benchmark scripts share: measure sources in all runtimes, keep and print the results."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tvm_passes.bench.environment import environment, load
from tvm_passes.bench.networks import NETWORKS
from tvm_passes.bench.results import MAIN, busy, result, summary, troubles
from tvm_passes.bench.runtimes import OURS, PEERS, Runtime
from tvm_passes.bench.session import Session, Settings
from tvm_passes.cli_options import numbers, split
from tvm_passes.output import write_text

ENVIRONMENTS = ("relax", "relay", "peers")
CHOICES = {runtime.name: runtime for runtime in (*OURS, *PEERS)}


@dataclass(frozen=True)
class Source:
    """What to measure: its name, and what writes all that workers need into a folder."""

    name: str
    write: Callable[[Path], object]


@dataclass(frozen=True)
class Comparison:
    """A comparison of runtimes.

    Parameters
    ----------
    sources
        What to run.
    runtimes
        Which are compared.
    settings
        How to measure, once for each number of threads.
    environments
        The folder of the environments in `ENVIRONMENTS`.
    output
        Written after every result.
    scratch
        Folder for logs and records, kept; a temporary one if None.
    """

    sources: Sequence[Source]
    runtimes: Sequence[Runtime]
    settings: Sequence[Settings]
    environments: Path
    output: Path
    scratch: Path | None = None

    def run(self) -> bool:
        """Measure and print; whether every result is as it should be."""
        document: dict[str, Any] = {"environment": environment(), "results": []}
        threads = [settings.threads for settings in self.settings]
        document["environment"] |= {"threads": threads, "command": sys.argv}
        with tempfile.TemporaryDirectory() as temporary:
            folder = self.scratch or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            for entry in self._measure(folder, document):
                document["results"].append(entry)
                document["summary"] = summary(document["results"])
                write_text(self.output, json.dumps(document, indent=1) + "\n")
        report(document, Console())
        ours = [runtime.name for runtime in self.runtimes if runtime.ours]
        return not any(_wrong(entry, ours) for entry in document["results"])

    def _measure(self, folder: Path, document: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield each result; versions go to the document."""
        progress = Console(stderr=True)
        root = self.environments.absolute()
        pythons = {name: root / name / "bin" / "python" for name in ENVIRONMENTS}
        for settings in self.settings:
            with Session(self.runtimes, pythons, settings, folder) as session:
                for source in self.sources:
                    where = f"{source.name}, {settings.threads} threads"
                    before = load()
                    with progress.status(escape(where)):
                        source.write(folder / source.name)
                        measured = session.measure(folder / source.name)
                    document["environment"]["versions"] = session.versions
                    entry = result(source.name, settings.threads, self.runtimes, measured)
                    progress.print(f"{where}: {_short(entry)}", highlight=False, soft_wrap=True)
                    yield entry | {"load_before": before}


def _short(entry: Mapping[str, Any]) -> str:
    ratio = entry["ratio_to_best_peer"]
    return f"{ratio:.2f} of {entry['best_peer']}" if ratio else "no ratio"


def _wrong(entry: Mapping[str, Any], ours: Sequence[str]) -> bool:
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
    for key, ratios in document.get("summary", {}).items():
        mean, least = ratios["geometric_mean"], ratios["least"]
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


# Options of the scripts.


def runtimes(wanted: Sequence[str]) -> list[Runtime]:
    """Runtimes by name."""
    unknown = [name for name in wanted if name not in CHOICES]
    if unknown:
        raise click.UsageError(f"no runtime {unknown[0]!r}: expected of {', '.join(CHOICES)}")
    return [CHOICES[name] for name in dict.fromkeys(wanted)]


def shared_options(root: Path, peers: Sequence[str], rounds: int) -> Callable[[Any], Any]:
    """The options that the scripts have in common.

    Parameters
    ----------
    root
        Of the repository, for the default environments.
    peers, rounds
        Other defaults.
    """
    ours = ",".join(runtime.name for runtime in OURS)
    folder = click.Path(path_type=Path)
    options = (
        click.option("--threads", default="1,2", show_default=True, callback=numbers),
        click.option("--peers", default=",".join(peers), show_default=True, callback=split),
        click.option("--ours", default=ours, show_default=True, callback=split),
        click.option("--rounds", type=click.IntRange(1), default=rounds, show_default=True),
        click.option(
            "--seconds", default=0.03, show_default=True, help="A sample's length at least."
        ),
        click.option(
            "--environments",
            type=folder,
            default=root / ".venv",
            help="Folder of the environments relax, relay and peers [default: .venv].",
        ),
        click.option(
            "--scratch",
            type=folder,
            help="Folder for logs and tuning records, kept [default: a temporary one].",
        ),
        click.option(
            "--tuned",
            type=folder,
            help="Records of ours, of one dialect [default: those that ship for the CPU].",
        ),
        click.option("--output", required=True, type=folder),
    )

    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def known_networks(only: Sequence[str]) -> list[str]:
    """Those networks, the quickest first; all where none is named.

    Raises
    ------
    click.UsageError
        If there is no network of a name.
    """
    unknown = [name for name in only if name not in NETWORKS]
    if unknown:
        raise click.UsageError(f"no network {unknown[0]!r}: expected of {', '.join(NETWORKS)}")
    return [name for name in NETWORKS if not only or name in only]


def settings_for(threads: Sequence[int], **common: Any) -> list[Settings]:
    """Settings for each number of threads."""
    return [Settings(count, **common) for count in threads]
