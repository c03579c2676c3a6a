"""Time whole networks against ONNX Runtime and OpenVINO on a CPU.

VGG16, SqueezeNet 1.1, tiny YOLO v2, ResNet-50 and the MNIST network, of the published topologies
and sizes, batch 1, float32, with seeded random weights; batch normalization as exporters leave it.
Each runtime is a process of its own, stopped while another is measured.  Outputs are compared
first, with those of ONNX Runtime.

Example: python scripts/bench_networks.py --only mnist,squeezenet --threads 1 --output nets.json
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click

from tvm_passes.bench.comparison import (
    Comparison,
    Source,
    known_networks,
    runtimes,
    settings_for,
    shared_options,
)
from tvm_passes.bench.files import onnx_inputs, write_model_folder
from tvm_passes.bench.networks import NETWORKS, write_network
from tvm_passes.bench.runtimes import one_order
from tvm_passes.bench.script import run_script
from tvm_passes.cli_options import split
from tvm_passes.output import check_file

ROOT = Path(__file__).parent.parent
DEFAULT_PEERS = ("onnxruntime", "openvino")


@click.command(help=__doc__)
@click.option(
    "--only", default="", callback=split, help=f"Of {', '.join(NETWORKS)}; all by default."
)
@click.option(
    "--networks",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    help="An .onnx file of yours, to measure instead; may be given more than once.",
)
@shared_options(ROOT, DEFAULT_PEERS, rounds=15)
def bench_networks(
    only: tuple[str, ...],
    networks: tuple[Path, ...],
    threads: tuple[int, ...],
    peers: tuple[str, ...],
    ours: tuple[str, ...],
    rounds: int,
    seconds: float,
    environments: Path,
    scratch: Path | None,
    tuned: Path | None,
    output: Path,
) -> None:
    """Run."""
    check_file(output, apart_from=networks)
    chosen = [one_order(runtime) for runtime in runtimes((*ours, *peers))]
    each = settings_for(threads, rounds=rounds, seconds=seconds, tuned=tuned)
    found = [Source(path.stem, partial(_use, path)) for path in networks]
    if only or not networks:
        found += [Source(name, partial(_write, name)) for name in known_networks(only)]
    if not Comparison(found, chosen, each, environments, output, scratch).run():
        sys.exit(1)


def _use(path: Path, folder: Path) -> None:
    write_model_folder(path, onnx_inputs(path), folder)


def _write(name: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.onnx"
    if not path.exists():
        write_network(name, path)
    _use(path, folder)


if __name__ == "__main__":
    run_script("bench_networks", bench_networks)
