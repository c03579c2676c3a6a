"""Predict and measure what sinking the activation saves, over what a layer can be.

One axis at a time is varied around a first layer: kernel size, input channels, image size, depth,
pool size and stride, activation.  For each block the versions of tvm-reorder bench are timed, and
the cost of one evaluation of each activation is fitted to all, which says when to expect what.

Example: python scripts/savings.py --axes kernel,activation --output savings.json --plot savings.png
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from tvm_passes.bench.bench import Bench, Request
from tvm_passes.bench.block import Block
from tvm_passes.bench.verdict import NOT_SIGNIFICANT, compare
from tvm_passes.output import check_file, write_text

BASE = Block("base", (1, 3, 112, 112), 32, 3, 1, 1, "relu", (2, 2, 0))
DEEP = Block("deep", (1, 128, 28, 28), 128, 3, 1, 1, "relu", (2, 2, 0))
SLOW = ("sigmoid", "tanh", "softplus", "elu", "gelu", "silu")


def axes(*, small: bool) -> dict[str, list[Block]]:
    """Blocks by the axis that they vary."""
    found = {
        "kernel": [replace(BASE, kernel=k, pad=k // 2) for k in (1, 3, 5, 7)],
        "channels": [replace(BASE, shape=(1, c, 112, 112)) for c in (1, 3, 16, 64)],
        "image": [replace(BASE, shape=(1, 3, n, n)) for n in (28, 56, 224, 448, 1024)],
        "pool": [replace(BASE, pool=pool) for pool in ((2, 2, 0), (3, 2, 1), (3, 3, 0), (4, 4, 0))],
        "depth": [
            replace(BASE, shape=(1, c, n, n), channels=2 * c)
            for c, n in ((16, 112), (64, 56), (128, 28), (256, 14))
        ],
        "activation": [replace(BASE, activation=f) for f in ("relu", "leaky_relu", *SLOW)],
        "deep activation": [replace(DEEP, activation=f) for f in ("relu", "leaky_relu", *SLOW)],
    }
    if small:
        tiny = replace(BASE, shape=(1, 3, 12, 12), channels=16)
        found = {"activation": [replace(tiny, activation=f) for f in ("relu", "sigmoid")]}
    return {axis: [_named(axis, block) for block in blocks] for axis, blocks in found.items()}


def _named(axis: str, block: Block) -> Block:
    values = {
        "kernel": f"{block.kernel}x{block.kernel}",
        "channels": f"{block.shape[1]} channels",
        "image": f"{block.shape[2]}x{block.shape[2]}",
        "pool": "{0}x{0}/{1} pad {2}".format(*block.pool),
        "depth": f"{block.shape[1]} channels of {block.shape[2]}x{block.shape[2]}",
    }
    return replace(block, name=values.get(axis, f"{axis}: {block.activation}"))


PAIRS = {"schedules of TVM": ("original", "reordered"), "our kernels": ("scheduled", "fused")}
"""Versions that differ in the order alone."""


@click.command(help=__doc__)
@click.option("--axes", "chosen", default=",".join(axes(small=False)), show_default=True)
@click.option("--small", is_flag=True, help="Two tiny blocks, to try it out.")
@click.option("--rounds", type=click.IntRange(1), default=31, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--plot", type=click.Path(path_type=Path), help="Predicted against measured.")
@click.option("--output", required=True, type=click.Path(path_type=Path))
def savings(**options: Any) -> None:
    """Run."""
    check_file(options["output"])
    found = axes(small=options["small"])
    wanted = list(found) if options["small"] else options["chosen"].split(",")
    unknown = [axis for axis in wanted if axis not in found]
    if unknown:
        raise click.UsageError(f"no axis {unknown[0]!r}: expected of {', '.join(found)}")
    document: dict[str, Any] = {"results": []}
    for axis in wanted:
        for entry in measure(axis, found[axis], options, document):
            document["results"].append(entry)
            document["fitted"] = fit(document["results"])
            write_text(options["output"], json.dumps(document, indent=1) + "\n")
    out = Console()
    out.print(table(document["results"]))
    for line in statement(document["fitted"]):
        out.print(line, highlight=False)
    if options["plot"] is not None:
        draw(document["results"], options["plot"])


def measure(
    axis: str, blocks: Sequence[Block], options: Mapping[str, Any], document: dict[str, Any]
) -> Any:
    """Entries of the blocks of an axis."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "blocks.json"
        path.write_text(json.dumps({"blocks": [as_entry(block) for block in blocks]}))
        request = Request(
            sources=[block.name for block in blocks],
            blocks=path,
            python=Path(sys.executable),
            peers_python=Path(sys.executable),
            threads=[options["threads"]],
            rounds=options["rounds"],
            peaks=False,
        )
        bench = Bench(request)
        for entry, block in zip(bench.entries(), blocks, strict=True):
            document["environment"] = bench.environment
            yield summary(axis, block, entry)


