"""The Relax pipeline ``tvm_reorder``: the passes and the schedules, among TVM's own passes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import tvm
from tvm import relax
from tvm.relax.backend.cpu_generic import pipeline as cpu
from tvm.relax.backend.cuda import pipeline as cuda
from tvm.relax.backend.gpu_generic import pipeline as gpu

from tvm_passes.namespaces import SCHEDULED, dlight, narrow, tir
from tvm_passes.relax import exponentials
from tvm_passes.relax.batch_norm import FoldBatchNorm
from tvm_passes.relax.blocked import PASS_NAME as BLOCK
from tvm_passes.relax.blocked import BlockConv2d
from tvm_passes.relax.gpu_conv2d import TileConv2d
from tvm_passes.relax.plain import StorePlain
from tvm_passes.relax.reorder import ReorderActivationAfterMaxPool
from tvm_passes.remarks import Remark
from tvm_passes.rules import RULES, Rule
from tvm_passes.schedules import exponential
from tvm_passes.schedules.families import NONE_BARRED, Barred
from tvm_passes.schedules.gpu_conv2d_rule import TiledConv2d
from tvm_passes.schedules.gpu_pool import MaxPool
from tvm_passes.schedules.gpu_winograd_rule import WinogradKernels
from tvm_passes.schedules.inlining import Inlined
from tvm_passes.schedules.rules import cpu_rules

PIPELINE_NAME = "tvm_reorder"


def tvm_reorder_pipeline(
    rules: Sequence[Rule] = RULES,
    on_remark: Callable[[Remark], object] | None = None,
    allow: Collection[str] = (),
    barred: Barred = NONE_BARRED,
) -> tvm.transform.Pass:
    """The reorder, the blocked convolutions, and what TVM does for the target in scope.

    Parameters
    ----------
    rules, on_remark, allow
        As for `ReorderActivationAfterMaxPool`.
    barred
        As for `BlockConv2d` and `TileConv2d`.
    """

    @tvm.transform.module_pass(opt_level=0, name=PIPELINE_NAME)
    def pipeline(mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        target = tvm.target.Target.current(allow_none=True)
        reorder = ReorderActivationAfterMaxPool(rules, on_remark, allow)
        if target is not None and "gpu" in map(str, target.keys):
            stock = _stock(target)
            ours = BLOCK not in map(str, ctx.disabled_pass)
            passes = [
                *gpu_passes(
                    target,
                    reorder,
                    ours=ours,
                    tile=TileConv2d(on_remark=on_remark, allow=allow, barred=barred),
                ),
                *stock.dataflow_lower_passes(target),
                *stock.finalize_passes(target),
            ]
            return tvm.transform.Sequential(passes)(mod)
        if target is None or str(target.kind.name) != "llvm":
            return tvm.transform.Sequential([reorder, stock_pipeline()])(mod)
        passes = [
            *passes_before_schedules(target, rules, on_remark, allow, barred),
            dlight.ApplyDefaultSchedule(*cpu_rules()),
            NarrowKernels(),
            dlight.ApplyDefaultSchedule(Inlined()),
            *cpu.dataflow_lower_passes(target),
            *cpu.finalize_passes(target),
        ]
        return tvm.transform.Sequential(passes)(mod)

    return pipeline


@tvm.transform.module_pass(opt_level=0, name="NarrowKernels")
class NarrowKernels:
    """Give scheduled kernels indices of 32 bits: see `tvm_passes.namespaces.narrow`."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite every PrimFunc that has a schedule."""
        scheduled = {
            gvar: narrow(tvm.IRModule({"main": func}))["main"]
            for gvar, func in mod.functions.items()
            if isinstance(func, tir.PrimFunc) and func.attrs and SCHEDULED in func.attrs
        }
        mod = mod.clone()
        for gvar, func in scheduled.items():
            mod.update_func(gvar, func)
        return mod


