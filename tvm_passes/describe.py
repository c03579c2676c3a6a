"""From a dialect's calls to the plain description: what both adapters share.

An adapter hands over shapes, attributes and arguments as plain values; the forms of
`tvm_passes.rules` say what they mean.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

from tvm_passes.decline import Direction
from tvm_passes.errors import AllowError
from tvm_passes.legality import rule_conditions
from tvm_passes.movement import Shapes
from tvm_passes.pattern import Apply
from tvm_passes.ranges import filled
from tvm_passes.rules import (
    ABSORBERS,
    DROPOUTS,
    MOVES,
    OPAQUE,
    POOLS,
    PRODUCERS,
    Form,
    Movement,
    PoolForm,
    ProducerForm,
    Rule,
    Windows,
)
from tvm_passes.site import (
    ALL,
    ElementwiseOp,
    Move,
    Operand,
    Pool,
    Producer,
    Shape,
    layout_axes,
)

WINOGRAD = "winograd"
"""What `allow` calls sums in another order; the reorder itself has none."""

ALLOWABLE = frozenset({Direction.QUASI_CONVEX.value, WINOGRAD})
"""What `allow` may name."""

Argument = int | float | Operand | None
"""A call's argument: a number, a tensor, or None where nothing is known of it."""


@dataclass(frozen=True)
class Vocabulary:
    """What a dialect's op names mean."""

    activations: Mapping[str, tuple[tuple[Rule, Form], ...]]
    pools: Mapping[str, PoolForm]
    producers: Mapping[str, ProducerForm]
    opaque: frozenset[str]
    moves: Mapping[str, Movement]
    dropouts: frozenset[str]
    absorbers: frozenset[str]
    composites: Mapping[str, tuple[tuple[Rule, Apply], ...]]
    allow: frozenset[str] = frozenset()

    def may_fold(self, op: str) -> bool:
        """Whether a compiler may fold arithmetic into this op, which reads its result."""
        if op in self.activations:
            return any(rule.is_arithmetic for rule, _ in self.activations[op])
        return not (op in self.producers or op in self.pools or op in self.opaque)

    def may_link(self, op: str) -> bool:
        """Whether an op may be part of the chain above a pool."""
        named = (self.activations, self.moves, self.dropouts)
        return any(op in names for names in named) or plain(op) in self.spelling

    @cached_property
    def spelling(self) -> frozenset[str]:
        """The ops that functions of several ops are made of."""
        rows = self.composites.values()
        return frozenset(op for patterns in rows for _, pattern in patterns for op in pattern.ops)


def vocabulary(rules: Sequence[Rule], dialect: str, allow: Collection[str] = ()) -> Vocabulary:
    """The op names of one dialect, with the rows of each op, the last row first.

    Rows of functions that fall, then rise, and are not allowed, are left out where an op has
    others, so that it is they that say why it stays.

    Raises
    ------
    AllowError
        If `allow` names anything but ``quasi-convex`` and ``winograd``.
    """
    unknown = set(allow) - ALLOWABLE
    if unknown:
        raise AllowError(
            f"allow: expected {', '.join(sorted(ALLOWABLE))}, found {', '.join(sorted(unknown))}"
        )
    rows: dict[str, tuple[tuple[Rule, Form], ...]] = {}
    optional: dict[str, tuple[tuple[Rule, Form], ...]] = {}
    for rule in rules:
        needs_leave = rule.direction is Direction.QUASI_CONVEX and rule.direction.value not in allow
        found = optional if needs_leave else rows
        for form in rule.forms.get(dialect, ()):
            found[form.op] = ((rule, form), *found.get(form.op, ()))
    return Vocabulary(
        optional | rows,
        {form.ops[dialect]: form for form in POOLS if dialect in form.ops},
        {form.op: form for form in PRODUCERS[dialect]},
        OPAQUE[dialect],
        MOVES[dialect],
        DROPOUTS[dialect],
        ABSORBERS[dialect],
        _composites(rules),
        frozenset(allow),
    )


def _composites(rules: Sequence[Rule]) -> Mapping[str, tuple[tuple[Rule, Apply], ...]]:
    """The functions of several ops, by the name of their last op, the last row first."""
    found: dict[str, tuple[tuple[Rule, Apply], ...]] = {}
    for rule in rules:
        for pattern in reversed(rule.patterns):
            found[pattern.op] = ((rule, pattern), *found.get(pattern.op, ()))
    return found


