"""Rebuild a Relax dataflow block with chains of ops moved below the pools that read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import tvm
from tvm import relax

from tvm_passes.decline import Ends
from tvm_passes.plan import Sink, Step

MAXIMUM = tvm.ir.Op.get("relax.maximum")
NEGATIVE = tvm.ir.Op.get("relax.negative")
RESHAPE = tvm.ir.Op.get("relax.reshape")
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
    moved = {hash(node) for item in sinks for node in (*item.moves, *item.gone)}
    moved |= {hash(node) for item in sinks for step in item.steps for node in step.nodes}
    bindings: list[relax.Binding] = []
    for name, binding in definitions.items():
        if name in by_pool:
            bindings.extend(_Rewrite(by_pool[name], definitions).bindings())
        elif name not in moved:
            bindings.append(binding)
    return relax.DataflowBlock(bindings, block.span)


@dataclass(frozen=True)
class _Rewrite:
    """What replaces the binding of a pool.

    Every value below the pool has its shape, since the ops of a chain keep it, or that of a pool
    that keeps its axes, which are squeezed last; the element type is that of the op's old result.
    """

    item: Sink[relax.Var]
    definitions: Mapping[int, relax.VarBinding]
    found: list[relax.VarBinding] = field(default_factory=list)

    def bindings(self) -> list[relax.VarBinding]:
        """The moves, the pool on what they give, then the chain, topmost op first."""
        item, found = self.item, self.found
        pool, value = self.definitions[hash(item.pool)], item.root
        for move in reversed(item.moves):
            old = self.definitions[hash(move)]
            var = relax.DataflowVar(old.var.name, _of_dtype(old.var.ty, value.ty), old.var.span)
            found.append(relax.VarBinding(var, _on(old.value, 0, value, var.ty), old.span))
            value = var
        if item.ends is Ends.BOTH:
            value = self._join(value)
            value = self._steps(value, item.steps[: item.joined])
        else:
            value = self._steps(self._end(value, item.ends), item.steps)
        if item.squeezed:
            var = self._bind(pool.var, value, pool.span)
            attrs = tvm.ir.make_node("relax.attrs.SqueezeAttrs", axis=list(item.squeezed))
            value = relax.Call(SQUEEZE, [var], attrs, [], pool.value.span, item.pool.ty)
        return [*found, relax.VarBinding(pool.var, value, pool.span)]

    def _end(self, data: relax.Expr, end: Ends) -> relax.Call:
        """The pool of the data, or the opposite pool."""
        item, pool = self.item, self.definitions[hash(self.item.pool)]
        call, is_negated = pool.value, end is Ends.OTHER and not item.opposite
        if is_negated:
            negative = relax.Call(NEGATIVE, [data], None, [], pool.value.span, data.ty)
            data = self._bind(pool.var, negative, pool.span)
        elif end is Ends.OTHER:
            op = tvm.ir.Op.get(item.opposite)
            call = relax.Call(op, call.args, call.attrs, call.ty_args, call.span, call.ty)
        value = _on(call, 0, data, _of_dtype(item.pool.ty, data.ty))
        if item.squeezed:
            value = _keeping_axes(value, item.squeezed)
        if is_negated:
            var = self._bind(pool.var, value, pool.span)
            value = relax.Call(NEGATIVE, [var], None, [], pool.value.span, var.ty)
        return value

    def _join(self, data: relax.Expr) -> relax.Call:
        """The larger of what the steps give of both ends of each window."""
        item, pool = self.item, self.definitions[hash(self.item.pool)]
        results = []
        for end in (Ends.SAME, Ends.OTHER):
            value = self._steps(self._end(data, end), item.steps[item.joined :])
            results.append(self._bind(pool.var, value, pool.span))
        return relax.Call(MAXIMUM, results, None, [], pool.value.span, results[0].ty)

    def _steps(self, value: relax.Call, steps: Sequence[Step[relax.Var]]) -> relax.Call:
        """The value, and what the steps, nearest the pool first, make of it."""
        for step in reversed(steps):
            # The values above the last take the names of the ops, whose variables are gone.
            old = self.definitions[hash(step.node)]
            var = self._bind(old.var, value, old.span)
            if step.entry is not None:
                value = self._several(step, var)
                continue
            operands = self._operands(step, old)
            self.found.extend(operands.values())
            call = _with(old.value, {n: binding.var for n, binding in operands.items()}, step.attrs)
            value = _on(call, step.data, var, _of_dtype(value.ty, old.var.ty))
        return value

    def _several(self, step: Step[relax.Var], data: relax.Var) -> relax.Call:
        """What a function that several ops spell makes of the data."""
        values: dict[int, relax.Expr] = {hash(step.entry): data}
        for node in step.nodes:
            old = self.definitions[hash(node)]
            args = [values.get(hash(arg), arg) for arg in old.value.args]
            ty = _of_dtype(data.ty, old.var.ty)
            call = old.value
            call = relax.Call(call.op, args, call.attrs, call.ty_args, call.span, ty)
            if hash(node) != hash(step.node):
                values[hash(node)] = self._bind(old.var, call, old.span)
        return call

    def _bind(self, like: relax.Var, value: relax.Call, span: tvm.ir.Span) -> relax.DataflowVar:
        """Bind a value to a variable with the name and the place of another."""
        var = relax.DataflowVar(like.name, value.ty, like.span)
        self.found.append(relax.VarBinding(var, value, span))
        return var

    def _operands(
        self, step: Step[relax.Var], old: relax.VarBinding
    ) -> dict[int, relax.VarBinding]:
        """Bindings of the operands that are reshaped, by index of the argument."""
        found = {}
        for index, shape in step.reshaped.items():
            arg = old.value.args[index]
            ty = relax.TensorType(shape, arg.ty.dtype, arg.ty.vdevice)
            call = relax.Call(RESHAPE, [arg, relax.ShapeExpr(shape)], None, [], old.span, ty)
            found[index] = relax.VarBinding(relax.DataflowVar("operand", ty), call)
        return found


def _of_dtype(shape: relax.TensorType, dtype: relax.TensorType) -> relax.TensorType:
    """The first type with the element type of the second."""
    if shape.dtype == dtype.dtype:
        return shape
    return relax.TensorType(shape.shape, dtype.dtype, shape.vdevice)


def _with(
    call: relax.Call, values: Mapping[int, relax.Expr], changed: Mapping[str, int]
) -> relax.Call:
    """The call with other arguments and attributes."""
    if not values and not changed:
        return call
    args = [values.get(index, arg) for index, arg in enumerate(call.args)]
    attrs = call.attrs
    if changed:
        info = type(attrs).__tvm_ffi_type_info__
        fields = {field.name: getattr(attrs, field.name) for field in info.fields}
        attrs = tvm.ir.make_node(info.type_key, **(fields | dict(changed)))
    return relax.Call(call.op, args, attrs, call.ty_args, call.span, call.ty)


def _on(call: relax.Call, data: int, value: relax.Expr, ty: relax.TensorType) -> relax.Call:
    """The same call with `value` as argument `data`, and of another type."""
    args = list(call.args)
    args[data] = value
    return relax.Call(call.op, args, call.attrs, call.ty_args, call.span, ty)


def _keeping_axes(reduction: relax.Call, axes: Sequence[int]) -> relax.Call:
    """The reduction with extents of 1 where it dropped axes."""
    (data,), old = reduction.args, reduction.attrs
    shape = [1 if axis in axes else extent for axis, extent in enumerate(data.ty.shape.values)]
    ty = relax.TensorType(shape, data.ty.dtype, data.ty.vdevice)
    attrs = tvm.ir.make_node("relax.attrs.StatisticalAttrs", axis=old.axis, keepdims=True)
    return relax.Call(reduction.op, [data], attrs, reduction.ty_args, reduction.span, ty)
