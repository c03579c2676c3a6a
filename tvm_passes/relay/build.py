"""``relay.build`` with this package's pass in front."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from typing import Any

import tvm
from tvm import relay
from tvm.relay.backend import Executor, Runtime
from tvm.relay.build_module import bind_params_by_name

from tvm_passes.decline import Decline, KernelReason
from tvm_passes.relay.batch_norm import FoldBatchNorm
from tvm_passes.relay.blocked import OPT_LEVEL, PASS_NAME, BlockConv2d
from tvm_passes.relay.convolution import CONV2D
from tvm_passes.relay.reorder import ReorderActivationAfterMaxPool
from tvm_passes.remarks import ChosenKernels, Remark
from tvm_passes.rules import RULES, Rule
from tvm_passes.schedules.families import NONE_BARRED, Barred


def build(
    ir_mod: tvm.IRModule,
    target: Any = None,
    target_host: Any = None,
    executor: Any = Executor("graph"),  # noqa: B008 - relay.build's own signature
    runtime: Any = Runtime("cpp"),  # noqa: B008
    workspace_memory_pools: Any = None,
    constant_memory_pools: Any = None,
    params: dict[str, Any] | None = None,
    mod_name: str = "default",
    *,
    on_remark: Callable[[Remark], object] | None = None,
    allow: Collection[str] = (),
) -> Any:
    """Run `ReorderActivationAfterMaxPool` and `BlockConv2d`, then ``relay.build``.

    The parameters are bound first, so that the pass sees the constants that it depends on, and
    batch normalizations become weights and a bias, or a product and a sum.  The passes obey the
    ``PassContext`` in scope: its ``opt_level``, ``disabled_pass`` and instruments.
    The first eight parameters are those of ``relay.build``.

    Parameters
    ----------
    on_remark
        Called with each remark of both passes, and with one where ``opt_level`` is below that of
        `BlockConv2d`.
    allow
        As for both passes.

    Raises
    ------
    TypeError
        If `ir_mod` is neither an ``IRModule`` nor a function.
    """
    if isinstance(ir_mod, relay.Function):
        ir_mod = tvm.IRModule.from_expr(ir_mod)
    if not isinstance(ir_mod, tvm.IRModule):
        raise TypeError(f"expected an IRModule or a function, found {type(ir_mod).__name__}")
    if on_remark is not None:
        below_level(target, on_remark)
    only = _only(target)
    with nullcontext() if only is None else only:
        ir_mod = tvm.transform.Sequential(passes(target, params, RULES, on_remark, allow))(ir_mod)
    return relay.build(
        ir_mod,
        target,
        target_host,
        executor,
        runtime,
        workspace_memory_pools,
        constant_memory_pools,
        None,
        mod_name,
    )


def below_level(target: Any, on_remark: Callable[[Remark], object]) -> None:
    """Say that convolutions stay with TVM where the ``PassContext`` in scope leaves them out."""
    only, context = _only(target), tvm.transform.PassContext.current()
    if only is None or str(only.kind.name) != "llvm" or context.opt_level >= OPT_LEVEL:
        return
    decline = Decline(
        KernelReason.OPT_LEVEL,
        f"{PASS_NAME} is of opt_level {OPT_LEVEL}, the PassContext of {context.opt_level}",
        f"build with tvm.transform.PassContext(opt_level={OPT_LEVEL})",
    )
    ChosenKernels("main", CONV2D, on_remark).declined(decline)


def passes(
    target: Any,
    params: dict[str, Any] | None = None,
    rules: Sequence[Rule] = RULES,
    on_remark: Callable[[Remark], object] | None = None,
    allow: Collection[str] = (),
    barred: Barred = NONE_BARRED,
) -> list[tvm.transform.Pass]:
    """What `build` runs before ``relay.build``'s own passes."""
    only = _only(target)
    before = passes_before_blocks(params, rules, on_remark, allow)
    return before if only is None else [*before, BlockConv2d(only, on_remark, allow, barred)]


def passes_before_blocks(
    params: dict[str, Any] | None = None,
    rules: Sequence[Rule] = RULES,
    on_remark: Callable[[Remark], object] | None = None,
    allow: Collection[str] = (),
) -> list[tvm.transform.Pass]:
    """What brings convolutions, their pools and activations in order."""
    reorder = ReorderActivationAfterMaxPool(rules, on_remark, allow)
    return [_bind(params), FoldBatchNorm(), reorder, relay.transform.FoldConstant()]


def _only(target: Any) -> tvm.target.Target | None:
    """The target of a module that is compiled for a single one."""
    if target is None:
        return tvm.target.Target.current(allow_none=True)
    found = tvm.target.Target.canon_multi_target(target)
    return found[0] if len(found) == 1 else None


def _bind(params: dict[str, Any] | None) -> tvm.transform.Pass:
    """A pass that makes constants of the parameters of ``main``, in a module of its own."""

    @relay.transform.function_pass(opt_level=0, name="BindParams")
    def bind(func: relay.Function, mod: tvm.IRModule, _ctx: Any) -> relay.Function:
        is_main = func.same_as(mod["main"])
        return bind_params_by_name(func, params) if params and is_main else func

    return bind
