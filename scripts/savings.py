"""Predict and measure what sinking the activation saves, over what a layer can be.

One axis at a time is varied around a first layer: kernel size, input channels, image size, depth,
pool size and stride, activation.  For each block the versions of tvm-reorder bench are timed, and
lines are fitted to what the formula and a list of prices predict, which say when to expect what.
Axes that the output holds already, and that are not asked for again, are kept in it.

Example: python scripts/savings.py --axes kernel,activation --output savings.json --plot savings.png
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

from savings_fit import PAIRS, draw, evaluation_times, fits, prices, statement

from tvm_passes.bench.bench import Bench, Request
from tvm_passes.bench.block import Block
from tvm_passes.bench.script import run_script
from tvm_passes.bench.verdict import NOT_SIGNIFICANT, compare
from tvm_passes.output import check_file, write_text

BASE = Block("base", (1, 3, 112, 112), 32, 3, 1, 1, "relu", (2, 2, 0))
ACTIVATIONS = ("relu", "leaky_relu", "sigmoid", "tanh", "softplus", "elu", "gelu", "silu")
NONE = Path("no blocks")
TWICE = ("gelu", "silu")
"""Evaluated at both ends of each window."""


def axes(*, small: bool) -> dict[str, list[Block]]:
    """Blocks by the axis that they vary."""
    if small:
        tiny = replace(BASE, shape=(1, 3, 12, 12), channels=16)
        blocks = [_named("activation", replace(tiny, activation=f)) for f in ("relu", "silu")]
        return {"activation": blocks}
    pools = ((2, 2, 0), (3, 2, 1), (3, 3, 0), (4, 4, 0), (3, 1, 1))
    found = {
        "kernel": [replace(BASE, kernel=k, pad=k // 2) for k in (1, 3, 5, 7, 11)],
        "channels": [replace(BASE, shape=(1, c, 112, 112)) for c in (1, 3, 8, 16, 64)],
        "image": [replace(BASE, shape=(1, 3, n, n)) for n in (28, 56, 112, 224, 448, 1024)],
        "pool": [replace(BASE, pool=pool) for pool in pools],
        "depth": [
            replace(BASE, shape=(1, c, n, n), channels=2 * c)
            for c, n in ((16, 112), (64, 56), (128, 28), (256, 14))
        ],
        "activation": [replace(BASE, activation=f) for f in ACTIVATIONS],
    }
    return {axis: [_named(axis, block) for block in blocks] for axis, blocks in found.items()}


def _named(axis: str, block: Block) -> Block:
    n, c = block.shape[2], block.shape[1]
    values = {
        "kernel": f"{block.kernel}x{block.kernel}",
        "channels": f"{c} channels",
        "image": f"{n}x{n}",
        "pool": "{0}x{0}, stride {1}, pad {2}".format(*block.pool),
        "depth": f"{c} to {block.channels}, {n}x{n}",
        "activation": block.activation,
    }
    return replace(block, name=f"{axis}: {values[axis]}")


@click.command(help=__doc__)
@click.option("--axes", "chosen", default=",".join(axes(small=False)), show_default=True)
@click.option("--small", is_flag=True, help="Two tiny blocks, to try it out.")
@click.option("--rounds", type=click.IntRange(1), default=31, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights and inputs.")
@click.option("--plot", type=click.Path(path_type=Path), help="A panel an axis, and the fits.")
@click.option("--output", required=True, type=click.Path(path_type=Path))
def savings(**options: Any) -> None:
    """Run."""
    output = options["output"]
    check_file(output)
    found = axes(small=options["small"])
    wanted = list(filter(None, options["chosen"].split(",")))
    wanted = list(found) if options["small"] else wanted
    unknown = [axis for axis in wanted if axis not in found]
    if unknown:
        raise click.UsageError(f"no axis {unknown[0]!r}: expected of {', '.join(found)}")
    document = kept(output, wanted)
    for axis in wanted:
        for entry in measure(axis, found[axis], options, document["environments"]):
            document["results"].append(entry)
            _write(document, output)
    _write(document, output)
    out = Console()
    out.print(table(document["results"]))
    for line in document["statement"]:
        out.print(line, highlight=False)
    if options["plot"] is not None:
        draw(document["results"], options["plot"])


def kept(output: Path, wanted: Sequence[str]) -> dict[str, Any]:
    """What an earlier run left of the axes that are not measured again."""
    if not output.exists():
        return {"environments": {}, "results": []}
    earlier = json.loads(output.read_text())
    results = [entry for entry in earlier["results"] if entry["axis"] not in wanted]
    return {"environments": earlier["environments"], "results": results}


def _write(document: dict[str, Any], output: Path) -> None:
    results = document["results"]
    results.sort(key=lambda entry: list(axes(small=False)).index(entry["axis"]))
    document["fits"] = {
        pair: {name: asdict(fit) for name, fit in found.items()}
        for pair, found in fits(results).items()
    }
    document["evaluation_ns"] = evaluation_times(results)
    document["statement"] = statement(results)
    write_text(output, json.dumps(document, indent=1) + "\n")


def measure(
    axis: str, blocks: Sequence[Block], options: Mapping[str, Any], environments: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Entries of the blocks of an axis."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "blocks.json"
        path.write_text(json.dumps({"blocks": [as_entry(block) for block in blocks]}))
        bench = Bench(request([block.name for block in blocks], options, path))
        environments[axis] = bench.environment
        bench.environment["seed"] = options["seed"]
        for entry, block in zip(bench.entries(), blocks, strict=True):
            yield summary(axis, block, entry)


def request(sources: Sequence[str], options: Mapping[str, Any], blocks: Path = NONE) -> Request:
    """What is measured: each pair of versions of models, or of blocks in a file."""
    return Request(
        sources=sources,
        blocks=blocks,
        python=Path(sys.executable),
        peers_python=Path(sys.executable),
        threads=[options["threads"]],
        versions=[version for pair in PAIRS.values() for version in pair],
        rounds=options["rounds"],
        seed=options["seed"],
        allow=("quasi-convex",),
        peaks=False,
    )


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
    samples = {v: found["samples"] for v, found in entry["samples"][entry["dialect"]].items()}
    pairs = {n: pair for n, pair in PAIRS.items() if set(pair) <= set(samples)}
    counted = entry["predicted"]
    before, after = (counted[f"evaluations_{when}"] for when in ("before", "after"))
    kept = np.prod(block.out_shape) / np.prod(block.conv_shape)
    return {
        "axis": axis,
        "block": block.name,
        "activation": block.activation,
        "dialect": entry["dialect"],
        "sunk": bool(before),
        "formula": float(1 - kept) / (block.shape[1] * block.kernel**2) if before else 0.0,
        "counted": counted,
        "share_counted": (before - after) / (block.flops / 2 + before) if before else 0.0,
        "priced": {
            name: 1e-9 * _price(block) / float(np.median(samples[first])) if before else 0.0
            for name, (first, _) in pairs.items()
        },
        "ratios": {
            name: compare(samples[first], samples[second]).as_dict()
            for name, (first, second) in pairs.items()
        },
        "evaluations": {version: _evaluations(f) for version, f in entry["figures"].items()},
        "samples": samples,
        "others": entry["others"],
        "allocated": {v: f.get("planned") for v, f in entry["figures"].items()},
    }


def _price(block: Block) -> float:
    """Nanoseconds of the evaluations of bias and activation that are saved."""
    before, after = float(np.prod(block.conv_shape)), float(np.prod(block.out_shape))
    times = 2 if block.activation in TWICE else 1
    listed = prices()
    return (before - times * after) * listed[block.activation] + (before - after) * listed["bias"]


def _evaluations(figures: Mapping[str, Any]) -> int | None:
    if "error" in figures:
        return None
    kernels = figures["kernels"]
    calls = [kernels[name] for name in figures["calls"] if name in kernels]
    return sum(sum(kernel["evaluations"].values()) for kernel in calls)


def table(results: Sequence[Mapping[str, Any]]) -> Table:
    """A row a block: the formula's share, and each pair's ratio."""
    found = Table(title="time of relu → pool over that of pool → relu", title_justify="left")
    found.add_column("block")
    found.add_column("formula", justify="right")
    for name in PAIRS:
        found.add_column(name, justify="right", no_wrap=True)
    for entry in results:
        cells = [_cell(entry["ratios"].get(name)) for name in PAIRS]
        sunk = f"{entry['formula']:.2%}" if entry["sunk"] else "declined"
        found.add_row(entry["block"], sunk, *cells)
    return found


def _cell(ratio: Mapping[str, Any] | None) -> str:
    if ratio is None:
        return "-"
    text = f"{ratio['ratio']:.2f} \\[{ratio['low']:.2f}, {ratio['high']:.2f}]"
    if ratio["verdict"] == NOT_SIGNIFICANT:
        return f"[dim]{text} n.s."
    return f"[green]{text}" if ratio["ratio"] > 1 else f"[red]{text}"


if __name__ == "__main__":
    run_script("savings", savings)
