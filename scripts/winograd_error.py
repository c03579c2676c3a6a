"""Measure how far convolutions are from their exact sums, as written and by Winograd's filtering.

Blocks with 3x3 and 5x5 convolutions of stride 1, on inputs of several kinds, against NumPy's
float64; other runtimes beside this package.

Example: python scripts/winograd_error.py --output winograd-error.json
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from tvm_passes.bench.block import Block, read_blocks
from tvm_passes.bench.environment import environment
from tvm_passes.bench.files import write_folder
from tvm_passes.bench.process import Process, WorkerError, worker_command
from tvm_passes.bench.runtimes import OURS, PEERS
from tvm_passes.bench.script import run_script
from tvm_passes.output import check_file, write_text

ROOT = Path(__file__).parent.parent
RUNTIMES = ("tvm_passes", "tvm_passes_winograd", "onnxruntime", "openvino", "torch")
BLOCKS = "mnist2,tinyyolo2,tinyyolo4,vgg3_3,vgg5_3,googlenet2"
ENVIRONMENTS = {runtime.name: runtime.environment for runtime in (*OURS, *PEERS)}

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
INPUTS: Mapping[str, Draw] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "behind a relu": lambda rng, shape: np.maximum(rng.standard_normal(shape), 0),
    "magnitudes": lambda rng, shape: rng.standard_normal(shape) * 10 ** rng.uniform(-6, 6, shape),
    "cancellation": lambda rng, shape: 1e4 + rng.standard_normal(shape),
}
"""``magnitudes`` spans twelve decades; in ``cancellation`` sums are small beside their terms."""


def names(_context: click.Context, _option: click.Parameter, value: str) -> tuple[str, ...]:
    """Split at commas."""
    return tuple(filter(None, value.split(",")))


@click.command(help=__doc__)
@click.option("--only", default=BLOCKS, show_default=True, callback=names)
@click.option("--runtimes", default=",".join(RUNTIMES), show_default=True, callback=names)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--environments", type=click.Path(path_type=Path), default=ROOT / ".venv")
@click.option("--output", required=True, type=click.Path(path_type=Path))
def winograd_error(
    only: tuple[str, ...],
    runtimes: tuple[str, ...],
    seed: int,
    environments: Path,
    output: Path,
) -> None:
    """Run."""
    check_file(output)
    blocks = read_blocks(ROOT / "scripts" / "blocks.json", only)
    document: dict[str, Any] = {"environment": environment() | {"command": sys.argv, "seed": seed}}
    document["results"] = results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        started = {name: start(name, environments, folder) for name in runtimes}
        try:
            for block in blocks:
                results.extend(errors(block, started, folder / block.name, seed))
                write_text(output, json.dumps(document, indent=1) + "\n")
        finally:
            for process in started.values():
                process.end()
    Console().print(table(results, runtimes))


def start(runtime: str, environments: Path, folder: Path) -> Process:
    """The process of a runtime, on one thread."""
    if runtime not in ENVIRONMENTS:
        raise click.UsageError(f"no runtime {runtime!r}: expected of {', '.join(ENVIRONMENTS)}")
    python = environments.absolute() / ENVIRONMENTS[runtime] / "bin" / "python"
    try:
        return Process(worker_command(python, runtime, 1), 1, folder / f"{runtime}.log")
    except WorkerError as err:
        raise click.ClickException(f"{runtime}: {err}") from err


def errors(
    block: Block, started: Mapping[str, Process], folder: Path, seed: int
) -> Iterator[dict[str, Any]]:
    """The error of each runtime on each kind of input."""
    write_folder(block, folder, seed)
    arrays = block.arrays(seed)
    request = {"folder": str(folder), "variant": "original", "options": {}}
    for kind, draw in INPUTS.items():
        x = draw(np.random.default_rng(seed + 1), block.shape).astype("float32")
        np.savez(folder / "arrays.npz", **arrays | {"x": x})  # type: ignore[arg-type]
        exact = convolved(block, x, arrays["w"], arrays["b"])
        scale = float(np.abs(exact).max())
        found: dict[str, float] = {}
        for name, process in started.items():
            process.ask("prepare", **request)
            process.ask("run", variant="original", output=str(folder / "out.npz"))
            with np.load(folder / "out.npz") as archive:
                found[name] = float(np.abs(archive[archive.files[0]] - exact).max()) / scale
        yield {"block": block.name, "inputs": kind, "largest": scale, "error": found}


def convolved(block: Block, x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The block in float64, its sums as they are written."""
    pad, (n, c, rows, columns) = block.pad, block.conv_shape
    padded = np.pad(x.astype(float), [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    total = np.zeros((n, c, rows, columns))
    for i in range(block.kernel):
        for j in range(block.kernel):
            window = padded[:, :, i : i + rows, j : j + columns]
            total += np.einsum("oc,nchw->nohw", w[:, :, i, j].astype(float), window, optimize=True)
    return pooled(block, activated(block.activation, total + b.astype(float)[:, None, None]))


def activated(name: str, x: np.ndarray) -> np.ndarray:
    """The activations of these blocks."""
    return np.maximum(x, 0.1 * x if name == "leaky_relu" else 0)


def pooled(block: Block, x: np.ndarray) -> np.ndarray:
    """The maximum over each window."""
    kernel, stride, pad = block.pool
    edges = [(0, 0), (0, 0), (pad, pad), (pad, pad)]
    padded = np.pad(x, edges, constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(2, 3))
    greatest: np.ndarray = windows[:, :, ::stride, ::stride].max(axis=(4, 5))
    return greatest


def table(results: list[dict[str, Any]], runtimes: tuple[str, ...]) -> Table:
    """A row a block and kind of input."""
    title = "largest error, relative to the largest output"
    found = Table("block", "inputs", *runtimes, title=title, title_justify="left", box=None)
    for entry in results:
        cells = (f"{entry['error'][name]:.1e}" for name in runtimes)
        found.add_row(entry["block"], entry["inputs"], *cells)
    return found


if __name__ == "__main__":
    run_script("winograd_error", winograd_error)
