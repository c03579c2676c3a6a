"""The Relax pipeline ``tvm_reorder``: the pass, then TVM's own pipeline of the target."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tvm
from tvm import relax

from tvm_passes.relax.reorder import ReorderActivationAfterMaxPool
from tvm_passes.remarks import Remark
from tvm_passes.rules import RULES, Rule

PIPELINE_NAME = "tvm_reorder"


def tvm_reorder_pipeline(
    rules: Sequence[Rule] = RULES, on_remark: Callable[[Remark], object] | None = None
) -> tvm.transform.Pass:
    """The pass, followed by what TVM does for the target in scope.

    Parameters
    ----------
    rules, on_remark
        As for `ReorderActivationAfterMaxPool`.
    """

    @tvm.transform.module_pass(opt_level=0, name=PIPELINE_NAME)
    def pipeline(mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        reorder = ReorderActivationAfterMaxPool(rules, on_remark)
        return tvm.transform.Sequential([reorder, stock_pipeline()])(mod)

    return pipeline


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
    if PIPELINE_NAME not in relax.pipeline.PIPELINE_MAP:
        relax.register_pipeline(PIPELINE_NAME)(tvm_reorder_pipeline)
