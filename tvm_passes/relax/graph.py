"""A Relax dataflow block as the graph that `tvm_passes.plan` reads; its nodes are variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import tvm
from tvm import relax

from tvm_passes.describe import PARAMETER, Argument, CallView, Vocabulary
from tvm_passes.rules import Movement
from tvm_passes.site import Operand, Producer, Shape


@dataclass(frozen=True)
class RelaxGraph:
    """A dataflow block of a normalized function.

    Parameters
    ----------
    definitions
        The op name and the binding of each variable of the block, by its address.
    words
        The op names of Relax.
    parameters
        Addresses of the function's arguments.
    users
        The variables bound to what reads each variable.
    casts
        The variables that each variable is matched and cast to, by its address; `users` lacks
        them.
    """

    definitions: Mapping[int, tuple[str, relax.VarBinding]]
    words: Vocabulary
    parameters: frozenset[int]
    users: tvm.ir.Map
    casts: Mapping[int, list[relax.Var]]
    _shapes: dict[int, Shape] = field(default_factory=dict)
    _tensors: dict[int, tuple[Shape, str]] = field(default_factory=dict)
    _args: dict[int, tuple[relax.Expr, ...]] = field(default_factory=dict)

    def pools(self) -> Sequence[relax.Var]:
        """The variables bound to pools, in the order in which they are computed."""
        return [b.var for name, b in self.definitions.values() if name in self.words.pools]

    def key(self, node: relax.Expr) -> int:
        """What identifies a node."""
        return hash(node)

    def op_name(self, node: relax.Expr) -> str:
        """The op that a variable is bound to a call of, or an empty string."""
        definition = self.definitions.get(hash(node))
        return definition[0] if definition else ""

    def view(self, node: relax.Var) -> CallView:
        """The call as plain values."""
        name, binding = self.definitions[hash(node)]
        args = tuple(map(self._argument, self._args_of(node)))
        return CallView(name, binding.value.attrs, args, *self._tensor(node))

    def argument(self, node: relax.Var, index: int) -> relax.Expr:
        """An argument of the call."""
        return self._args_of(node)[index]

    def _args_of(self, node: relax.Var) -> tuple[relax.Expr, ...]:
        """The call's arguments: TVM's own arrays are slow to read."""
        found = self._args.get(hash(node))
        if found is None:
            found = self._args[hash(node)] = tuple(self.definitions[hash(node)][1].value.args)
        return found

    def consumers(self, node: relax.Expr) -> int:
        """How many bindings of the block read this variable."""
        return len(self.users.get(node, ())) + len(self.casts.get(hash(node), ()))

    def readers(self, node: relax.Expr) -> Sequence[relax.Var]:
        """The variables of the block that are bound to what reads this one."""
        return [*self.users.get(node, ()), *self.casts.get(hash(node), ())]

    def is_output(self, node: relax.Expr) -> bool:
        """Whether the value leaves the block by itself."""
        return not isinstance(node, relax.DataflowVar)

    def is_result(self, reader: relax.Var, node: relax.Var) -> bool:  # noqa: ARG002
        """Whether `reader` is a tuple that the block gives out."""
        definition = self.definitions.get(hash(reader))
        return definition is not None and (
            isinstance(definition[1].value, relax.Tuple) and self.is_output(reader)
        )

    def fields(self, node: relax.Expr) -> Sequence[relax.Expr] | None:
        """The fields of a variable bound to a tuple, or None."""
        value = self._value(node)
        return list(value.fields) if isinstance(value, relax.Tuple) else None

    def item(self, node: relax.Expr) -> tuple[relax.Expr, int] | None:
        """The tuple that a variable is bound to an item of, and its index, or None."""
        value = self._value(node)
        if not isinstance(value, relax.TupleGetItem):
            return None
        return value.tuple_value, int(value.index)

    def _value(self, node: relax.Expr) -> relax.Expr | None:
        definition = self.definitions.get(hash(node))
        return definition[1].value if definition and not definition[0] else None

    def source(self, node: relax.Expr) -> Producer:
        """Describe a node that calls no op that the vocabulary knows."""
        if self._is_stored(node):
            return PARAMETER
        definition = self.definitions.get(hash(node))
        if definition is None:
            return Producer("a value of another block", rounded=False, reads_activation=False)
        name, binding = definition
        return Producer(name or type(binding.value).__name__, rounded=False, reads_activation=True)

    def location(self, node: relax.Var) -> str:
        """Source location, or an empty string."""
        binding = self.definitions[hash(node)][1]
        span = binding.value.span or binding.span
        return str(span.source_name.name) if isinstance(span, tvm.ir.Span) else ""

    def _argument(self, expr: relax.Expr) -> Argument:
        if isinstance(expr, tvm.tirx.IntImm | tvm.tirx.FloatImm):
            return expr.value
        ty = expr.ty
        if not isinstance(ty, relax.TensorType):
            return None
        shape, dtype = self._tensor(expr)
        return Operand(shape, self._constant(expr, shape), self._is_stored(expr), dtype)

    def _constant(self, expr: relax.Expr, shape: Shape) -> np.ndarray | None:
        """The values of a constant, perhaps reshaped."""
        while self.words.moves.get(self.op_name(expr)) is Movement.RESHAPE:
            expr = self.argument(expr, 0)
        if not isinstance(expr, tvm.ir.GenericConst) or None in shape:
            return None
        return expr.value.numpy().reshape(shape)

    def _is_stored(self, expr: relax.Expr) -> bool:
        """Whether the value is a constant or an argument, perhaps moved about."""
        while self.op_name(expr) in self.words.moves:
            expr = self.argument(expr, 0)
        return isinstance(expr, tvm.ir.GenericConst) or hash(expr) in self.parameters

    def _tensor(self, expr: relax.Expr) -> tuple[Shape, str]:
        """Extents and element type of a tensor."""
        known = self._tensors.get(hash(expr))
        if known is None:
            ty = expr.ty
            known = self._tensors[hash(expr)] = self._shape(ty), str(ty.dtype)
        return known

    def _shape(self, ty: relax.TensorType) -> Shape:
        """Extents; all unknown where only the rank is.  The ops of a chain share one shape."""
        shape = ty.shape
        if not isinstance(shape, relax.ShapeExpr):
            return (None,) * max(int(ty.ndim), 0)
        known = self._shapes.get(hash(shape))
        if known is None:
            known = tuple(int(n) if isinstance(n, tvm.tirx.IntImm) else None for n in shape.values)
            self._shapes[hash(shape)] = known
        return known


def graph_of(
    block: relax.DataflowBlock, parameters: frozenset[int], words: Vocabulary
) -> RelaxGraph:
    """The graph of a dataflow block in a function whose arguments have these addresses."""
    bindings = list(block.bindings)
    definitions = {
        hash(binding.var): (_op_name(binding), binding)
        for binding in bindings
        if isinstance(binding, relax.VarBinding)
    }
    casts: dict[int, list[relax.Var]] = {}
    for binding in bindings:
        if isinstance(binding, relax.MatchCast):
            for used in relax.analysis.used_vars(binding.value):
                casts.setdefault(hash(used), []).append(binding.var)
    return RelaxGraph(definitions, words, parameters, relax.analysis.udchain(block), casts)


def _op_name(binding: relax.VarBinding) -> str:
    value = binding.value
    if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.Op):
        return str(value.op.name)
    return ""
