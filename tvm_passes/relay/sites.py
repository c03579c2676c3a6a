"""Find the pooling sites of a Relay function and describe them for the core."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
from tvm_passes.relay.nodes import children, key, post_order
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
    """What surrounds a pool: its function, and how often that reads each node.

    ``consumers`` and ``outputs`` hold nodes by their addresses.
    """

    function: str
    words: Vocabulary
    consumers: Counter[int]
    outputs: frozenset[int]


def find_sites(
    func: relay.Function, name: str, rules: Sequence[Rule] = RULES
) -> tuple[FoundSite, ...]:
    """Describe every pool of a typed Relay function and the chain above it.

    Parameters
    ----------
    func
        A function on which ``InferType`` has run.
    name
        The function's name, for remarks.
    rules
        The table of activations.
    """
    words = vocabulary(rules, RELAY)
    nodes = post_order(func.body)
    pools = [node for node in nodes if _op_name(node) in words.pools]
    if not pools:
        return ()
    scope = Scope(
        function=name,
        words=words,
        consumers=Counter(key(child) for node in nodes for child in children(node)),
        outputs=frozenset(key(expr) for expr in _outputs(func.body)),
    )
    return tuple(_find_site(pool, n, scope) for n, pool in enumerate(pools))


def _find_site(pool: relay.Call, index: int, scope: Scope) -> FoundSite:
    chain: list[relay.Call] = []
    described: list[ElementwiseOp] = []
    data: list[int] = []
    expr = pool.args[0]
    while (match := scope.words.activations.get(_op_name(expr))) is not None:
        call = _view(expr)
        data.append(data_index(call, match[1]))
        op = replace(
            describe_op(call, *match, data[-1]),
            consumers=scope.consumers[key(expr)],
            is_output=key(expr) in scope.outputs,
        )
        chain.append(expr)
        described.append(op)
        if op.is_output or op.consumers != 1:
            break
        expr = expr.args[data[-1]]
    site = Site(
        function=scope.function,
        index=index,
        pool=describe_pool(_view(pool), scope.words.pools[_op_name(pool)]),
        chain=tuple(described),
        producer=_producer(expr, scope.words),
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


def _view(call: relay.Call) -> CallView:
    return CallView(
        op=_op_name(call),
        attrs=call.attrs,
        args=tuple(_argument(arg) for arg in call.args),
        shape=_shape(call.checked_type),
        dtype=str(call.checked_type.dtype),
    )


def _argument(expr: relay.Expr) -> Argument:
    if not isinstance(expr.checked_type, relay.TensorType):
        return None
    value = expr.data.numpy() if isinstance(expr, relay.Constant) else None
    return Operand(_shape(expr.checked_type), value)


def _shape(ty: relay.TensorType) -> Shape:
    return tuple(int(n) if isinstance(n, tvm.tir.IntImm) else None for n in ty.shape)


def _producer(expr: relay.Expr, words: Vocabulary) -> Producer:
    if isinstance(expr, relay.Var | relay.Constant):
        return PARAMETER
    name = _op_name(expr)
    if name not in words.producers:
        return Producer(name or type(expr).__name__, rounded=False, reads_activation=True)
    return describe_producer(_view(expr), words.producers[name])


def _location(call: relay.Call) -> str:
    span = call.span
    return str(span.source_name.name) if isinstance(span, relay.Span) else ""
