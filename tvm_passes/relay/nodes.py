"""Walk and copy Relay's expressions, each kind of node by one row of a table.

Every traversal keeps its own stack, so that no graph is too deep for Python's recursion limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import tvm
from tvm import relay

OPAQUE_FUNCTION_ATTRS = ("Primitive", "Composite", "Compiler")
"""Attributes of functions whose bodies another pass has already fused or claimed."""


@dataclass(frozen=True)
class Kind:
    """A kind of node: the fields it reads expressions from, and TVM's function to copy it with.

    TVM registers these functions in a way that leaves them positional arguments alone; `skipped`
    counts those that come before the fields.
    """

    copy: Callable[..., relay.Expr]
    fields: tuple[str, ...]
    skipped: int = 0


KINDS: Mapping[type, Kind] = {
    relay.TupleGetItem: Kind(relay.expr.TupleGetItemWithFields, ("tuple_value",)),
    relay.Let: Kind(relay.expr.LetWithFields, ("value", "body"), skipped=1),
    relay.If: Kind(relay.expr.IfWithFields, ("cond", "true_branch", "false_branch")),
    relay.Function: Kind(relay.function.FunctionWithFields, ("body",), skipped=1),
    relay.RefCreate: Kind(relay.expr.RefCreateWithFields, ("value",)),
    relay.RefRead: Kind(relay.expr.RefReadWithFields, ("ref",)),
    relay.RefWrite: Kind(relay.expr.RefWriteWithFields, ("ref", "value")),
}
"""The nodes of fixed arity; calls, tuples and matches have lists of children."""


def key(expr: relay.Expr) -> int:
    """The node's address: its identity for as long as something holds it."""
    return expr.handle.value


def is_opaque(func: relay.Function) -> bool:
    """Whether the function's body belongs to an earlier pass, such as FuseOps or BYOC's."""
    return func.attrs is not None and any(name in func.attrs for name in OPAQUE_FUNCTION_ATTRS)


def children(expr: relay.Expr) -> list[relay.Expr]:
    """The expressions that a node reads, in the order in which they are computed."""
    if isinstance(expr, relay.Call):
        callee = [] if isinstance(expr.op, tvm.ir.Op) else [expr.op]
        return callee + list(expr.args)
    if isinstance(expr, relay.Tuple):
        return list(expr.fields)
    if isinstance(expr, relay.Match):
        return [expr.data, *(clause.rhs for clause in expr.clauses)]
    if isinstance(expr, relay.Function) and is_opaque(expr):
        return []
    kind = KINDS.get(type(expr))
    return [getattr(expr, field) for field in kind.fields] if kind else []


def with_children(expr: relay.Expr, new: list[relay.Expr]) -> relay.Expr:
    """The node with other children, in the order of `children`; all other fields are kept."""
    if isinstance(expr, relay.Call):
        has_callee = len(new) > len(expr.args)
        callee = new[0] if has_callee else expr.op
        return relay.expr.CallWithFields(expr, callee, new[has_callee:])
    if isinstance(expr, relay.Tuple):
        return relay.expr.TupleWithFields(expr, new)
    if isinstance(expr, relay.Match):
        clauses = [
            relay.Clause(clause.lhs, rhs) for clause, rhs in zip(expr.clauses, new[1:], strict=True)
        ]
        return relay.Match(new[0], clauses, expr.complete)
    kind = KINDS[type(expr)]
    return kind.copy(expr, *[None] * kind.skipped, *new)


Nodes = list[tuple[relay.Expr, list[relay.Expr]]]
"""Nodes with their children, each node once, operands before the nodes that read them."""


def nodes_of(root: relay.Expr) -> Nodes:
    """The nodes below `root`."""
    nodes: Nodes = []
    seen: set[int] = set()
    stack: list[tuple[relay.Expr, list[relay.Expr] | None]] = [(root, None)]
    while stack:
        expr, read = stack.pop()
        if read is not None:
            nodes.append((expr, read))
        elif key(expr) not in seen:
            seen.add(key(expr))
            read = children(expr)
            stack.append((expr, read))
            stack.extend((child, None) for child in reversed(read))
    return nodes
