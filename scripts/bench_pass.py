"""Time the pass alone on large modules, beside a stock TVM pass on the same module.

Example: python scripts/bench_pass.py --ops 1000,10000,100000 --output pass.json
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from tvm_passes.bench.script import run_script
from tvm_passes.cli_options import numbers
from tvm_passes.dialects import TVM, installed
from tvm_passes.output import check_file, write_text
from tvm_passes.rules import RELAX

SHAPES = ("chain", "branches", "layers")
BRANCH = {"branches": 4, "layers": 8}
"""Ops of a branch: an addition, a relu, a max-pool, and the sum with the branches before; or two
convolutions, each with weights and a bias of its own and a relu, the max-pool and the sum."""
CHANNELS = 4
RANDOM = np.random.default_rng(0)


def layer_constants() -> tuple[np.ndarray, np.ndarray]:
    """The weights and the bias of a convolution, unlike those of any other."""
    weight = RANDOM.standard_normal((CHANNELS, CHANNELS, 3, 3))
    return weight.astype("float32"), RANDOM.standard_normal((CHANNELS, 1, 1)).astype("float32")


def relax_module(shape: str, ops: int) -> Any:
    """A Relax module of `ops` ops: one chain of relus above a pool, or a sum of short branches."""
    from tvm import relax

    def biased(value: Any, bias: Any) -> Any:
        return builder.emit(relax.op.nn.relu(builder.emit(relax.op.add(value, bias))))

    def layer(value: Any) -> Any:
        weight, bias = map(relax.const, layer_constants())
        return biased(builder.emit(relax.op.nn.conv2d(value, weight, padding=1)), bias)

    builder = relax.BlockBuilder()
    data = relax.Var("data", relax.TensorType((1, CHANNELS, 8, 8), "float32"))
    bias = relax.const([[[[0.5]]]], "float32")
    with builder.function("main", [data]):
        with builder.dataflow():
            if shape == "chain":
                expr = data
                for _ in range(ops - 1):
                    expr = builder.emit(relax.op.nn.relu(expr))
                total = relax.op.nn.max_pool2d(expr, (2, 2), (2, 2))
            else:
                total = builder.emit(relax.op.nn.max_pool2d(data, (2, 2), (2, 2)))
                for _ in range(ops // BRANCH[shape]):
                    expr = biased(data, bias) if shape == "branches" else layer(layer(data))
                    expr = builder.emit(relax.op.nn.max_pool2d(expr, (2, 2), (2, 2)))
                    total = builder.emit(relax.op.add(total, expr))
            result = builder.emit_output(total)
        builder.emit_func_output(result)
    return builder.get()


def relay_module(shape: str, ops: int) -> Any:
    """A Relay module of `ops` ops: one chain of relus above a pool, or a sum of short branches."""
    import tvm
    from tvm import relay

    def biased(value: Any, bias: Any) -> Any:
        return relay.nn.relu(relay.add(value, bias))

    def layer(value: Any) -> Any:
        weight, bias = map(relay.const, layer_constants())
        conv = relay.nn.conv2d(value, weight, padding=1, channels=CHANNELS, kernel_size=(3, 3))
        return biased(conv, bias)

    data = relay.var("data", shape=(1, CHANNELS, 8, 8))
    bias = relay.const([[[[0.5]]]], "float32")
    if shape == "chain":
        expr = data
        for _ in range(ops - 1):
            expr = relay.nn.relu(expr)
        total = relay.nn.max_pool2d(expr, (2, 2), (2, 2))
    else:
        total = relay.nn.max_pool2d(data, (2, 2), (2, 2))
        for _ in range(ops // BRANCH[shape]):
            expr = biased(data, bias) if shape == "branches" else layer(layer(data))
            total = relay.add(total, relay.nn.max_pool2d(expr, (2, 2), (2, 2)))
    return relay.transform.InferType()(tvm.IRModule.from_expr(relay.Function([data], total)))


def relax_passes() -> dict[str, Any]:
    """The pass, and the stock pass that walks a module as it does."""
    from tvm import relax

    from tvm_passes.relax import ReorderActivationAfterMaxPool

    return {
        "reorder": ReorderActivationAfterMaxPool(),
        "CanonicalizeBindings": relax.transform.CanonicalizeBindings(),
    }


def relay_passes() -> dict[str, Any]:
    """The pass, the stock pass of its kind, and what TVM runs after every function pass."""
    from tvm import relay

    from tvm_passes.relay import ReorderActivationAfterMaxPool

    return {
        "reorder": ReorderActivationAfterMaxPool(),
        "SimplifyExpr": relay.transform.SimplifyExpr(),
        "InferType": relay.transform.InferType(),
    }


def seconds(apply: Callable[[Any], object], module: Any) -> float:
    """How long a pass takes, once."""
    start = time.perf_counter()
    apply(module)
    return time.perf_counter() - start


@click.command()
@click.option(
    "--ops",
    default="1000,10000,100000",
    show_default=True,
    callback=numbers,
    help="Sizes of modules.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Runs of each pass; the least counts.",
)
@click.option("--skip", multiple=True, help="PASS:OPS: leave a pass out from that size on.")
@click.option("--output", type=click.Path(path_type=Path), help="Write every sample as JSON.")
def bench(ops: tuple[int, ...], rounds: int, skip: tuple[str, ...], output: Path | None) -> None:
    """Time ReorderActivationAfterMaxPool and stock passes on modules of growing size."""
    dialect = installed()
    is_relax = dialect == RELAX
    if output is not None:
        check_file(output)
    limits = {name: int(size) for name, size in (item.split(":") for item in skip)}
    results = []
    for shape in SHAPES:
        for size in ops:
            module = (relax_module if is_relax else relay_module)(shape, size)
            passes = relax_passes() if is_relax else relay_passes()
            samples: dict[str, list[float]] = {
                name: [] for name in passes if size < limits.get(name, size + 1)
            }
            for _ in range(rounds):
                for name, values in samples.items():
                    values.append(seconds(passes[name], module))
            results.append({"shape": shape, "ops": size, "seconds": samples})
            _print(results[-1])
    if output is not None:
        record = {
            "command": " ".join(sys.argv),
            "date": date.today().isoformat(),
            "machine": platform.processor() or platform.machine(),
            "dialect": dialect,
            "tvm": version(TVM[dialect or RELAX]),
            "results": results,
        }
        write_text(output, json.dumps(record, indent=1) + "\n")


def _print(result: dict[str, Any]) -> None:
    table = Table(title=f"{result['shape']}, {result['ops']} ops")
    for header in ("pass", "seconds", "µs an op"):
        table.add_column(header, justify="left" if header == "pass" else "right")
    for name, samples in result["seconds"].items():
        least = min(samples)
        table.add_row(name, f"{least:.3f}", f"{least / result['ops'] * 1e6:.1f}")
    Console().print(table)


if __name__ == "__main__":
    run_script("bench_pass", bench)
