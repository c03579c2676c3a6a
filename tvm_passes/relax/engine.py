"""Compile, export, load and describe Relax modules."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import tvm
import tvm.support.cc
from tvm import relax

from tvm_passes.errors import ModelError
from tvm_passes.relax import opencl
from tvm_passes.relax.blocked import PASS_NAME as BLOCK
from tvm_passes.relax.calibrate import convolutions
from tvm_passes.relax.device_code import compiled_by, mark_compiled
from tvm_passes.relax.extract import feeding_module, site_module, windows_module
from tvm_passes.relax.gpu_conv2d import TileConv2d
from tvm_passes.relax.pipeline import (
    gpu_passes,
    gpu_passes_before_schedules,
    passes_before_schedules,
    stock_pipeline,
    tvm_reorder_pipeline,
)
from tvm_passes.relax.reorder import ReorderActivationAfterMaxPool, decisions
from tvm_passes.remarks import PASS_NAME as REORDER
from tvm_passes.remarks import Remark
from tvm_passes.rules import RELAX
from tvm_passes.schedules.families import NONE_BARRED, Barred
from tvm_passes.target import CUDA, GPUS, LLVM, OPENCL

__all__ = [
    "build",
    "convolutions",
    "decisions",
    "export",
    "feeding_module",
    "linker",
    "load",
    "reorder",
    "signature",
    "site_module",
    "text",
    "unscheduled",
    "windows_module",
]

DIALECT = RELAX


def reorder(mod: tvm.IRModule, allow: Collection[str] = ()) -> tvm.IRModule:
    """The module after the pass."""
    return tvm.transform.Sequential([ReorderActivationAfterMaxPool(allow=allow)])(mod)


def text(mod: tvm.IRModule) -> str:
    """The module as TVMScript, constants left out."""
    return mod.script(show_meta=False)


def signature(mod: tvm.IRModule) -> Mapping[str, list[dict[str, Any]]]:
    """Names, shapes and dtypes of the inputs and outputs of ``main``."""
    func = mod["main"]
    result = func.ret_ty
    outputs = list(result.fields) if isinstance(result, relax.TupleType) else [result]
    return {
        "inputs": [{"name": str(var.name), **_tensor(var.ty)} for var in func.params],
        "outputs": [_tensor(ty) for ty in outputs],
    }


def _tensor(ty: relax.Type) -> dict[str, Any]:
    if not isinstance(ty, relax.TensorType):
        raise ModelError(f"main has an input or output of type {ty}: expected tensors")
    if not isinstance(ty.shape, relax.ShapeExpr):
        return {"shape": None, "dtype": str(ty.dtype)}
    shape = [int(n) if isinstance(n, tvm.tirx.IntImm) else str(n) for n in ty.shape.values]
    return {"shape": shape, "dtype": str(ty.dtype)}


def build(  # noqa: PLR0913 - what a build depends on
    mod: tvm.IRModule,
    target: Mapping[str, Any],
    *,
    reorder: bool = True,
    kernels: bool | None = None,
    on_remark: Callable[[Remark], object] | None = None,
    allow: Collection[str] = (),
    barred: Barred = NONE_BARRED,
    compile_kernels: Callable[[str], bytes] | None = None,
) -> Any:
    """Compile for the target, through the passes or TVM's own pipeline alone."""
    kernels = reorder if kernels is None else kernels
    host = {"host": "llvm"} if target["kind"] in GPUS else {}
    tvm_target = tvm.target.Target({**target, **host})
    if target["kind"] == OPENCL:
        first = ReorderActivationAfterMaxPool(on_remark=on_remark, allow=allow)
        tile = TileConv2d(on_remark=on_remark, allow=allow, barred=barred)
        passes = gpu_passes(tvm_target, first if reorder else None, ours=kernels, tile=tile)
        return opencl.build(mod, tvm_target, passes)
    with tvm_target:
        ours = reorder or kernels
        pipeline = (
            tvm_reorder_pipeline(on_remark=on_remark, allow=allow, barred=barred)
            if ours
            else stock_pipeline()
        )
    disabled = [name for name, runs in ((REORDER, reorder), (BLOCK, kernels)) if not runs]
    context = tvm.transform.PassContext(disabled_pass=disabled)
    compiler = nullcontext() if compile_kernels is None else compiled_by(compile_kernels)
    with context, compiler:
        return tvm.compile(mod, tvm_target, relax_pipeline=pipeline)


def unscheduled(
    mod: tvm.IRModule, target: Mapping[str, Any], allow: Collection[str] = ()
) -> list[Any]:
    """The PrimFuncs that `build` would schedule."""
    on_gpu = target["kind"] in GPUS
    tvm_target = tvm.target.Target({**target, "host": "llvm"} if on_gpu else dict(target))
    passes = gpu_passes_before_schedules if on_gpu else passes_before_schedules
    with tvm_target:
        after = tvm.transform.Sequential(passes(tvm_target, allow=allow))(mod)
    return [func for func in after.functions.values() if isinstance(func, tvm.tirx.PrimFunc)]


def linker() -> str | None:
    """The compiler that links shared libraries, or None where there is none."""
    return tvm.support.cc.get_cc()


def export(built: Any, path: Path) -> None:
    """Write the executable as a shared library; needs a C compiler."""
    built.export_library(str(path))
    if _has_kernels(built.mod):
        mark_compiled(path)


def _has_kernels(module: tvm.runtime.Module) -> bool:
    return str(module.kind) == "cuda" or any(map(_has_kernels, module.imports))


def load(path: Path, inputs: Sequence[str], kind: str = LLVM) -> Runner:  # noqa: ARG001 - Relax's are positional
    """Load a shared library into TVM's virtual machine; `inputs` names its inputs in order."""
    if kind == OPENCL:
        opencl.register()
    device = tvm.cuda() if kind == CUDA else tvm.cpu()
    return Runner(relax.VirtualMachine(tvm.runtime.load_module(str(path)), device), device)


class Runner:
    """A module's ``main`` in a virtual machine on the CPU, or on a GPU."""

    def __init__(self, machine: relax.VirtualMachine, device: tvm.runtime.Device) -> None:
        self.machine = machine
        self.device = device

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Run once and fetch the outputs."""
        result = self.machine["main"](*self._tensors(inputs))
        is_tensor = isinstance(result, tvm.runtime.Tensor)
        return [tensor.numpy() for tensor in ([result] if is_tensor else result)]

    def prepared(self, *inputs: np.ndarray) -> Callable[[], object]:
        """Bind the inputs; the function returned runs the model and fetches nothing."""
        tensors = self._tensors(inputs)
        main = self.machine["main"]
        return lambda: main(*tensors)

    def timer(self, *inputs: np.ndarray) -> Callable[[int], float]:
        """Bind the inputs; the function returned is the mean seconds of a number of runs.

        The device's own clock tells them: on CUDA, events.
        """
        tensors = self._tensors(inputs)

        def mean(number: int) -> float:
            timed = self.machine.time_evaluator("main", self.device, number=number, repeat=1)
            return float(timed(*tensors).mean)

        return mean

    def _tensors(self, inputs: Sequence[np.ndarray]) -> list[tvm.runtime.Tensor]:
        return [tvm.runtime.tensor(array, self.device) for array in inputs]
