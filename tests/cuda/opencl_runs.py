"""Run scheduled GPU functions on the CPU: TVM's OpenCL code generator, and PoCL."""

import re
from dataclasses import dataclass
from functools import cache

import numpy as np
import tvm
import tvm_ffi
from tvm.tirx.build import split_host_device_mods

TARGET = {
    "kind": "opencl",
    "host": "llvm",
    "max_num_threads": 1024,
    "max_threads_per_block": 1024,
    "max_shared_memory_per_block": 49152,
}


@dataclass(frozen=True)
class Launch:
    """One kernel: its name, the buffers it gets, and how many blocks of how many threads."""

    name: str
    buffers: tuple[str, ...]
    grid: tuple[int, int, int]
    block: tuple[int, int, int]


@dataclass(frozen=True)
class Program:
    """A function's kernels in OpenCL C, in the order in which they run."""

    source: str
    launches: tuple[Launch, ...]
    params: tuple[tuple[str, tuple[int, ...], str], ...]
    temporaries: dict[str, tuple[int, str]]


def lower(func):
    """Lower a scheduled PrimFunc for OpenCL."""
    target = tvm.target.Target(TARGET)
    func = func.with_attr("global_symbol", "main")
    if "tirx.noalias" not in func.attrs:
        func = func.with_attr("tirx.noalias", True)
    mod = tvm.tirx.transform.BindTarget(target)(tvm.IRModule({"main": func}))
    pipeline, _, finalize_device = tvm.tirx.get_default_tir_pipeline(target)
    host, device = split_host_device_mods(pipeline(mod))
    ((device_target, kernels),) = device.items()
    built = tvm.get_global_func("target.build.opencl")(finalize_device()(kernels), device_target)
    params = tuple(
        (str(buffer.name), tuple(map(int, buffer.ty.shape)), str(buffer.ty.dtype))
        for buffer in func.params
    )
    (entry,) = host.functions.values()
    launches, temporaries = [], {}

    def visit(node):
        if isinstance(node, tvm.tirx.AllocBuffer):
            size = int(np.prod([int(extent) for extent in node.buffer.shape]))
            temporaries[str(node.buffer.data.name)] = (size, str(node.buffer.dtype))
        if isinstance(node, tvm.ir.Call) and "call_ffi_kernel" in str(getattr(node.op, "name", "")):
            launches.append(_launch(node, kernels))

    tvm_ffi.structural_walk(entry.body, [(tvm.ir.Call, visit), (tvm.tirx.AllocBuffer, visit)])
    source = built.inspect_source()
    return Program(source, tuple(launches), params, temporaries)


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


def _launch(call, kernels):
    name, *rest = call.args
    tags = [str(tag) for tag in call.attrs.launch_params]
    count = len(tags)
    sizes = {tag: int(value) for tag, value in zip(tags, rest[len(rest) - count :], strict=True)}
    axes = ("x", "y", "z")
    return Launch(
        str(name.value),
        tuple(re.sub(r"_ptr$", "", str(var.name)) for var in kernels[str(name.value)].params),
        tuple(sizes.get(f"blockIdx.{axis}", 1) for axis in axes),
        tuple(sizes.get(f"threadIdx.{axis}", 1) for axis in axes),
    )


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
