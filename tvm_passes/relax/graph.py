"""A Relax block as the graph that `tvm_passes.plan` reads; its nodes are variables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import tvm
import tvm_ffi
from tvm import relax

from tvm_passes.describe import PARAMETER, Argument, CallView, Vocabulary
from tvm_passes.relax.blocks import Placed, binding_blocks
from tvm_passes.relax.nodes import address, items
from tvm_passes.rules import Movement
from tvm_passes.site import Operand, Producer, Shape

IN_PLACE = frozenset({"relax.call_tir_inplace", "relax.call_inplace_packed"})
"""Ops that write over what they read, and count as pure."""

VARIABLES = frozenset({relax.Var, relax.DataflowVar})

Tensor = tuple[Shape, str]
"""Extents and element type."""


class Definition(NamedTuple):
    """What a variable is bound to.

    Parameters
    ----------
    op
        Name of the op that `value` calls, or an empty string.
    binding, value
        The binding, and its value.
    args
        The arguments of a call, read once: TVM's own arrays are slow.
    """

    op: str
    binding: relax.VarBinding
    value: relax.Expr
    args: Sequence[relax.Expr]


@dataclass
class _Interned:
    """What is alike and exists once: what was found out about it once holds for all that has it."""

    attrs: dict[tvm_ffi.StructuralKey, tvm.ir.Attrs] = field(default_factory=dict)
    shapes: dict[int, Shape] = field(default_factory=dict)
    dtypes: dict[int, str] = field(default_factory=dict)
    tensors: dict[Tensor, Tensor] = field(default_factory=dict)
    operands: dict[tuple[int, bool], Operand] = field(default_factory=dict)
    views: dict[tuple[Any, ...], CallView] = field(default_factory=dict)


@dataclass(frozen=True)
class RelaxGraph:
    """A block of a normalized function.

    Parameters
    ----------
    bindings
        The block's bindings, by the addresses of their variables, in order.
    definitions
        What each variable is bound to, by its address; one that is matched and cast is not there.
    words
        The op names of Relax.
    parameters
        Addresses of the function's arguments that are stored.
    users
        The variables bound to what reads each variable, by its address.
    leaving
        Addresses of the variables that the block gives out under another name or in a tuple.
    may_be_joined
        Whether the function is private, and `InlinePrivateFunctions` may come, or other blocks of
        it read a value of this one.
    in_dataflow
        Whether it is a dataflow block, and nothing in the function writes over what it reads.
    """

    bindings: Mapping[int, relax.Binding]
    definitions: Mapping[int, Definition]
    words: Vocabulary
    parameters: frozenset[int]
    users: Mapping[int, list[relax.Var]]
    leaving: frozenset[int] = frozenset()
    may_be_joined: bool = False
    in_dataflow: bool = True
    _interned: _Interned = field(default_factory=_Interned)
    _tensors: dict[int, Tensor] = field(default_factory=dict)
    _arguments: dict[int, Argument] = field(default_factory=dict)

    def pools(self) -> Sequence[relax.Var]:
        """The variables bound to pools, in the order in which they are computed."""
        return [d.binding.var for d in self.definitions.values() if d.op in self.words.pools]

    def key(self, node: relax.Expr) -> int:
        """What identifies a node."""
        return hash(node)

    def op_name(self, node: relax.Expr) -> str:
        """The op that a variable is bound to a call of, or an empty string."""
        definition = self.definitions.get(hash(node))
        return definition.op if definition else ""

    def view(self, node: relax.Var) -> CallView:
        """The call as plain values; of calls that look alike the same object."""
        name, _, call, read = self.definitions[hash(node)]
        attrs = call.attrs
        if attrs is not None:
            attrs = self._interned.attrs.setdefault(tvm_ffi.StructuralKey(attrs), attrs)
        args = [self._argument(arg) for arg in read]
        tensor = self._tensor(node)
        alike = (name, id(attrs), id(tensor), *[_identity(arg) for arg in args])
        view = self._interned.views.get(alike)
        if view is None:
            view = self._interned.views[alike] = CallView(name, attrs, tuple(args), *tensor)
        return view

    def argument(self, node: relax.Var, index: int) -> relax.Expr:
        """An argument of the call."""
        return self.definitions[hash(node)].args[index]

    def consumers(self, node: relax.Expr) -> int:
        """How many bindings of the block read this variable."""
        return len(self.users.get(hash(node), ()))

    def readers(self, node: relax.Expr) -> Sequence[relax.Var]:
        """The variables of the block that are bound to what reads this one."""
        return self.users.get(hash(node), ())

    def reads(self, node: relax.Var) -> Sequence[relax.Var]:
        """The variables that what a variable is bound to reads."""
        definition = self.definitions.get(hash(node))
        if definition is None:
            return ()
        value = definition.value
        return _variables(definition.args) if definition.op else relax.analysis.used_vars(value)

    def extents(self, node: relax.Expr) -> Shape | None:
        """The extents of a tensor; None for what is none."""
        return self._tensor(node)[0] if isinstance(node.ty, relax.TensorType) else None

    def is_output(self, node: relax.Expr) -> bool:
        """Whether the value leaves the block by itself."""
        return not isinstance(node, relax.DataflowVar)

    def leaves(self, node: relax.Expr) -> bool:
        """Whether the value leaves the block, by itself, under another name or in a tuple."""
        return self.is_output(node) or hash(node) in self.leaving

    def is_result(self, reader: relax.Var, node: relax.Var) -> bool:  # noqa: ARG002
        """Whether `reader` is the variable, or a tuple, that the block gives out."""
        definition = self.definitions.get(hash(reader))
        return definition is not None and _is_given(definition)

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
        return definition.value if definition and not definition.op else None

    def source(self, node: relax.Expr) -> Producer:
        """Describe a node that calls no op that the vocabulary knows."""
        if self.is_stored(node):
            return PARAMETER
        definition = self.definitions.get(hash(node))
        if definition is None:
            return Producer("a value from elsewhere", rounded=False, reads_activation=False)
        if isinstance(definition.value, relax.Call) and not definition.op:
            return Producer("the result of a function", rounded=False, reads_activation=False)
        name = definition.op or type(definition.value).__name__
        return Producer(name, rounded=False, reads_activation=True)

    def location(self, node: relax.Var) -> str:
        """Source location, or an empty string."""
        _, binding, value, _ = self.definitions[hash(node)]
        span = value.span or binding.span
        return str(span.source_name.name) if isinstance(span, tvm.ir.Span) else ""

    def _argument(self, expr: relax.Expr) -> Argument:
        known = self._arguments.get(address(expr))
        if known is None:
            known = self._arguments[address(expr)] = self._described(expr)
        return known

    def _described(self, expr: relax.Expr) -> Argument:
        if not isinstance(expr.ty, relax.TensorType):
            is_number = isinstance(expr, tvm.tirx.IntImm | tvm.tirx.FloatImm)
            return expr.value if is_number else None
        tensor, stored = self._tensor(expr), self.is_stored(expr)
        if stored and (value := self._constant(expr, tensor[0])) is not None:
            return Operand(tensor[0], value, stored, tensor[1])
        known = self._interned.operands.get((id(tensor), stored))
        if known is None:
            known = Operand(tensor[0], None, stored, tensor[1])
            self._interned.operands[id(tensor), stored] = known
        return known

    def _constant(self, expr: relax.Expr, shape: Shape) -> np.ndarray | None:
        """The values of a constant, perhaps reshaped."""
        while self.words.moves.get(self.op_name(expr)) is Movement.RESHAPE:
            expr = self.argument(expr, 0)
        if not isinstance(expr, tvm.ir.GenericConst) or None in shape:
            return None
        return expr.value.numpy().reshape(shape)

    def is_stored(self, expr: relax.Expr) -> bool:
        """Whether the value is a constant or an argument, perhaps moved about."""
        while self.op_name(expr) in self.words.moves:
            expr = self.argument(expr, 0)
        return hash(expr) in self.parameters or isinstance(expr, tvm.ir.GenericConst)

    def _tensor(self, expr: relax.Expr) -> Tensor:
        """Extents and element type of a tensor."""
        known = self._tensors.get(hash(expr))
        if known is None:
            ty = expr.ty
            tensor = self._shape(ty), self._dtype(ty.dtype)
            known = self._tensors[hash(expr)] = self._interned.tensors.setdefault(tensor, tensor)
        return known

    def _dtype(self, dtype: tvm.ir.PrimType) -> str:
        known = self._interned.dtypes.get(address(dtype))
        if known is None:
            known = self._interned.dtypes[address(dtype)] = str(dtype)
        return known

    def _shape(self, ty: relax.TensorType) -> Shape:
        """Extents; all unknown where only the rank is.  The ops of a chain share one shape."""
        shape = ty.shape
        if not isinstance(shape, relax.ShapeExpr):
            return (None,) * max(int(ty.ndim), 0)
        known = self._interned.shapes.get(address(shape))
        if known is None:
            extents = items(shape.values)
            known = tuple([n.value if isinstance(n, tvm.tirx.IntImm) else None for n in extents])
            self._interned.shapes[address(shape)] = known
        return known


def _identity(argument: Argument) -> object:
    """The address of an operand, and all digits of a number."""
    return id(argument) if isinstance(argument, Operand) else repr(argument)


def _is_given(definition: Definition) -> bool:
    """Whether a variable is one that a block gives out, of another or of a tuple of others."""
    is_output = not isinstance(definition.binding.var, relax.DataflowVar)
    return is_output and isinstance(definition.value, relax.Tuple | relax.Var)


def graphs_of(func: relax.Function, words: Vocabulary) -> list[tuple[Placed, RelaxGraph]]:
    """The graphs of all blocks of a function."""
    found = [(placed, _graph_of(placed, words)) for placed in binding_blocks(func)]
    if any(d.op in IN_PLACE for _, graph in found for d in graph.definitions.values()):
        found = [(placed, replace(graph, in_dataflow=False)) for placed, graph in found]
    elsewhere = {key for _, graph in found for key in graph.users.keys() - graph.bindings.keys()}
    return [
        (placed, replace(graph, may_be_joined=True))
        if not elsewhere.isdisjoint(graph.bindings)
        else (placed, graph)
        for placed, graph in found
    ]


def _graph_of(placed: Placed, words: Vocabulary) -> RelaxGraph:
    """The graph of a block, as far as the block itself tells it."""
    block, func, in_branch = placed
    names: dict[int, str] = {}
    bindings: dict[int, relax.Binding] = {}
    definitions: dict[int, Definition] = {}
    users: dict[int, list[relax.Var]] = defaultdict(list)
    for binding in items(block.bindings):
        var, value = binding.var, binding.value
        name, args = _call(value, names)
        bindings[hash(var)] = binding
        if isinstance(binding, relax.VarBinding):
            definitions[hash(var)] = Definition(name, binding, value, args)
        for used in _variables(args) if name else relax.analysis.used_vars(value):
            readers = users[hash(used)]
            if not readers or readers[-1] is not var:
                readers.append(var)
    given = (d.value for d in definitions.values() if _is_given(d))
    leaving = frozenset(hash(var) for value in given for var in relax.analysis.used_vars(value))
    may_be_inlined = func.attrs is None or "global_symbol" not in func.attrs
    parameters = frozenset() if may_be_inlined else frozenset(map(hash, func.params))
    return RelaxGraph(
        bindings,
        definitions,
        words,
        parameters,
        users,
        leaving,
        may_be_joined=may_be_inlined or in_branch,
        in_dataflow=isinstance(block, relax.DataflowBlock),
    )


def _call(value: relax.Expr, names: dict[int, str]) -> tuple[str, Sequence[relax.Expr]]:
    """The name of the op that a value calls, and the arguments; nothing where it calls none."""
    if not isinstance(value, relax.Call):
        return "", ()
    op = value.op
    name = names.get(hash(op))
    if name is None:
        name = names[hash(op)] = str(op.name) if isinstance(op, tvm.ir.Op) else ""
    return name, items(value.args)


def _variables(args: Sequence[relax.Expr]) -> list[relax.Var]:
    """The variables that arguments read."""
    found = []
    for arg in args:
        if type(arg) in VARIABLES:
            found.append(arg)
        elif not isinstance(arg, tvm.ir.GenericConst):
            found.extend(relax.analysis.used_vars(arg))
    return found
