"""Reach the blocks of a Relax function, those of branches and local functions too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tvm import relax

OPAQUE_FUNCTION_ATTRS = ("Primitive", "Composite", "Codegen")
"""Attributes of functions whose bodies another pass has already fused or claimed."""

BlockMap = Callable[[relax.DataflowBlock], relax.DataflowBlock]


class Placed(NamedTuple):
    """A block, the function that it is in, and whether a branch of an If is around it there."""

    block: relax.BindingBlock
    func: relax.Function
    in_branch: bool


def binding_blocks(func: relax.Function) -> Iterator[Placed]:
    """The blocks below `func`, in program order; those of dataflow are `relax.DataflowBlock`."""
    stack: list[tuple[relax.Expr | relax.BindingBlock, relax.Function, bool]] = [
        (func, func, False)
    ]
    while stack:
        node, func, in_branch = stack.pop()
        if isinstance(node, relax.BindingBlock):
            yield Placed(node, func, in_branch)
        if isinstance(node, relax.Function):
            func, in_branch = node, False
        in_branch = in_branch or isinstance(node, relax.If)
        stack.extend((inside, func, in_branch) for inside in reversed(_inside(node)))


def _inside(node: relax.Expr | relax.BindingBlock) -> list[relax.Expr | relax.BindingBlock]:
    """What a node holds that may hold blocks."""
    if isinstance(node, relax.Function):
        return [] if is_opaque(node) else [node.body]
    if isinstance(node, relax.SeqExpr):
        return list(node.blocks)
    if isinstance(node, relax.If):
        return [node.true_branch, node.false_branch]
    if isinstance(node, relax.BindingBlock) and not isinstance(node, relax.DataflowBlock):
        return [binding.value for binding in node.bindings]
    return []


def map_dataflow_blocks(
    func: relax.Function, change: BlockMap, builder: relax.BlockBuilder
) -> relax.Function:
    """The function with `change` applied to each of its dataflow blocks.

    Nodes below which nothing changes are kept; `builder` infers the types of the others.
    """
    if is_opaque(func):
        return func
    body = _map(func.body, change, builder)
    if body.same_as(func.body):
        return func
    return relax.Function(func.params, body, func.ret_ty, func.is_pure, func.attrs, func.span)


def _map(expr: relax.Expr, change: BlockMap, builder: relax.BlockBuilder) -> relax.Expr:
    if isinstance(expr, relax.Function):
        return map_dataflow_blocks(expr, change, builder)
    if isinstance(expr, relax.If):
        old = [expr.true_branch, expr.false_branch]
        new = [_map(branch, change, builder) for branch in old]
        return expr if _same(new, old) else builder.normalize(relax.If(expr.cond, *new, expr.span))
    if isinstance(expr, relax.SeqExpr):
        old = list(expr.blocks)
        new = [_map_block(block, change, builder) for block in old]
        changed = not _same(new, old)
        return builder.normalize(relax.SeqExpr(new, expr.body, expr.span)) if changed else expr
    return expr


def _map_block(
    block: relax.BindingBlock, change: BlockMap, builder: relax.BlockBuilder
) -> relax.BindingBlock:
    if isinstance(block, relax.DataflowBlock):
        return change(block)
    old = list(block.bindings)
    new = [_map_binding(binding, change, builder) for binding in old]
    return block if _same(new, old) else relax.BindingBlock(new, block.span)


def _map_binding(
    binding: relax.Binding, change: BlockMap, builder: relax.BlockBuilder
) -> relax.Binding:
    if not isinstance(binding, relax.VarBinding):
        return binding
    value = _map(binding.value, change, builder)
    if value.same_as(binding.value):
        return binding
    return relax.VarBinding(binding.var, value, binding.span)


def only_reader(
    var: relax.Var, users: Any, bound: dict[int, relax.Binding]
) -> relax.VarBinding | None:
    """The binding that alone reads a variable, if the variable does not leave its block.

    Parameters
    ----------
    var
        The variable.
    users
        ``relax.analysis.udchain`` of the block.
    bound
        The block's bindings, by the hashes of their variables.
    """
    readers = list(users.get(var, ())) if isinstance(var, relax.DataflowVar) else []
    found = bound.get(hash(readers[0])) if len(readers) == 1 else None
    return found if isinstance(found, relax.VarBinding) else None


def _same(new: list[Any], old: list[Any]) -> bool:
    return all(a.same_as(b) for a, b in zip(new, old, strict=True))


def is_opaque(func: relax.Function) -> bool:
    """Whether the function's body belongs to an earlier pass, such as FuseOps or BYOC's."""
    return func.attrs is not None and any(name in func.attrs for name in OPAQUE_FUNCTION_ATTRS)
