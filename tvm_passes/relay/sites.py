"""Find the pooling sites of a Relay function and describe them for the core."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import tvm
from tvm import relay

from tvm_passes.describe import (
    PARAMETER,
    Argument,
    CallView,
    Vocabulary,
    data_index,
    describe_op,
    describe_pool,
    describe_producer,
    vocabulary,
)
from tvm_passes.relay.nodes import Graph, key
from tvm_passes.rules import RELAY, RULES, Rule
from tvm_passes.site import ElementwiseOp, Operand, Producer, Shape, Site


@dataclass(frozen=True)
class FoundSite:
    """A site and the nodes behind it.

    ``chain`` holds the calls nearest the pool first, ``data`` the index of the argument through
    which the chain goes on, for each of them.
    """

    site: Site
    pool: relay.Call
    chain: tuple[relay.Call, ...]
    data: tuple[int, ...]


@dataclass(frozen=True)
class Scope:
    """What surrounds a pool: its function, and how many of its nodes read each node.

    ``consumers`` and ``outputs`` hold nodes by their addresses.  ``shapes`` remembers the extents
    of each type met, by its address: the ops of a chain share one.
    """

    function: str
    words: Vocabulary
    consumers: Counter[int]
    outputs: frozenset[int]
    shapes: dict[int, tuple[Shape, str]] = field(default_factory=dict)


def find_sites(
    func: relay.Function, graph: Graph, name: str, rules: Sequence[Rule] = RULES
) -> tuple[FoundSite, ...]:
    """Describe every pool of a typed Relay function and the chain above it.

    Parameters
    ----------
    func, graph
        A function on which ``InferType`` has run, and the nodes of its body.
    name
        The function's name, for remarks.
    rules
        The table of activations.
    """
    words = vocabulary(rules, RELAY)
    pools = [node for node, _ in graph if _op_name(node) in words.pools]
    if not pools:
        return ()
    scope = Scope(
        function=name,
        words=words,
        consumers=Counter(node for _, read in graph for node in {key(child) for child in read}),
        outputs=frozenset(key(expr) for expr in _outputs(func.body)),
    )
    return tuple(_find_site(pool, n, scope) for n, pool in enumerate(pools))


def _find_site(pool: relay.Call, index: int, scope: Scope) -> FoundSite:
    chain: list[relay.Call] = []
    described: list[ElementwiseOp] = []
    data: list[int] = []
    expr = pool.args[0]
    while (match := scope.words.activations.get(name := _op_name(expr))) is not None:
        call = _view(name, expr, scope)
        data.append(data_index(call, match[1]))
        uses, is_output = scope.consumers[key(expr)], key(expr) in scope.outputs
        chain.append(expr)
        described.append(describe_op(call, *match, data[-1], uses, is_output))
        if is_output or uses != 1:
            break
        expr = expr.args[data[-1]]
    pool_name = _op_name(pool)
    site = Site(
        function=scope.function,
        index=index,
        pool=describe_pool(_view(pool_name, pool, scope), scope.words.pools[pool_name]),
        chain=tuple(described),
        producer=_producer(expr, scope),
        location=_location(pool),
    )
    return FoundSite(site, pool, tuple(chain), tuple(data))


def _outputs(body: relay.Expr) -> list[relay.Expr]:
    """The expressions that a function returns: its result, and that tuple's fields."""
    outputs, stack = [], [body]
    while stack:
        expr = stack.pop()
        outputs.append(expr)
        if isinstance(expr, relay.Let):
            stack.append(expr.body)
        elif isinstance(expr, relay.Tuple):
            stack.extend(expr.fields)
    return outputs


def _op_name(expr: relay.Expr) -> str:
    """The name of the op that a node calls, or an empty string."""
    if isinstance(expr, relay.Call) and isinstance(expr.op, tvm.ir.Op):
        return str(expr.op.name)
    return ""


def _view(name: str, call: relay.Call, scope: Scope) -> CallView:
    shape, dtype = _tensor(call.checked_type, scope)
    args = tuple(_argument(arg, scope) for arg in call.args)
    return CallView(name, call.attrs, args, shape, dtype)


def _argument(expr: relay.Expr, scope: Scope) -> Argument:
    ty = expr.checked_type
    if not isinstance(ty, relay.TensorType):
        return None
    value = expr.data.numpy() if isinstance(expr, relay.Constant) else None
    return Operand(_tensor(ty, scope)[0], value)


def _tensor(ty: relay.TensorType, scope: Scope) -> tuple[Shape, str]:
    """Extents and element type."""
    known = scope.shapes.get(ty.handle.value)
    if known is None:
        shape = tuple(int(n) if isinstance(n, tvm.tir.IntImm) else None for n in ty.shape)
        known = scope.shapes[ty.handle.value] = shape, str(ty.dtype)
    return known


def _producer(expr: relay.Expr, scope: Scope) -> Producer:
    if isinstance(expr, relay.Var | relay.Constant):
        return PARAMETER
    name = _op_name(expr)
    if name not in scope.words.producers:
        return Producer(name or type(expr).__name__, rounded=False, reads_activation=True)
    return describe_producer(_view(name, expr, scope), scope.words.producers[name])


def _location(call: relay.Call) -> str:
    span = call.span
    return str(span.source_name.name) if isinstance(span, relay.Span) else ""
