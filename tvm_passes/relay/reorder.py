"""The Relay function pass: max_pool(f(x)) = f(max_pool(x)) for monotone non-decreasing f."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache, partial

import tvm
from tvm import relay

from tvm_passes.collector import collector_paused
from tvm_passes.decision import Decision
from tvm_passes.describe import allowed, vocabulary
from tvm_passes.namespaces import for_gpu
from tvm_passes.plan import Plan, plan
from tvm_passes.relay.graph import graph_of
from tvm_passes.relay.nodes import is_opaque
from tvm_passes.relay.rewrite import sink
from tvm_passes.remarks import PASS_NAME, Remark, Rounds, may_go_on
from tvm_passes.rules import RELAY, RULES, Rule
from tvm_passes.sinking import sinks


@relay.transform.function_pass(opt_level=1, name=PASS_NAME)
class ReorderActivationAfterMaxPool:
    """Sink elementwise ops below the max-pools that alone read them.

    Parameters
    ----------
    rules
        The table of activations; ``RULES + (mine,)`` adds a row.
    on_remark
        Called with each `tvm_passes.remarks.Remark`; it changes nothing.
    allow
        ``{"quasi-convex"}`` for functions that fall, then rise, which is exact in real numbers;
        ``"device-math"`` for those that the math library of a GPU computes, if the target in scope
        is one.

    Examples
    --------
    >>> from tvm_passes.relay import ReorderActivationAfterMaxPool
    >>> mod = tvm.transform.Sequential([ReorderActivationAfterMaxPool()])(mod)  # doctest: +SKIP
    """

    def __init__(
        self,
        rules: Sequence[Rule] = RULES,
        on_remark: Callable[[Remark], object] | None = None,
        allow: Collection[str] = (),
    ) -> None:
        self.words = lru_cache(partial(vocabulary, rules, RELAY, allowed(allow)))
        self.words()  # which refuses what may not be allowed
        self.on_remark = on_remark

    @collector_paused()
    def transform_function(
        self, func: relay.Function, mod: tvm.IRModule, ctx: tvm.transform.PassContext
    ) -> relay.Function:
        """Rewrite one function; `func` itself is returned where nothing moves."""
        if is_opaque(func):
            return func
        words = self.words(_replaced(ctx), on_gpu=for_gpu())
        changed, first = func, True
        rounds = Rounds()
        while True:
            typed = _typed(changed, mod) if first else _typed_again(func, changed, mod)
            graph = graph_of(typed, words)
            plans = plan(graph, lambda: _name_in(mod, func), words)
            decided = [item.decision for item in plans]
            last = not may_go_on(decided)
            if self.on_remark is not None:
                for remark in rounds.remarks(decided, last=last):
                    self.on_remark(remark)
            changed = sink(typed, graph.nodes, sinks(graph, plans))
            if last:
                return changed
            first = False


FAST_MATH = frozenset({"exp", "tanh", "erf"})
"""What FastMath replaces by polynomials, which are not monotone."""

FAST_MATH_LEVEL = 4


def _replaced(ctx: tvm.transform.PassContext) -> frozenset[str]:
    """The ops that relay.build, in this context, replaces behind the pass."""
    is_on = int(ctx.opt_level) >= FAST_MATH_LEVEL and "FastMath" not in ctx.disabled_pass
    return FAST_MATH if is_on or "FastMath" in ctx.required_pass else frozenset()


def decisions(
    mod: tvm.IRModule, rules: Sequence[Rule] = RULES, allow: Collection[str] = ()
) -> tuple[Decision, ...]:
    """Decide on every site of a module, and change nothing."""
    return tuple(item.decision for item in plans(mod, rules, allow))


def plans(
    mod: tvm.IRModule, rules: Sequence[Rule] = RULES, allow: Collection[str] = ()
) -> tuple[Plan[relay.Expr], ...]:
    """What would become of every pool of a module."""
    replaced = _replaced(tvm.transform.PassContext.current())
    words = vocabulary(rules, RELAY, allow, replaced, on_gpu=for_gpu())
    mod = relay.transform.InferType()(mod.clone())
    return tuple(
        item
        for gvar, func in mod.functions.items()
        if isinstance(func, relay.Function) and not is_opaque(func)
        for item in plan(graph_of(func, words), partial(str, gvar.name_hint), words)
    )


def _name_in(mod: tvm.IRModule, func: relay.Function) -> str:
    for gvar, candidate in mod.functions.items():
        if candidate.same_as(func):
            return str(gvar.name_hint)
    return "function"


def _typed(func: relay.Function, mod: tvm.IRModule) -> relay.Function:
    """The function with types, inferred if nobody did; InferType changes the module it is given."""
    try:
        func.body.checked_type  # noqa: B018
    except ValueError:
        return relay.transform.InferType()(mod.clone())[_name_in(mod, func)]
    return func


def _typed_again(
    func: relay.Function, changed: relay.Function, mod: tvm.IRModule
) -> relay.Function:
    """What became of a function of the module, with types."""
    clone = mod.clone()
    for gvar, candidate in mod.functions.items():
        if candidate.same_as(func):
            clone.update_func(clone.get_global_var(gvar.name_hint), changed)
            return relay.transform.InferType()(clone)[gvar.name_hint]
    return relay.transform.InferType()(tvm.IRModule.from_expr(changed))["main"]
