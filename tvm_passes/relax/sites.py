"""Find the pooling sites of a Relax dataflow block and describe them for the core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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

    ``definitions`` finds the op name and the binding of a variable, and ``parameters`` the
    function's arguments, by the variable's address.  ``shapes`` remembers the extents of each
    shape met, by its address: the ops of a chain share one.
    """

    function: str
    words: Vocabulary
    definitions: Mapping[int, tuple[str, relax.VarBinding]]
    parameters: frozenset[int]
    users: tvm.ir.Map
    shapes: dict[int, Shape] = field(default_factory=dict)


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
    named = [(op_name(binding), binding) for binding in bindings]
    pools = [binding for name, binding in named if name in words.pools]
    if not pools:
        return ()
    definitions = {hash(binding.var): (name, binding) for name, binding in named}
    scope = Scope(function, words, definitions, parameters, relax.analysis.udchain(block))
    return tuple(_find_site(pool, first + n, scope) for n, pool in enumerate(pools))


def _find_site(pool: relax.VarBinding, index: int, scope: Scope) -> FoundSite:
    chain: list[relax.VarBinding] = []
    described: list[ElementwiseOp] = []
    data: list[int] = []
    var = pool.value.args[0]
    while (definition := scope.definitions.get(hash(var))) is not None:
        name, binding = definition
        match = scope.words.activations.get(name)
        if match is None:
            break
        call = _view(name, binding, scope)
        data.append(data_index(call, match[1]))
        uses = len(scope.users[binding.var])
        is_output = not isinstance(binding.var, relax.DataflowVar)
        chain.append(binding)
        described.append(describe_op(call, *match, data[-1], uses, is_output))
        if is_output or uses != 1:
            break
        var = binding.value.args[data[-1]]
    name = op_name(pool)
    site = Site(
        function=scope.function,
        index=index,
        pool=describe_pool(_view(name, pool, scope), scope.words.pools[name]),
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


def _view(name: str, binding: relax.VarBinding, scope: Scope) -> CallView:
    call, ty = binding.value, binding.var.ty
    return CallView(
        op=name,
        attrs=call.attrs,
        args=tuple(_argument(arg, scope) for arg in call.args),
        shape=_shape(ty, scope),
        dtype=str(ty.dtype),
    )


def _argument(expr: relax.Expr, scope: Scope) -> Argument:
    if isinstance(expr, tvm.tirx.IntImm | tvm.tirx.FloatImm):
        return expr.value
    ty = expr.ty
    if not isinstance(ty, relax.TensorType):
        return None
    value = expr.value.numpy() if isinstance(expr, tvm.ir.GenericConst) else None
    return Operand(_shape(ty, scope), value)


def _shape(ty: relax.TensorType, scope: Scope) -> Shape:
    """Extents of a tensor; an unknown shape of known rank has all of them unknown."""
    shape = ty.shape
    if not isinstance(shape, relax.ShapeExpr):
        return (None,) * max(int(ty.ndim), 0)
    known = scope.shapes.get(hash(shape))
    if known is None:
        known = tuple(int(n) if isinstance(n, tvm.tirx.IntImm) else None for n in shape.values)
        scope.shapes[hash(shape)] = known
    return known


def _producer(var: relax.Expr, scope: Scope) -> Producer:
    if isinstance(var, tvm.ir.GenericConst) or hash(var) in scope.parameters:
        return PARAMETER
    definition = scope.definitions.get(hash(var))
    if definition is None:
        return Producer("a value of another block", rounded=False, reads_activation=False)
    name, binding = definition
    if name not in scope.words.producers:
        return Producer(name or type(binding.value).__name__, rounded=False, reads_activation=True)
    return describe_producer(_view(name, binding, scope), scope.words.producers[name])


def _location(binding: relax.VarBinding) -> str:
    span = binding.value.span or binding.span
    return str(span.source_name.name) if isinstance(span, tvm.ir.Span) else ""
