"""Run scheduled GPU functions on the CPU: TVM's OpenCL code generator, and PoCL."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import tvm

from tvm_passes.relax import launches
from tvm_passes.relax.launches import Launch

TARGET = {
    "kind": "opencl",
    "host": "llvm",
    "max_num_threads": 1024,
    "max_threads_per_block": 1024,
    "max_shared_memory_per_block": 49152,
}


@dataclass(frozen=True)
class Program:
    """A function's kernels in OpenCL C, in the order in which they run."""

    source: str
    launches: tuple[Launch, ...]
    params: tuple[tuple[str, tuple[int, ...], str], ...]
    temporaries: dict[str, tuple[int, str]]


def lower(func):
    """Lower a scheduled PrimFunc for OpenCL."""
    found = launches.lower({"main": func}, tvm.target.Target(TARGET))
    built = tvm.get_global_func("target.build.opencl")(found.kernels, found.target)
    params = tuple(
        (str(buffer.name), tuple(map(int, buffer.ty.shape)), str(buffer.ty.dtype))
        for buffer in func.params
    )
    return Program(built.inspect_source(), found.launches, params, found.temporaries)


def run(func, *inputs):
    """Run on PoCL; all buffers of the function are returned, those after the inputs computed."""
    import pyopencl as cl

    program = lower(func)
    context, queue = _device()
    arrays = [np.ascontiguousarray(array) for array in inputs]
    rest = program.params[len(inputs) :]
    arrays += [np.full(shape, np.nan, dtype) for _, shape, dtype in rest]
    names = [name for name, _, _ in program.params]
    flags = cl.mem_flags
    buffers = {
        name: cl.Buffer(context, flags.READ_WRITE | flags.COPY_HOST_PTR, hostbuf=array)
        for name, array in zip(names, arrays, strict=True)
    }
    for name, (size, dtype) in program.temporaries.items():
        buffers[name] = cl.Buffer(context, flags.READ_WRITE, size * np.dtype(dtype).itemsize)
    built = cl.Program(context, program.source).build(["-cl-std=CL1.2"])
    for launch in program.launches:
        kernel = cl.Kernel(built, launch.name)
        size = tuple(g * b for g, b in zip(launch.grid, launch.block, strict=True))
        kernel(queue, size, launch.block, *(buffers[name] for name in launch.buffers))
    for name, array in zip(names, arrays, strict=True):
        cl.enqueue_copy(queue, array, buffers[name])
    queue.finish()
    return arrays


@cache
def _device():
    import pyopencl as cl

    platform = next(p for p in cl.get_platforms() if "Portable" in p.name)
    context = cl.Context(platform.get_devices()[:1])
    return context, cl.CommandQueue(context)


def run_module(mod, *inputs):
    """Run a module whose ``main`` calls scheduled functions; its output."""
    main = mod["main"]
    values = {hash(param): array for param, array in zip(main.params, inputs, strict=True)}
    for block in main.body.blocks:
        for binding in block.bindings:
            values[hash(binding.var)] = _evaluate(mod, binding.value, values)
    return values[hash(main.body.body)]


def _evaluate(mod, value, values):
    if isinstance(value, tvm.relax.Var):
        return values[hash(value)]
    if isinstance(value, tvm.ir.GenericConst):
        return value.value.numpy()
    assert str(value.op.name) == "relax.call_tir", value
    func, args = value.args[0], value.args[1]
    return run(mod[func], *(_evaluate(mod, arg, values) for arg in args.fields))[-1]
