"""Compile, export, load and describe Relay modules."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import autotvm, relay
from tvm.contrib import cc
from tvm.contrib.graph_executor import GraphModule

from tvm_passes.errors import ModelError
from tvm_passes.relay.blocked import PASS_NAME as BLOCK
from tvm_passes.relay.build import passes
from tvm_passes.relay.calibrate import convolutions
from tvm_passes.relay.device_code import compiled_by, has_cuda
from tvm_passes.relay.extract import feeding_module, site_module, windows_module
from tvm_passes.relay.kernels import kernels_of
from tvm_passes.relay.reorder import ReorderActivationAfterMaxPool, decisions
from tvm_passes.remarks import PASS_NAME as REORDER
from tvm_passes.remarks import Remark
from tvm_passes.rules import RELAY
from tvm_passes.schedules.families import NONE_BARRED, Barred
from tvm_passes.target import CUDA, LLVM

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

DIALECT = RELAY

OF_CONSTANTS = re.compile("p(0|[1-9][0-9]*)")
"""Names that the graph executor gives constants, by their number, and mixes up with an input's."""


def reorder(mod: tvm.IRModule, allow: Collection[str] = ()) -> tvm.IRModule:
    """The module after the pass."""
    return tvm.transform.Sequential([ReorderActivationAfterMaxPool(allow=allow)])(mod)


def text(mod: tvm.IRModule) -> str:
    """The module's text, constants and source locations left out."""
    return re.sub(r" span=[^*]*(?= \*/)", "", str(mod.astext(show_meta_data=False)))


def signature(mod: tvm.IRModule) -> Mapping[str, list[dict[str, Any]]]:
    """Names, shapes and dtypes of the inputs and outputs of ``main``."""
    func = mod["main"]
    result = func.checked_type.ret_type
    outputs = list(result.fields) if isinstance(result, relay.TupleType) else [result]
    return {
        "inputs": [{"name": _name(v), **_tensor(v.checked_type)} for v in func.params],
        "outputs": [_tensor(ty) for ty in outputs],
    }


def _name(var: relay.Var) -> str:
    name = str(var.name_hint)
    if OF_CONSTANTS.fullmatch(name):
        raise ModelError(
            f"main has an input named {name!r}, as Relay's graph executor names constants: "
            "rename the input, to 'input', say"
        )
    return name


def _tensor(ty: tvm.ir.Type) -> dict[str, Any]:
    if not isinstance(ty, relay.TensorType):
        raise ModelError(f"main has an input or output of type {ty}: expected tensors")
    if not all(isinstance(extent, tvm.tir.IntImm) for extent in ty.shape):
        raise ModelError(
            f"main has an input or output of shape {list(ty.shape)}: Relay's graph executor needs "
            "extents that are known, export the model with fixed shapes"
        )
    return {"shape": [int(extent) for extent in ty.shape], "dtype": str(ty.dtype)}


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
    """Compile for the target, with the passes in front of Relay's own or without them.

    An empty tuning context keeps ``relay.build`` from trying to download TopHub's records.
    """
    kernels = reorder if kernels is None else kernels
    disabled = [name for name, runs in ((REORDER, reorder), (BLOCK, kernels)) if not runs]
    context = tvm.transform.PassContext(opt_level=3, disabled_pass=disabled)
    tvm_target = tvm.target.Target(dict(target))
    with context, autotvm.apply_history_best([]), without_advice():
        ours = passes(tvm_target, on_remark=on_remark, allow=allow, barred=barred)
        with tvm_target:
            mod = tvm.transform.Sequential(ours)(mod)
        if compile_kernels is None:
            return relay.build(mod, tvm_target)
        with compiled_by(compile_kernels):
            built = relay.build(mod, tvm.target.Target(tvm_target, host="llvm"))
        return built if has_cuda() else None


def unscheduled(
    mod: tvm.IRModule, target: Mapping[str, Any], allow: Collection[str] = ()
) -> list[Any]:
    """The PrimFuncs that `build` would schedule."""
    with tvm.transform.PassContext(opt_level=3):
        ours = passes(tvm.target.Target(dict(target)), allow=allow)
        after = tvm.transform.Sequential(ours)(mod)
    return kernels_of(after)


@contextmanager
def without_advice() -> Iterator[None]:
    """Keep TVM from advising, once for every op, that layouts and schedules be tuned."""
    loggers = [logging.getLogger(name) for name in ("strategy", "autotvm")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def linker() -> str | None:
    """The compiler that links shared libraries, or None where there is none."""
    return cc.get_cc()


def export(built: Any, path: Path) -> None:
    """Write the factory as a shared library; needs a C compiler."""
    built.export_library(str(path))


def load(path: Path, inputs: Sequence[str], kind: str = LLVM) -> Runner:
    """Load a shared library into TVM's graph executor; `inputs` names its inputs in order."""
    device = tvm.cuda() if kind == CUDA else tvm.cpu()
    graph = GraphModule(tvm.runtime.load_module(str(path))["default"](device))
    return Runner(graph, tuple(inputs), device)


class Runner:
    """A graph executor on the CPU, or on a GPU."""

    def __init__(
        self, graph: GraphModule, inputs: tuple[str, ...], device: tvm.runtime.Device
    ) -> None:
        self.graph = graph
        self.inputs = inputs
        self.device = device

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Run once and fetch the outputs."""
        self.prepared(*inputs)()
        return [self.graph.get_output(n).numpy() for n in range(self.graph.get_num_outputs())]

    def prepared(self, *inputs: np.ndarray) -> Callable[[], object]:
        """Bind the inputs; the function returned runs the model and fetches nothing."""
        for name, array in zip(self.inputs, inputs, strict=True):
            self.graph.set_input(name, tvm.nd.array(array, self.device))
        return self.graph.run