def as_entry(block: Block) -> dict[str, Any]:
    """The block in the form of scripts/blocks.json."""
    conv = {"out": block.channels, "kernel": block.kernel, "stride": block.stride}
    return {
        "name": block.name,
        "in": block.shape,
        "conv": conv | {"pad": block.pad},
        "activation": block.activation,
        "pool": block.pool,
    }


def summary(axis: str, block: Block, entry: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a block: predictions, samples, and the ratio of each pair."""
    samples = entry["samples"][entry["dialect"]]
    before, after = (entry["predicted"][f"evaluations_{when}"] for when in ("before", "after"))
    ratios = {
        name: compare(samples[first]["samples"], samples[second]["samples"]).as_dict()
        for name, (first, second) in PAIRS.items()
        if first in samples and second in samples
    }
    counted = {version: _evaluations(f) for version, f in entry["figures"].items()}
    return {
        "axis": axis,
        "block": block.name,
        "activation": block.activation,
        "dialect": entry["dialect"],
        "sunk": bool(before),
        "predicted": (before - after) / (block.flops / 2 + before) if before else 0.0,
        "ratios": ratios,
        "evaluations": counted,
        "samples": {version: found["samples"] for version, found in samples.items()},
        "allocated": {v: f.get("planned") for v, f in entry["figures"].items()},
    }


def _evaluations(figures: Mapping[str, Any]) -> int | None:
    if "error" in figures:
        return None
    kernels = figures["kernels"]
    calls = [kernels[name] for name in figures["calls"] if name in kernels]
    return sum(sum(kernel["evaluations"].values()) for kernel in calls)


def fit(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Nanoseconds that one evaluation saved is worth, by pair and activation.

    Least squares through the origin of the medians' difference over the evaluations' difference.
    """
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for entry in results:
        for name, (first, second) in PAIRS.items():
            counts = [entry["evaluations"].get(version) for version in (first, second)]
            if name in entry["ratios"] and None not in counts and counts[0] != counts[1]:
                times = [float(np.median(entry["samples"][v])) for v in (first, second)]
                point = (counts[0] - counts[1], 1e9 * (times[0] - times[1]))
                points.setdefault((name, entry["activation"]), []).append(point)
    fitted: dict[str, dict[str, float]] = {}
    for (name, activation), found in points.items():
        x, y = np.array(found).T
        fitted.setdefault(name, {})[activation] = float(x @ y / (x @ x))
    return fitted


def statement(fitted: Mapping[str, Mapping[str, float]]) -> list[str]:
    """When to expect what, in words."""
    return [
        f"{name}: an evaluation saved is worth "
        + ", ".join(f"{ns:.2f} ns of {activation}" for activation, ns in costs.items())
        for name, costs in fitted.items()
    ]


def table(results: Sequence[Mapping[str, Any]]) -> Table:
    """A row a block: the formula's share, and each pair's ratio."""
    found = Table(title="time of relu → pool over that of pool → relu", title_justify="left")
    found.add_column("axis")
    found.add_column("block")
    found.add_column("formula", justify="right")
    for name in PAIRS:
        found.add_column(name, justify="right")
    for entry in results:
        cells = [_cell(entry["ratios"].get(name)) for name in PAIRS]
        found.add_row(entry["axis"], entry["block"], f"{entry['predicted']:.2%}", *cells)
    return found


def _cell(ratio: Mapping[str, Any] | None) -> str:
    if ratio is None:
        return "-"
    text = f"{ratio['ratio']:.3f}"
    if ratio["verdict"] == NOT_SIGNIFICANT:
        return f"[dim]{text} n.s."
    return f"[green]{text}" if ratio["ratio"] > 1 else f"[red]{text}"


def draw(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Predicted against measured share of the time saved, a colour an axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels = figure.subplots(1, len(PAIRS), sharex=True)
    for panel, name in zip(panels, PAIRS, strict=True):
        for axis in dict.fromkeys(entry["axis"] for entry in results):
            points = [
                (e["predicted"], 1 - 1 / e["ratios"][name]["ratio"])
                for e in results
                if e["axis"] == axis and name in e["ratios"]
            ]
            if points:
                panel.plot(*zip(*points, strict=True), "o", label=axis, alpha=0.7)
        top = max(entry["predicted"] for entry in results)
        panel.plot([0, top], [0, top], color="black", linewidth=1)
        panel.axhline(0, color="grey", linewidth=0.5)
        panel.set_title(name)
        panel.set_xlabel("share saved by the formula")
    panels[0].set_ylabel("share of the time saved, measured")
    panels[0].legend(fontsize=7)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    savings()
