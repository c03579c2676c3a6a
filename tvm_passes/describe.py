"""From a dialect's calls to the plain description: what both adapters share.

An adapter hands over shapes, attributes and arguments as plain values; the forms of
`tvm_passes.rules` say what they mean.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import prod
from typing import Any

from tvm_passes.decline import Condition, Direction
from tvm_passes.errors import AllowError, RuleError
from tvm_passes.kernel_conditions import replaced_later, unchecked_there
from tvm_passes.legality import rule_conditions
from tvm_passes.pattern import Apply
from tvm_passes.ranges import filled
from tvm_passes.rules import (
    ABSORBERS,
    APART,
    DROPOUTS,
    LITERALS,
    MOVES,
    OPAQUE,
    POOLS,
    PRODUCERS,
    STAYS,
    UNSTORED,
    Form,
    Movement,
    PoolForm,
    ProducerForm,
    Rule,
    Windows,
)
from tvm_passes.site import (
    ALL,
    Bounds,
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

DEVICE_MATH = "device-math"
"""What `allow` calls functions that the math library of a GPU computes."""

ALLOWABLE = frozenset({Direction.QUASI_CONVEX.value, WINOGRAD, DEVICE_MATH})
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
    stays: frozenset[str]
    moves: Mapping[str, Movement]
    dropouts: frozenset[str]
    absorbers: frozenset[str]
    apart: frozenset[str]
    literals: Mapping[str, int]
    composites: Mapping[str, tuple[tuple[Rule, Apply], ...]]
    unstored: int = 0
    allow: frozenset[str] = frozenset()

    def may_fold(self, op: str) -> bool:
        """Whether a compiler may fold arithmetic into this op, which reads its result."""
        if op in self.activations:
            return any(rule.is_arithmetic for rule, _ in self.activations[op])
        return not (op in self.producers or op in self.pools or op in self.opaque)

    def is_known(self, op: str) -> bool:
        """Whether it is known what compilers make of this op."""
        named = (self.activations, self.pools, self.producers, self.moves, self.dropouts)
        return op in self.opaque or op in self.stays or any(op in names for names in named)

    def ends_kernel(self, op: str) -> bool:
        """Whether nothing that reads this op's result is in a kernel with what it reads."""
        is_opaque = op in self.opaque and op not in self.moves
        return is_opaque or any(op in names for names in (self.producers, self.pools, self.apart))

    def passes_on(self, op: str) -> bool:
        """Whether a compiler may fold arithmetic above this op into what reads it."""
        is_sign = any(rule.is_sign for rule, _ in self.activations.get(op, ()))
        return is_sign or (op in self.opaque and op in self.moves)

    def may_link(self, op: str) -> bool:
        """Whether an op may be part of the chain above a pool."""
        named = (self.activations, self.moves, self.dropouts)
        return any(op in names for names in named) or plain(op) in self.spelling

    @cached_property
    def spelling(self) -> frozenset[str]:
        """The ops that functions of several ops are made of."""
        rows = self.composites.values()
        return frozenset(op for patterns in rows for _, pattern in patterns for op in pattern.ops)


def vocabulary(
    rules: Sequence[Rule],
    dialect: str,
    allow: Collection[str] = (),
    replaced: Collection[str] = (),
    *,
    on_gpu: bool = False,
) -> Vocabulary:
    """The op names of one dialect, with the rows of each op, the last row first.

    Rows of functions that fall, then rise, and are not allowed, are left out where an op has
    others, so that it is they that say why it stays.  Rows that are spelled with ops that another
    pass has `replaced` by the time that code is made refuse to sink, and so do those that the math
    library of a GPU computes, where the code is made for one and that is not allowed.

    Raises
    ------
    AllowError
        If `allow` names anything that is not `ALLOWABLE`.
    RuleError
        If a row is no `Rule`.
    """
    allow = allowed(allow)
    if isinstance(rules, Rule):
        raise RuleError(f"rules: expected several, found the one {rules.name!r}: put it in a tuple")
    for rule in rules:
        if not isinstance(rule, Rule):
            raise RuleError(f"rules: expected tvm_passes.Rule, found {rule!r}")
    rules = [_of_several(rule) if rule.patterns else rule for rule in rules]
    rules = [
        _refused(rule, replaced_later) if _uses(rule, dialect, replaced) else rule for rule in rules
    ]
    if on_gpu and DEVICE_MATH not in allow:
        rules = [_refused(rule, unchecked_there) if rule.is_call else rule for rule in rules]
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
        STAYS[dialect],
        MOVES[dialect],
        DROPOUTS[dialect],
        ABSORBERS[dialect],
        APART[dialect],
        LITERALS[dialect],
        _composites(rules),
        0 if on_gpu else UNSTORED[dialect],
        frozenset(allow),
    )


