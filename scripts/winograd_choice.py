"""Check the choice between written sums and Winograd's filtering against measured times.

A sweep over channels, filters, image sizes and pools: each layer is computed in every way that the
cost model knows, rounds interleaved, and the way it chose is compared with the fastest.

Example: TVM_NUM_THREADS=1 python scripts/winograd_choice.py --output winograd-choice.json
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
import tvm
from rich.console import Console
from rich.table import Table
from tvm import te

from tvm_passes.bench.environment import environment
from tvm_passes.bench.script import run_script
from tvm_passes.namespaces import build_module, tensor
from tvm_passes.output import check_file, write_text
from tvm_passes.schedules.algorithm import Algorithm, predicted
from tvm_passes.schedules.machine import block_of, machine_of
from tvm_passes.schedules.operators import Conv2d, MaxPool2d
from tvm_passes.schedules.rules import schedules
from tvm_passes.target import parse_target

POOLS = {
    "none": None,
    "2x2/2": MaxPool2d((2, 2), (2, 2), (1, 1), (0, 0, 0, 0)),
    "3x3/2": MaxPool2d((3, 3), (2, 2), (1, 1), (1, 1, 1, 1)),
}
Layer = tuple[int, int, int, int, str]
LAYERS: tuple[Layer, ...] = tuple(
    dict.fromkeys(
        (
            *product((16, 32, 64), (16, 32, 64), (56, 208), (3,), ("2x2/2",)),
            *product((64, 128, 256), (64, 256), (14, 56), (3,), ("none", "2x2/2")),
            *product((512,), (512,), (7, 14, 28), (3,), ("none",)),
            *product((16, 32), (32, 64), (14, 28), (5,), ("2x2/2",)),
            *product((1, 3, 8), (8, 16, 64), (28, 112), (3,), ("none", "2x2/2")),
            *product((1, 3, 8), (16,), (28, 112), (5,), ("2x2/2",)),
            *product((16, 64), (32, 192), (28, 112), (3,), ("3x3/2",)),
        )
    )
)
"""Channels, filters, rows and columns, taps, and the max-pool that follows."""


@click.command(help=__doc__)
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True)
@click.option("--layers", type=click.IntRange(1), help="Only the first so many.")
@click.option("--output", required=True, type=click.Path(path_type=Path))
def winograd_choice(rounds: int, layers: int | None, output: Path) -> None:
    """Run."""
    check_file(output)
    threads = int(os.environ.get("TVM_NUM_THREADS", "1"))
    target = tvm.target.Target({**parse_target("host"), "num-cores": threads})
    about = environment() | {"command": sys.argv, "threads": threads}
    document: dict[str, Any] = {"environment": about, "results": []}
    for entry in measured(LAYERS[:layers], target, rounds):
        document["results"].append(entry)
        document["summary"] = summary(document["results"])
        write_text(output, json.dumps(document, indent=1) + "\n")
    Console().print(table(document["results"]))
    Console().print(document["summary"], highlight=False)


def measured(layers: Sequence[Layer], target: Any, rounds: int) -> Iterator[dict[str, Any]]:
    """Predicted cycles and measured seconds of each way to compute each layer."""
    machine = machine_of(target)
    for channels, filters, size, taps, pool in layers:
        pad = taps // 2
        conv = Conv2d(
            channels=channels,
            filters=filters,
            groups=1,
            kernel=(taps, taps),
            strides=(1, 1),
            dilation=(1, 1),
            padding=(pad, pad, pad, pad),
            channels_last=False,
            block=block_of(machine),
        )
        ways = list(predicted(Algorithm(conv, POOLS[pool]), (1, size, size), machine))
        seconds = timed([kernel(way, size, target) for _, way in ways], rounds)
        named = [way.name or "as written" for _, way in ways]
        cycles = [found for found, _ in ways]
        yield {
            "channels": channels,
            "filters": filters,
            "size": size,
            "taps": taps,
            "pool": pool,
            "cycles": dict(zip(named, cycles, strict=True)),
            "seconds": dict(zip(named, seconds, strict=True)),
            "chosen": named[cycles.index(min(cycles))],
        }


def kernel(way: Algorithm, size: int, target: Any) -> Callable[[], object]:
    """A call of the kernel that computes a layer in one way, on random data."""
    conv = way.conv
    shape = (1, -(-conv.channels // conv.block), size, size, conv.block)
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((conv.filters, conv.channels, *conv.kernel)).astype("float32")
    packed = way.pack(weight, "OIHW")
    data, weights = te.placeholder(shape), te.placeholder(packed.shape)
    result = way.compute(data, weights)
    func = te.create_prim_func([data, weights, result])
    built = build_module(schedules(func, target)[0]().mod, target)["main"]
    arrays = (
        rng.standard_normal(shape).astype("float32"),
        packed,
        np.zeros([int(n) for n in result.shape], "float32"),
    )
    tensors = [tensor(array) for array in arrays]
    return lambda: built(*tensors)


def timed(calls: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Median seconds of each, rounds interleaved."""
    samples: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, found in zip(calls, samples, strict=True):
            call()
            start = time.perf_counter()
            call()
            found.append(time.perf_counter() - start)
    return [float(np.median(found)) for found in samples]


def summary(results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """How often the choice was the fastest, and what it lost where it was not."""
    lost = [e["seconds"][e["chosen"]] / min(e["seconds"].values()) for e in results]
    written = [e["chosen"] == "as written" for e in results]
    return {
        "layers": len(lost),
        "as written chosen": sum(written),
        "fastest chosen": float(np.mean([ratio == 1 for ratio in lost])),
        "geometric mean of chosen / fastest": float(np.exp(np.mean(np.log(lost)))),
        "worst chosen / fastest": max(lost),
    }


def table(results: Sequence[dict[str, Any]]) -> Table:
    """A row a layer."""
    found = Table("layer", "chosen", "ms, and as predicted", box=None)
    for e in results:
        layer = f"{e['channels']}->{e['filters']} {e['size']}² {e['taps']}x{e['taps']}"
        layer += "" if e["pool"] == "none" else f", pool {e['pool']}"
        times = "  ".join(
            f"{name} {e['seconds'][name] * 1e3:.3f} ({e['cycles'][name] / 3.7e6:.3f})"
            for name in e["seconds"]
        )
        found.add_row(layer, e["chosen"], times)
    return found


if __name__ == "__main__":
    run_script("winograd_choice", winograd_choice)
