"""Pools that come to read one value: a compiler makes one pool of them, and what reads it meets.

Relay's EliminateCommonSubexpr does.  Then an op that sinks becomes one with an op like it below the
other pool: several read it, so that its product is stored, and contracted no more.  And TIR puts a
sum inside of a selection: (q > 0 ? q : q a) - q becomes q > 0 ? 0 : q a - q, which is contracted.
"""

from __future__ import annotations

from collections import defaultdict
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
from tvm_passes.site import ElementwiseOp, Operand, Pool

WINDOWS = ("layout", "kernel", "strides", "dilation", "padding", "ceil_mode", "axes")
"""What two pools that are one have in common."""

SUMS = frozenset(("add", "subtract", "relax.add", "relax.subtract"))


@dataclass
class _Family(Generic[Node]):
    """Pools of the same windows that read one value: as it is now, and once their ops have sunk."""

    now: list[Node] = field(default_factory=list)
    later: int = 0
    readers: dict[str, list[ElementwiseOp]] | None = None


@dataclass(frozen=True)
class Twins(Generic[Node]):
    """Which pools read which values, before the rewrite and after it.

    Parameters
    ----------
    graph, words, told
        The function, its dialect's op names, and descriptions of calls.
    families
        The pools that may become one, by the value that they read, whatever moves its elements in
        between, and by their windows.
    """

    graph: Graph[Node]
    words: Vocabulary
    told: Descriptions
    families: dict[tuple[object, ...], _Family[Node]] = field(
        default_factory=lambda: defaultdict(_Family)
    )

    def note(self, pool: Node) -> None:
        """Note what a pool reads as the function is."""
        described = self.told.pool(self.graph.view(pool))
        self._family(self.graph.argument(pool, 0), described).now.append(pool)

    def note_plan(self, plan: Plan[Node]) -> None:
        """Note what a pool will read."""
        if plan.decision.passed:
            self._will_join(plan).later += 1

    def stay_apart(self, plan: Plan[Node]) -> bool:
        """Whether what sinks meets nothing that reads a pool which the plan's becomes one with.

        What reads another below which something sinks, too, are ops alike above both before.
        """
        decision = plan.decision
        if not decision.passed:
            return True
        family = self._will_join(plan)
        meets_sums = not SUMS.isdisjoint(decision.site.arithmetic_below)
        if meets_sums and any(op.op in SELECTIONS for op in nearest(decision.sunk)):
            return not (family.now or family.later)
        if family.readers is None:
            family.readers = self._readers(family.now)
        topmost = decision.sunk[-1]
        return not any(_are_alike(topmost, op) for op in family.readers.get(topmost.op, ()))

    def _will_join(self, plan: Plan[Node]) -> _Family[Node]:
        return self._family(plan.path[-1].above, plan.decision.site.pool)

    def _family(self, read: Node, pool: Pool) -> _Family[Node]:
        windows = tuple(getattr(pool, name) for name in WINDOWS)
        return self.families[self._root(read), frozenset((pool.op, pool.opposite)), windows]

    def _readers(self, pools: list[Node]) -> dict[str, list[ElementwiseOp]]:
        """The ops that read any of these pools, by name."""
        found: dict[str, list[ElementwiseOp]] = defaultdict(list)
        for reader in (each for pool in pools for each in read_by(self.graph, pool).nodes):
            name = self.graph.op_name(reader)
            if name in self.words.activations:
                found[name] += self.told.of(self.graph.view(reader), 1, is_output=False).ops
        return found

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
    """Whether two calls of one op may compute the same of the same data."""
    if one.params.keys() != other.params.keys():
        return False
    return all(_may_equal(value, other.params[name]) for name, value in one.params.items())


def _may_equal(one: object, other: object) -> bool:
    if not (isinstance(one, Operand) and isinstance(other, Operand)):
        return one == other
    if one.value is None or other.value is None:
        return one.stored == other.stored
    return np.array_equal(one.value, other.value)
