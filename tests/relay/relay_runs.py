"""Build a Relay module for the CPU and run it; inputs that are hard on a maximum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tvm
from tvm import relay
from tvm.contrib import graph_executor

CPU_FLAGS = Path("/proc/cpuinfo")
HAS_FMA = CPU_FLAGS.exists() and {"fma", "avx2"} <= set(CPU_FLAGS.read_text().split())
TARGETS = ["llvm", *(["llvm -mcpu=haswell"] if HAS_FMA else [])]
"""Without and with fused multiply-add, which LLVM forms where the target has it."""


def outputs(mod, *inputs, target="llvm", build=relay.build, opt_level=3, disabled=(), **options):
    """The results of ``main``, a list of NumPy arrays."""
    with tvm.transform.PassContext(opt_level=opt_level, disabled_pass=list(disabled)):
        lib = build(mod, target, **options)
    return run(lib, *inputs)


def run(lib, *inputs):
    executor = graph_executor.GraphModule(lib["default"](tvm.cpu()))
    for index, value in enumerate(inputs):
        executor.set_input(index, value)
    executor.run()
    return [executor.get_output(n).numpy() for n in range(executor.get_num_outputs())]


def bits(array):
    return array.view(f"u{array.itemsize}")


def hard_values(shape, dtype, *, infinite=False):
    """Negatives, ties, both zeros, denormals and large values; infinities where asked for."""
    rng = np.random.default_rng(0)
    info = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else None
    if info:
        return rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    limits = np.finfo(dtype)
    special = [0.0, -0.0, limits.tiny / 8, -limits.tiny / 8, 1e4, -1e4, 0.5, -0.5]
    special += [np.inf, -np.inf] if infinite else []
    x = rng.standard_normal(shape) * 3
    x = np.where(rng.random(shape) < 0.3, np.round(x), x)  # ties
    return np.where(rng.random(shape) < 0.3, rng.choice(special, shape), x).astype(dtype)
