"""Find a function's sites and decide on each: once for both dialects.

An adapter shows a function as a `tvm_passes.graph.Graph`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic

from tvm_passes.below import Below, Kernels, Surroundings
from tvm_passes.chain import Chain, Plan, climb
from tvm_passes.collector import collector_paused
from tvm_passes.decision import Decision, decide, decide_together
from tvm_passes.decline import Ends
from tvm_passes.describe import Vocabulary, describe_producer, resolve
from tvm_passes.elementwise import Descriptions
from tvm_passes.graph import Graph, Node
from tvm_passes.neighbours import heeds_readers, may_vanish_op
from tvm_passes.readers import Readers, reached, read_by, value_of
from tvm_passes.site import BINDING, ElementwiseOp, Producer, Site
from tvm_passes.twins import Twins, apart

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
    name = function() if pools else ""
    told, surroundings = Descriptions(words), Surroundings(graph, words)
    twins = Twins(graph, words, told)
    planner = _Planner(graph, words, name, indices, told, surroundings, twins)
    for node in pools:
        twins.note(node)
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
    told, surroundings, twins, plans
        Descriptions of calls, what is below values, which pools read one value, and plans by the
        pool's key, so far.
    decided
        Decisions by all that they depend on, so that sites that look alike share one.
    """

    graph: Graph[Node]
    words: Vocabulary
    function: str
    indices: Mapping[int, int]
    told: Descriptions
    surroundings: Surroundings[Node]
    twins: Twins[Node]
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
        plans = [
            Plan(pool, decision, tuple(chain.links))
            for pool, chain, decision in zip(together, chains, decisions, strict=True)
        ]
        for item in plans if all(map(self.twins.stay_apart, plans)) else map(apart, plans):
            self.plans[self.graph.key(item.pool)] = item
            self.twins.note_plan(item)

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
        below = (site.arithmetic_below, site.unknown_below, site.casts_below, site.absorbers)
        kernels = (site.sums_below, site.products_below, site.told_below)
        others = (site.small_below, site.joined_below)
        alike = (id(site.pool), site.producer, below, kernels, others, ops)
        if alike not in self.decided:
            resolved = replace(site, chain=resolve(chain.ops, site.pool))
            decision = decide(resolved, self.words.allow)
            self.decided[alike] = decision, chain.ops
            return decision
        decision, _ = self.decided[alike]
        return replace(decision, site=replace(site, chain=decision.site.chain))

    def _site(self, node: Node, chain: Chain[Node]) -> Site:
        site = self._bare_site(node, chain)
        return replace(site, chain=resolve(chain.ops, site.pool))

    def _bare_site(self, node: Node, chain: Chain[Node]) -> Site:
        """The site of a pool, without its chain."""
        graph, producer = self.graph, self._producer(chain.top)
        below = self.surroundings.below(node) if self._may_meet(chain) else Below()
        kernels = self.surroundings.kernels(node) if chain.ops else Kernels()
        layer = self._layer(chain.top, producer)
        return Site(
            function=self.function,
            index=self.indices[graph.key(node)],
            pool=self.told.pool(graph.view(node)),
            chain=(),
            producer=producer,
            arithmetic_below=below.arithmetic,
            unknown_below=below.unknown,
            casts_below=below.casts,
            absorbers=(*layer, *below.absorbers),
            sums_below=kernels.sums,
            products_below=kernels.products,
            told_below=kernels.told,
            small_below=kernels.small,
            joined_below=kernels.joined,
            unstored=self.words.unstored,
            location=graph.location(node),
            in_dataflow=graph.in_dataflow,
        )

    def _may_meet(self, chain: Chain[Node]) -> bool:
        """Whether it matters to any op of a chain, by any of its rows, what is below the pool."""
        return self._has_factor(chain) or any(map(heeds_readers, _lowest(chain)))

    def _has_factor(self, chain: Chain[Node]) -> bool:
        ops = (op for rows in chain.ops for op in rows)
        return bool(self.words.absorbers) and any(op.rule.is_scale for op in ops)

    def _layer(self, top: Node, producer: Producer) -> tuple[str, ...]:
        """The layer above a chain that a factor may be folded into, or what may be one."""
        layers, op = self.words.absorbers, self.graph.op_name(top)
        if op in layers:
            return (op,)
        return (BINDING,) if layers and not op and not producer.rounded else ()

    def _producer(self, node: Node) -> Producer:
        name = self.graph.op_name(node)
        if name in self.words.pools:
            # An average ends in a product, which sums below it are contracted with.
            is_rounded = self.words.pools[name].selects
            return Producer(name, rounded=is_rounded, reads_activation=False)
        if name in self.words.producers:
            return describe_producer(self.graph.view(node), self.words.producers[name])
        stays = name in self.words.stays
        return replace(self.graph.source(node), stays=True) if stays else self.graph.source(node)


def _lowest(chain: Chain[Node]) -> Iterator[ElementwiseOp]:
    """The ops, by each of their rows, that may come to be the lowest, once some are dropped."""
    for rows in chain.ops:
        yield from rows
        if not any(op.rule.is_sign or may_vanish_op(op) for op in rows):
            return


def _meets_a_pool(graph: Graph[Node], node: Node, words: Vocabulary) -> bool:
    """Whether a pool follows, with nothing in between but what chains are made of."""

    def may_link(reader: Node) -> bool:
        return words.may_link(graph.op_name(reader)) or graph.item(reader) is not None

    return any(graph.op_name(each) in words.pools for each in reached(graph, [node], may_link))


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
