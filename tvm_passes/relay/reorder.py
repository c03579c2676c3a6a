"""The Relay function pass: max_pool(f(x)) = f(max_pool(x)) for monotone non-decreasing f."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tvm
from tvm import relay

from tvm_passes.decision import Decision, decide
from tvm_passes.relay.nodes import graph_of, is_opaque
from tvm_passes.relay.rewrite import Sink, sink
from tvm_passes.relay.sites import find_sites
from tvm_passes.remarks import PASS_NAME, Remark, remarks_of
from tvm_passes.rules import RULES, Rule


@relay.transform.function_pass(opt_level=1, name=PASS_NAME)
class ReorderActivationAfterMaxPool:
    """Sink elementwise, monotone non-decreasing ops below the max-pools that alone read them.

    Parameters
    ----------
    rules
        The table of activations; ``RULES + (mine,)`` adds a row.
    on_remark
        Called with each `tvm_passes.remarks.Remark`; it changes nothing.

    Examples
    --------
    >>> from tvm_passes.relay import ReorderActivationAfterMaxPool
    >>> mod = tvm.transform.Sequential([ReorderActivationAfterMaxPool()])(mod)  # doctest: +SKIP
    """

    def __init__(
        self, rules: Sequence[Rule] = RULES, on_remark: Callable[[Remark], object] | None = None
    ) -> None:
        self.rules = tuple(rules)
        self.on_remark = on_remark

    def transform_function(
        self, func: relay.Function, mod: tvm.IRModule, _ctx: tvm.transform.PassContext
    ) -> relay.Function:
        """Rewrite one function; `func` itself is returned where nothing moves."""
        if is_opaque(func):
            return func
        name = _name_in(mod, func)
        func = _typed(func, mod, name)
        graph = graph_of(func.body)
        found = find_sites(func, graph, name, self.rules)
        decisions = [decide(item.site) for item in found]
        if self.on_remark is not None:
            for decision in decisions:
                for remark in remarks_of(decision):
                    self.on_remark(remark)
        sinks = [
            Sink(item.pool, item.chain[: len(decision.sunk)], item.data)
            for item, decision in zip(found, decisions, strict=True)
            if decision.passed
        ]
        return sink(func, graph, sinks)


def decisions(mod: tvm.IRModule, rules: Sequence[Rule] = RULES) -> tuple[Decision, ...]:
    """Decide on every site of a module, and change nothing."""
    mod = relay.transform.InferType()(mod)
    return tuple(
        decide(item.site)
        for gvar, func in mod.functions.items()
        if isinstance(func, relay.Function) and not is_opaque(func)
        for item in find_sites(func, graph_of(func.body), str(gvar.name_hint), rules)
    )


def _name_in(mod: tvm.IRModule, func: relay.Function) -> str:
    for gvar, candidate in mod.functions.items():
        if candidate.same_as(func):
            return str(gvar.name_hint)
    return "function"


def _typed(func: relay.Function, mod: tvm.IRModule, name: str) -> relay.Function:
    """The function with types, inferred if nobody did."""
    try:
        func.body.checked_type  # noqa: B018
    except ValueError:
        return relay.transform.InferType()(mod)[name]
    return func
