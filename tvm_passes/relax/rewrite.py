"""Rebuild a Relax dataflow block with chains of ops moved below the pools that read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tvm import relax

from tvm_passes.plan import Sink


def sink(block: relax.DataflowBlock, sinks: Sequence[Sink[relax.Var]]) -> relax.DataflowBlock:
    """Carry out `sinks`.

    A pool's variable is bound to the last op that follows it: it has the type that it had, and
    nothing after the pool changes.
    """
    if not sinks:
        return block
    definitions = {hash(binding.var): binding for binding in block.bindings}
    by_pool = {hash(item.pool): item for item in sinks}
    moved = {hash(link.node) for item in sinks for link in item.links}
    bindings: list[relax.Binding] = []
    for name, binding in definitions.items():
        if name in by_pool:
            bindings.extend(_sunk(by_pool[name], definitions))
        elif name not in moved:
            bindings.append(binding)
    return relax.DataflowBlock(bindings, block.span)


def _sunk(
    item: Sink[relax.Var], definitions: Mapping[int, relax.VarBinding]
) -> list[relax.VarBinding]:
    """The pool on its root, then the chain, topmost op first.

    Every one of these values has the pool's type, since the ops of a chain keep shape and dtype.
    """
    pool, ty = definitions[hash(item.pool)], item.pool.ty
    value = _on(pool.value, 0, item.root, ty)
    bindings: list[relax.VarBinding] = []
    for link in reversed(item.links):
        # The values above the last take the names of the links, whose variables are gone.
        old = definitions[hash(link.node)]
        var = relax.DataflowVar(old.var.name, ty, old.var.span)
        bindings.append(relax.VarBinding(var, value, old.span))
        value = _on(old.value, link.data, var, ty)
    return [*bindings, relax.VarBinding(pool.var, value, pool.span)]


def _on(call: relax.Call, data: int, value: relax.Expr, ty: relax.TensorType) -> relax.Call:
    """The same call with `value` as argument `data`, and of another type."""
    args = list(call.args)
    args[data] = value
    return relax.Call(call.op, args, call.attrs, call.ty_args, call.span, ty)
