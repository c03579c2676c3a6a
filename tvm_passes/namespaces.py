"""Where the two TVMs keep the same things: the one module that knows.

TVM 0.27 split ``tvm.tir`` into ``tvm.tirx`` and ``tvm.s_tir``, whose blocks are SBlocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from math import prod
from typing import Any

import tvm

from tvm_passes.dialects import installed
from tvm_passes.rules import RELAX

if installed() == RELAX:
    from tvm import tirx as tir
    from tvm.ir import Call
    from tvm.ir import TensorLoad as BufferLoad
    from tvm.s_tir import SBlockRealize as BlockRealize
    from tvm.s_tir import Schedule, ScheduleError, dlight, meta_schedule
    from tvm.support.tar import tar
    from tvm.sym import Analyzer, detect_linear_equation

    TIR = "tirx"

    def block(sch: Schedule, name: str) -> Any:
        """The block of a function by its name."""
        return sch.get_sblock(name)

    def buffer_of(access: Any) -> Any:
        """The buffer that a load or a region reads."""
        return access.source

    def buffers(func: Any) -> list[Any]:
        """What a function's arguments point to: shape and dtype of each."""
        return [param.ty for param in func.params if isinstance(param.ty, tir.BufferType)]

    def built(func: Any, target: tvm.target.Target) -> Any:
        """A PrimFunc as a function that takes tensors."""
        return tvm.compile(func, target)["main"]

    def narrow(mod: tvm.IRModule) -> tvm.IRModule:
        """Scheduled PrimFuncs with indices of 32 bits, where those reach.

        TVM narrows others when it has made attributes of annotations.  These then name loops that
        are no longer there, and no loop is partitioned: accumulators of a partial tile's loop stay
        in memory.  A function that holds integers of 64 bits stays: TVM narrows none such.
        """
        return mod if any(map(_is_wide, mod.functions.values())) else _NARROW(mod)

    _NARROW = tir.transform.ForceNarrowIndexToInt32()

    def _is_wide(func: Any) -> bool:
        sch = Schedule(func)
        if not blocks_of(sch):
            return True
        inside = sch.get(block(sch, "root")).alloc_buffers
        found = [*buffers(func), *inside]
        large = any(prod(map(int, buffer.shape)) >= 1 << 31 for buffer in found)
        return large or any("int64" in str(buffer.dtype) for buffer in found)

    def build_module(mod: tvm.IRModule, target: tvm.target.Target) -> Any:
        """Compile a module of scheduled PrimFuncs."""
        return tvm.compile(narrow(mod), target)

    def dtype_of(expr: Any) -> str:
        """The element type of an expression, with its lanes."""
        return str(expr.ty)

    tensor = tvm.runtime.tensor

else:
    from tvm import dlight, meta_schedule, tir
    from tvm.arith import Analyzer, detect_linear_equation
    from tvm.contrib.tar import tar
    from tvm.tir import BlockRealize, BufferLoad, Call, Schedule, ScheduleError

    TIR = "tir"

    def block(sch: Schedule, name: str) -> Any:
        """The block of a function by its name."""
        return sch.get_block(name)

    def buffer_of(access: Any) -> Any:
        """The buffer that a load or a region reads."""
        return access.buffer

    def buffers(func: Any) -> list[Any]:
        """What a function's arguments point to: shape and dtype of each."""
        return [func.buffer_map[param] for param in func.params if param in func.buffer_map]

    def built(func: Any, target: tvm.target.Target) -> Any:
        """A PrimFunc as a function that takes tensors."""
        return tvm.build(func, target=target, name="main")["main"]

    def build_module(mod: tvm.IRModule, target: tvm.target.Target) -> Any:
        """Compile a module of scheduled PrimFuncs."""
        return tvm.build(mod, target=target)

    def dtype_of(expr: Any) -> str:
        """The element type of an expression, with its lanes."""
        return str(expr.dtype)

    tensor = tvm.nd.array


SCHEDULED = f"{TIR}.is_scheduled"
ScheduleRule = dlight.ScheduleRule

PARALLEL_DATA, REDUCTION = 0, 2
"""``IterVar.iter_type`` of a block's axes."""


def blocks_of(sch: Schedule) -> list[Any]:
    """The blocks of a function, in order; none of one without a root, as TVM's scans and sorts."""
    try:
        root = block(sch, "root")
    except ScheduleError:
        return []
    return list(sch.get_child_blocks(root))


def cpu_features(target: tvm.target.Target) -> frozenset[str]:
    """Names of the instruction set extensions that LLVM may use for a target."""
    found = tvm.get_global_func("target.llvm_get_cpu_features")(target)
    return frozenset(str(name) for name in found)


def default_triple() -> str:
    """LLVM's triple for targets that name none."""
    return str(tvm.get_global_func("tvm.codegen.llvm.GetDefaultTargetTriple")())


def register_intrinsic(name: str, like: str, function: Callable[[Any], Any]) -> None:
    """Make a TIR intrinsic of one argument known; a second call does nothing.

    Parameters
    ----------
    name
        Its name, with a namespace.
    like
        TIR's own intrinsic whose name it is printed by and whose effects it has.
    function
        What it is of an argument, for targets of kind llvm.
    """
    if name in map(str, tvm.ir.Op.list_op_names()):
        return
    tvm.get_global_func("ir.RegisterOp")(name, f"{like} of {name.partition('.')[0]}")
    effect = tvm.ir.Op.get(f"{TIR}.{like}").get_attr("TCallEffectKind")
    tvm.ir.register_op_attr(name, "TCallEffectKind", effect)
    tvm.ir.register_op_attr(name, "TVectorizable", True)
    tvm.ir.register_op_attr(name, "TScriptPrinterName", name)
    tvm.ir.register_op_attr(name, "llvm.FLowerIntrinsic", lambda e: function(*e.args))


def for_gpu() -> bool:
    """Whether the target in scope is one with threads, as GPUs are."""
    target = tvm.target.Target.current(allow_none=True)
    return target is not None and "gpu" in map(str, target.keys)


def scope(config: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """The context in which passes decide for a target."""
    target: AbstractContextManager[Any] = tvm.target.Target(dict(config))
    return target


def host_cpu() -> str:
    """LLVM's name of the CPU that this process runs on."""
    return str(tvm.get_global_func("tvm.codegen.llvm.GetHostCPUName")())


__all__ = [
    "PARALLEL_DATA",
    "REDUCTION",
    "SCHEDULED",
    "TIR",
    "Analyzer",
    "BlockRealize",
    "BufferLoad",
    "Call",
    "Schedule",
    "ScheduleError",
    "ScheduleRule",
    "block",
    "blocks_of",
    "buffer_of",
    "buffers",
    "build_module",
    "built",
    "cpu_features",
    "default_triple",
    "detect_linear_equation",
    "dlight",
    "dtype_of",
    "for_gpu",
    "host_cpu",
    "meta_schedule",
    "narrow",
    "register_intrinsic",
    "scope",
    "tar",
    "tensor",
    "tir",
]
