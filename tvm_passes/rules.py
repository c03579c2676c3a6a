"""The table of activations that commute with a maximum, and of the ops around them.

A row states of one function which way it moves, how each dialect spells it, and what must hold of
its parameters.  The table is an argument of every pass: add a row with ``rules=RULES + (mine,)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from tvm_passes.by_channel import BY_CHANNEL
from tvm_passes.composites import COMPOSITES
from tvm_passes.falling import FALLING
from tvm_passes.quantized import QUANTIZED
from tvm_passes.quasi_convex import QUASI_CONVEX
from tvm_passes.rising import RISING
from tvm_passes.rule import FLOATS, INTEGERS, RELAX, RELAY, SELECTED, Form, Rule, forms

__all__ = [
    "ABSORBERS",
    "DROPOUTS",
    "FLOATS",
    "INTEGERS",
    "LITERALS",
    "MOVES",
    "OPAQUE",
    "POOLS",
    "PRODUCERS",
    "RELAX",
    "RELAY",
    "RULES",
    "SELECTED",
    "Form",
    "Movement",
    "PoolForm",
    "ProducerForm",
    "Rule",
    "Windows",
    "forms",
]

RULES: tuple[Rule, ...] = (
    *RISING,
    *FALLING,
    *BY_CHANNEL,
    *QUASI_CONVEX,
    *COMPOSITES,
    *QUANTIZED,
)
"""Every row; where rows name the same op, the last whose conditions hold is taken."""


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
    minimum
        Whether it selects the least of its inputs, not the greatest.
    opposites
        The op that selects the other end, by dialect, where there is one.
    """

    ops: Mapping[str, str]
    selects: bool
    windows: Windows = Windows.KERNEL
    rank: int = 0
    minimum: bool = False
    opposites: Mapping[str, str] = field(default_factory=dict)


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
    *(
        PoolForm(
            {RELAY: op, RELAX: f"relax.{op}"},
            True,
            Windows.AXES,
            minimum=op == "min",
            opposites={RELAY: other, RELAX: f"relax.{other}"},
        )
        for op, other in (("max", "min"), ("min", "max"))
    ),
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
"""Ops that no compiler folds arithmetic above them into, beside producers and pools; past those
that move elements, into what reads them."""

STAYS: Mapping[str, frozenset[str]] = {
    RELAY: frozenset(
        (
            *("concatenate", "split", "strided_slice", "take", "image.resize2d", "nn.upsampling"),
            *("nn.softmax", "nn.log_softmax", "nn.lrn", "nn.l2_normalize", "nn.batch_norm"),
            *("sum", "mean", "variance", "argmax", "argmin", "stack", "tile", "repeat"),
            *("nn.global_avg_pool2d", "nn.adaptive_avg_pool2d", "nn.conv2d_transpose"),
            *("nn.instance_norm", "nn.layer_norm", "nn.group_norm"),
            *("nn.space_to_depth", "nn.depth_to_space"),
            *("qnn.conv2d", "qnn.conv2d_transpose", "qnn.dense", "qnn.batch_matmul"),
        )
    ),
    RELAX: frozenset(
        f"relax.{op}"
        for op in (
            *("concat", "split", "strided_slice", "take", "image.resize2d"),
            *("nn.softmax", "nn.log_softmax", "nn.batch_norm", "nn.layer_norm"),
            *("sum", "mean", "variance"),
        )
    ),
}
"""Other ops that no compiler drops, or takes for one with a cast, a clip or a root above them."""


class Movement(Enum):
    """How an op moves the elements of its first argument; none of them computes anything."""

    RESHAPE = "in their order, to other extents"
    TRANSPOSE = "to other axes"
    PAD = "and puts more around them"


MOVES: Mapping[str, Mapping[str, Movement]] = {
    RELAY: {
        **dict.fromkeys(
            ("reshape", "expand_dims", "squeeze", "nn.batch_flatten"), Movement.RESHAPE
        ),
        "transpose": Movement.TRANSPOSE,
        "nn.pad": Movement.PAD,
        "nn.mirror_pad": Movement.PAD,
    },
    RELAX: {
        **dict.fromkeys(
            ("relax.reshape", "relax.expand_dims", "relax.squeeze", "relax.flatten"),
            Movement.RESHAPE,
        ),
        "relax.permute_dims": Movement.TRANSPOSE,
        "relax.nn.pad": Movement.PAD,
    },
}

DROPOUTS: Mapping[str, frozenset[str]] = {
    RELAY: frozenset(("nn.dropout",)),
    RELAX: frozenset(("relax.nn.dropout",)),
}
"""Ops that return a tuple whose first item is, at inference, their argument."""

FILLS = frozenset(("zeros_like", "ones_like"))
"""Ops that read nothing but the extents and the element type of their argument."""

PRODUCERS: Mapping[str, tuple[ProducerForm, ...]] = {
    RELAY: tuple(
        ProducerForm(op)
        for op in ("nn.conv1d", "nn.conv2d", "nn.conv3d", "nn.contrib_conv2d_NCHWc")
    ),
    RELAX: tuple(ProducerForm(f"relax.nn.conv{rank}d") for rank in (1, 2, 3)),
}

ABSORBERS: Mapping[str, frozenset[str]] = {
    RELAY: frozenset(("nn.dense", *(form.op for form in PRODUCERS[RELAY]))),
    RELAX: frozenset(),
}
"""Layers whose weights a compiler folds factors into, as Relay's FoldScaleAxis does."""

APART: Mapping[str, frozenset[str]] = {
    RELAY: frozenset(),
    RELAX: frozenset(
        f"relax.{op}"
        for op in ("nn.softmax", "nn.log_softmax", "nn.layer_norm", "mean", "variance")
    ),
}
"""Ops that stay, and that are in no kernel with what computes their data."""

UNSTORED: Mapping[str, int] = {RELAY: 0, RELAX: 512}
"""Elements from which on kernels for CPUs store what an op gives another one in them, wherever they
are cut; 0 where they never do.  Relax's do: on the stack what has less than 1 KiB (TVM's
kMaxStackAlloca), as 511 elements of float16 have, and LLVM may hold that in registers instead."""

LITERALS: Mapping[str, Mapping[str, int]] = {
    RELAY: {"divide": 1, "power": 1, "qnn.quantize": 1},
    RELAX: {},
}
"""Ops with an argument that TVM computes otherwise with if it is a number in the kernel's code, as
x * (1 / c) for x / c, and its index.  Relay makes an argument of the kernel of it where FuseOps
does not find all that reads it in one; Relax writes every number into the code."""
