"""One site of a Relay module as a module of its own, and what feeds it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import inf

import tvm
from tvm import relay

from tvm_passes.chain import Link, Plan, Role
from tvm_passes.relay.nodes import key
from tvm_passes.relay.reorder import plans
from tvm_passes.rules import RULES, Rule


def site_module(
    mod: tvm.IRModule, name: str, rules: Sequence[Rule] = RULES, allow: Collection[str] = ()
) -> tvm.IRModule:
    """The pool of a site and the ops that sink below it, in their original order.

    Parameters
    ----------
    mod
        The module that the site is in.
    name
        Name of a site where something sinks, as in `tvm_passes.site.Site.name`.
    rules, allow
        As for the pass.

    Returns
    -------
    tvm.IRModule
        Its ``main`` takes what the topmost of these ops reads, then every operand that is not a
        constant.

    Raises
    ------
    KeyError
        If nothing sinks at a site of that name.
    """
    return relay.transform.InferType()(_alone(_passed(mod, rules, allow)[name]))


def windows_module(
    mod: tvm.IRModule, name: str, rules: Sequence[Rule] = RULES, allow: Collection[str] = ()
) -> tvm.IRModule:
    """A module that tells which windows of a site something goes into that is not finite.

    Parameters
    ----------
    mod, name, rules, allow
        As for `site_module`.

    Returns
    -------
    tvm.IRModule
        Its ``main`` takes what that of `site_module` takes and returns float32 in the shape of the
        pool's result: an infinity where a window holds an infinity or a NaN, or what an op makes
        one of; elsewhere finite numbers.
    """
    return relay.transform.InferType()(_alone(_passed(mod, rules, allow)[name], windows=True))


def feeding_module(
    mod: tvm.IRModule,
    names: Sequence[str],
    rules: Sequence[Rule] = RULES,
    allow: Collection[str] = (),
) -> tuple[tuple[str, ...], tvm.IRModule]:
    """What the sites read, computed from the model's inputs.

    Parameters
    ----------
    mod, rules, allow
        As for `site_module`.
    names
        Names of sites where something sinks.

    Returns
    -------
    names
        Those of the sites that read nothing but what the inputs of ``main`` lead to, not the
        variable of a ``let`` or the argument of another function.
    module
        Its ``main`` returns what `site_module` takes, of each of these sites in turn; it takes
        those of the model's inputs that this needs, under their names.
    """
    arguments = {str(param.name_hint) for param in mod["main"].params}
    passed = _passed(mod, rules, allow)
    reads = {name: _reads(passed[name]) for name in names if name.startswith("main/")}
    fed = {
        name: exprs
        for name, exprs in reads.items()
        if {str(var.name_hint) for var in relay.analysis.free_vars(relay.Tuple(exprs))} <= arguments
    }
    body = relay.Tuple([expr for exprs in fed.values() for expr in exprs])
    func = relay.Function(relay.analysis.free_vars(body), body)
    return tuple(fed), relay.transform.InferType()(tvm.IRModule.from_expr(func))


def _passed(
    mod: tvm.IRModule, rules: Sequence[Rule], allow: Collection[str]
) -> dict[str, Plan[relay.Expr]]:
    return {
        item.decision.site.name: item for item in plans(mod, rules, allow) if item.decision.passed
    }


def _reads(item: Plan[relay.Expr]) -> list[relay.Expr]:
    """What the topmost op that sinks reads, then the operands that are not constants."""
    operands = {
        key(arg): arg
        for link in _calls(item)
        if link.entry is None
        for index, arg in enumerate(link.node.args)
        if index != link.data and not isinstance(arg, relay.Constant)
    }
    return [item.sunk[-1].above, *operands.values()]


def _calls(item: Plan[relay.Expr]) -> list[Link[relay.Expr]]:
    """The calls from the topmost op that sinks down to the pool, dropout left out."""
    return [link for link in reversed(item.path) if link.role is not Role.IDENTITY]


def _alone(item: Plan[relay.Expr], *, windows: bool = False) -> tvm.IRModule:
    reads = _reads(item)
    # Not p0 and so on: the graph executor calls its own constants that.
    params = [relay.Var(f"read{n}", expr.checked_type) for n, expr in enumerate(reads)]
    operands = {key(expr): param for expr, param in zip(reads[1:], params[1:], strict=True)}
    minimum = item.decision.site.pool.minimum
    worst, either = (-inf, relay.minimum) if minimum else (inf, relay.maximum)
    body: relay.Expr = params[0]
    marks = _not_finite(body, reads[0].checked_type.dtype, worst)
    for link in _calls(item):
        known = operands if link.entry is None else operands | {key(link.entry): body}
        for node in (*link.inner, link.node):
            args = [known.get(key(arg), arg) for arg in node.args]
            if link.entry is None:
                args[link.data] = body
            done = relay.Call(node.op, args, node.attrs)
            known = known | {key(node): done}
        body = done
        if link.role is Role.OP:
            dtype = link.node.checked_type.dtype
            marks = either(marks, _not_finite(body, dtype, worst))
        else:
            args[link.data] = marks
            marks = relay.Call(node.op, args, node.attrs)
    data = marks if windows else body
    body = relay.Call(item.pool.op, [data], item.pool.attrs)
    return tvm.IRModule.from_expr(relay.Function(params, body))


def _not_finite(value: relay.Expr, dtype: str, worst: float) -> relay.Expr:
    """`worst` where a value is infinite or NaN, else 0."""
    if "float" not in dtype:
        return relay.cast(relay.zeros_like(value), "float32")
    finite = relay.less(relay.abs(value), relay.const(inf, dtype))
    return relay.where(finite, relay.const(0.0, "float32"), relay.const(worst, "float32"))
