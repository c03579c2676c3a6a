"""Rebuild a Relax dataflow block with chains of ops moved below the pools that read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import tvm
from tvm import relax
from tvm_ffi import structural_equal

from tvm_passes.decline import Ends
from tvm_passes.relax.graph import Definition, RelaxGraph
from tvm_passes.relax.nodes import bind, call_like, dataflow_var
from tvm_passes.sinking import Sink, Step
from tvm_passes.site import Shape

MAXIMUM = tvm.ir.Op.get("relax.maximum")
NEGATIVE = tvm.ir.Op.get("relax.negative")
RESHAPE = tvm.ir.Op.get("relax.reshape")
SQUEEZE = tvm.ir.Op.get("relax.squeeze")


def sink(
    block: relax.DataflowBlock, graph: RelaxGraph, sinks: Sequence[Sink[relax.Var]]
) -> relax.DataflowBlock:
    """Carry out `sinks` in a block and its graph.

    A pool's variable is bound to the last op that follows it: it has the type that it had, and
    nothing after the pool changes.  Where what changes the element type sank below a later pool,
    too, that pool alone reads it, perhaps out of a tuple, and variables down to it change type.
    """
    if not sinks:
        return block
    by_pool = {hash(item.pool): item for item in sinks}
    moved = {hash(node) for item in sinks for node in (*item.moves, *item.gone)}
    moved |= {hash(node) for item in sinks for step in item.steps for node in step.nodes}
    bindings: list[relax.Binding] = []
    retyped: dict[int, relax.Var] = {}
    for name, binding in graph.bindings.items():
        if name in by_pool:
            item = by_pool[name]
            root = retyped.get(hash(item.root), item.root)
            bindings.extend(_Rewrite(item, root, graph.definitions).bindings())
        elif name not in moved:
            bindings.append(_substituted(binding, retyped))
        else:
            continue
        if not bindings[-1].var.same_as(binding.var):
            retyped[name] = bindings[-1].var
    return relax.DataflowBlock(bindings, block.span)


def _substituted(binding: relax.Binding, retyped: Mapping[int, relax.Var]) -> relax.Binding:
    """The binding with the variables that changed their type, if it reads any.

    Its own changes where it is such a tuple, or is taken out of one.  No match_cast reads any: what
    one reads is not lent to a later pool.
    """
    reads = relax.analysis.free_vars(binding.value) if retyped else []
    if not any(hash(var) in retyped for var in reads):
        return binding
    value = relax.BlockBuilder().normalize(_Substitution(retyped).visit_expr(binding.value))
    same = structural_equal(value.ty, binding.value.ty)
    return bind(binding.var if same else dataflow_var(binding.var, value.ty), value, binding.span)


@relax.expr_functor.mutator
class _Substitution(relax.expr_functor.PyExprMutator):
    """Puts variables in the place of others."""

    def __init__(self, by: Mapping[int, relax.Var]) -> None:
        super().__init__()
        self.by = by

    def visit_var_(self, var: relax.Var) -> relax.Expr:
        return self.by.get(hash(var), var)

    visit_dataflow_var_ = visit_var_


@dataclass(frozen=True)
class _Rewrite:
    """What replaces the binding of a pool.

    Every value below the pool has its shape, since the ops of a chain keep it, or that of a pool
    that keeps its axes, which are squeezed last; the element type is that of the op's old result.
    """

    item: Sink[relax.Var]
    root: relax.Var
    definitions: Mapping[int, Definition]
    found: list[relax.VarBinding] = field(default_factory=list)

    def bindings(self) -> list[relax.VarBinding]:
        """The moves, the pool on what they give, then the chain, topmost op first."""
        item, found = self.item, self.found
        pool, value = self.definitions[hash(item.pool)], self.root
        for move in reversed(item.moves):
            old = self.definitions[hash(move)]
            var = dataflow_var(move, _of_dtype(move.ty, value.ty))
            found.append(bind(var, _on(old, 0, value, var.ty), old.binding.span))
            value = var
        if item.ends is Ends.BOTH:
            value = self._join(value)
            value = self._steps(value, item.steps[: item.joined])
        else:
            value = self._steps(self._end(value, item.ends), item.steps)
        span = pool.binding.span
        if item.squeezed:
            var = self._bind(item.pool, value, span)
            attrs = tvm.ir.make_node("relax.attrs.SqueezeAttrs", axis=list(item.squeezed))
            ty = _of_dtype(item.pool.ty, var.ty)
            value = relax.Call(SQUEEZE, [var], attrs, [], pool.value.span, ty)
        same = value.ty.dtype == item.pool.ty.dtype
        var = item.pool if same else dataflow_var(item.pool, value.ty)
        return [*found, bind(var, value, span)]

    def _end(self, data: relax.Expr, end: Ends) -> relax.Call:
        """The pool of the data, or the opposite pool."""
        item, pool = self.item, self.definitions[hash(self.item.pool)]
        span, call_span = pool.binding.span, pool.value.span
        is_negated = end is Ends.OTHER and not item.opposite
        if is_negated:
            negative = relax.Call(NEGATIVE, [data], None, [], call_span, data.ty)
            data = self._bind(item.pool, negative, span)
        value = _on(pool, 0, data, _of_dtype(item.pool.ty, data.ty))
        if end is Ends.OTHER and item.opposite:
            op = tvm.ir.Op.get(item.opposite)
            value = relax.Call(op, value.args, value.attrs, value.ty_args, call_span, value.ty)
        if item.squeezed:
            value = _keeping_axes(value, item.squeezed)
        if is_negated:
            var = self._bind(item.pool, value, span)
            value = relax.Call(NEGATIVE, [var], None, [], call_span, var.ty)
        return value

    def _join(self, data: relax.Expr) -> relax.Call:
        """The larger of what the steps give of both ends of each window."""
        item, pool = self.item, self.definitions[hash(self.item.pool)]
        results = []
        for end in (Ends.SAME, Ends.OTHER):
            value = self._steps(self._end(data, end), item.steps[item.joined :])
            results.append(self._bind(item.pool, value, pool.binding.span))
        return relax.Call(MAXIMUM, results, None, [], pool.value.span, results[0].ty)

    def _steps(self, value: relax.Call, steps: Sequence[Step[relax.Var]]) -> relax.Call:
        """The value, and what the steps, nearest the pool first, make of it."""
        ty = value.ty
        for step in reversed(steps):
            # The values above the last take the names of the ops, whose variables are gone.
            old = self.definitions[hash(step.node)]
            var = self._bind(step.node, value, old.binding.span, ty)
            ty = _of_dtype(ty, step.node.ty)
            if step.entry is not None:
                value = self._several(step, var)
            elif step.reshaped or step.attrs:
                value = self._respelled(step, old, var, ty)
            else:
                value = _on(old, step.data, var, ty)
        return value

    def _respelled(
        self, step: Step[relax.Var], old: Definition, data: relax.Var, ty: relax.TensorType
    ) -> relax.Call:
        """The step's call with operands and attributes for what the pool reads."""
        args = list(old.args)
        for index, shape in step.reshaped.items():
            operand = _reshaped(args[index], shape, old.binding.span)
            self.found.append(operand)
            args[index] = operand.var
        args[step.data] = data
        return call_like(old.value, args, ty, _with(old.value.attrs, step.attrs))

    def _several(self, step: Step[relax.Var], data: relax.Var) -> relax.Call:
        """What a function that several ops spell makes of the data."""
        values: dict[int, relax.Expr] = {hash(step.entry): data}
        for node in step.nodes:
            old = self.definitions[hash(node)]
            args = [values.get(hash(arg), arg) for arg in old.args]
            call = call_like(old.value, args, _of_dtype(data.ty, node.ty))
            if hash(node) != hash(step.node):
                values[hash(node)] = self._bind(node, call, old.binding.span)
        return call

    def _bind(
        self,
        like: relax.Var,
        value: relax.Call,
        span: tvm.ir.Span | None,
        ty: relax.TensorType | None = None,
    ) -> relax.DataflowVar:
        """Bind a value, of a type if that is at hand, to a variable like another."""
        var = dataflow_var(like, ty or value.ty)
        self.found.append(bind(var, value, span))
        return var


