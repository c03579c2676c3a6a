"""Check that our vectors of exp, sigmoid and tanh have the bits of TVM's own, for all float32.

TVM's own call the expf of this machine's libm, element by element.  Both are compiled for the
target and given all 2^32 arguments, or random ones.  NaNs count as equal to each other.
Run it with the Python of either environment, on a machine that can run the target's code.

Example: python scripts/check_exp.py --target x86-64-v4 --output exp.json
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.progress import track

from tvm_passes.bench.script import run_script
from tvm_passes.dialects import require
from tvm_passes.output import check_file, write_text
from tvm_passes.target import parse_target, require_host

CHUNK = 1 << 22
Kernel = Callable[[np.ndarray], np.ndarray]


def kernels(name: str, target: Any, elements: int) -> tuple[Kernel, Kernel]:
    """A function of so many elements as this package compiles it, and as TVM does."""
    from tvm import te, topi

    from tvm_passes.schedules.exponential import elementwise

    data = te.placeholder((elements,), "float32", "x")
    return compiled(data, elementwise(name, data), target), compiled(
        data, getattr(topi, name)(data), target
    )


def compiled(data: Any, result: Any, target: Any) -> Kernel:
    """A kernel of vectors, as a function of arrays."""
    from tvm import te

    from tvm_passes.namespaces import built, tensor
    from tvm_passes.schedules.spatial import Spatial

    schedule = Spatial().apply(te.create_prim_func([data, result]), target, False)
    function = built(schedule.mod["main"], target)

    def run(array: np.ndarray) -> np.ndarray:
        output = tensor(np.empty_like(array))
        function(tensor(array), output)
        return output.numpy()

    return run


def arguments(chunks: int | None) -> Iterator[np.ndarray]:
    """All float32 by their bits, or so many chunks of random ones."""
    if chunks is None:
        for start in range(0, 1 << 32, CHUNK):
            yield np.arange(start, start + CHUNK, dtype=np.uint32).view(np.float32)
        return
    random = np.random.default_rng(0)
    for _ in range(chunks):
        yield random.integers(0, 1 << 32, CHUNK, dtype=np.uint32).view(np.float32)


def compare(name: str, target: Any, chunks: int | None) -> dict[str, Any]:
    """Count the arguments, and those for which the two differ, with examples."""
    ours, theirs = kernels(name, target, CHUNK)
    count, differ, examples = 0, 0, []
    total = chunks or (1 << 32) // CHUNK
    for x in track(arguments(chunks), name, total, transient=True):
        a, b = ours(x), theirs(x)
        wrong = (a.view(np.uint32) != b.view(np.uint32)) & ~(np.isnan(a) & np.isnan(b))
        count, differ = count + len(x), differ + int(wrong.sum())
        found = zip(x[wrong].tolist(), a[wrong].tolist(), b[wrong].tolist(), strict=True)
        examples += [{"x": x.hex(), "ours": y.hex(), "tvm": z.hex()} for x, y, z in found]
    return {"function": name, "arguments": count, "differ": differ, "examples": examples[:8]}


@click.command(help=__doc__)
@click.option("--functions", default="exp,sigmoid,tanh", show_default=True)
@click.option("--target", default="host", show_default=True)
@click.option("--chunks", type=click.IntRange(1), help="Of 2^22 random arguments [default: all].")
@click.option("--output", type=click.Path(path_type=Path))
def check_exp(functions: str, target: str, chunks: int | None, output: Path | None) -> None:
    """Run."""
    if output is not None:
        check_file(output)
    dialect = require()
    import tvm

    from tvm_passes.schedules.exponential import FUNCTIONS, has_expf

    chosen = functions.split(",")
    if unknown := [name for name in chosen if name not in FUNCTIONS]:
        raise click.UsageError(f"no function {unknown[0]!r}: expected of {', '.join(FUNCTIONS)}")
    config = parse_target(target)
    require_host(config)
    if not has_expf(tvm.target.Target(config)):
        raise click.UsageError(f"target {target!r} has no glibc, or no fused multiply-add")
    document: dict[str, Any] = {
        "date": date.today().isoformat(),
        "dialect": dialect,
        "tvm": tvm.__version__,
        "target": config,
        "libc": " ".join(platform.libc_ver()),
        "results": [],
    }
    for name in chosen:
        found = compare(name, tvm.target.Target(config), chunks)
        document["results"].append(found)
        print(f"{name}: {found['differ']} of {found['arguments']} differ", flush=True)
        if output is not None:
            write_text(output, json.dumps(document, indent=1) + "\n")
    if any(found["differ"] for found in document["results"]):
        sys.exit(1)


if __name__ == "__main__":
    run_script("check_exp", check_exp)
