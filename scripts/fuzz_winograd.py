"""Compare random Winograd kernels, in random schedules, with sums in float64.

Drawn are the tile, channels, filters, groups, images, extents, padding, a pool in the tile or
across tiles, the CPU, its cores, and schedules of those that tuning would measure. A kernel fails
if a value is off by more than the bound that its remark states. Run it with the Python of either
environment.

Example: python scripts/fuzz_winograd.py --kernels 200 --output scripts/records/fuzz-winograd.json
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from math import gcd
from pathlib import Path
from typing import Any

import click
import numpy as np
import tvm
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st
from tvm import te

from tvm_passes.bench.environment import environment
from tvm_passes.bench.script import run_script
from tvm_passes.dialects import installed
from tvm_passes.namespaces import build_module, tensor
from tvm_passes.output import check_file, write_text
from tvm_passes.schedules.families import FAMILIES, takes
from tvm_passes.schedules.machine import block_of, machine_of
from tvm_passes.schedules.operators import Conv2d, MaxPool2d
from tvm_passes.schedules.rules import schedules
from tvm_passes.schedules.winograd import pack_transformed, winograd_conv2d
from tvm_passes.schedules.winograd_windows import taken_along
from tvm_passes.target import parse_target
from tvm_passes.winograd import Winograd, convolved

CPUS = ("x86-64", "x86-64-v3", "x86-64-v4")


@dataclass
class Case:
    """A layer on a machine."""

    cpu: str
    cores: int
    family: Winograd
    conv: Conv2d
    pool: MaxPool2d | None
    shape: tuple[int, int, int, int]
    seed: int

    @property
    def target(self) -> tvm.target.Target:
        """With the number of cores."""
        return tvm.target.Target({"kind": "llvm", "mcpu": self.cpu, "num-cores": self.cores})


@dataclass
class Tally:
    """What was compared."""

    kernels: int = 0
    values: int = 0
    worst_error: float = 0.0
    worst_of_bound: float = 0.0
    families: Counter[str] = field(default_factory=Counter)
    cpus: Counter[str] = field(default_factory=Counter)


def cpus() -> list[str]:
    """Those that this machine can run."""
    here = machine_of(tvm.target.Target(dict(parse_target("host")))).lanes
    lanes = {
        cpu: machine_of(tvm.target.Target({"kind": "llvm", "mcpu": cpu})).lanes for cpu in CPUS
    }
    return [cpu for cpu in CPUS if lanes[cpu] <= here]


@st.composite
def cases(draw: st.DrawFn, runnable: list[str]) -> Case:
    """A layer that some family takes."""
    cpu, cores = draw(st.sampled_from(runnable)), draw(st.integers(1, 2))
    whole = block = block_of(machine_of(tvm.target.Target({"kind": "llvm", "mcpu": cpu})))
    family = draw(st.sampled_from(FAMILIES))
    groups = draw(st.sampled_from((1, 1, 1, 2, 3)))
    if groups == 1:
        channels, filters = draw(st.integers(1, 3 * block)), draw(st.integers(1, 4 * block))
    else:
        block = draw(st.sampled_from((block, block // 2, 2)))
        channels, filters = (groups * block * draw(st.integers(1, 2)) for _ in range(2))
        block = gcd(filters // groups, whole)
    padding = draw(st.tuples(*[st.integers(0, 2)] * 4))
    n, h, w = draw(st.integers(1, 3)), draw(st.integers(3, 30)), draw(st.integers(3, 30))
    taps = (family.taps, family.taps)
    conv = Conv2d(channels, filters, groups, taps, (1, 1), (1, 1), padding, False, block)
    assume(takes(conv, family))
    rows, columns = _outputs(conv, h, w)
    assume(rows > 0 and columns > 0)
    pool = draw(st.one_of(st.none(), _pools(family)))
    assume(pool is None or (rows >= pool.kernel[0] and columns >= pool.kernel[1]))
    assume(pool is None or taken_along(pool, family, rows, columns))
    return Case(cpu, cores, family, conv, pool, (n, channels, h, w), draw(st.integers(0, 2**16)))


def _pools(family: Winograd) -> st.SearchStrategy[MaxPool2d]:
    """Windows that tile the image, or of other extents and steps, with padding."""
    tiling = st.sampled_from([k for k in (1, 2, 4) if family.outputs % k == 0])
    extents, steps = st.sampled_from((2, 3, 4, 5)), st.sampled_from((2, 4))
    return st.one_of(
        st.builds(lambda kernel, ceil: _pool(kernel, kernel, ceil), _pair(tiling), st.booleans()),
        st.builds(_pool, _pair(extents), _pair(steps), st.booleans(), st.integers(0, 1)),
    )


def _pair(values: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(values, values)


def _pool(
    kernel: tuple[int, int], strides: tuple[int, int], ceil_mode: bool, padding: int = 0
) -> MaxPool2d:
    return MaxPool2d(kernel, strides, (1, 1), (padding,) * 4, ceil_mode)


def _outputs(conv: Conv2d, h: int, w: int) -> tuple[int, int]:
    top, left, bottom, right = conv.padding
    return h + top + bottom - conv.kernel[0] + 1, w + left + right - conv.kernel[1] + 1


def check(case: Case, tally: Tally) -> None:
    """Compile a layer in two of its schedules, and compare.

    Raises
    ------
    AssertionError
        If a value is off by more than the bound.
    """
    random = np.random.default_rng(case.seed)
    conv, family, (n, c, h, w) = case.conv, case.family, case.shape
    x = random.standard_normal(case.shape, np.float32)
    shape = (conv.filters, c // conv.groups, family.taps, family.taps)
    weight = random.standard_normal(shape, np.float32)
    packed = pack_transformed(weight, "OIHW", conv, family)
    blocks = -(-c // conv.block)
    data = te.placeholder((n, blocks, h, w, conv.block))
    transformed = te.placeholder(packed.shape)
    out = winograd_conv2d(data, transformed, conv, case.pool, family)
    ways = schedules(te.create_prim_func([data, transformed, out]), case.target)
    if not ways:
        raise AssertionError(f"{case}: no schedule")
    expected = _expected(case, x, weight)
    bound = family.error_bound(weight) * float(np.abs(x).max())
    for at in random.choice(len(ways), min(2, len(ways)), replace=False):
        kernel = build_module(ways[at]().mod, case.target)["main"]
        result = tensor(np.full([int(extent) for extent in out.shape], np.nan, "float32"))
        kernel(tensor(_blocked(x, conv.block)), tensor(packed), result)
        found = _plain(result.numpy())[:, : conv.filters]
        error = float(np.abs(found - expected).max())
        if not error <= bound:
            raise AssertionError(f"{case}: off by {error}, more than {bound}")
        tally.kernels += 1
        tally.values += found.size
        tally.worst_error = max(tally.worst_error, error / float(np.abs(expected).max()))
        tally.worst_of_bound = max(tally.worst_of_bound, error / bound)
        tally.families[str(family)] += 1
        tally.cpus[case.cpu] += 1


def _expected(case: Case, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """[n, filters, rows, columns] in float64."""
    sums = convolved(x.astype("float64"), weight.astype("float64"), case.conv.padding)
    if case.pool is None:
        return sums
    return maxima(sums, case.pool)


def maxima(x: np.ndarray, pool: MaxPool2d) -> np.ndarray:
    """A max-pool as TVM's operator defines it, the lowest float32 in windows of padding alone."""
    lowest, extents = float(np.finfo("float32").min), []
    for axis in (0, 1):
        room = x.shape[axis + 2] + sum(pool.padding[axis::2]) - pool.kernel[axis]
        extents.append(
            (-(-room // pool.strides[axis]) if pool.ceil_mode else room // pool.strides[axis]) + 1
        )
    reach = [
        (n - 1) * step + k for n, step, k in zip(extents, pool.strides, pool.kernel, strict=True)
    ]
    (top, left), (h, w) = pool.padding[:2], x.shape[2:]
    padded = np.full((*x.shape[:2], max(reach[0], top + h), max(reach[1], left + w)), lowest)
    padded[:, :, top : top + h, left : left + w] = x
    windows = np.lib.stride_tricks.sliding_window_view(padded, pool.kernel, axis=(2, 3))
    found = windows[:, :, :: pool.strides[0], :: pool.strides[1]].max((4, 5))
    return np.asarray(found[:, :, : extents[0], : extents[1]])


def _blocked(x: np.ndarray, block: int) -> np.ndarray:
    n, c, h, w = x.shape
    padded = np.pad(x, ((0, 0), (0, -c % block), (0, 0), (0, 0)))
    return np.ascontiguousarray(padded.reshape(n, -1, block, h, w).transpose(0, 1, 3, 4, 2))


def _plain(y: np.ndarray) -> np.ndarray:
    n, blocks, h, w, block = y.shape
    return y.transpose(0, 1, 4, 2, 3).reshape(n, blocks * block, h, w)


def fuzz(count: int, start: int, tally: Tally) -> None:
    """Check that many layers."""

    @seed(start)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    @given(cases(cpus()))
    def each(case: Case) -> None:
        check(case, tally)

    each()


@click.command(help=__doc__)
@click.option("--kernels", default=200, show_default=True, help="How many layers to draw.")
@click.option("--seed", "start", default=0, show_default=True, help="Other layers.")
@click.option("--output", type=click.Path(path_type=Path))
def fuzz_winograd(kernels: int, start: int, output: Path | None) -> None:
    """Run."""
    if output is not None:
        check_file(output)
    tally = Tally()
    fuzz(kernels, start, tally)
    found: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "machine": environment()["cpu"],
        "dialect": installed(),
        **vars(tally),
    }
    if output is not None:
        write_text(output, json.dumps(found, indent=1) + "\n")
    click.echo(json.dumps(found))


if __name__ == "__main__":
    run_script("fuzz_winograd", fuzz_winograd)
