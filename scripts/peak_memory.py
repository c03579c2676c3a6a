"""Peak memory of networks, compiled by this package, beside ONNX Runtime and OpenVINO.

Each is loaded and run in a fresh process. Counted is by how much that grows over what it has once
the runtime is imported: at most, while loading and running; and afterwards. This package's models
are compiled before, ONNX Runtime and OpenVINO prepare theirs as they load. Needs Linux.

Example: python scripts/peak_memory.py --only mnist,squeezenet --output memory.json
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from tvm_passes.bench.comparison import known_networks
from tvm_passes.bench.environment import environment
from tvm_passes.bench.files import onnx_inputs, write_model_folder
from tvm_passes.bench.networks import NETWORKS, write_network
from tvm_passes.bench.process import Process, WorkerError, worker_command
from tvm_passes.bench.runtimes import PEERS_ENVIRONMENT
from tvm_passes.bench.script import run_script
from tvm_passes.cli_options import split
from tvm_passes.compile import compile_model
from tvm_passes.describe import WINOGRAD
from tvm_passes.output import check_file, write_text

ROOT = Path(__file__).parent.parent
ALLOWED: Mapping[str, Collection[str]] = {"written": (), WINOGRAD: (WINOGRAD,)}
PEERS = ("onnxruntime", "openvino")
RUNS = 3
MIB = 1 << 20


@click.command(help=__doc__)
@click.option(
    "--only", default="", callback=split, help=f"Of {', '.join(NETWORKS)}; all by default."
)
@click.option("--threads", default=1, show_default=True)
@click.option("--target", default="host", show_default=True)
@click.option(
    "--environments",
    default=ROOT / ".venv",
    type=click.Path(path_type=Path),
    help="Folder of the environments relax and peers  [default: .venv].",
)
@click.option("--output", required=True, type=click.Path(path_type=Path))
def peak_memory(
    only: tuple[str, ...], threads: int, target: str, environments: Path, output: Path
) -> None:
    """Run."""
    check_file(output)
    names = known_networks(only)
    document: dict[str, Any] = {"environment": environment(), "threads": threads, "results": []}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            document["results"].append(network(name, Path(folder), environments, threads, target))
        write_text(output, json.dumps(document, indent=1) + "\n")
    out = Console()
    out.print(table(document["results"]))
    for line in dict.fromkeys(troubles(document["results"])):
        out.print(line, style="yellow", soft_wrap=True, highlight=False)


def network(
    name: str, folder: Path, environments: Path, threads: int, target: str
) -> dict[str, Any]:
    """Bytes of one network in each runtime; ``weights`` is the size of its file."""
    path = folder / f"{name}.onnx"
    write_network(name, path)
    write_model_folder(path, onnx_inputs(path), folder)
    found: dict[str, Any] = {}
    for variant, allow in ALLOWED.items():
        compile_model(path, folder / variant, target=target, dialect="relax", allow=allow)
        found[variant] = grown(environments / "relax", "compiled", variant, folder, threads)
    for peer in PEERS:
        found[peer] = grown(environments / PEERS_ENVIRONMENT, peer, "original", folder, threads)
    return {"network": name, "weights": path.stat().st_size, "runtimes": found}


def grown(
    environment: Path, runtime: str, variant: str, folder: Path, threads: int
) -> dict[str, Any]:
    """Load a model and run it: bytes at most, and after."""
    python = environment.absolute() / "bin" / "python"
    try:
        process = Process(worker_command(python, runtime, threads), threads, folder / "log")
    except WorkerError as err:
        return {"error": str(err)}
    try:
        process.ask("versions")
        before = process.ask("memory")["resident"]
        process.ask("prepare", folder=str(folder), variant=variant, options={})
        for _ in range(RUNS):
            process.ask("run", variant=variant, output=str(folder / "out.npz"))
        after = process.ask("memory")
    except WorkerError as err:
        return {"error": str(err)}
    finally:
        process.end()
    return {"peak": after["peak"] - before, "after": after["resident"] - before}


def table(results: list[dict[str, Any]]) -> Table:
    """Peaks in MiB; and what stays."""
    names = [*ALLOWED, *PEERS]
    shown = Table("peak (after), MiB", "weights", *names, box=None, padding=(0, 1, 0, 0))
    for result in results:
        cells = [_cell(result["runtimes"][name]) for name in names]
        shown.add_row(result["network"], f"{result['weights'] / MIB:,.0f}", *cells)
    return shown


def troubles(results: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each runtime that did not answer."""
    for result in results:
        for name, found in result["runtimes"].items():
            if "error" in found:
                yield f"{name}: {found['error']}"


def _cell(found: Mapping[str, Any]) -> str:
    return "-" if "error" in found else f"{found['peak'] / MIB:,.0f} ({found['after'] / MIB:,.0f})"


if __name__ == "__main__":
    run_script("peak_memory", peak_memory)
