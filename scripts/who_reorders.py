"""Find out which compilers reverse activation and pool already, from what they generate.

Each compiler is given conv (with bias_add, a separate add, no bias, batch norm, or no conv at
all), an activation and a pool; biases are not zero.  What it makes of them is dumped; edges of that
graph, or counts in that code, say whether the activation runs before or after the pool.  No times.

Example: python scripts/who_reorders.py --output who.json --evidence evidence --plot who.png
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
FOLDER = Path(__file__).parent / "reorders"
sys.path.insert(0, str(FOLDER))

from cases import AFTER, Case, cases, plain, read  # noqa: E402

from tvm_passes.bench.environment import environment  # noqa: E402
from tvm_passes.bench.script import run_script  # noqa: E402
from tvm_passes.output import check_file, write_text  # noqa: E402

COMPILERS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "TensorFlow": ("peers", "tensorflow_graph", ()),
    "XLA": ("peers", "xla_graph", ()),
    "ONNX Runtime": ("peers", "onnxruntime_graph", ()),
    "OpenVINO": ("peers", "openvino_graph", ()),
    "Inductor": ("peers", "inductor_graph", ()),
    "Inductor, frozen": ("peers", "inductor_graph", ("freezing",)),
    "TVM Relax": ("relax", "tvm_graph", ()),
    "TVM Relay": ("relay", "tvm_graph", ()),
    "ours, Relax": ("relax", "tvm_graph", ("ours",)),
    "ours, Relay": ("relay", "tvm_graph", ("ours",)),
}
"""Environment, program and its options."""

DISTRIBUTIONS = {
    "TensorFlow": "tensorflow",
    "XLA": "tensorflow",
    "ONNX Runtime": "onnxruntime",
    "OpenVINO": "openvino",
    "Inductor": "torch",
    "Inductor, frozen": "torch",
    "TVM Relax": "apache-tvm",
    "TVM Relay": "xtc-tvm-python-bindings",
    "ours, Relax": "tvm-passes",
    "ours, Relay": "tvm-passes",
}
"""What has each compiler's version."""

PACKAGES = re.compile(r"/[^\s'\"]*/site-packages/")
"""Where this machine keeps packages, which is no evidence."""


@click.command(help=__doc__)
@click.option("--compilers", default=",".join(COMPILERS).replace(", ", "; "), show_default=False)
@click.option("--all", "everything", is_flag=True, help="Every combination, not a selection.")
@click.option("--join", multiple=True, type=click.Path(path_type=Path), help="Outputs to add to.")
@click.option("--limit", type=int, help="Only so many cases.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights and input.")
@click.option("--environments", type=click.Path(path_type=Path), default=ROOT / ".venv")
@click.option("--evidence", type=click.Path(path_type=Path), help="Folder for graphs and code.")
@click.option("--plot", type=click.Path(path_type=Path), help="Picture of the table.")
@click.option("--output", required=True, type=click.Path(path_type=Path))
def who_reorders(
    compilers: str,
    everything: bool,
    join: tuple[Path, ...],
    limit: int | None,
    seed: int,
    environments: Path,
    evidence: Path | None,
    plot: Path | None,
    output: Path,
) -> None:
    """Run."""
    check_file(output)
    chosen = [name.strip().replace("; ", ", ") for name in compilers.split(",") if name]
    asked = cases(everything=everything, seed=seed)[:limit]
    document: dict[str, Any] = {"seed": seed, "environments": {}, "versions": {}}
    found: dict[str, dict[str, str]] = document.setdefault("found", {})
    reasons: dict[str, dict[str, str]] = document.setdefault("reasons", {})
    for earlier in (json.loads(path.read_text()) for path in join):
        for part in ("environments", "versions", "found", "reasons"):
            document[part].update(earlier[part])
    for name in chosen:
        document["environments"][name] = environment()
        texts = inspect(name, asked, environments)
        document["versions"][name] = version(name, environments)
        found[name] = {case: where for case, (where, _) in texts.items()}
        reasons[name] = {
            case: _without_places(text)
            for case, (where, text) in texts.items()
            if where == "failed"
        }
        if evidence is not None:
            _save(evidence / name.replace(", ", "-").replace(" ", "-"), texts)
        write_text(output, json.dumps(document, indent=1) + "\n")
    write_text(output, json.dumps(document, indent=1) + "\n")
    Console().print(table(found, asked))
    if plot is not None:
        draw(found, asked, plot)


