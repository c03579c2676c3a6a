"""The Relax pass: max_pool(f(x)) = f(max_pool(x)) for monotone non-decreasing f."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import tvm
from tvm import relax

from tvm_passes.decision import Decision, decide
from tvm_passes.describe import Vocabulary, vocabulary
from tvm_passes.relax.blocks import dataflow_blocks, map_dataflow_blocks
from tvm_passes.relax.rewrite import Sink, sink
from tvm_passes.relax.sites import FoundSite, find_sites
from tvm_passes.remarks import PASS_NAME, Remark, remarks_of
from tvm_passes.rules import RELAX, RULES, Rule


@relax.transform.function_pass(opt_level=1, name=PASS_NAME)
class ReorderActivationAfterMaxPool:
    """Sink elementwise, monotone non-decreasing ops below the max-pools that alone read them.

    Looks into every dataflow block of each function.

    Parameters
    ----------
    rules
        The table of activations; ``RULES + (mine,)`` adds a row.
    on_remark
        Called with each `tvm_passes.remarks.Remark`; it changes nothing.

    Examples
    --------
    >>> from tvm_passes.relax import ReorderActivationAfterMaxPool
    >>> mod = tvm.transform.Sequential([ReorderActivationAfterMaxPool()])(mod)  # doctest: +SKIP
    """

    def __init__(
        self, rules: Sequence[Rule] = RULES, on_remark: Callable[[Remark], object] | None = None
    ) -> None:
        self.words = vocabulary(rules, RELAX)
        self.on_remark = on_remark

    def transform_function(
        self, func: relax.Function, mod: tvm.IRModule, _ctx: tvm.transform.PassContext
    ) -> relax.Function:
        """Rewrite one function; `func` itself is returned where nothing moves."""
        builder = relax.BlockBuilder(mod)
        by_block = _decide_function(func, _name_in(mod, func), self.words)
        if self.on_remark is not None:
            for remark in _remarks(by_block):
                self.on_remark(remark)

        def rewrite(block: relax.DataflowBlock) -> relax.DataflowBlock:
            sinks = [_sink_of(*pair) for pair in by_block[hash(block)] if pair[1].passed]
            return sink(block, sinks) if sinks else block

        return map_dataflow_blocks(func, rewrite, builder)


def decisions(mod: tvm.IRModule, rules: Sequence[Rule] = RULES) -> tuple[Decision, ...]:
    """Decide on every site of a module, and change nothing."""
    words = vocabulary(rules, RELAX)
    return tuple(
        decision
        for gvar, func in mod.functions.items()
        if isinstance(func, relax.Function)
        for pairs in _decide_function(func, str(gvar.name_hint), words).values()
        for _, decision in pairs
    )


Decided = tuple[FoundSite, Decision]


def _decide_function(
    func: relax.Function, name: str, words: Vocabulary
) -> dict[int, list[Decided]]:
    """The sites of a function and what becomes of them, by the address of their block."""
    parameters = frozenset(hash(param) for param in func.params)
    by_block: dict[int, list[Decided]] = {}
    pools = 0
    for block in dataflow_blocks(func):
        found = find_sites(block, name, parameters, words, pools)
        by_block[hash(block)] = [(item, decide(item.site)) for item in found]
        pools += len(found)
    return by_block


def _remarks(by_block: dict[int, list[Decided]]) -> Iterator[Remark]:
    for pairs in by_block.values():
        for _, decision in pairs:
            yield from remarks_of(decision)


def _sink_of(found: FoundSite, decision: Decision) -> Sink:
    count = len(decision.sunk)
    return Sink(found.pool, found.chain[:count], found.data[:count])


def _name_in(mod: tvm.IRModule, func: relax.Function) -> str:
    for gvar, candidate in mod.functions.items():
        if candidate.same_as(func):
            return str(gvar.name_hint)
    return "function"
