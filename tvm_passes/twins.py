"""Pools that come to read one value: a compiler makes one pool of them, and what reads it meets.

Relay's EliminateCommonSubexpr does.  Then an op that sinks becomes one with an op like it below the
other pool: several read it, so that its product is stored, and contracted no more.  And TIR puts a
sum inside of a selection: (q > 0 ? q : q a) - q becomes q > 0 ? 0 : q a - q, which is contracted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic

import numpy as np

from tvm_passes.chain import Plan
from tvm_passes.decision import Decision, nearest
from tvm_passes.decline import Decline, Reason
from tvm_passes.describe import Vocabulary
from tvm_passes.elementwise import Descriptions
from tvm_passes.graph import Graph, Node
from tvm_passes.neighbours import SELECTIONS
from tvm_passes.readers import read_by
from tvm_passes.site import ElementwiseOp, Operand

WINDOWS = ("layout", "kernel", "strides", "dilation", "padding", "ceil_mode", "axes")
"""What two pools that are one have in common."""

SUMS = frozenset(("add", "subtract", "relax.add", "relax.subtract"))


@dataclass(frozen=True)
class Twins(Generic[Node]):
    """Which pools read which values, before the rewrite and after it.

    Parameters
    ----------
    graph, words, told
        The function, its dialect's op names, and descriptions of calls.
    reading
        The pools that read a value, or will, whatever moves its elements in between, by its key.
    sunk
        The keys of the pools below which something sinks.
    """

    graph: Graph[Node]
    words: Vocabulary
    told: Descriptions
    reading: dict[int, list[Node]] = field(default_factory=lambda: defaultdict(list))
    sunk: set[int] = field(default_factory=set)

    def note(self, pool: Node) -> None:
        """Note what a pool reads as the function is."""
        self.reading[self._root(self.graph.argument(pool, 0))].append(pool)

    def note_plan(self, plan: Plan[Node]) -> None:
        """Note what a pool will read."""
        if plan.decision.passed:
            self.reading[self._root(plan.path[-1].above)].append(plan.pool)
            self.sunk.add(self.graph.key(plan.pool))

    def stay_apart(self, plans: Sequence[Plan[Node]]) -> bool:
        """Whether none of `plans`, whose pools read one value, meets what reads another pool."""
        own = {self.graph.key(plan.pool) for plan in plans}
        return not any(
            self._meet(plan, twin)
            for plan in plans
            if plan.decision.passed
            for twin in self._twins(plan)
            if self.graph.key(twin) not in own
        )

    def _twins(self, plan: Plan[Node]) -> Iterator[Node]:
        """The pools of the same windows that read, or will, what the plan's pool will."""
        pool = plan.decision.site.pool
        for twin in self.reading[self._root(plan.path[-1].above)]:
            if self.graph.op_name(twin) in (pool.op, pool.opposite):
                other = self.told.pool(self.graph.view(twin))
                if all(getattr(pool, name) == getattr(other, name) for name in WINDOWS):
                    yield twin

    def _meet(self, plan: Plan[Node], twin: Node) -> bool:
        """Whether what sinks meets what reads another pool, which the pool becomes one with."""
        decision = plan.decision
        meets_sums = not SUMS.isdisjoint(decision.site.arithmetic_below)
        if meets_sums and any(op.op in SELECTIONS for op in nearest(decision.sunk)):
            return True
        if self.graph.key(twin) in self.sunk:  # ops alike above them are one before, too
            return False
        return any(_are_alike(decision.sunk[-1], op) for op in self._readers(twin))

    def _readers(self, pool: Node) -> Iterator[ElementwiseOp]:
        """The ops that read a pool."""
        for reader in read_by(self.graph, pool).nodes:
            if self.graph.op_name(reader) in self.words.activations:
                yield from self.told.of(self.graph.view(reader), 1, is_output=False).ops

    def _root(self, node: Node) -> int:
        """The key of the value whose elements a value is, perhaps moved or dropped out."""
        graph, words = self.graph, self.words
        while True:
            item, op = graph.item(node), graph.op_name(node)
            if item is not None and graph.op_name(item[0]) in words.dropouts:
                node = item[0]
            elif op in words.moves or op in words.dropouts:
                node = graph.argument(node, 0)
            else:
                return graph.key(node)


def apart(plan: Plan[Node]) -> Plan[Node]:
    """The plan of a pool that stays what it is, as it would become one with another."""
    if not plan.decision.passed:
        return plan
    site = plan.decision.site
    decline = Decline(
        Reason.FOLDING,
        f"{site.pool.op} would read what another reads, and become one with it",
        "nothing to do: what reads both would be compiled otherwise",
    )
    return Plan(plan.pool, Decision(site, (), decline), plan.links)


def _are_alike(one: ElementwiseOp, other: ElementwiseOp) -> bool:
    """Whether two ops may compute the same of the same data."""
    if one.op != other.op or one.params.keys() != other.params.keys():
        return False
    return all(_may_equal(value, other.params[name]) for name, value in one.params.items())


def _may_equal(one: object, other: object) -> bool:
    if not (isinstance(one, Operand) and isinstance(other, Operand)):
        return one == other
    if one.value is None or other.value is None:
        return True
    return np.array_equal(one.value, other.value)
