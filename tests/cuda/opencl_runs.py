"""Run scheduled GPU functions on the CPU: TVM's OpenCL code generator, and PoCL."""

import numpy as np
import tvm

from tvm_passes.relax.opencl import program_of, run_program
from tvm_passes.target import OPENCL_LIMITS

TARGET = {"kind": "opencl", "host": "llvm", **OPENCL_LIMITS}


def lower(func):
    """Lower a scheduled PrimFunc for OpenCL."""
    return program_of(func, tvm.target.Target(TARGET))


def run(func, *inputs):
    """Run on PoCL; all buffers of the function are returned, those after the inputs computed."""
    program = lower(func)
    arrays = [np.array(array, order="C") for array in inputs]
    rest = program.params[len(inputs) :]
    arrays += [np.full(shape, np.nan, dtype) for _, shape, dtype in rest]
    run_program(program, arrays)
    return arrays