def gpu_passes(
    target: tvm.target.Target,
    reorder: tvm.transform.Pass | None,
    *,
    ours: bool,
    tile: TileConv2d | None = None,
) -> list[tvm.transform.Pass]:
    """From ops to scheduled kernels for a GPU, with the reorder among them, if there is one."""
    first = [relax.transform.ConvertToDataflow(), FoldBatchNorm()] if ours else []
    then = [] if reorder is None else [reorder]
    return [*first, *then, *gpu_kernel_passes(target, ours=ours, tile=tile)]


def gpu_kernel_passes(
    target: tvm.target.Target, *, ours: bool = True, tile: TileConv2d | None = None
) -> list[tvm.transform.Pass]:
    """From ops to scheduled kernels for a GPU: our schedules, and TVM's own for what is left.

    Parameters
    ----------
    target
        Of a kind that has threads.
    ours
        Whether there are ours; else all are TVM's.
    tile
        Makes ours; by default with sums as they are written.
    """
    stock = _stock(target)
    *legalize, schedule = stock.legalize_passes(target)
    if not ours:
        return [*stock.library_dispatch_passes(target), *legalize, schedule]
    return [
        *_gpu_kernels(target, tile),
        dlight.ApplyDefaultSchedule(TiledConv2d(), WinogradKernels(), MaxPool()),
        schedule,
    ]


def gpu_passes_before_schedules(
    target: tvm.target.Target, allow: Collection[str] = ()
) -> list[tvm.transform.Pass]:
    """What makes kernels of a module, for a GPU: their schedules come next."""
    reorder = ReorderActivationAfterMaxPool(allow=allow)
    return [
        relax.transform.ConvertToDataflow(),
        FoldBatchNorm(),
        reorder,
        *_gpu_kernels(target, TileConv2d(allow=allow)),
    ]


def _gpu_kernels(target: tvm.target.Target, tile: TileConv2d | None) -> list[tvm.transform.Pass]:
    stock = _stock(target)
    *legalize, _ = stock.legalize_passes(target)
    return [
        relax.transform.FoldConstant(),
        TileConv2d() if tile is None else tile,
        *stock.library_dispatch_passes(target),
        *legalize,
    ]


def _stock(target: tvm.target.Target) -> Any:
    """TVM's own passes for a GPU."""
    return cuda if str(target.kind.name) == "cuda" else gpu


def passes_before_blocks(
    rules: Sequence[Rule] = RULES,
    on_remark: Callable[[Remark], object] | None = None,
    allow: Collection[str] = (),
) -> list[tvm.transform.Pass]:
    """What brings convolutions, their pools and activations in order."""
    return [
        relax.transform.ConvertToDataflow(),
        FoldBatchNorm(),
        ReorderActivationAfterMaxPool(rules, on_remark, allow),
        relax.transform.FoldConstant(),
    ]


def passes_before_schedules(
    target: tvm.target.Target,
    rules: Sequence[Rule] = RULES,
    on_remark: Callable[[Remark], object] | None = None,
    allow: Collection[str] = (),
    barred: Barred = NONE_BARRED,
) -> list[tvm.transform.Pass]:
    """What makes kernels of a module, for a target of kind llvm: their schedules come next."""
    return [
        *passes_before_blocks(rules, on_remark, allow),
        BlockConv2d(on_remark, allow, barred),
        *cpu.library_dispatch_passes(target),
        *exponentials.legalize_passes(target),
        *cpu.legalize_passes(target),
        StorePlain(),
    ]


def stock_pipeline() -> tvm.transform.Pass:
    """TVM's own pipeline for the target in scope, its generic one where there is no target."""
    target = tvm.target.Target.current(allow_none=True)
    if target is None:
        return relax.get_pipeline("default")
    return relax.get_default_pipeline(target)


def register_pipeline() -> None:
    """Make ``tvm.compile(mod, target, relax_pipeline="tvm_reorder")`` work.

    A second call does nothing.
    """
    exponential.register()
    if PIPELINE_NAME not in relax.pipeline.PIPELINE_MAP:
        relax.register_pipeline(PIPELINE_NAME)(tvm_reorder_pipeline)
