"""The table of activations that commute with a maximum, and of the ops around them.

For a monotone non-decreasing f and any finite set S, max f(S) = f(max S).  A row states that of
one function, how each dialect spells it, and what must hold of its parameters.  The table is an
argument of every pass: add a row with ``rules=RULES + (Rule(...),)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from tvm_passes.conditions import constant_in_window, finite_slope_not_negative, ordered_bounds
from tvm_passes.decline import Condition, Direction

RELAY = "relay"
RELAX = "relax"

FLOATS = frozenset({"float16", "float32", "float64"})
SELECTED = FLOATS | {"bfloat16"}
"""Where each result is an input or a bound: TVM computes bfloat16 in float32 and rounds where a
kernel ends, which only such functions do not feel."""
INTEGERS = frozenset({"int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"})


@dataclass(frozen=True)
class Form:
    """How one dialect spells an op.

    Parameters
    ----------
    op
        Name of the op in the dialect.
    attrs
        Parameters that are attributes of the call: parameter name to attribute name.
    args
        Parameters that are arguments of the call: parameter name to argument index.
    data
        Index of the argument that the chain goes on through.
    commutes
        Whether the data may also be the other one of two arguments.
    axis
        Attribute that names the data axis which a one-dimensional argument runs along; None where
        arguments are broadcast by NumPy's rule.
    """

    op: str
    attrs: Mapping[str, str] = field(default_factory=dict)
    args: Mapping[str, int] = field(default_factory=dict)
    data: int = 0
    commutes: bool = False
    axis: str | None = None


@dataclass(frozen=True)
class Rule:
    """A function of one variable, elementwise, and when it may move past a selecting pool.

    Parameters
    ----------
    name
        The function's usual name.
    direction
        How the function moves as its input grows, where `conditions` hold.
    forms
        Spellings, by dialect name.
    dtypes
        Element types for which the rule holds as TVM computes it.
    conditions
        Predicates on the parameters; see `tvm_passes.legality`.
    is_arithmetic
        Whether it is an addition or a multiplication: a compiler may contract it with a
        multiplication above it, or fold it with arithmetic below it.
    rounds_result
        Whether its result is never a sum or a product that arithmetic below could be contracted
        or folded with.
    nan, negative_zero, infinity
        What TVM's kernel gives for these inputs.
    source
        Where the monotonicity comes from.
    """

    name: str
    direction: Direction
    forms: Mapping[str, tuple[Form, ...]]
    dtypes: frozenset[str] = FLOATS
    conditions: tuple[Condition, ...] = ()
    is_arithmetic: bool = False
    rounds_result: bool = False
    nan: str = ""
    negative_zero: str = ""
    infinity: str = ""
    source: str = ""


def forms(relay: str | Form, relax: str | Form) -> Mapping[str, tuple[Form, ...]]:
    """One spelling for each dialect."""
    return {
        RELAY: (Form(relay) if isinstance(relay, str) else relay,),
        RELAX: (Form(relax) if isinstance(relax, str) else relax,),
    }


RULES: tuple[Rule, ...] = (
    # max(x, 0): each of both is non-decreasing, and so is their maximum.
    Rule(
        name="relu",
        direction=Direction.NON_DECREASING,
        forms=forms("nn.relu", "relax.nn.relu"),
        dtypes=SELECTED | INTEGERS,
        nan="0",
        negative_zero="+0",
        infinity="-inf to 0, +inf kept",
        source="max(x, 0)",
    ),
    # max(min(x, high), low); relu6 is clip(x, 0, 6) in both dialects.
    Rule(
        name="clip",
        direction=Direction.NON_DECREASING,
        forms=forms(
            Form("clip", attrs={"low": "a_min", "high": "a_max"}),
            Form("relax.clip", args={"low": 1, "high": 2}),
        ),
        dtypes=SELECTED | INTEGERS,
        conditions=(ordered_bounds("low", "high"),),
        nan="a bound",
        negative_zero="kept inside the bounds",
        infinity="the nearer bound",
        source="max(min(x, high), low)",
    ),
    # x where x > 0, else alpha * x: both pieces rise for alpha >= 0 and meet at 0.
    Rule(
        name="leaky_relu",
        direction=Direction.NON_DECREASING,
        forms=forms(
            Form("nn.leaky_relu", attrs={"alpha": "alpha"}),
            Form("relax.nn.leakyrelu", attrs={"alpha": "alpha"}),
        ),
        conditions=(finite_slope_not_negative("alpha"),),
        nan="NaN; 0 for alpha = 0",
        negative_zero="kept; +0 for alpha = 0",
        infinity="kept; -inf to 0 for alpha = 0",
        source="x > 0 ? x : alpha * x",
    ),
    # 1 / (1 + exp(-x)): a composition of monotone steps, each correctly ordered after rounding.
    Rule(
        name="sigmoid",
        direction=Direction.NON_DECREASING,
        forms=forms("sigmoid", "relax.sigmoid"),
        rounds_result=True,
        nan="NaN",
        negative_zero="1/2",
        infinity="0 and 1",
        source="1 / (1 + exp(-x))",
    ),
    Rule(
        name="tanh",
        direction=Direction.NON_DECREASING,
        forms=forms("tanh", "relax.tanh"),
        rounds_result=True,
        nan="NaN",
        negative_zero="+0",
        infinity="-1 and +1",
        source="derivative 1 - tanh(x)^2 >= 0",
    ),
    # x + b: rounding to nearest is monotone, so the rounded sum is; integers wrap around.
    Rule(
        name="bias_add",
        direction=Direction.NON_DECREASING,
        forms={
            RELAY: (
                Form("nn.bias_add", args={"bias": 1}, axis="axis"),
                Form("add", args={"bias": 1}, commutes=True),
            ),
            RELAX: (Form("relax.add", args={"bias": 1}, commutes=True),),
        },
        conditions=(constant_in_window("bias"),),
        is_arithmetic=True,
        nan="NaN",
        negative_zero="+0 unless b is -0",
        infinity="kept",
        source="x + b",
    ),
)


class Windows(Enum):
    """Which elements an output of a pool is computed from."""

    KERNEL = "a window that attributes describe, perhaps with padding"
    LAYOUT = "a part of the axes D, H and W of a layout, never of padding"
    AXES = "all elements along the axes that an attribute names"


@dataclass(frozen=True)
class PoolForm:
    """A pooling op.

    Parameters
    ----------
    ops
        Its name by dialect.
    selects
        Whether each output is one of its inputs.
    windows
        What an output is computed from.
    rank
        Number of pooled axes, where a layout names them.
    """

    ops: Mapping[str, str]
    selects: bool
    windows: Windows = Windows.KERNEL
    rank: int = 0


POOLS: tuple[PoolForm, ...] = (
    *(
        PoolForm({RELAY: f"nn.{kind}_pool{rank}d", RELAX: f"relax.nn.{kind}_pool{rank}d"}, selects)
        for kind, selects in (("max", True), ("avg", False))
        for rank in (1, 2, 3)
    ),
    PoolForm({RELAY: "nn.global_max_pool2d"}, True, Windows.LAYOUT, 2),
    *(
        PoolForm({RELAY: f"nn.adaptive_max_pool{rank}d"}, True, Windows.LAYOUT, rank)
        for rank in (1, 2, 3)
    ),
    # For f that never falls, min f(S) = f(min S) as well.
    *(PoolForm({RELAY: op, RELAX: f"relax.{op}"}, True, Windows.AXES) for op in ("max", "min")),
)


@dataclass(frozen=True)
class ProducerForm:
    """A reduction whose result is rounded and stored: its name and the axis that it keeps.

    ``weight_layout`` is the attribute that holds the layout of the second argument, in which the
    letter O stands for output channels: every other element of it is one multiply-add an output.
    """

    op: str
    weight_layout: str = "kernel_layout"


OPAQUE: Mapping[str, frozenset[str]] = {
    RELAY: frozenset(
        ("nn.dense", "nn.batch_matmul", "nn.batch_flatten", "reshape", "squeeze", "transpose")
    ),
    RELAX: frozenset(
        f"relax.{op}" for op in ("matmul", "reshape", "flatten", "squeeze", "permute_dims")
    ),
}
"""Ops that no compiler folds arithmetic above them into, beside producers and pools."""

MOVES: Mapping[str, frozenset[str]] = {
    RELAY: frozenset(("reshape", "expand_dims", "squeeze", "transpose")),
    RELAX: frozenset(f"relax.{op}" for op in ("reshape", "expand_dims", "squeeze", "permute_dims")),
}
"""Ops that move the elements of their first argument, and compute nothing."""

PRODUCERS: Mapping[str, tuple[ProducerForm, ...]] = {
    RELAY: tuple(
        ProducerForm(op)
        for op in ("nn.conv1d", "nn.conv2d", "nn.conv3d", "nn.contrib_conv2d_NCHWc")
    ),
    RELAX: tuple(ProducerForm(f"relax.nn.conv{rank}d") for rank in (1, 2, 3)),
}
