"""Find the pooling sites of a Relax dataflow block and describe them for the core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import tvm
from tvm import relax

from tvm_passes.describe import (
    PARAMETER,
    Argument,
    CallView,
    Vocabulary,
    data_index,
    describe_op,
    describe_pool,
    describe_producer,
)
from tvm_passes.site import ElementwiseOp, Operand, Producer, Shape, Site


@dataclass(frozen=True)
class FoundSite:
    """A site and the bindings behind it.

    ``chain`` holds the bindings nearest the pool first, ``data`` the index of the argument
    through which the chain goes on, for each of them.
    """

    site: Site
    pool: relax.VarBinding
    chain: tuple[relax.VarBinding, ...]
    data: tuple[int, ...]


@dataclass(frozen=True)
class Scope:
    """What surrounds a pool: its function, and the bindings that may make up its chain.

    ``definitions`` finds the binding of a variable, and ``parameters`` the function's arguments,
    by the variable's address.
    """

    function: str
    words: Vocabulary
    definitions: Mapping[int, relax.VarBinding]
    parameters: frozenset[int]
    users: tvm.ir.Map


def find_sites(
    block: relax.DataflowBlock,
    function: str,
    parameters: frozenset[int],
    words: Vocabulary,
    first: int = 0,
) -> tuple[FoundSite, ...]:
    """Describe every pool of a dataflow block and the chain above it.

    Parameters
    ----------
    block
        A block of a normalized function.
    function, parameters
        The function's name, for remarks, and the addresses of its parameters.
    words
        The op names of Relax.
    first
        Number of pools in the function's earlier blocks.
    """
    bindings = [b for b in block.bindings if isinstance(b, relax.VarBinding)]
    pools = [binding for binding in bindings if op_name(binding) in words.pools]
    if not pools:
        return ()
    definitions = {hash(binding.var): binding for binding in bindings}
    scope = Scope(function, words, definitions, parameters, relax.analysis.udchain(block))
    return tuple(_find_site(pool, first + n, scope) for n, pool in enumerate(pools))


def _find_site(pool: relax.VarBinding, index: int, scope: Scope) -> FoundSite:
    chain: list[relax.VarBinding] = []
    described: list[ElementwiseOp] = []
    data: list[int] = []
    var = pool.value.args[0]
    while (binding := scope.definitions.get(hash(var))) is not None:
        match = scope.words.activations.get(op_name(binding))
        if match is None:
            break
        call = _view(binding)
        data.append(data_index(call, match[1]))
        op = describe_op(call, *match, data[-1])
        is_output = not isinstance(binding.var, relax.DataflowVar)
        op = replace(op, consumers=len(scope.users[binding.var]), is_output=is_output)
        chain.append(binding)
        described.append(op)
        if is_output or op.consumers != 1:
            break
        var = binding.value.args[data[-1]]
    site = Site(
        function=scope.function,
        index=index,
        pool=describe_pool(_view(pool), scope.words.pools[op_name(pool)]),
        chain=tuple(described),
        producer=_producer(var, scope),
        location=_location(pool),
    )
    return FoundSite(site, pool, tuple(chain), tuple(data))


def op_name(binding: relax.VarBinding) -> str:
    """The name of the op that a binding calls, or an empty string."""
    value = binding.value
    if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.Op):
        return str(value.op.name)
    return ""


def _view(binding: relax.VarBinding) -> CallView:
    call, ty = binding.value, binding.var.ty
    return CallView(
        op=op_name(binding),
        attrs=call.attrs,
        args=tuple(_argument(arg) for arg in call.args),
        shape=_shape(ty),
        dtype=str(ty.dtype),
    )


def _argument(expr: relax.Expr) -> Argument:
    if isinstance(expr, tvm.tirx.IntImm | tvm.tirx.FloatImm):
        return expr.value
    if not isinstance(expr.ty, relax.TensorType):
        return None
    value = expr.value.numpy() if isinstance(expr, tvm.ir.GenericConst) else None
    return Operand(_shape(expr.ty), value)


def _shape(ty: relax.TensorType) -> Shape:
    """Extents of a tensor; an unknown shape of known rank has all of them unknown."""
    if not isinstance(ty.shape, relax.ShapeExpr):
        return (None,) * max(int(ty.ndim), 0)
    return tuple(int(n) if isinstance(n, tvm.tirx.IntImm) else None for n in ty.shape.values)


def _producer(var: relax.Expr, scope: Scope) -> Producer:
    if isinstance(var, tvm.ir.GenericConst) or hash(var) in scope.parameters:
        return PARAMETER
    binding = scope.definitions.get(hash(var))
    if binding is None:
        return Producer("a value of another block", rounded=False, reads_activation=False)
    name = op_name(binding)
    if name not in scope.words.producers:
        return Producer(name or type(binding.value).__name__, rounded=False, reads_activation=True)
    return describe_producer(_view(binding), scope.words.producers[name])


def _location(binding: relax.VarBinding) -> str:
    span = binding.value.span or binding.span
    return str(span.source_name.name) if isinstance(span, tvm.ir.Span) else ""
