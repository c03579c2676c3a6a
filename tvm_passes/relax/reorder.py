"""The Relax pass: max_pool(f(x)) = f(max_pool(x)) for monotone f."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache, partial

import tvm
from tvm import relax

from tvm_passes.collector import collector_paused
from tvm_passes.decision import Decision
from tvm_passes.describe import Vocabulary, allowed, vocabulary
from tvm_passes.namespaces import for_gpu
from tvm_passes.plan import Plan, plan
from tvm_passes.relax.blocks import map_dataflow_blocks
from tvm_passes.relax.graph import RelaxGraph, graphs_of
from tvm_passes.relax.rewrite import sink
from tvm_passes.remarks import PASS_NAME, Remark, Rounds, may_go_on
from tvm_passes.rules import RELAX, RULES, Rule
from tvm_passes.sinking import sinks


@relax.transform.function_pass(opt_level=1, name=PASS_NAME)
class ReorderActivationAfterMaxPool:
    """Sink elementwise ops below the max-pools that alone read them.

    Rewrites every dataflow block of each function; what is in no dataflow block gets a remark.

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
    >>> from tvm_passes.relax import ReorderActivationAfterMaxPool
    >>> mod = tvm.transform.Sequential([ReorderActivationAfterMaxPool()])(mod)  # doctest: +SKIP
    """

    def __init__(
        self,
        rules: Sequence[Rule] = RULES,
        on_remark: Callable[[Remark], object] | None = None,
        allow: Collection[str] = (),
    ) -> None:
        self.words = lru_cache(partial(vocabulary, rules, RELAX, allowed(allow)))
        self.words()  # which refuses what may not be allowed
        self.on_remark = on_remark

    @collector_paused()
    def transform_function(
        self, func: relax.Function, mod: tvm.IRModule, _ctx: tvm.transform.PassContext
    ) -> relax.Function:
        """Rewrite one function; `func` itself is returned where nothing moves."""
        name = lru_cache(lambda: _name_in(mod, func))
        words = self.words(on_gpu=for_gpu())
        changed, rounds = func, Rounds()
        while True:
            plans = _plans(changed, name, words)
            decided = [item.decision for _, items in plans.values() for item in items]
            last = not may_go_on(decided)
            if self.on_remark is not None:
                for remark in rounds.remarks(decided, last=last):
                    self.on_remark(remark)
            if any(decision.passed for decision in decided):
                changed = _rewritten(changed, plans, relax.BlockBuilder(mod))
            if last:
                return changed


def _rewritten(
    func: relax.Function, plans: dict[int, Plans], builder: relax.BlockBuilder
) -> relax.Function:
    def rewrite(block: relax.DataflowBlock) -> relax.DataflowBlock:
        graph, items = plans[hash(block)]
        return sink(block, graph, sinks(graph, items))

    return map_dataflow_blocks(func, rewrite, builder)


def decisions(
    mod: tvm.IRModule, rules: Sequence[Rule] = RULES, allow: Collection[str] = ()
) -> tuple[Decision, ...]:
    """Decide on every site of a module, and change nothing."""
    return tuple(item.decision for _, items in plans(mod, rules, allow) for item in items)


def plans(
    mod: tvm.IRModule, rules: Sequence[Rule] = RULES, allow: Collection[str] = ()
) -> tuple[Plans, ...]:
    """The graph of every block of a module, and what would become of its pools."""
    words = vocabulary(rules, RELAX, allow, on_gpu=for_gpu())
    return tuple(
        found
        for gvar, func in mod.functions.items()
        if isinstance(func, relax.Function)
        for found in _plans(func, partial(str, gvar.name_hint), words).values()
    )


Plans = tuple[RelaxGraph, tuple[Plan[relax.Var], ...]]


def _plans(func: relax.Function, name: Callable[[], str], words: Vocabulary) -> dict[int, Plans]:
    """The graph and the plans of each block, by the block's address."""
    plans: dict[int, Plans] = {}
    pools = 0
    for placed, graph in graphs_of(func, words):
        items = plan(graph, name, words, pools)
        plans[hash(placed.block)] = graph, items
        pools += len(items)
    return plans


def _name_in(mod: tvm.IRModule, func: relax.Function) -> str:
    for gvar, candidate in mod.functions.items():
        if candidate.same_as(func):
            return str(gvar.name_hint)
    return "function"
