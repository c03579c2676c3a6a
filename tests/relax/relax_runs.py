"""Build a Relax module for the CPU and run it; inputs that are hard on a maximum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tvm
from tvm import relax

CPU_FLAGS = Path("/proc/cpuinfo")
HAS_FMA = CPU_FLAGS.exists() and {"fma", "avx2"} <= set(CPU_FLAGS.read_text().split())
BASELINE = tvm.target.Target("llvm")
TARGETS = [BASELINE]
if HAS_FMA:
    TARGETS.append(tvm.target.Target({"kind": "llvm", "mcpu": "haswell"}))
"""Without and with fused multiply-add, which LLVM forms where the target has it."""


def cpu(target):
    """The name of a target in a test's identity."""
    return str(target.attrs.get("mcpu", "baseline"))


def outputs(mod, *inputs, target=BASELINE):
    """The results of ``main``, a list of NumPy arrays."""
    return run(tvm.compile(mod, target), *inputs)


def run(executable, *inputs):
    machine = relax.VirtualMachine(executable, tvm.cpu())
    result = machine["main"](*(tvm.runtime.tensor(value) for value in inputs))
    return [result.numpy()] if hasattr(result, "numpy") else [item.numpy() for item in result]


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
