"""One site of a Relax module as a module of its own, and what feeds it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import inf

import tvm
from tvm import relax
from tvm.relax import op

from tvm_passes.chain import Link, Plan, Role
from tvm_passes.relax.graph import RelaxGraph
from tvm_passes.relax.reorder import plans
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
    return _alone(_passed(mod, rules, allow)[name])


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
    return _alone(_passed(mod, rules, allow)[name], windows=True)


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
        Those of the sites that read nothing but what a block of ``main`` computes, not one of a
        branch or of another function.
    module
        Its ``main`` returns what `site_module` takes, of each of these sites in turn; it takes
        those of the model's inputs that this needs, under their names.
    """
    main = mod["main"]
    passed = _passed(mod, rules, allow)
    fed: list[str] = []
    blocks: list[relax.BindingBlock] = []
    results: list[relax.Var] = []
    for block in main.body.blocks:
        bound = {hash(binding.var) for binding in block.bindings}
        here = [name for name in names if hash(passed[name].plan.pool) in bound]
        reads = [expr for name in here for expr in passed[name].reads()]
        copies = [relax.VarBinding(relax.Var("read", expr.ty), expr) for expr in reads]
        blocks.append(type(block)([*block.bindings, *copies]))
        fed += here
        results += [binding.var for binding in copies]
    body = relax.SeqExpr(blocks, relax.Tuple(results))
    result = relax.TupleType([var.ty for var in results])
    func = relax.Function(main.params, body, result, main.is_pure, main.attrs)
    fed_module = tvm.IRModule(dict(mod.functions.items()), attrs=mod.attrs)
    fed_module.update_func(mod.get_global_var("main"), func)
    return tuple(fed), relax.transform.Normalize()(fed_module)


@dataclass(frozen=True)
class _Passed:
    """A site where something sinks, with the graph that it is in."""

    graph: RelaxGraph
    plan: Plan[relax.Var]

    def call(self, var: relax.Var) -> relax.Call:
        return self.graph.definitions[hash(var)].value

    def links(self) -> list[Link[relax.Var]]:
        """From the topmost op that sinks down to the pool, dropout left out."""
        return [link for link in reversed(self.plan.path) if link.role is not Role.IDENTITY]

    def reads(self) -> list[relax.Expr]:
        """What the topmost op that sinks reads, then the operands that are not constants."""
        operands = {
            hash(arg): arg
            for link in self.links()
            if link.entry is None
            for index, arg in enumerate(self.call(link.node).args)
            if index != link.data and isinstance(arg, relax.Var)
        }
        return [self.plan.sunk[-1].above, *operands.values()]


def _passed(mod: tvm.IRModule, rules: Sequence[Rule], allow: Collection[str]) -> dict[str, _Passed]:
    return {
        item.decision.site.name: _Passed(graph, item)
        for graph, items in plans(mod, rules, allow)
        for item in items
        if item.decision.passed
    }


def _alone(site: _Passed, *, windows: bool = False) -> tvm.IRModule:
    reads = site.reads()
    params = [relax.Var(f"read{n}", expr.ty) for n, expr in enumerate(reads)]
    operands = {hash(expr): param for expr, param in zip(reads[1:], params[1:], strict=True)}
    minimum = site.plan.decision.site.pool.minimum
    worst, either = (-inf, op.minimum) if minimum else (inf, op.maximum)
    builder = relax.BlockBuilder()
    with builder.function("main", params):
        with builder.dataflow():
            value: relax.Expr = params[0]
            marks = _not_finite(value, worst)
            for link in site.links():
                known = operands if link.entry is None else operands | {hash(link.entry): value}
                for node in (*link.inner, link.node):
                    call = site.call(node)
                    args = [known.get(hash(arg), arg) for arg in call.args]
                    if link.entry is None:
                        args[link.data] = value
                    done = builder.emit(relax.Call(call.op, args, call.attrs, call.ty_args))
                    known = known | {hash(node): done}
                value = done
                if link.role is Role.OP:
                    marks = either(marks, _not_finite(value, worst))
                else:
                    args[link.data] = marks
                    marks = relax.Call(call.op, args, call.attrs, call.ty_args)
            pool = site.call(site.plan.pool)
            data = builder.emit(marks) if windows else value
            result = builder.emit_output(relax.Call(pool.op, [data], pool.attrs, pool.ty_args))
        builder.emit_func_output(result)
    return builder.finalize()


def _not_finite(value: relax.Expr, worst: float) -> relax.Expr:
    """`worst` where a value is infinite or NaN, else 0."""
    dtype = str(value.ty.dtype)
    if "float" not in dtype:
        return op.full_like(value, relax.const(0.0, "float32"), "float32")
    finite = op.less(op.abs(value), relax.const(inf, dtype))
    return op.where(finite, relax.const(0.0, "float32"), relax.const(worst, "float32"))
