"""Compare the memory plan of kernels that take the max-pool along with that of TVM's own.

For blocks and networks: bytes of storage that TVM's StaticPlanBlockMemory gives to activations, the
largest buffer that a kernel keeps for itself, and what the cost model says of the tensors between
convolutions and pools, of which none may be left.  Nothing is run.

Example: python scripts/memory_plan.py --output plan.json
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import tvm
from rich.console import Console
from rich.table import Table

from tvm_passes.bench.block import ORIGINAL, read_blocks
from tvm_passes.bench.environment import environment
from tvm_passes.bench.networks import NETWORKS, write_network
from tvm_passes.bench.onnx_model import onnx_model
from tvm_passes.bench.run_relax import kernel_bytes, planned_storage
from tvm_passes.bench.script import run_script
from tvm_passes.cli_options import split
from tvm_passes.cost import cost
from tvm_passes.decision import Decision
from tvm_passes.frontends import load_model
from tvm_passes.namespaces import Schedule, tir
from tvm_passes.output import check_file, write_text
from tvm_passes.relax.convolution import op_name
from tvm_passes.relax.pipeline import (
    passes_before_schedules,
    stock_pipeline,
    tvm_reorder_pipeline,
)
from tvm_passes.relax.reorder import decisions
from tvm_passes.rules import RELAX
from tvm_passes.schedules.structure import layer_of
from tvm_passes.target import parse_target

BLOCKS = Path(__file__).parent / "blocks.json"


@click.command(help=__doc__)
@click.option(
    "--only", default="", callback=split, help="Names; all blocks and networks by default."
)
@click.option("--target", default="x86-64-v4", show_default=True)
@click.option("--output", required=True, type=click.Path(path_type=Path))
def memory_plan(only: tuple[str, ...], target: str, output: Path) -> None:
    """Run."""
    check_file(output)
    compiled_for = tvm.target.Target(parse_target(target))
    table = Table("KiB", "planned before", "after", "kernel's own", "un-pooled", box=None)
    results = []
    for name, mod in modules(only):
        found = {"name": name, **compare(mod, compiled_for)}
        results.append(found)
        keys = ("planned_before", "planned_after", "own_after")
        table.add_row(
            name,
            *(f"{found[key] / 1024:,.0f}" for key in keys),
            f"{max(found['unpooled'], default=0) / 1024:,.0f}",
        )
    document = {"environment": environment(), "target": target, "results": results}
    write_text(output, json.dumps(document, indent=1) + "\n")
    Console().print(table)
    left = [found["name"] for found in results if found["left"]]
    if left:
        sys.exit(f"un-pooled tensors are allocated in {', '.join(left)}")


def modules(only: tuple[str, ...]) -> Iterator[tuple[str, tvm.IRModule]]:
    """Each block and network, as its front end reads it."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        for block in read_blocks(BLOCKS):
            if not only or block.name in only:
                onnx.save(onnx_model(block, ORIGINAL, block.arrays()), path)
                yield block.name, load_model(path, RELAX)
        for name in NETWORKS:
            if not only or name in only:
                write_network(name, path)
                yield name, load_model(path, RELAX)


def compare(mod: tvm.IRModule, target: tvm.target.Target) -> dict[str, Any]:
    """Plans of a module in the stock pipeline and in this package's.

    Returns
    -------
    dict
        ``planned_before``, ``planned_after``: bytes; ``own_after``: of the kernel that keeps most
        for itself;
        ``unpooled``: bytes of each tensor between a convolution and its pool, ``left``: how many of
        them are still allocated.
    """
    with target:
        before = stock_pipeline()(mod)
        kernels = tvm.transform.Sequential(passes_before_schedules(target))(mod)
        after = tvm_reorder_pipeline()(mod)
    found = [decision for decision in decisions(mod) if decision.passed]
    unpooled = [cost(decision).unpooled_bytes or 0 for decision in found if _behind_conv(decision)]
    layers = {gvar: layer_of(Schedule(func)) for gvar, func in _kernels(kernels)}
    pooled = [gvar for gvar in _calls(kernels) if layers.get(gvar) and layers[gvar].pool]
    return {
        "planned_before": sum(planned_storage(before["main"])),
        "planned_after": sum(planned_storage(after["main"])),
        "own_after": max(kernel_bytes(func) for _, func in _kernels(after)),
        "unpooled": unpooled,
        "left": len(unpooled) - len(pooled),
    }


def _behind_conv(decision: Decision) -> bool:
    return decision.site.producer.macs_per_output is not None


def _kernels(mod: tvm.IRModule) -> list[tuple[tvm.ir.GlobalVar, tir.PrimFunc]]:
    return [(gvar, f) for gvar, f in mod.functions.items() if isinstance(f, tir.PrimFunc)]


def _calls(mod: tvm.IRModule) -> list[tvm.ir.GlobalVar]:
    """The kernels that ``main`` calls, in order."""
    bindings = (binding for block in mod["main"].body.blocks for binding in block.bindings)
    return [binding.value.args[0] for binding in bindings if op_name(binding.value) == CALL_TIR]


CALL_TIR = "relax.call_tir"


if __name__ == "__main__":
    run_script("memory_plan", memory_plan)
