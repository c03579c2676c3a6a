"""Build a Relay module for the CPU and run it."""

from __future__ import annotations

from pathlib import Path

import tvm
from arrays import bits, hard_values
from tvm import relay
from tvm.contrib import graph_executor

__all__ = ["CPU_FLAGS", "HAS_FMA", "TARGETS", "bits", "hard_values", "outputs", "run"]

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
