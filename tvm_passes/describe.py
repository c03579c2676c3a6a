"""From a dialect's calls to the plain description: what both adapters share.

An adapter hands over shapes, attributes and arguments as plain values; the forms of
`tvm_passes.rules` say what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from tvm_passes.rules import (
    MOVES,
    OPAQUE,
    POOLS,
    PRODUCERS,
    Form,
    PoolForm,
    ProducerForm,
    Rule,
    Windows,
)
from tvm_passes.site import ElementwiseOp, Operand, Pool, Producer, Shape, layout_axes

Argument = int | float | Operand | None
"""A call's argument: a number, a tensor, or None where nothing is known of it."""


@dataclass(frozen=True)
class Vocabulary:
    """What a dialect's op names mean."""

    activations: Mapping[str, tuple[Rule, Form]]
    pools: Mapping[str, PoolForm]
    producers: Mapping[str, ProducerForm]
    opaque: frozenset[str]
    moves: frozenset[str]

    def may_fold(self, op: str) -> bool:
        """Whether a compiler may fold arithmetic into this op, which reads its result."""
        if op in self.activations:
            return self.activations[op][0].is_arithmetic
        return not (op in self.producers or op in self.pools or op in self.opaque)


def vocabulary(rules: Sequence[Rule], dialect: str) -> Vocabulary:
    """The op names of one dialect; where two rows name an op, the later row wins."""
    return Vocabulary(
        {form.op: (rule, form) for rule in rules for form in rule.forms.get(dialect, ())},
        {form.ops[dialect]: form for form in POOLS if dialect in form.ops},
        {form.op: form for form in PRODUCERS[dialect]},
        OPAQUE[dialect],
        MOVES[dialect],
    )


@dataclass(frozen=True)
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
    return _pool_of_data(call, form, listed, axes=axes, drops_axes=not call.attrs.keepdims)


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


def data_index(call: CallView, form: Form) -> int:
    """Index of the argument that the chain goes on through.

    Of the two arguments of a commutative op it is the one that has the result's shape, the first
    if both do.
    """
    if form.commutes and _shape(call.args[0]) != call.shape == _shape(call.args[1]):
        return 1
    return form.data


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
    return ElementwiseOp(call.op, rule, shape, call.dtype, params, consumers, is_output)


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


PARAMETER = Producer("a parameter", rounded=True, reads_activation=False)
"""The producer of a chain that begins at an argument of the function or at a constant."""


def _ints(values: Sequence[Any]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _both_sides(padding: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """Padding before each axis, then after each, from TVM's three ways of writing it."""
    if len(padding) == 1:
        return padding * (2 * rank)
    return padding * 2 if len(padding) == rank else padding


def _shape(argument: Argument) -> Shape:
    return argument.shape if isinstance(argument, Operand) else ()


def _aligned(argument: Argument, rank: int, axis: int | None) -> object:
    """The argument with one extent for each axis of the data that it is broadcast to."""
    if not isinstance(argument, Operand):
        return argument
    if axis is None:
        return replace(argument, shape=(1,) * (rank - len(argument.shape)) + argument.shape)
    extents: list[int | None] = [1] * rank
    extents[axis] = argument.shape[0]
    return replace(argument, shape=tuple(extents))
