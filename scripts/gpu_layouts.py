"""Time VGG16's 3x3 layers on the GPU of this machine, in both layouts, with and without Winograd.

Each layer, with its bias, relu and pool, is compiled in NCHW and in NHWC, with sums as written and
by Winograd's filtering; rounds of all four are interleaved, and the device's own clock tells the
time.

.venv/relax/bin/python scripts/gpu_layouts.py --output gpu-layouts.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from gpu_winograd import LAYERS

from tvm_passes.bench.environment import environment
from tvm_passes.compile import kernels_for
from tvm_passes.describe import WINOGRAD
from tvm_passes.errors import TvmPassesError
from tvm_passes.relax.engine import Runner, build, export, load
from tvm_passes.target import CUDA, parse_target, require_device

LAYOUTS = ("NCHW", "NHWC")
WAYS = {"fused": (), WINOGRAD: (WINOGRAD,)}
RUNS = 20
"""Of a kernel a round."""


def compiled(name: str, layout: str, way: str, path: Path, target: dict[str, Any]) -> None:
    """Write the library of a layer."""
    mod = LAYERS[name].module(layout)
    built = build(mod, target, allow=WAYS[way], compile_kernels=kernels_for(target))
    export(built, path)


def data(name: str, layout: str) -> np.ndarray:
    """What a layer reads, the same numbers in either layout."""
    layer = LAYERS[name]
    shape = (1, layer.channels, layer.extent, layer.extent)
    x = np.random.default_rng(1).standard_normal(shape, np.float32)
    return x if layout == "NCHW" else np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def microseconds(runners: dict[str, Callable[[int], float]], rounds: int) -> dict[str, Any]:
    """Median and spread of each, of rounds in turn."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    for n in range(rounds + 1):
        for name, mean in runners.items():
            seconds = mean(RUNS)
            if n:  # the first warms up
                times[name].append(1e6 * seconds)
    return {
        name: {
            "median": round(statistics.median(found), 2),
            "quartiles": [round(q, 2) for q in statistics.quantiles(found, n=4)[::2]],
        }
        for name, found in times.items()
    }


def timed(
    names: list[str], target: dict[str, Any], rounds: int, jobs: int
) -> dict[str, dict[str, Any]]:
    """Microseconds of each layer, layout and way, and what NHWC's results are off by."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = {
            each: Path(folder) / f"{'-'.join(each)}.so" for each in product(names, LAYOUTS, WAYS)
        }
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            done = [pool.submit(compiled, *each, path, target) for each, path in paths.items()]
            for future in done:
                future.result()
        for name in names:
            runners: dict[str, Runner] = {}
            inputs = {layout: data(name, layout) for layout in LAYOUTS}
            outputs = {}
            for layout, way in product(LAYOUTS, WAYS):
                runner = load(paths[name, layout, way], ["x"], CUDA)
                (out,) = runner(inputs[layout])
                outputs[layout, way] = out if layout == "NCHW" else out.transpose(0, 3, 1, 2)
                runners[f"{layout}, {way}"] = runner.timer(inputs[layout])
            exact = outputs["NCHW", "fused"]
            off = {
                ", ".join(key): float(np.abs(out - exact).max() / np.abs(exact).max())
                for key, out in outputs.items()
            }
            found[name] = {"microseconds": microseconds(runners, rounds), "off": off}
            print(name, json.dumps(found[name]), flush=True)
    return found


def main() -> int:
    """Exit code 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", default=",".join(LAYERS), help="names of them")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--jobs", type=int, default=8, help="processes that compile")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    try:
        target = require_device(parse_target(CUDA))
    except TvmPassesError as err:
        print(f"gpu_layouts: {err}", file=sys.stderr)
        return 2
    found = timed(options.layers.split(","), target, options.rounds, options.jobs)
    document = {"target": target, "environment": environment(), "layers": found}
    options.output.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
