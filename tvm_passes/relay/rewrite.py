"""Rebuild a Relay function with chains of ops moved below the pools that read them."""

from __future__ import annotations

from collections.abc import Sequence

import tvm
from tvm import relay

from tvm_passes.decline import Ends
from tvm_passes.relay.convolution import shape_of
from tvm_passes.relay.nodes import Nodes, key, with_children
from tvm_passes.sinking import Sink, Step


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
    moved = {key(node) for item in sinks for node in (*item.moves, *item.gone)}
    moved |= {key(node) for item in sinks for step in item.steps for node in step.nodes}
    new: dict[int, relay.Expr] = {}
    for expr, read in nodes:
        node = key(expr)
        if node in by_pool:
            new[node] = _sunk(by_pool[node], new)
        elif node not in moved and any(key(child) in new for child in read):
            new[node] = with_children(expr, [new.get(key(child), child) for child in read])
    return relay.function.FunctionWithFields(func, None, new.get(key(func.body), func.body))


def _sunk(item: Sink[relay.Expr], new: dict[int, relay.Expr]) -> relay.Expr:
    expr = new.get(key(item.root), item.root)
    for move in reversed(item.moves):
        expr = relay.expr.CallWithFields(move, None, [expr, *move.args[1:]])
    if item.ends is Ends.BOTH:
        above = item.steps[item.joined :]
        ends = [_steps(_end(item, expr, end), above, new) for end in (Ends.SAME, Ends.OTHER)]
        expr = _steps(relay.maximum(*ends), item.steps[: item.joined], new)
    else:
        expr = _steps(_end(item, expr, item.ends), item.steps, new)
    return _dropping_axes(expr, item) if item.squeezed else expr


def _dropping_axes(expr: relay.Expr, item: Sink[relay.Expr]) -> relay.Expr:
    """The value without the axes that the pool drops.

    Where all extents are known it is a reshape: AlterOpLayout fails on a squeezed channel axis.
    """
    shape = shape_of(item.pool)
    return relay.squeeze(expr, item.squeezed) if shape is None else relay.reshape(expr, shape)


def _end(item: Sink[relay.Expr], data: relay.Expr, end: Ends) -> relay.Expr:
    """The pool of the data, or the opposite pool."""
    op, is_negated = item.pool.op, end is Ends.OTHER and not item.opposite
    if end is Ends.OTHER and item.opposite:
        op = tvm.ir.Op.get(item.opposite)
    args = [relay.negative(data) if is_negated else data]
    expr = relay.expr.CallWithFields(item.pool, op, args)
    if item.squeezed:
        expr = _keeping_axes(expr)
    return relay.negative(expr) if is_negated else expr


def _steps(
    expr: relay.Expr, steps: Sequence[Step[relay.Expr]], new: dict[int, relay.Expr]
) -> relay.Expr:
    """The value, and what the steps, nearest the pool first, make of it."""
    for step in reversed(steps):
        if step.entry is not None:
            expr = _several(step, expr)
            continue
        args = [_own(new.get(key(arg), arg)) for arg in step.node.args]
        for index, shape in step.reshaped.items():
            args[index] = relay.reshape(args[index], shape)
        args[step.data] = expr
        expr = relay.expr.CallWithFields(step.node, None, args, _attrs(step))
    return expr


def _several(step: Step[relay.Expr], data: relay.Expr) -> relay.Expr:
    """What a function that several ops spell makes of the data."""
    values = {key(step.entry): data}
    for node in step.nodes:
        args = [_own(values.get(key(arg), arg)) for arg in node.args]
        values[key(node)] = relay.expr.CallWithFields(node, None, args)
    return values[key(step.node)]


def _own(arg: relay.Expr) -> relay.Expr:
    """A number that no other op reads, and that is therefore one in the kernel's code."""
    if isinstance(arg, relay.Constant) and not arg.data.shape:
        return relay.Constant(arg.data, arg.span)
    return arg


def _attrs(step: Step[relay.Expr]) -> tvm.ir.Attrs | None:
    """The call's attributes with the step's, or None where nothing changes."""
    old = step.node.attrs
    if not step.attrs:
        return None
    fields = {str(name): getattr(old, name) for name in old.keys()} | dict(step.attrs)  # noqa: SIM118
    return tvm.ir.make_node(f"relay.attrs.{type(old).__name__}", **fields)


def _keeping_axes(reduction: relay.Call) -> relay.Call:
    """The reduction with extents of 1 where it dropped axes."""
    old = reduction.attrs
    attrs = tvm.ir.make_node(
        "relay.attrs.ReduceAttrs", axis=old.axis, keepdims=True, exclude=old.exclude
    )
    return relay.Call(reduction.op, reduction.args, attrs, reduction.type_args, reduction.span)
