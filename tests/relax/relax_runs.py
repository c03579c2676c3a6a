"""Build a Relax module for the CPU and run it."""

from __future__ import annotations

from pathlib import Path

import tvm
from arrays import bits, hard_values
from tvm import relax

__all__ = [
    "BASELINE",
    "CPU_FLAGS",
    "HAS_FMA",
    "TARGETS",
    "bits",
    "cpu",
    "hard_values",
    "outputs",
    "run",
]

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
