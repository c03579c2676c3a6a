"""Rebuild a Relax dataflow block with chains of ops moved below the pools that read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tvm
from tvm import relax

from tvm_passes.plan import Sink

SQUEEZE = tvm.ir.Op.get("relax.squeeze")


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

    Every one of these values has the pool's type, since the ops of a chain keep shape and dtype;
    or that of a pool that keeps its axes, which are squeezed last.
    """
    pool, ty = definitions[hash(item.pool)], item.pool.ty
    value = _on(pool.value, 0, item.root, ty)
    if item.squeezed:
        value = _keeping_axes(value, item.squeezed)
        ty = value.ty
    bindings: list[relax.VarBinding] = []
    for link in reversed(item.links):
        # The values above the last take the names of the links, whose variables are gone.
        old = definitions[hash(link.node)]
        var = relax.DataflowVar(old.var.name, ty, old.var.span)
        bindings.append(relax.VarBinding(var, value, old.span))
        value = _on(old.value, link.data, var, ty)
    if item.squeezed:
        var = relax.DataflowVar(pool.var.name, ty, pool.var.span)
        bindings.append(relax.VarBinding(var, value, pool.span))
        attrs = tvm.ir.make_node("relax.attrs.SqueezeAttrs", axis=list(item.squeezed))
        value = relax.Call(SQUEEZE, [var], attrs, [], pool.value.span, item.pool.ty)
    return [*bindings, relax.VarBinding(pool.var, value, pool.span)]


def _keeping_axes(reduction: relax.Call, axes: Sequence[int]) -> relax.Call:
    """The reduction with extents of 1 where it dropped axes."""
    (data,), old = reduction.args, reduction.attrs
    shape = [1 if axis in axes else extent for axis, extent in enumerate(data.ty.shape.values)]
    ty = relax.TensorType(shape, data.ty.dtype, data.ty.vdevice)
    attrs = tvm.ir.make_node("relax.attrs.StatisticalAttrs", axis=old.axis, keepdims=True)
    return relax.Call(reduction.op, [data], attrs, reduction.ty_args, reduction.span, ty)


def _on(call: relax.Call, data: int, value: relax.Expr, ty: relax.TensorType) -> relax.Call:
    """The same call with `value` as argument `data`, and of another type."""
    args = list(call.args)
    args[data] = value
    return relax.Call(call.op, args, call.attrs, call.ty_args, call.span, ty)
