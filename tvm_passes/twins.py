"""Pools that come to read one value: a compiler makes one pool of them, and what reads it meets.

Relay's EliminateCommonSubexpr does.  Then an op that sinks becomes one with an op like it below the
other pool: several read it, so that its product is stored, and contracted no more.  And TIR puts a
sum inside of a selection: (q > 0 ? q : q a) - q becomes q > 0 ? 0 : q a - q, which is contracted.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Generic

import numpy as np

from tvm_passes.chain import Plan
from tvm_passes.decision import Decision, nearest
from tvm_passes.decline import Decline, Ends, Reason
from tvm_passes.describe import Vocabulary, plain
from tvm_passes.elementwise import Descriptions
from tvm_passes.graph import Graph, Node
from tvm_passes.neighbours import SELECTIONS
from tvm_passes.readers import reached
from tvm_passes.site import ElementwiseOp, Operand, Pool

Windows = tuple[int, frozenset[str], tuple[object, ...]]

WINDOWS = ("layout", "kernel", "strides", "dilation", "padding", "ceil_mode", "axes")
"""What two pools that are one have in common, beside what they read."""

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

    Values have a number: one that is moved has that of what it was before, and so have negations
    and pools of values of one number.

    Parameters
    ----------
    graph, words, told
        The function, its dialect's op names, and descriptions of calls.
    families
        The pools that may become one, by the number of the value that they read, and their windows.
    now, later
        The numbers of nodes as the function is, and once the pools above them are rewritten.
    reads
        What the pools that are planned will read, by their keys.
    """

    graph: Graph[Node]
    words: Vocabulary
    told: Descriptions
    families: dict[Windows, _Family[Node]] = field(default_factory=lambda: defaultdict(_Family))
    now: dict[int, int] = field(default_factory=dict)
    later: dict[int, int] = field(default_factory=dict)
    reads: dict[int, Node] = field(default_factory=dict)
    _numbers: dict[object, int] = field(default_factory=dict)

    def note(self, pool: Node) -> None:
        """Note what a pool reads as the function is."""
        read = self._number(self.graph.argument(pool, 0), self.now)
        self.families[_windows(self._described(pool), read)].now.append(pool)

    def note_plan(self, plan: Plan[Node]) -> None:
        """Note what a pool will read."""
        if plan.decision.passed:
            self.reads[self.graph.key(plan.pool)] = plan.path[-1].above
            for family in self._will_join(plan):
                family.later += 1

    def stay_apart(self, plan: Plan[Node]) -> bool:
        """Whether what sinks meets nothing that reads a pool which the plan's becomes one with.

        What reads another below which something sinks, too, are ops alike above both before.
        """
        decision = plan.decision
        if not decision.passed:
            return True
        meets_sums = not SUMS.isdisjoint(decision.site.arithmetic_below)
        selects = meets_sums and any(op.op in SELECTIONS for op in nearest(decision.sunk))
        families = self._will_join(plan)
        if selects and any(family.now or family.later for family in families):
            return False
        return not any(self._meets(plan, family) for family in families)

    def _meets(self, plan: Plan[Node], family: _Family[Node]) -> bool:
        """Whether the topmost op that sinks may become one with what reads another pool."""
        if family.readers is None:
            family.readers = self._readers(family.now)
        link, topmost = plan.path[-1], plan.decision.sunk[-1]
        if link.entry is not None:  # several ops, any of which may
            names = map(self.graph.op_name, (*link.inner, link.node))
            return not family.readers.keys().isdisjoint(names)
        return any(_are_alike(topmost, op) for op in family.readers.get(topmost.op, ()))

    def _will_join(self, plan: Plan[Node]) -> list[_Family[Node]]:
        """The families of the pools that the rewrite makes."""
        pool, ends = plan.decision.site.pool, plan.decision.ends
        read = self._number(plan.path[-1].above, self.later)
        found = [read] if ends is not Ends.OTHER or pool.opposite else []
        if ends is not Ends.SAME and not pool.opposite:
            found.append(self._made(NEGATED, read))
        return [self.families[_windows(pool, number)] for number in found]

    def _readers(self, pools: list[Node]) -> dict[str, list[ElementwiseOp]]:
        """The ops that read any of these pools, perhaps moved or negated, by name."""
        graph, words = self.graph, self.words
        found: dict[str, list[ElementwiseOp]] = defaultdict(list)
        for reader in reached(graph, pools, self._passes):
            name = graph.op_name(reader)
            if name in words.activations:
                found[name] += self.told.of(graph.view(reader), 1, is_output=False).ops
            elif plain(name) in words.spelling:
                found[name] += ()
        return found

    def _passes(self, reader: Node) -> bool:
        """Whether a node moves or negates what it reads, or is an item."""
        words, name = self.words, self.graph.op_name(reader)
        moves = name in words.moves or name in words.dropouts or plain(name) == NEGATED
        return moves or self.graph.item(reader) is not None

    def _described(self, pool: Node) -> Pool:
        return self.told.pool(self.graph.view(pool))

    def _number(self, node: Node, known: dict[int, int]) -> int:
        """The number of a value."""
        graph = self.graph
        path: list[tuple[int, object]] = []
        while graph.key(node) not in known:
            label, above = self._step(node, known)
            path.append((graph.key(node), label))
            if above is None:
                break
            node = above
        number = known.get(graph.key(node), -1)
        for key, label in reversed(path):
            if label is not None:
                number = self._made(label, number)
            known[key] = number
        return number

    def _made(self, label: object, number: int) -> int:
        """The number of what is made of the value of another number."""
        return self._numbers.setdefault((label, number), len(self._numbers))

    def _step(self, node: Node, known: dict[int, int]) -> tuple[object, Node | None]:
        """What a value is of the one that it is made of, None where it is that, and that one."""
        graph, words = self.graph, self.words
        item, op = graph.item(node), graph.op_name(node)
        if item is not None and graph.op_name(item[0]) in words.dropouts:
            return None, item[0]
        if op in words.moves or op in words.dropouts:
            return None, graph.argument(node, 0)
        if plain(op) == NEGATED:
            return NEGATED, graph.argument(node, 0)
        if op not in words.pools:
            return graph.key(node), None
        read = graph.argument(node, 0)
        if known is self.later:
            read = self.reads.get(graph.key(node), read)
        return _windows(self._described(node), 0), read


NEGATED = "negative"


def _windows(pool: Pool, read: int) -> Windows:
    """What pools that are one have in common."""
    described = tuple(getattr(pool, name) for name in WINDOWS)
    return read, frozenset((pool.op, pool.opposite)), described


def apart(plan: Plan[Node]) -> Plan[Node]:
    """The plan of a pool that stays what it is, as it would become one with another.

    Of pools that are decided on together, all have passed or none has.
    """
    site = plan.decision.site
    decline = Decline(
        Reason.FOLDING,
        f"{site.pool.op} would read what another reads, and become one with it",
        "nothing to do: what reads both would be compiled otherwise",
    )
    return Plan(plan.pool, Decision(site, (), decline), plan.links)


def _are_alike(one: ElementwiseOp, other: ElementwiseOp) -> bool:
    """Whether two calls of one op may compute the same of the same data."""
    shared = one.params.keys() & other.params.keys()
    return all(_may_equal(one.params[name], other.params[name]) for name in shared)


def _may_equal(one: Any, other: Any) -> bool:
    """Whether two parameters are not known to differ."""
    first, second = (value.value if isinstance(value, Operand) else value for value in (one, other))
    return first is None or second is None or np.array_equal(first, second)