def plain(op: str) -> str:
    """The name of an op in patterns.

    >>> plain("relax.nn.softplus"), plain("nn.relu")
    ('softplus', 'relu')
    """
    return op.removeprefix("relax.").removeprefix("nn.")


@dataclass(frozen=True, slots=True)
class CallView:
    """A call of one tensor result, as plain values.

    Parameters
    ----------
    op
        Name of the op.
    attrs
        The call's attributes, read by name; None where it has none.
    args
        The arguments, tensors as `Operand` in their own shapes.
    shape, dtype
        Extents and element type of the result.
    """

    op: str
    attrs: Any
    args: tuple[Argument, ...]
    shape: Shape
    dtype: str


def describe_pool(call: CallView, form: PoolForm) -> Pool:
    """Describe a pooling call."""
    if form.windows is Windows.AXES:
        return _describe_reduction(call, form)
    layout, out_layout = str(call.attrs.layout), str(call.attrs.out_layout)
    if form.windows is Windows.LAYOUT:
        axes = layout_axes(layout, form.rank)
        return _pool_of_data(call, form, layout, axes=axes, out_layout=out_layout)
    kernel = _ints(call.attrs.pool_size)
    return Pool(
        op=call.op,
        selects=form.selects,
        layout=layout,
        kernel=kernel,
        strides=_ints(call.attrs.strides),
        dilation=_ints(call.attrs.dilation),
        padding=_both_sides(_ints(call.attrs.padding), len(kernel)),
        in_shape=_shape(call.args[0]),
        out_shape=call.shape,
        dtype=call.dtype,
        ceil_mode=bool(call.attrs.ceil_mode),
        out_layout=out_layout,
    )


def _describe_reduction(call: CallView, form: PoolForm) -> Pool:
    """Describe a maximum or minimum over axes: those of the attribute, or all others, or all."""
    rank = len(_shape(call.args[0]))
    named = () if call.attrs.axis is None else _ints(call.attrs.axis)
    axes = tuple(axis for axis in range(rank) if axis in named or axis - rank in named or not named)
    if getattr(call.attrs, "exclude", False):
        axes = tuple(axis for axis in range(rank) if axis not in axes)
    listed = f"axes {', '.join(map(str, axes))}"
    opposite = next((form.opposites[d] for d, op in form.ops.items() if op == call.op), "")
    return _pool_of_data(
        call,
        form,
        listed,
        axes=axes,
        drops_axes=not call.attrs.keepdims,
        minimum=form.minimum,
        opposite=opposite,
    )


def _pool_of_data(call: CallView, form: PoolForm, layout: str, **fields: Any) -> Pool:
    """A pool without padding, each window of which is part of the data."""
    return Pool(
        op=call.op,
        selects=form.selects,
        layout=layout,
        kernel=(),
        strides=(),
        dilation=(),
        padding=(),
        in_shape=_shape(call.args[0]),
        out_shape=call.shape,
        dtype=call.dtype,
        **fields,
    )


def data_index(call: CallView, forms: Sequence[Form]) -> int | None:
    """Index of the argument that the chain goes on through, of those that the forms offer.

    It is the first that has the result's shape and is no constant; None where only an argument
    that no form offers is such a one.
    """
    offered = dict.fromkeys(n for f in forms for n in ((0, 1) if f.commutes else (f.data,)))
    whole = [n for n, arg in enumerate(call.args) if _shape(arg) == call.shape]
    flowing = [n for n in whole if not _is_constant(call.args[n])] or whole or list(offered)
    return next((n for n in flowing if n in offered), None)


def describe_alternatives(
    call: CallView, rows: Sequence[tuple[Rule, Form]], consumers: int, is_output: bool
) -> tuple[int, tuple[ElementwiseOp, ...]]:
    """Describe an elementwise call by each of its rows that goes on through the same argument.

    Returns
    -------
    data
        Index of that argument.
    ops
        The descriptions, the preferred one first; none if no row fits the call.
    """
    data = data_index(call, [form for _, form in rows]) if rows else None
    if data is None:
        return 0, ()
    return data, tuple(
        describe_op(call, rule, form, data, consumers, is_output)
        for rule, form in rows
        if form.commutes or form.data == data
    )


