"""Relay: kernels of layers whose result leaves blocks of channels write it as it leaves.

One kernel computes ``unpack(layer(x, w))``: it takes a row out of blocks while that is in L1.
"""

from __future__ import annotations

from collections import Counter

from tvm import relay

from tvm_passes.relay.kernels import KERNEL, Kernels, is_kernel
from tvm_passes.relay.nodes import key, nodes_of, with_children
from tvm_passes.schedules.rules import may_store_plain


def store_plain(body: relay.Expr, kernels: Kernels) -> relay.Expr:
    """The expression with one kernel for each layer that another alone reads, to unblock it."""
    nodes = nodes_of(body)
    readers = Counter(key(child) for _, read in nodes for child in read)
    new: dict[int, relay.Expr] = {}
    for expr, read in nodes:
        if _is_call(expr) and len(expr.args) == 1 and _merges(expr.args[0], expr, readers):
            (layer,) = expr.args
            args = [new.get(key(arg), arg) for arg in layer.args]
            new[key(expr)] = kernels.call_both(layer.op, expr.op, args)
            continue
        found = [new.get(key(child), child) for child in read]
        if not all(a.same_as(b) for a, b in zip(found, read, strict=True)):
            new[key(expr)] = with_children(expr, found)
    return new.get(key(body), body)


def _is_call(expr: relay.Expr) -> bool:
    return isinstance(expr, relay.Call) and is_kernel(expr.op)


def _merges(layer: relay.Expr, reader: relay.Call, readers: Counter[int]) -> bool:
    if not _is_call(layer) or readers[key(layer)] != 1:
        return False
    return may_store_plain(layer.op.attrs[KERNEL], reader.op.attrs[KERNEL])
