"""How near to the peak the matrix products of Winograd's filtering run, by layer.

For each block whose convolution the cost model gives to Winograd: the register tile, the inner loop
in LLVM's assembly, its products alone (one group of tiles, all filters, as the kernel multiplies
them, weights streamed as in the kernel), and the whole layer, as shares of the FMA peak of the
core. Run it with the Python of the Relax environment.

Example: python scripts/winograd_stages.py --only vgg3_3 --output stages.json
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import tvm
from rich.console import Console
from rich.table import Table
from tvm import te

from tvm_passes.bench.assembly import main_loop
from tvm_passes.bench.block import Block, read_blocks
from tvm_passes.bench.environment import environment
from tvm_passes.bench.files import model_file, write_folder
from tvm_passes.bench.peaks import peaks
from tvm_passes.bench.script import run_script
from tvm_passes.bench.worker import measure
from tvm_passes.cli_options import split
from tvm_passes.describe import WINOGRAD
from tvm_passes.frontends import load_model
from tvm_passes.measure import set_threads
from tvm_passes.namespaces import Schedule, buffers, build_module, tensor, tir
from tvm_passes.output import check_file, write_text
from tvm_passes.relax.pipeline import passes_before_schedules
from tvm_passes.rules import RELAX
from tvm_passes.schedules.tuned import workload_of
from tvm_passes.schedules.winograd import matrix_products
from tvm_passes.schedules.winograd_rule import multiply, ranked_tiles, schedule, winograd_layer_of
from tvm_passes.schedules.winograd_tiles import WinogradNest, WinogradTiles
from tvm_passes.target import parse_target

BLOCKS = Path(__file__).parent / "blocks.json"


@click.command(help=__doc__)
@click.option(
    "--blocks",
    type=click.Path(path_type=Path),
    default=BLOCKS,
    help="File of blocks [default: scripts/blocks.json].",
)
@click.option("--only", default="", callback=split, help="Names of blocks, all by default.")
@click.option("--target", default="host", show_default=True, help="That this machine can run.")
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True)
@click.option("--output", required=True, type=click.Path(path_type=Path))
def winograd_stages(
    blocks: Path, only: tuple[str, ...], target: str, rounds: int, output: Path
) -> None:
    """Run."""
    check_file(output, apart_from=(blocks,))
    set_threads(1)
    config = {**parse_target(target), "num-cores": 1}
    about = environment() | {"command": sys.argv, "threads": 1, "target": config}
    document: dict[str, Any] = {"environment": about, "results": []}
    for block in read_blocks(blocks, only):
        found = look_at(block, tvm.target.Target(config), rounds)
        if found is not None:
            document["results"].append(found)
            write_text(output, json.dumps(document, indent=1) + "\n")
    Console().print(table(document["results"]))


def look_at(block: Block, target: tvm.target.Target, rounds: int) -> dict[str, Any] | None:
    """Figures of a block, or None where its sums are computed as they are written."""
    func = winograd_kernel(block, target)
    if func is None:
        return None
    layer = winograd_layer_of(Schedule(func))
    assert layer is not None  # noqa: S101 - `winograd_kernel` found it
    nest, tiles = layer.nest, ranked_tiles(func, target)[0]
    whole = build_module(schedule(func, tiles).mod, target)
    alone, calls = products_alone(nest, tiles)
    products = build_module(alone.mod, target)
    loop = main_loop(products.mod.inspect_source("asm"), "main")
    if loop is None:
        raise ValueError(f"no loop in the products of {block.name}")
    random = np.random.default_rng(0)
    layer_runs = [[_random(buffer, random) for buffer in buffers(func)]]
    part_runs = [
        [_random(buffer, random) for buffer in buffers(alone.mod["main"])] for _ in range(calls)
    ]
    for run in part_runs:
        run[0] = part_runs[0][0]  # of one group of tiles
    times: dict[str, list[float]] = {"layer": [], "products": [], "peak": []}
    for _ in range(rounds):
        times["peak"].append(peaks(target, 1)["gflops"])
        times["layer"].append(_seconds(whole, layer_runs))
        times["products"].append(_seconds(products, part_runs))
    peak, seconds = (
        max(times["peak"]),
        {name: float(np.median(found)) for name, found in times.items()},
    )
    flops = 2 * nest.tile**2 * nest.channels * nest.blocks * nest.block
    group = flops * tiles.rows * tiles.columns
    return {
        "block": block.name,
        "tile": f"F({nest.outputs}x{nest.outputs})",
        "tiling": asdict(tiles),
        "registers": tiles.register_blocks * tiles.register_rows * tiles.register_columns,
        "loop": {**loop.instructions, "spills": loop.spills},
        "peak": peak,
        "products": group / seconds["products"] / 1e9 / peak,
        "layer": flops * nest.batch * nest.down * nest.across / seconds["layer"] / 1e9 / peak,
        "direct": block.flops / seconds["layer"] / 1e9 / peak,
    }


def winograd_kernel(block: Block, target: tvm.target.Target) -> Any | None:
    """The kernel of a block's convolution, unscheduled, where it is Winograd's."""
    with tempfile.TemporaryDirectory() as folder, target:
        write_folder(block, Path(folder))
        mod = load_model(model_file(Path(folder)), RELAX)
        passes = passes_before_schedules(target, allow={WINOGRAD})
        kernels = tvm.transform.Sequential(passes)(mod).functions.values()
    workloads = [workload_of(func)["main"] for func in kernels if isinstance(func, tir.PrimFunc)]
    return next((func for func in workloads if winograd_layer_of(Schedule(func))), None)


def products_alone(nest: WinogradNest, tiles: WinogradTiles) -> tuple[Schedule, int]:
    """The products of one group of tiles with a part of the filters, and the number of parts."""
    size, inner = nest.tile, nest.block
    channels = -(-nest.channels // inner)
    shape = (size, size, 1, tiles.rows, tiles.columns, channels, inner)
    data = te.placeholder(shape, name="transformed")
    weight = te.placeholder((size, size, tiles.blocks, channels, inner, inner), name="weight")
    func = te.create_prim_func([data, weight, matrix_products(data, weight, nest.channels)])
    sch = Schedule(func)
    multiply(sch, sch.get_sblock("products"), tiles)
    return sch, nest.blocks // tiles.blocks


def _random(buffer: Any, random: np.random.Generator) -> Any:
    return tensor(random.standard_normal([*map(int, buffer.shape)], np.float32))


def _seconds(library: Any, runs: list[list[Any]]) -> float:
    main = library["main"]
    return float(measure(lambda: [main(*run) for run in runs], 0.05)["seconds"])


def table(results: list[dict[str, Any]]) -> Table:
    """Shares of the peak."""
    shown = Table(title="shares of the FMA peak, one thread", title_justify="left", box=None)
    for name in ("block", "tile", "accumulators", "multiply-adds", "loads", "spills"):
        shown.add_column(name)
    for name in ("products alone", "layer", "layer, as if direct"):
        shown.add_column(name, justify="right")
    for found in results:
        loop = found["loop"]
        loads = loop.get("load", 0) + loop.get("broadcast", 0)
        counts = (found["registers"], loop.get("multiply-add", 0), loads, loop["spills"])
        shares = (f"{found[name]:.0%}" for name in ("products", "layer", "direct"))
        shown.add_row(found["block"], found["tile"], *map(str, counts), *shares)
    return shown


if __name__ == "__main__":
    run_script("winograd_stages", winograd_stages)
