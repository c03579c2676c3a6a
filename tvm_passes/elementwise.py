"""Elementwise calls as plain descriptions, by the rows of their ops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tvm_passes.describe import Argument, CallView, Vocabulary, describe_pool, plain, shape_of
from tvm_passes.movement import Shapes
from tvm_passes.pattern import Apply
from tvm_passes.rule import Form, Rule
from tvm_passes.site import ElementwiseOp, Operand, Pool

Row = tuple[Rule, Form]


@dataclass(frozen=True, slots=True)
class Described:
    """A call, by each of its rows that goes on through the same argument.

    Parameters
    ----------
    data
        Index of that argument.
    ops
        The descriptions, the preferred one first; none where no row fits the call.
    own, operands
        The shapes of the call's other tensors, by index of the argument: their own, and with one
        extent for each axis of the data.
    axis
        The op's attribute that names an axis of its data, or nothing.
    """

    data: int = 0
    ops: tuple[ElementwiseOp, ...] = ()
    own: Shapes = field(default_factory=dict)
    operands: Shapes = field(default_factory=dict)
    axis: str | None = None


NOTHING = Described()


@dataclass(frozen=True)
class Descriptions:
    """The descriptions of a function's calls; those that look alike share one.

    A graph may give one view for calls that look alike: then what is found out about it, here and
    in `tvm_passes.decision`, is found out once.

    Parameters
    ----------
    words
        The dialect's op names.
    """

    words: Vocabulary
    _pools: dict[CallView, Pool] = field(default_factory=dict)
    _known: dict[tuple[CallView, int, bool], Described] = field(default_factory=dict)
    _patterns: dict[CallView, Sequence[tuple[Rule, Apply]]] = field(default_factory=dict)

    def pool(self, call: CallView) -> Pool:
        """Describe the call of a pool."""
        known = self._pools.get(call)
        if known is None:
            known = self._pools[call] = describe_pool(call, self.words.pools[call.op])
        return known

    def of(self, call: CallView, consumers: int, is_output: bool) -> Described:
        """Describe an elementwise call that so many ops read, or that leaves the function."""
        alike = (call, consumers, is_output)
        known = self._known.get(alike)
        if known is None:
            rows = self.words.activations.get(call.op, ())
            known = self._known[alike] = describe(call, rows, consumers, is_output)
        return known

    def patterns(self, call: CallView) -> Sequence[tuple[Rule, Apply]]:
        """The patterns that end in the call, of those that read no more computed values than it."""
        known = self._patterns.get(call)
        if known is None:
            found = self.words.composites.get(plain(call.op), ())
            computed = sum(isinstance(arg, Operand) and arg.value is None for arg in call.args)
            known = self._patterns[call] = [row for row in found if row[1].computed <= computed]
        return known


def describe(call: CallView, rows: Sequence[Row], consumers: int, is_output: bool) -> Described:
    """Describe an elementwise call by each of its rows that goes on through the same argument."""
    data = data_index(call, [form for _, form in rows]) if rows else None
    if data is None:
        return NOTHING
    fitting = [row for row in rows if row[1].commutes or row[1].data == data]
    if not fitting:
        return NOTHING
    form = fitting[0][1]
    operands = _operand_shapes(call, form, data)
    own = {index: shape_of(call.args[index]) for index in operands}
    ops = tuple(_describe_op(call, row, data, consumers, is_output) for row in fitting)
    return Described(data, ops, own, operands, form.axis)


def data_index(call: CallView, forms: Sequence[Form]) -> int | None:
    """Index of the argument that the chain goes on through, of those that the forms offer.

    It is the first that has the result's shape and is no constant; None where only an argument
    that no form offers is such a one.
    """
    offered = dict.fromkeys(n for f in forms for n in ((0, 1) if f.commutes else (f.data,)))
    whole = [n for n, arg in enumerate(call.args) if shape_of(arg) == call.shape]
    flowing = [n for n in whole if not _is_constant(call.args[n])] or whole or list(offered)
    return next((n for n in flowing if n in offered), None)


def _describe_op(
    call: CallView, row: Row, data: int, consumers: int, is_output: bool
) -> ElementwiseOp:
    """Describe an elementwise call whose argument `data` is the one the chain goes through."""
    rule, form = row
    shape = shape_of(call.args[data])
    params: dict[str, object] = {name: getattr(call.attrs, at) for name, at in form.attrs.items()}
    axis = int(getattr(call.attrs, form.axis)) if form.axis else None
    for name, index in form.args.items():
        argument = call.args[1 - data if form.commutes else index]
        params[name] = _aligned(argument, len(shape), axis)
    unsettled = any(isinstance(arg, Operand) and arg.unsettled for arg in call.args)
    op = ElementwiseOp(
        call.op, rule, shape, call.dtype, params, consumers, is_output, unsettled=unsettled
    )
    read = call.args[data]
    changes = isinstance(read, Operand) and read.dtype != call.dtype
    return replace(op, data_dtype=read.dtype) if changes else op  # type: ignore[union-attr]


def _operand_shapes(call: CallView, form: Form, data: int) -> Shapes:
    """The shapes of the call's tensor operands, with one extent for each axis of the data."""
    rank = len(shape_of(call.args[data]))
    axis = int(getattr(call.attrs, form.axis)) if form.axis else None
    found = {}
    for index, argument in enumerate(call.args):
        aligned = _aligned(argument, rank, axis)
        if index != data and isinstance(aligned, Operand):
            found[index] = aligned.shape
    return found


def _is_constant(argument: Argument) -> bool:
    return not isinstance(argument, Operand) or argument.value is not None


def _aligned(argument: Argument, rank: int, axis: int | None) -> object:
    """The argument with one extent for each axis of the data that it is broadcast to."""
    if not isinstance(argument, Operand):
        return argument
    if axis is None:
        missing = rank - len(argument.shape)
        return replace(argument, shape=(1,) * missing + argument.shape) if missing else argument
    extents: list[int | None] = [1] * rank
    if argument.shape:
        extents[axis] = argument.shape[0]
    return replace(argument, shape=tuple(extents))
