"""Measure what sinking saves for expensive and for quantized activations.

Sigmoid, tanh, softplus, gelu and silu (the last two at both ends of each window), and relu beside
them, behind a first layer (3x112x112, 3x3, 32 filters) and behind a deep one (128x28x28, 3x3, 128
filters); and the requantization of int8 models of the same two layers.  Layers that the output
holds already, and that are not asked for again, are kept in it.

Example: python scripts/expensive.py --output expensive.json --plot expensive.png
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent))

from savings import BASE, kept, measure, request, table
from savings_fit import PAIRS, evaluation_times

from tvm_passes.bench.bench import Bench
from tvm_passes.bench.block import Block
from tvm_passes.bench.script import run_script
from tvm_passes.bench.verdict import compare
from tvm_passes.frontends.tensorflow import child_environment
from tvm_passes.output import check_file, write_text

FUNCTIONS = ("relu", "sigmoid", "tanh", "softplus", "gelu", "silu")
LAYERS = {"first": BASE, "deep": replace(BASE, shape=(1, 128, 28, 28), channels=128)}
SMALL = replace(BASE, shape=(1, 3, 12, 12), channels=16)
INT8 = "int8"


@click.command(help=__doc__)
@click.option("--layers", default=",".join((*LAYERS, INT8)), show_default=True)
@click.option("--small", is_flag=True, help="One tiny layer of each kind, to try it out.")
@click.option("--rounds", type=click.IntRange(1), default=31, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights and inputs.")
@click.option("--plot", type=click.Path(path_type=Path), help="Ratios with their intervals.")
@click.option("--output", required=True, type=click.Path(path_type=Path))
def expensive(**options: Any) -> None:
    """Run."""
    output = options["output"]
    check_file(output)
    wanted = list(filter(None, options["layers"].split(",")))
    unknown = [name for name in wanted if name not in (*LAYERS, INT8)]
    if unknown:
        raise click.UsageError(f"no layer {unknown[0]!r}: expected of {', '.join(LAYERS)}, {INT8}")
    document = kept(output, wanted)
    for layer in wanted:
        for entry in entries(layer, options, document["environments"]):
            document["results"].append(entry)
            document["results"].sort(key=lambda found: (*LAYERS, INT8).index(found["axis"]))
            document["evaluation_ns"] = {
                name: evaluation_times([e for e in document["results"] if e["axis"] == name])
                for name in LAYERS
            }
            write_text(output, json.dumps(document, indent=1) + "\n")
    Console().print(table(document["results"]))
    if options["plot"] is not None:
        draw(document["results"], options["plot"])


def entries(
    layer: str, options: Mapping[str, Any], environments: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Results of a kind of layer."""
    if layer == INT8:
        yield from quantized(options, environments)
        return
    base = SMALL if options["small"] else LAYERS[layer]
    functions = FUNCTIONS[-1:] if options["small"] else FUNCTIONS
    blocks = [replace(base, name=f"{layer}: {f}", activation=f) for f in functions]
    yield from measure(layer, blocks, options, environments)


def quantized(options: Mapping[str, Any], environments: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Results of int8 models."""
    layers = {"small": SMALL} if options["small"] else LAYERS
    with tempfile.TemporaryDirectory() as folder:
        names = {name: Path(folder) / f"{name}.tflite" for name in layers}
        for name, path in names.items():
            convert(layers[name], path, options["seed"])
        bench = Bench(request(list(map(str, names.values())), options))
        environments[INT8] = bench.environment
        bench.environment["seed"] = options["seed"]
        for name, entry in zip(names, bench.entries(), strict=True):
            yield summary(f"{INT8}: {name}, relu", entry)


def convert(layer: Block, path: Path, seed: int) -> None:
    """Have TensorFlow write the int8 model of a layer."""
    script = Path(__file__).parent / "quantize_layer.py"
    numbers = [layer.shape[1], layer.shape[2], layer.channels, seed]
    command = [sys.executable, script, path, *map(str, numbers)]
    done = subprocess.run(  # noqa: S603 - our own program
        command, env=child_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        words = (done.stderr.strip().splitlines() or ["no words"])[-1]
        raise click.ClickException(f"TensorFlow, of the extra tensorflow, wrote no model: {words}")


def summary(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a model."""
    samples = {v: found["samples"] for v, found in entry["samples"][entry["dialect"]].items()}
    shares = [share for share in entry["predicted"]["arithmetic_saved"] if share]
    return {
        "axis": INT8,
        "block": name,
        "activation": "relu, requantize",
        "dialect": entry["dialect"],
        "sunk": bool(entry["predicted"]["evaluations_before"]),
        "formula": shares[0] if shares else 0.0,
        "counted": entry["predicted"],
        "ratios": {
            pair: compare(samples[first], samples[second]).as_dict()
            for pair, (first, second) in PAIRS.items()
            if first in samples and second in samples
        },
        "bitwise": entry["bitwise"],
        "max_abs_difference": entry["max_abs_difference"],
        "samples": samples,
        "others": entry["others"],
        "allocated": {v: f.get("planned") for v, f in entry["figures"].items()},
        "evaluations": {},
    }


def draw(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Ratios with their intervals, a row a function and layer."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.2 + 0.4 * len(results)), layout="constrained")
    axes = figure.add_subplot()
    for n, pair in enumerate(PAIRS):
        rows = [(y, e["ratios"][pair]) for y, e in enumerate(results) if pair in e["ratios"]]
        ys = [y + 0.2 * n - 0.1 for y, _ in rows]
        for y, (_, ratio) in zip(ys, rows, strict=True):
            axes.plot([ratio["low"], ratio["high"]], [y, y], color=f"C{n}", linewidth=2)
        axes.plot([ratio["ratio"] for _, ratio in rows], ys, "o", color=f"C{n}", label=pair)
    axes.set_yticks(range(len(results)), [entry["block"] for entry in results])
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("time of activation → pool over time of pool → activation")
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    run_script("expensive", expensive)