def allowed(names: Collection[str]) -> frozenset[str]:
    """What `allow` names.

    Raises
    ------
    AllowError
        If that is not of `ALLOWABLE`.
    """
    unknown = {names} if isinstance(names, str) else set(names) - ALLOWABLE
    if unknown:
        raise AllowError(
            f"allow: expected a set of {', '.join(sorted(ALLOWABLE))}, "
            f"found {', '.join(map(repr, sorted(unknown)))}"
        )
    return frozenset(names)


def _uses(rule: Rule, dialect: str, ops: Collection[str]) -> bool:
    """Whether a row is spelled with any of these ops."""
    spelled = [form.op for form in rule.forms.get(dialect, ())]
    return any(op in ops for op in spelled) or any(
        op in ops for pattern in rule.patterns for op in pattern.ops
    )


def _of_several(rule: Rule) -> Rule:
    """A row that ends in a sum or a product, as what is spelled with several ops may."""
    return rule if rule.is_arithmetic else replace(rule, is_arithmetic=True)


def _refused(rule: Rule, refusal: Condition) -> Rule:
    return replace(rule, conditions=(refusal, *rule.conditions))


def _composites(rules: Sequence[Rule]) -> Mapping[str, tuple[tuple[Rule, Apply], ...]]:
    """The functions of several ops, by the name of their last op, the last row first."""
    found: dict[str, tuple[tuple[Rule, Apply], ...]] = {}
    for rule in rules:
        for pattern in reversed(rule.patterns):
            found[pattern.op] = ((rule, pattern), *found.get(pattern.op, ()))
    return found


@cache
def plain(op: str) -> str:
    """The name of an op in patterns.

    >>> plain("relax.nn.softplus"), plain("nn.relu")
    ('softplus', 'relu')
    """
    return op.removeprefix("relax.").removeprefix("nn.")


@dataclass(frozen=True, slots=True, eq=False)
class CallView:
    """A call of one tensor result, as plain values; it equals itself alone.

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
        in_shape=shape_of(call.args[0]),
        out_shape=call.shape,
        dtype=call.dtype,
        ceil_mode=bool(call.attrs.ceil_mode),
        out_layout=out_layout,
    )


def _describe_reduction(call: CallView, form: PoolForm) -> Pool:
    """Describe a maximum or minimum over axes: those of the attribute, or all others, or all."""
    rank = len(shape_of(call.args[0]))
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
        in_shape=shape_of(call.args[0]),
        out_shape=call.shape,
        dtype=call.dtype,
        **fields,
    )


def describe_move(call: CallView, kind: Movement) -> Move:
    """Describe a call that moves the elements of its first argument."""
    shape = shape_of(call.args[0])
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
    weight = shape_of(call.args[1])
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
    taken: dict[tuple[int, Bounds], tuple[ElementwiseOp, Bounds]] = {}
    for alternatives in reversed(chain):
        crosses = alternatives[0].crosses
        for move in ops[-1].crosses[len(crosses) :] if ops else ():
            bounds = filled(bounds, move)
        alike = (id(alternatives), bounds)
        if alike not in taken:
            op = _first_that_holds(alternatives, bounds, pool)
            taken[alike] = op, _image(op, pool)
        op, bounds = taken[alike]
        ops.append(op)
    return tuple(reversed(ops))


def _image(op: ElementwiseOp, pool: Pool) -> Bounds:
    """Bounds of an op's results; none where its row does not hold, as of integers that wrap."""
    covered = op.reads in op.rule.dtypes and op.dtype in (op.rule.results or {op.reads})
    return op.rule.image(op) if covered and rule_conditions(op, pool) is None else ALL


def _first_that_holds(
    alternatives: Sequence[ElementwiseOp], bounds: Bounds, pool: Pool
) -> ElementwiseOp:
    bounded = [op if op.bounds == bounds else replace(op, bounds=bounds) for op in alternatives]
    holding = (op for op in bounded[:-1] if rule_conditions(op, pool) is None)
    return next(holding, bounded[-1])


PARAMETER = Producer("a parameter", rounded=True, reads_activation=False)
"""The producer of a chain that begins at an argument of the function or at a constant."""


def _ints(values: Sequence[Any]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _both_sides(padding: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """Padding before each axis, then after each, from TVM's three ways of writing it."""
    if len(padding) == 1:
        return padding * (2 * rank)
    return padding * 2 if len(padding) == rank else padding


def shape_of(argument: Argument) -> Shape:
    """The extents of a tensor argument; those of a number."""
    return argument.shape if isinstance(argument, Operand) else ()
