"""Rebuild a Relax dataflow block with chains of ops moved below the pools that read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import relax


@dataclass(frozen=True)
class Sink:
    """A pool's binding and those that move below it, nearest the pool first, with data indices."""

    pool: relax.VarBinding
    chain: tuple[relax.VarBinding, ...]
    data: tuple[int, ...]


def sink(block: relax.DataflowBlock, sinks: Sequence[Sink]) -> relax.DataflowBlock:
    """Move every chain of `sinks`, bindings of `block`, below its pool.

    The pool's variable is bound to the last op that moved: it has the type that it had, and
    nothing after the pool changes.
    """
    by_pool = {hash(item.pool.var): item for item in sinks}
    moved = {hash(binding.var) for item in sinks for binding in item.chain}
    bindings: list[relax.Binding] = []
    for binding in block.bindings:
        name = hash(binding.var)
        if name in by_pool:
            bindings.extend(_sunk(by_pool[name]))
        elif name not in moved:
            bindings.append(binding)
    return relax.DataflowBlock(bindings, block.span)


def _sunk(item: Sink) -> list[relax.VarBinding]:
    """The pool on what the chain read, then the chain, topmost op first, on the pool.

    Every one of these values has the pool's type, since the ops of a chain keep shape and dtype.
    """
    ty = item.pool.var.ty
    steps = list(zip(item.chain, item.data, strict=True))[::-1]
    value = _on(item.pool.value, 0, steps[0][0].value.args[steps[0][1]], ty)
    bindings: list[relax.VarBinding] = []
    for link, data in steps:
        # The values above the last take the names of the links, whose variables are gone.
        var = relax.DataflowVar(link.var.name, ty, link.var.span)
        bindings.append(relax.VarBinding(var, value, link.span))
        value = _on(link.value, data, var, ty)
    return [*bindings, relax.VarBinding(item.pool.var, value, item.pool.span)]


def _on(call: relax.Call, data: int, value: relax.Expr, ty: relax.TensorType) -> relax.Call:
    """The same call with `value` as argument `data`, and of another type."""
    args = list(call.args)
    args[data] = value
    return relax.Call(call.op, args, call.attrs, call.ty_args, call.span, ty)