def _reshaped(operand: relax.Expr, shape: Shape, span: tvm.ir.Span | None) -> relax.VarBinding:
    """The binding of an operand, reshaped."""
    ty = relax.TensorType(shape, operand.ty.dtype, operand.ty.vdevice)
    call = relax.Call(RESHAPE, [operand, relax.ShapeExpr(shape)], None, [], span, ty)
    return relax.VarBinding(relax.DataflowVar("operand", ty), call)


UNKNOWN_RANK = -1
"""What TensorType takes where the shape says it."""


def _of_dtype(shape: relax.TensorType, dtype: relax.TensorType) -> relax.TensorType:
    """The first type with the element type of the second."""
    if shape.dtype.same_as(dtype.dtype) or shape.dtype == dtype.dtype:
        return shape
    rank = shape.ndim if shape.shape is None else UNKNOWN_RANK
    return relax.TensorType(shape.shape, dtype.dtype, shape.vdevice, rank)


def _with(attrs: tvm.ir.Attrs, changed: Mapping[str, int]) -> tvm.ir.Attrs:
    """The attributes with other values."""
    if not changed:
        return attrs
    info = type(attrs).__tvm_ffi_type_info__
    fields = {field.name: getattr(attrs, field.name) for field in info.fields}
    return tvm.ir.make_node(info.type_key, **(fields | dict(changed)))


def _on(old: Definition, data: int, value: relax.Expr, ty: relax.TensorType) -> relax.Call:
    """The same call with `value` as argument `data`, and of another type."""
    args = list(old.args)
    args[data] = value
    return call_like(old.value, args, ty)


def _keeping_axes(reduction: relax.Call, axes: Sequence[int]) -> relax.Call:
    """The reduction with extents of 1 where it dropped axes."""
    (data,), old = reduction.args, reduction.attrs
    shape = [1 if axis in axes else extent for axis, extent in enumerate(data.ty.shape.values)]
    ty = relax.TensorType(shape, data.ty.dtype, data.ty.vdevice)
    attrs = tvm.ir.make_node("relax.attrs.StatisticalAttrs", axis=old.axis, keepdims=True)
    return relax.Call(reduction.op, [data], attrs, reduction.ty_args, reduction.span, ty)
