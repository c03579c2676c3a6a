"""The kernels of a module in both orders, under TVM's own schedules and ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax

from tvm_passes.relax.device_code import compiled_by
from tvm_passes.relax.launches import Launch, lower
from tvm_passes.relax.pipeline import gpu_kernel_passes
from tvm_passes.relax.reorder import ReorderActivationAfterMaxPool


@dataclass(frozen=True)
class Kernels:
    """What a version of a module becomes.

    Parameters
    ----------
    source
        CUDA C.
    launches
        Each start of a kernel by a function.
    calls
        How often ``main`` calls each function.
    """

    source: str
    launches: Sequence[Launch]
    calls: Mapping[str, int]


def kernels_of(mod: tvm.IRModule, target: Mapping[str, Any], version: str) -> Kernels:
    """Compile a version of a module to CUDA C.

    Parameters
    ----------
    mod
        With its parameters bound.
    target
        A configuration of kind cuda.
    version
        Of `tvm_passes.cuda.static.VERSIONS`.
    """
    tvm_target = tvm.target.Target({**target, "host": "llvm"})
    reorders, ours = version in ("reordered", "fused"), version in ("scheduled", "fused")
    passes = [ReorderActivationAfterMaxPool()] if reorders else []
    passes += gpu_kernel_passes(tvm_target, ours=ours)
    with tvm_target:
        mod = tvm.transform.Sequential(passes)(mod)
    functions = {
        str(gvar.name_hint): func
        for gvar, func in mod.functions.items()
        if isinstance(func, tvm.tirx.PrimFunc)
    }
    lowered = lower(functions, tvm_target)
    sources: list[str] = []

    def keep(source: str) -> bytes:
        sources.append(source)
        return source.encode()

    with compiled_by(keep):
        tvm.get_global_func("target.build.cuda")(lowered.kernels, lowered.target)
    return Kernels(sources[0], lowered.launches, _calls(mod))


def _calls(mod: tvm.IRModule) -> Mapping[str, int]:
    found: Counter[str] = Counter()

    def visit(expr: Any) -> None:
        if isinstance(expr, relax.Call) and expr.op == tvm.ir.Op.get("relax.call_tir"):
            found[str(expr.args[0].name_hint)] += 1

    for func in mod.functions.values():
        if isinstance(func, relax.Function):
            relax.analysis.post_order_visit(func, visit)
    return found
