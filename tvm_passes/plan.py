"""Find a function's sites and decide on each: once for both dialects.

An adapter shows a function as a `tvm_passes.graph.Graph`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic

from tvm_passes.chain import Chain, Plan, climb
from tvm_passes.collector import collector_paused
from tvm_passes.decision import Decision, decide, decide_together
from tvm_passes.decline import Ends
from tvm_passes.describe import Vocabulary, describe_producer, resolve
from tvm_passes.elementwise import Descriptions
from tvm_passes.graph import Graph, Node
from tvm_passes.neighbours import DROPPED, is_dropped, may_begin_with_cast
from tvm_passes.readers import Readers, read_by, value_of
from tvm_passes.site import CALLER, Producer, Site

__all__ = ["Plan", "plan"]


@collector_paused()
def plan(
    graph: Graph[Node], function: Callable[[], str], words: Vocabulary, first: int = 0
) -> tuple[Plan[Node], ...]:
    """Decide on every pool of a graph, in the order in which they are computed.

    What sinks below one pool may sink on, below the next.

    Parameters
    ----------
    graph
        The function.
    function
        Finds its name, for remarks; called if there is a pool.
    words
        The dialect's op names.
    first
        Number of the function's pools that come before this graph.
    """
    pools = graph.pools()
    indices = {graph.key(pool): index for index, pool in enumerate(pools, first)}
    planner = _Planner(graph, words, function() if pools else "", indices, Descriptions(words))
    for node in pools:
        if graph.key(node) not in planner.plans:
            planner.add(_that_read_what_it_reads(graph, node, words))
    return tuple(planner.plans[key] for key in indices)


@dataclass(frozen=True)
class _Planner(Generic[Node]):
    """The plans of a function's pools, one after the other.

    Parameters
    ----------
    graph, words, function, indices
        The function, its dialect's op names, its name, and the numbers of its pools by key.
    told, plans
        Descriptions of calls, and plans by the pool's key, so far.
    decided
        Decisions by all that they depend on, so that sites that look alike share one.
    """

    graph: Graph[Node]
    words: Vocabulary
    function: str
    indices: Mapping[int, int]
    told: Descriptions
    plans: dict[int, Plan[Node]] = field(default_factory=dict)
    decided: dict[tuple[object, ...], tuple[Decision, object]] = field(default_factory=dict)

    def add(self, together: Sequence[Node]) -> None:
        """Plan a pool, or the pools that read one value."""
        several = len(together) > 1
        chains = [self._chain(pool, several) for pool in together]
        if several:
            sites = [self._site(pool, chain) for pool, chain in zip(together, chains, strict=True)]
            decisions = decide_together(sites)
        else:
            decisions = (self._alone(together[0], chains[0]),)
        for pool, chain, decision in zip(together, chains, decisions, strict=True):
            self.plans[self.graph.key(pool)] = Plan(pool, decision, tuple(chain.links))

    def _chain(self, node: Node, several: bool) -> Chain[Node]:
        graph = self.graph
        shape = self.told.pool(graph.view(node)).in_shape
        return climb(graph, graph.argument(node, 0), shape, self.told, self.plans, several)

    def _alone(self, node: Node, chain: Chain[Node]) -> Decision:
        """Decide on a pool; below one that another pool follows, no op turns into a minimum's.

        What is evaluated at a minimum could sink on, but not in one run of the pass.
        """
        decision = self._decision(self._bare_site(node, chain), chain)
        if decision.ends is Ends.OTHER and _meets_a_pool(self.graph, node, self.words):
            return decide(decision.site, self.words.allow, (Ends.SAME, Ends.BOTH))
        return decision

    def _decision(self, site: Site, chain: Chain[Node]) -> Decision:
        # The ids are those of objects that `told` and `decided` keep.
        ops = tuple(map(id, chain.ops))
        below = (site.arithmetic_below, site.casts_below)
        alike = (id(site.pool), site.producer, below, site.absorbers, ops)
        if alike not in self.decided:
            resolved = replace(site, chain=resolve(chain.ops, site.pool))
            self.decided[alike] = decide(resolved, self.words.allow), chain.ops
        decision, _ = self.decided[alike]
        return replace(decision, site=replace(site, chain=decision.site.chain))

    def _site(self, node: Node, chain: Chain[Node]) -> Site:
        site = self._bare_site(node, chain)
        return replace(site, chain=resolve(chain.ops, site.pool))

    def _bare_site(self, node: Node, chain: Chain[Node]) -> Site:
        """The site of a pool, without its chain."""
        graph, words = self.graph, self.words
        arithmetic, casts = _below(graph, node, words)
        return Site(
            function=self.function,
            index=self.indices[graph.key(node)],
            pool=self.told.pool(graph.view(node)),
            chain=(),
            producer=self._producer(chain.top),
            arithmetic_below=arithmetic,
            casts_below=casts,
            absorbers=_absorbers(graph, chain.top, node, words),
            location=graph.location(node),
            in_dataflow=graph.in_dataflow,
        )

    def _producer(self, node: Node) -> Producer:
        name = self.graph.op_name(node)
        if name in self.words.pools:
            return Producer(name, rounded=True, reads_activation=False)
        if name in self.words.producers:
            return describe_producer(self.graph.view(node), self.words.producers[name])
        return self.graph.source(node)


def _meets_a_pool(graph: Graph[Node], node: Node, words: Vocabulary) -> bool:
    """Whether a pool follows, with nothing in between but what chains are made of."""
    below = [node]
    seen: set[int] = set()
    while below:
        for reader in read_by(graph, below.pop()).nodes:
            name = graph.op_name(reader)
            if name in words.pools:
                return True
            may_link = words.may_link(name) or graph.item(reader) is not None
            if may_link and graph.key(reader) not in seen:
                seen.add(graph.key(reader))
                below.append(reader)
    return False


def _that_read_what_it_reads(graph: Graph[Node], pool: Node, words: Vocabulary) -> Sequence[Node]:
    """The pools that are all that reads an activation or another pool; or this pool alone."""
    read = graph.argument(pool, 0)
    if graph.op_name(read) in words.activations:
        reading = Readers(list(graph.readers(read)), graph.is_output(read))
    elif graph.op_name(lender := value_of(graph, read)) in words.pools:
        reading = read_by(graph, lender)
    else:
        return [pool]
    all_pools = all(graph.op_name(reader) in words.pools for reader in reading.nodes)
    return reading.nodes if all_pools and not reading.leaves else [pool]


def _below(
    graph: Graph[Node], pool: Node, words: Vocabulary
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What arithmetic above the pool's readers may be folded into, and what may begin with a cast.

    Below a transposition, a reshape, a negation or what is dropped, too: compilers inline those;
    and who calls a function that may be inlined.
    """
    arithmetic: list[str] = []
    casts: list[str] = []
    below = [pool]
    while below:
        reading = read_by(graph, below.pop())
        if reading.leaves and graph.may_be_inlined:
            arithmetic.append(CALLER)
        for reader in reading.nodes:
            op = graph.op_name(reader)
            if words.may_fold(op) and not words.passes_on(op):
                arithmetic.append(op or "a tuple or a binding")
            if may_begin_with_cast(op, words.producers):
                casts.append(op)
            if words.passes_on(op) or (op in DROPPED and is_dropped(graph.view(reader))):
                below.append(reader)
    return tuple(arithmetic), tuple(casts)


def _absorbers(graph: Graph[Node], top: Node, pool: Node, words: Vocabulary) -> tuple[str, ...]:
    """The layer above, and the pool's readers, that a factor may be folded into or through."""
    if not words.absorbers:
        return ()
    readers = [graph.op_name(node) for node in read_by(graph, pool).nodes]
    layers = [op for op in (graph.op_name(top), *readers) if op in words.absorbers]
    return (*layers, *(op for op in readers if op in words.activations))