def describe_op(
    call: CallView, rule: Rule, form: Form, data: int, consumers: int, is_output: bool
) -> ElementwiseOp:
    """Describe an elementwise call whose argument `data` is the one the chain goes through."""
    shape = _shape(call.args[data])
    params: dict[str, object] = {name: getattr(call.attrs, at) for name, at in form.attrs.items()}
    axis = int(getattr(call.attrs, form.axis)) if form.axis else None
    for name, index in form.args.items():
        argument = call.args[1 - data if form.commutes else index]
        params[name] = _aligned(argument, len(shape), axis)
    op = ElementwiseOp(call.op, rule, shape, call.dtype, params, consumers, is_output)
    read = call.args[data]
    changes = isinstance(read, Operand) and read.dtype != call.dtype
    return replace(op, data_dtype=read.dtype) if changes else op  # type: ignore[union-attr]


def operand_shapes(call: CallView, form: Form, data: int) -> Shapes:
    """The shapes of the call's tensor operands, with one extent for each axis of the data."""
    rank = len(_shape(call.args[data]))
    axis = int(getattr(call.attrs, form.axis)) if form.axis else None
    found = {}
    for index, argument in enumerate(call.args):
        aligned = _aligned(argument, rank, axis)
        if index != data and isinstance(aligned, Operand):
            found[index] = aligned.shape
    return found


def describe_move(call: CallView, kind: Movement) -> Move:
    """Describe a call that moves the elements of its first argument."""
    shape = _shape(call.args[0])
    move = Move(call.op, shape, call.shape)
    if kind is Movement.TRANSPOSE:
        axes = _ints(call.attrs.axes or range(len(shape))[::-1])
        return replace(move, axes=tuple(axis % len(shape) for axis in axes))
    if kind is Movement.RESHAPE:
        return move
    flat = [int(n) for side in call.attrs.pad_width for n in (side if _is_pair(side) else (side,))]
    padded = tuple(axis for axis in range(len(shape)) if any(flat[2 * axis : 2 * axis + 2]))
    if str(getattr(call.attrs, "pad_mode", "reflect")) != "constant":
        return replace(move, padded=padded)
    return replace(move, padded=padded, fills=True, fill=_fill(call))


def _is_pair(side: Any) -> bool:
    return hasattr(side, "__len__")


def _fill(call: CallView) -> float | None:
    """The number that is filled in: an attribute or, in Relay, an argument."""
    if len(call.args) == 1:
        return float(call.attrs.pad_value)
    value = call.args[1]
    if isinstance(value, Operand):
        value = value.value.item() if value.value is not None and value.value.size == 1 else None
    return None if value is None else float(value)


def describe_producer(call: CallView, form: ProducerForm) -> Producer:
    """Describe the call above a chain by its row among the producers."""
    layout = str(getattr(call.attrs, form.weight_layout))
    letters = [letter for letter in layout if letter.isalpha()]
    weight = _shape(call.args[1])
    if len(letters) != len(weight) or None in weight:
        return Producer(call.op, rounded=True, reads_activation=False)
    macs = prod(
        extent or 0 for extent, letter in zip(weight, letters, strict=True) if letter not in "Oo"
    )
    return Producer(call.op, rounded=True, reads_activation=False, macs_per_output=macs)


def resolve(chain: Sequence[Sequence[ElementwiseOp]], pool: Pool) -> tuple[ElementwiseOp, ...]:
    """Of each op of a chain the first description whose row's conditions hold, else the last.

    The ops, nearest the pool first, carry the bounds of their data.
    """
    ops: list[ElementwiseOp] = []
    bounds = ALL
    for alternatives in reversed(chain):
        crosses = alternatives[0].crosses
        for move in ops[-1].crosses[len(crosses) :] if ops else ():
            bounds = filled(bounds, move)
        bounded = [op if op.bounds == bounds else replace(op, bounds=bounds) for op in alternatives]
        holding = (op for op in bounded[:-1] if rule_conditions(op, pool) is None)
        ops.append(next(holding, bounded[-1]))
        bounds = ops[-1].rule.image(ops[-1])
    return tuple(reversed(ops))


PARAMETER = Producer("a parameter", rounded=True, reads_activation=False)
"""The producer of a chain that begins at an argument of the function or at a constant."""


def _ints(values: Sequence[Any]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _both_sides(padding: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """Padding before each axis, then after each, from TVM's three ways of writing it."""
    if len(padding) == 1:
        return padding * (2 * rank)
    return padding * 2 if len(padding) == rank else padding


def _is_constant(argument: Argument) -> bool:
    return not isinstance(argument, Operand) or argument.value is not None


def _shape(argument: Argument) -> Shape:
    return argument.shape if isinstance(argument, Operand) else ()


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
