"""Run GPU schedules on an OpenCL device of this machine, which PoCL makes of its CPU.

TVM's wheel generates OpenCL C, but has no OpenCL runtime.  So each scheduled function becomes one
for the host that calls `RUN` with its kernels and its arguments, and `register` provides that.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from math import prod
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm.relax.backend.cpu_generic import pipeline as cpu

from tvm_passes.cuda.kernels import Launch
from tvm_passes.errors import MissingExtraError, TargetError, how_to_install
from tvm_passes.relax.launches import distinct, lower

RUN = "tvm_passes.opencl.run"
"""TVM's name of the function that runs a program: its text, then pointers to what it works on."""

Shapes = Sequence[tuple[str, tuple[int, ...], str]]


@dataclass(frozen=True)
class Program:
    """A function's kernels in OpenCL C, in the order in which they run.

    Parameters
    ----------
    source
        The OpenCL C.
    launches
        Each start of a kernel.
    params
        Name, shape and dtype of each argument of the function.
    temporaries
        Elements and dtype of what the function allocates, by name.
    """

    source: str
    launches: tuple[Launch, ...]
    params: Shapes
    temporaries: Mapping[str, tuple[int, str]]

    def text(self) -> str:
        """All of it in one string."""
        return json.dumps(asdict(self))


@lru_cache(maxsize=512)
def read_program(text: str) -> Program:
    """The inverse of `Program.text`."""
    found = json.loads(text)
    launches = tuple(
        Launch(**{key: _tuples(value) for key, value in launch.items()})
        for launch in found["launches"]
    )
    return Program(found["source"], launches, found["params"], found["temporaries"])


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def program_of(func: Any, target: tvm.target.Target) -> Program:
    """Lower a scheduled PrimFunc.

    Parameters
    ----------
    func
        Of fixed extents, on threads.
    target
        Of kind opencl, with its host.
    """
    found = lower({"main": func}, target)
    built = tvm.get_global_func("target.build.opencl")(found.kernels, found.target)
    params = tuple(
        (str(param.name), tuple(map(int, param.ty.shape)), str(param.ty.dtype))
        for param in distinct(func).params
    )
    return Program(built.inspect_source(), found.launches, params, found.temporaries)


def run_program(program: Program, arrays: Sequence[np.ndarray]) -> None:
    """Run on the device; arrays of all arguments are read, and written again.

    Parameters
    ----------
    program
        What to run.
    arrays
        Of the shapes and dtypes of its arguments, contiguous.
    """
    import pyopencl as cl

    context, queue = device()
    kernels = _built(program.source)
    flags = cl.mem_flags.READ_WRITE
    names = [name for name, _, _ in program.params]
    buffers = {
        name: cl.Buffer(context, flags | cl.mem_flags.COPY_HOST_PTR, hostbuf=array)
        for name, array in zip(names, arrays, strict=True)
    }
    for name, (count, dtype) in program.temporaries.items():
        buffers[name] = cl.Buffer(context, flags, count * np.dtype(dtype).itemsize)
    for launch in program.launches:
        size = tuple(g * b for g, b in zip(launch.grid, launch.block, strict=True))
        kernel = cl.Kernel(kernels, launch.name)
        kernel(queue, size, launch.block, *(buffers[name] for name in launch.buffers))
    for name, array in zip(names, arrays, strict=True):
        cl.enqueue_copy(queue, array, buffers[name])
    queue.finish()


@cache
def device() -> tuple[Any, Any]:
    """Context and queue of the first OpenCL device of this machine.

    Raises
    ------
    TvmPassesError
        If there is none.
    """
    try:
        import pyopencl as cl
    except ImportError as err:
        raise MissingExtraError("opencl", "pyopencl", "the target opencl") from err
    try:
        found = [device for platform in cl.get_platforms() for device in platform.get_devices()]
    except cl.LogicError:
        found = []
    if not found:
        raise TargetError(
            "the target opencl needs an OpenCL device, and this machine has none: "
            f"to make one of its CPU, {how_to_install('opencl')}"
        )
    context = cl.Context(found[:1])
    return context, cl.CommandQueue(context)


@lru_cache(maxsize=512)
def _built(source: str) -> Any:
    import pyopencl as cl

    context, _ = device()
    return cl.Program(context, source).build(["-cl-std=CL1.2"])


def register() -> None:
    """Provide `RUN` in this process; a server for tuning needs it, too."""
    tvm_ffi.register_global_func(RUN, _run, override=True)


def _run(text: str, *pointers: ctypes.c_void_p) -> None:
    program = read_program(str(text))
    arrays = []
    for (_, shape, dtype), pointer in zip(program.params, pointers, strict=True):
        size = prod(shape) * np.dtype(dtype).itemsize
        memory = (ctypes.c_uint8 * size).from_address(pointer.value or 0)
        arrays.append(np.ctypeslib.as_array(memory).view(dtype).reshape(shape))
    run_program(program, arrays)


def host_function(func: Any, target: tvm.target.Target) -> Any:
    """A PrimFunc for the host with the arguments of `func`, which runs it on the device."""
    program = program_of(func, target)
    *before, (_, out, out_dtype) = program.params
    given = [tvm.te.placeholder(shape, dtype, name=name) for name, shape, dtype in before]
    text = program.text()

    def call(inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
        return tvm.tirx.call_packed(RUN, text, *(item.data for item in (*inputs, *outputs)))

    result = tvm.te.extern(out, given, call, name="on_device", dtype=out_dtype)
    return tvm.te.create_prim_func([*given, result]).with_attr("tirx.is_scheduled", True)


def build(
    mod: tvm.IRModule, target: tvm.target.Target, kernels: Sequence[tvm.transform.Pass]
) -> Any:
    """Compile a Relax module for the host, with its kernels on the device.

    Parameters
    ----------
    mod
        With its parameters bound.
    target
        Of kind opencl, with its host.
    kernels
        Passes from ops to scheduled kernels.
    """
    with target:
        mod = tvm.transform.Sequential([*kernels, RunOnOpenCL(target)])(mod)
    host = tvm.target.Target("llvm")
    lower = [*cpu.dataflow_lower_passes(host), *cpu.finalize_passes(host)]
    return tvm.compile(mod, host, relax_pipeline=tvm.transform.Sequential(lower))


@tvm.transform.module_pass(opt_level=0, name="RunOnOpenCL")
class RunOnOpenCL:
    """Replace the scheduled functions of a module by functions for the host that run them.

    Parameters
    ----------
    target
        Of kind opencl, with its host.
    """

    def __init__(self, target: tvm.target.Target) -> None:
        self.target = target

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite every PrimFunc."""
        mod = tvm.IRModule(dict(mod.functions), attrs=mod.attrs)
        for gvar, func in list(mod.functions.items()):
            if isinstance(func, tvm.tirx.PrimFunc):
                mod.update_func(gvar, host_function(func, self.target))
        return mod
