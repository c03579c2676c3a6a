"""Rebuild a Relay function with chains of ops moved below the pools that read them."""

from __future__ import annotations

from collections.abc import Sequence

import tvm
from tvm import relay

from tvm_passes.plan import Sink
from tvm_passes.relay.nodes import Nodes, key, with_children


def sink(func: relay.Function, nodes: Nodes, sinks: Sequence[Sink[relay.Expr]]) -> relay.Function:
    """Carry out `sinks`; nodes that depend on none of them are kept.

    Attributes, type arguments and spans of the moved calls are kept as they are.

    Parameters
    ----------
    func, nodes
        A function, and the nodes of its body.
    sinks
        What moves; each call is in one of them at most.
    """
    if not sinks:
        return func
    by_pool = {key(item.pool): item for item in sinks}
    moved = {key(link.node) for item in sinks for link in item.links}
    new: dict[int, relay.Expr] = {}
    for expr, read in nodes:
        node = key(expr)
        if node in by_pool:
            new[node] = _sunk(by_pool[node], new)
        elif node not in moved and any(key(child) in new for child in read):
            new[node] = with_children(expr, [new.get(key(child), child) for child in read])
    return relay.function.FunctionWithFields(func, None, new.get(key(func.body), func.body))


def _sunk(item: Sink[relay.Expr], new: dict[int, relay.Expr]) -> relay.Expr:
    root = new.get(key(item.root), item.root)
    expr = relay.expr.CallWithFields(item.pool, None, [root])
    if item.squeezed:
        expr = _keeping_axes(expr)
    for link in reversed(item.links):
        args = [new.get(key(arg), arg) for arg in link.node.args]
        args[link.data] = expr
        expr = relay.expr.CallWithFields(link.node, None, args)
    return relay.squeeze(expr, item.squeezed) if item.squeezed else expr


def _keeping_axes(reduction: relay.Call) -> relay.Call:
    """The reduction with extents of 1 where it dropped axes."""
    old = reduction.attrs
    attrs = tvm.ir.make_node(
        "relay.attrs.ReduceAttrs", axis=old.axis, keepdims=True, exclude=old.exclude
    )
    return relay.Call(reduction.op, reduction.args, attrs, reduction.type_args, reduction.span)