def version(compiler: str, environments: Path) -> str | None:
    """The compiler's version, as its distribution says it."""
    python = environments.absolute() / COMPILERS[compiler][0] / "bin" / "python"
    code = f"from importlib.metadata import version; print(version({DISTRIBUTIONS[compiler]!r}))"
    if not python.exists():
        return None
    command = [python, "-c", code]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
    return done.stdout.strip() or None


def inspect(compiler: str, asked: list[Case], environments: Path) -> dict[str, tuple[str, str]]:
    """Where the activation is, and the evidence, by case."""
    folder, program, options = COMPILERS[compiler]
    python = environments.absolute() / folder / "bin" / "python"
    if not python.exists():
        return {case.name: ("failed", f"no {python}") for case in asked}
    variables = os.environ | {
        "PYTHONPATH": str(ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "TOPHUB_LOCATION": "NONE",
    }
    with tempfile.TemporaryDirectory() as temporary:
        results = Path(temporary) / "results"
        done = subprocess.run(  # noqa: S603 - our own programs
            [python, FOLDER / f"{program}.py", results, *options],
            input=json.dumps(plain(asked)),
            env=variables,
            cwd=temporary,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        lines = read(results) if results.exists() else ()
        found = {name: (where, text) for name, where, text in lines}
    reason = f"exit code {done.returncode}: {done.stderr[-2000:]}"
    return {case.name: found.get(case.name, ("failed", reason)) for case in asked}


def _without_places(text: str) -> str:
    """A message without lines of a traceback, which tell where this machine keeps what."""
    return "\n".join(line for line in text.splitlines() if 'File "' not in line)


def _save(folder: Path, texts: Mapping[str, tuple[str, str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for n, (case, (where, text)) in enumerate(texts.items()):
        (folder / f"{n:03}.txt").write_text(
            f"{case}: {where}\n\n{PACKAGES.sub('', _without_places(text))}\n"
        )


def table(found: Mapping[str, Mapping[str, str]], asked: list[Case]) -> Table:
    """A row a compiler and producer: on how many of the cases the activation runs after."""
    producers = list(dict.fromkeys(case.producer for case in asked))
    result = Table(title="cases in which the activation runs after the pool", title_justify="left")
    result.add_column("compiler")
    for producer in producers:
        result.add_column(producer, justify="right")
    for name, places in found.items():
        cells = []
        for producer in producers:
            mine = [places[case.name] for case in asked if case.producer == producer]
            failed = mine.count("failed")
            note = f", {failed} failed" if failed else ""
            cells.append(f"{mine.count(AFTER)} of {len(mine) - failed}{note}")
        result.add_row(name, *cells)
    return result


def draw(found: Mapping[str, Mapping[str, str]], asked: Sequence[Case], path: Path) -> None:
    """A row a producer and activation: in how many cases the activation runs after the pool."""
    from matplotlib.figure import Figure

    rows = list(dict.fromkeys((case.producer, case.activation) for case in asked))
    cells = [[_places(places, asked, row) for places in found.values()] for row in rows]
    shares = [[places.count(AFTER) / (len(places) or 1) for places in line] for line in cells]
    figure = Figure(figsize=(9, 1.6 + 0.22 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Greens", vmin=0, vmax=1.5, aspect="auto")
    for y, line in enumerate(cells):
        for x, places in enumerate(line):
            text = f"{places.count(AFTER)} of {len(places)}"
            axes.text(x, y, text, ha="center", va="center", fontsize=6)
    axes.set_xticks(range(len(found)), list(found), rotation=30, ha="right")
    axes.set_yticks(range(len(rows)), [", then ".join(row) for row in rows], fontsize=7)
    axes.set_title("cases in which the activation runs after the pool: pools and readers vary")
    figure.savefig(path, dpi=110)


def _places(places: Mapping[str, str], asked: Sequence[Case], row: tuple[str, str]) -> list[str]:
    """Where the activation is in the cases of a producer and activation that were compiled."""
    mine = [places[case.name] for case in asked if (case.producer, case.activation) == row]
    return [place for place in mine if place != "failed"]


if __name__ == "__main__":
    run_script("who_reorders", who_reorders)
