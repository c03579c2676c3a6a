"""The kernels of a module in both orders, under TVM's own schedules and ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import tvm
from tvm import relax

from tvm_passes.cuda.kernels import Kernels
from tvm_passes.describe import DEVICE_MATH, WINOGRAD
from tvm_passes.relax.banks import NOT_UNROLLED, banks_of
from tvm_passes.relax.device_code import compiled_by
from tvm_passes.relax.gpu_conv2d import TileConv2d
from tvm_passes.relax.launches import Lowered, lower
from tvm_passes.relax.pipeline import gpu_passes
from tvm_passes.relax.reorder import ReorderActivationAfterMaxPool

VERSIONS = ("original", "reordered", "scheduled", "fused", "winograd")
"""Both orders under TVM's own schedules, then both under ours; and the last with other sums."""


def kernels_of(mod: tvm.IRModule, target: Mapping[str, Any], version: str) -> Kernels:
    """Compile a version of a module to CUDA C.

    Parameters
    ----------
    mod
        With its parameters bound.
    target
        A configuration of kind cuda.
    version
        Of `VERSIONS`.
    """
    tvm_target = tvm.target.Target({**target, "host": "llvm"})
    mod = scheduled(mod, tvm_target, version)
    functions = functions_of(mod)
    lowered = lower(functions, tvm_target)
    with tvm.transform.PassContext(disabled_pass=list(NOT_UNROLLED)):
        banks = banks_of(lower(functions, tvm_target).kernels)
    return Kernels(source_of(lowered), lowered.launches, _calls(mod), banks)


def source_of(lowered: Lowered) -> str:
    """The CUDA C that TVM generates of lowered kernels."""
    sources: list[str] = []

    def keep(source: str) -> bytes:
        sources.append(source)
        return source.encode()

    with compiled_by(keep):
        tvm.get_global_func("target.build.cuda")(lowered.kernels, lowered.target)
    return sources[0]


def scheduled(mod: tvm.IRModule, target: tvm.target.Target, version: str) -> tvm.IRModule:
    """A version of a module, as calls of scheduled functions.

    Parameters
    ----------
    mod, version
        As of `kernels_of`.
    target
        Whose kernels are on threads.
    """
    filtered = version == "winograd"
    reorders = filtered or version in ("reordered", "fused")
    ours = filtered or version in ("scheduled", "fused")
    tile = TileConv2d(allow={WINOGRAD} if filtered else ())
    reorder = ReorderActivationAfterMaxPool(allow={DEVICE_MATH}) if reorders else None
    with target:
        return tvm.transform.Sequential(gpu_passes(target, reorder, ours=ours, tile=tile))(mod)


def functions_of(mod: tvm.IRModule) -> Mapping[str, Any]:
    """The PrimFuncs of a module, by name."""
    return {
        str(gvar.name_hint): func
        for gvar, func in mod.functions.items()
        if isinstance(func, tvm.tirx.PrimFunc)
    }


def _calls(mod: tvm.IRModule) -> Mapping[str, int]:
    found: Counter[str] = Counter()

    def visit(expr: Any) -> None:
        if isinstance(expr, relax.Call) and expr.op == tvm.ir.Op.get("relax.call_tir"):
            found[str(expr.args[0].name_hint)] += 1

    for func in mod.functions.values():
        if isinstance(func, relax.Function):
            relax.analysis.post_order_visit(func, visit)
    return found
