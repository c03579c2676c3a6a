"""Rebuild a Relay function with chains of ops moved below the pools that read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import relay

from tvm_passes.relay.nodes import Graph, key, with_children


@dataclass(frozen=True)
class Sink:
    """A pool and the calls that move below it, nearest the pool first, with data indices."""

    pool: relay.Call
    chain: tuple[relay.Call, ...]
    data: tuple[int, ...]


def sink(func: relay.Function, graph: Graph, sinks: Sequence[Sink]) -> relay.Function:
    """Move every chain of `sinks` below its pool; nodes that do not depend on one are kept.

    Attributes, type arguments and spans of the moved calls are kept as they are.

    Parameters
    ----------
    func, graph
        A function, and the nodes of its body.
    sinks
        What moves; each call is in one of them at most.
    """
    if not sinks:
        return func
    by_pool = {key(item.pool): item for item in sinks}
    moved = {key(call) for item in sinks for call in item.chain}
    new: dict[int, relay.Expr] = {}
    for expr, read in graph:
        node = key(expr)
        if node in by_pool:
            new[node] = _sunk(by_pool[node], new)
        elif node not in moved and any(key(child) in new for child in read):
            new[node] = with_children(expr, [new.get(key(child), child) for child in read])
    return relay.function.FunctionWithFields(func, None, new.get(key(func.body), func.body))


def _sunk(item: Sink, new: dict[int, relay.Expr]) -> relay.Expr:
    root = item.chain[-1].args[item.data[len(item.chain) - 1]]
    expr = relay.expr.CallWithFields(item.pool, None, [new.get(key(root), root)])
    for call, data in zip(
        reversed(item.chain), reversed(item.data[: len(item.chain)]), strict=True
    ):
        args = [new.get(key(arg), arg) for arg in call.args]
        args[data] = expr
        expr = relay.expr.CallWithFields(call, None, args)
    return expr
