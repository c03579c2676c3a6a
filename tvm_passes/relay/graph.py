"""A Relay function as the graph that `tvm_passes.plan` reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import tvm
from tvm import relay

from tvm_passes.describe import PARAMETER, Argument, CallView, Vocabulary
from tvm_passes.relay.nodes import Nodes, key, nodes_of
from tvm_passes.rules import Movement
from tvm_passes.site import Operand, Producer, Shape

LITERAL = frozenset({"float32", "float64"})
"""The element types of floats that FuseOps takes into a kernel's code."""


@dataclass(frozen=True)
class RelayGraph:
    """A typed Relay function.

    Parameters
    ----------
    nodes
        The nodes of its body.
    words
        The op names of Relay.
    reading
        The nodes that read each node, by its address.
    outputs, parameters
        Addresses of what the function returns, and of its arguments that are stored.
    may_be_joined
        Whether the function is marked for `relay.transform.Inline`: no argument is stored then.
    in_dataflow
        Whether nothing in it has effects: Relay's ops have none.
    """

    nodes: Nodes
    words: Vocabulary
    reading: Mapping[int, list[relay.Expr]]
    outputs: frozenset[int]
    parameters: frozenset[int]
    may_be_joined: bool = False
    in_dataflow: bool = True
    _types: dict[int, tuple[Shape, str]] = field(default_factory=dict)
    _views: dict[int, CallView] = field(default_factory=dict)
    _unsettled: dict[int, bool] = field(default_factory=dict)

    def pools(self) -> Sequence[relay.Call]:
        """The calls of pools, in the order in which they are computed."""
        return [node for node, _ in self.nodes if self.op_name(node) in self.words.pools]

    def key(self, node: relay.Expr) -> int:
        """What identifies a node."""
        return key(node)

    def op_name(self, node: relay.Expr) -> str:
        """The op that a node calls, or an empty string."""
        if isinstance(node, relay.Call) and isinstance(node.op, tvm.ir.Op):
            return str(node.op.name)
        return ""

    def view(self, node: relay.Call) -> CallView:
        """The call as plain values, read once."""
        known = self._views.get(key(node))
        if known is None:
            shape, dtype = self._tensor(node.checked_type)
            args = tuple(self._argument(arg) for arg in node.args)
            known = CallView(self.op_name(node), node.attrs, args, shape, dtype)
            self._views[key(node)] = known
        return known

    def argument(self, node: relay.Call, index: int) -> relay.Expr:
        """An argument of the call."""
        return node.args[index]

    def consumers(self, node: relay.Expr) -> int:
        """How many nodes read this one."""
        return len(self.reading.get(key(node), ()))

    def readers(self, node: relay.Expr) -> Sequence[relay.Expr]:
        """The nodes that read this one."""
        return self.reading.get(key(node), ())

    def reads(self, node: relay.Expr) -> Sequence[relay.Expr]:
        """What a call or a tuple reads."""
        if isinstance(node, relay.Tuple):
            return list(node.fields)
        return list(node.args) if isinstance(node, relay.Call) else ()

    def extents(self, node: relay.Expr) -> Shape | None:
        """The extents of a tensor; None for what is none."""
        ty = node.checked_type
        return self._tensor(ty)[0] if isinstance(ty, relay.TensorType) else None

    def is_output(self, node: relay.Expr) -> bool:
        """Whether the value leaves the function by itself."""
        return key(node) in self.outputs

    def leaves(self, node: relay.Expr) -> bool:
        """Whether the value leaves the function, by itself or in a tuple."""
        return self.is_output(node)

    def is_result(self, reader: relay.Expr, node: relay.Expr) -> bool:
        """Whether `reader` does nothing with `node` but return it from the function."""
        if isinstance(reader, relay.Let) and key(reader.value) == key(node):
            return False
        return isinstance(reader, relay.Tuple | relay.Let) and self.is_output(reader)

    def fields(self, node: relay.Expr) -> Sequence[relay.Expr] | None:
        """The fields of a tuple, or None."""
        return list(node.fields) if isinstance(node, relay.Tuple) else None

    def item(self, node: relay.Expr) -> tuple[relay.Expr, int] | None:
        """The tuple that a node takes an item out of, and its index, or None."""
        if not isinstance(node, relay.TupleGetItem):
            return None
        return node.tuple_value, int(node.index)

    def source(self, node: relay.Expr) -> Producer:
        """Describe a node that calls no op that the vocabulary knows."""
        if self.is_stored(node):
            return PARAMETER
        if isinstance(node, relay.Var):
            return Producer("a variable", rounded=False, reads_activation=False)
        if isinstance(node, relay.Call) and not self.op_name(node):
            return Producer("the result of a function", rounded=False, reads_activation=False)
        name = self.op_name(node) or type(node).__name__
        return Producer(name, rounded=False, reads_activation=True)

    def location(self, node: relay.Call) -> str:
        """Source location, or an empty string."""
        span = node.span
        return str(span.source_name.name) if isinstance(span, relay.Span) else ""

    def _argument(self, expr: relay.Expr) -> Argument:
        ty = expr.checked_type
        if not isinstance(ty, relay.TensorType):
            return None
        shape, dtype = self._tensor(ty)
        stored = self.is_stored(expr)
        unsettled = stored and not shape and self._is_unsettled(expr, dtype)
        return Operand(shape, self._constant(expr, shape), stored, dtype, unsettled)

    def _is_unsettled(self, expr: relay.Expr, dtype: str) -> bool:
        """Whether a number is one in a kernel's code or an argument of it, and that matters.

        FuseOps takes it into the kernel of what alone reads it; an argument of the function may
        be bound to a number, and a reshape of one, which copies would share, folded into one.
        What is inlined twice shares its numbers.
        """
        known = self._unsettled.get(key(expr))
        if known is None:
            reading = self.reading[key(expr)]
            copied = self.may_be_joined or not isinstance(expr, relay.Constant | relay.Var)
            alone = len(reading) == 1 and not copied
            known = not alone and dtype in LITERAL and any(self._divides(r, expr) for r in reading)
            self._unsettled[key(expr)] = known
        return known

    def _divides(self, reader: relay.Expr, number: relay.Expr) -> bool:
        index = self.words.literals.get(self.op_name(reader))
        return index is not None and key(reader.args[index]) == key(number)

    def _constant(self, expr: relay.Expr, shape: Shape) -> np.ndarray | None:
        """The values of a constant, perhaps reshaped."""
        while self.words.moves.get(self.op_name(expr)) is Movement.RESHAPE:
            expr = expr.args[0]
        if not isinstance(expr, relay.Constant) or None in shape:
            return None
        return expr.data.numpy().reshape(shape)

    def is_stored(self, expr: relay.Expr) -> bool:
        """Whether the value is a constant or an argument, perhaps moved about."""
        while self.op_name(expr) in self.words.moves:
            expr = expr.args[0]
        return isinstance(expr, relay.Constant) or key(expr) in self.parameters

    def _tensor(self, ty: relay.TensorType) -> tuple[Shape, str]:
        """Extents and element type; the ops of a chain share one type."""
        known = self._types.get(ty.handle.value)
        if known is None:
            shape = tuple(int(n) if isinstance(n, tvm.tir.IntImm) else None for n in ty.shape)
            known = self._types[ty.handle.value] = shape, str(ty.dtype)
        return known


def graph_of(func: relay.Function, words: Vocabulary) -> RelayGraph:
    """The graph of a function on which ``InferType`` has run."""
    nodes = nodes_of(func.body)
    reading: dict[int, list[relay.Expr]] = {}
    for node, read in nodes:
        for child in {key(child) for child in read}:
            reading.setdefault(child, []).append(node)
    outputs = frozenset(key(expr) for expr in _outputs(func.body))
    may_be_inlined = func.attrs is not None and "Inline" in func.attrs
    parameters = frozenset() if may_be_inlined else frozenset(map(key, func.params))
    return RelayGraph(nodes, words, reading, outputs, parameters, may_be_inlined)


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
