"""Plain sites for the tests of the core: conv -> relu -> max_pool 2x2 unless told otherwise."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np

from tvm_passes.rules import RULES
from tvm_passes.site import ALL, ElementwiseOp, Operand, Pool, Producer, Site

RULE = {rule.name: rule for rule in RULES}

CONV = Producer("nn.conv2d", rounded=True, reads_activation=False, macs_per_output=25)
MULTIPLY = Producer("multiply", rounded=False, reads_activation=True)
PARAMETER = Producer("a parameter", rounded=True, reads_activation=False)

POOL = Pool(
    op="nn.max_pool2d",
    selects=True,
    layout="NCHW",
    kernel=(2, 2),
    strides=(2, 2),
    dilation=(1, 1),
    padding=(0, 0, 0, 0),
    in_shape=(1, 8, 16, 16),
    out_shape=(1, 8, 8, 8),
    dtype="float32",
)

ONES = Operand((1, 8, 1, 1), np.ones((1, 8, 1, 1), np.float32))
SIGNS = Operand((1, 8, 1, 1), np.float32([1, -1] * 4).reshape(1, 8, 1, 1))
TWO = Operand((1, 1, 1, 1), np.full((1, 1, 1, 1), 2, np.float32))
MINUS_ONES = Operand((1, 8, 1, 1), -np.ones((1, 8, 1, 1), np.float32))

PARAMS = {
    "leaky_relu": {"alpha": 0.1},
    "clip": {"low": 0.0, "high": 6.0},
    "bias_add": {"bias": ONES},
    "subtract": {"bias": ONES},
    "multiply": {"factor": ONES},
    "divide": {"divisor": ONES},
    "maximum": {"bound": ONES},
    "minimum": {"bound": ONES},
    "prelu": {"alpha": ONES},
    "subtract_from": {"bias": ONES},
    "multiply_negative": {"factor": MINUS_ONES},
    "divide_negative": {"divisor": MINUS_ONES},
    "divide_into": {"dividend": ONES},
    "multiply_by_channel": {"factor": SIGNS},
    "divide_by_channel": {"divisor": SIGNS},
    "square as a power": {"exponent": TWO},
    "leaky_relu_negative": {"alpha": -0.1},
    "prelu_negative": {"alpha": MINUS_ONES},
    "softplus": {"beta": 1.0, "threshold": 20.0},
    "quantize (relay)": {"scale": ONES, "zero_point": ONES},
    "quantize (relax)": {"scale": ONES, "zero_point": ONES},
    "dequantize": {"scale": ONES, "zero_point": ONES},
    "requantize": dict.fromkeys(("in_scale", "in_zero_point", "scale", "zero_point"), ONES),
}

BOUNDS = {
    **dict.fromkeys(("log", "log2", "log10", "sqrt", "rsqrt", "divide_into"), (0.5, inf)),
    "acosh": (1.0, inf),
    "asin": (-1.0, 1.0),
    "acos": (-1.0, 1.0),
    "atanh": (-0.9, 0.9),
}
"""Bounds of the data that a row with a domain accepts."""


def pool(**changes) -> Pool:
    """The usual pool with some fields changed."""
    return replace(POOL, **changes)


def op(rule="relu", **changes) -> ElementwiseOp:
    """One op of a chain, called after its rule, with parameters and data that the rule accepts."""
    usual = ElementwiseOp(
        op=f"the.{rule}",
        rule=RULE[rule],
        shape=(1, 8, 16, 16),
        dtype="float32",
        params=PARAMS.get(rule, {}),
        bounds=BOUNDS.get(rule, ALL),
    )
    return replace(usual, **changes)


def bias(shape=(1, 8, 1, 1), value=0.5, **changes) -> ElementwiseOp:
    """An addition of a constant of the given shape; unknown where `value` is None."""
    data = None if value is None else np.full(shape, value, np.float32)
    return op("bias_add", params={"bias": Operand(shape, data)}, **changes)


def site(*chain, producer=CONV, **fields) -> Site:
    """A site with the given chain, nearest the pool first; a relu where none is given."""
    fields = {"function": "main", "index": 0, "pool": POOL} | fields
    return Site(chain=chain or (op(),), producer=producer, **fields)


def bare_site(producer=CONV, **fields) -> Site:
    """A site with no activation above the pool."""
    return replace(site(producer=producer, **fields), chain=())


def assert_declined(decline, reason, *words):
    """The reason, and that detail and suggestion between them name every one of `words`."""
    assert decline is not None
    assert decline.reason is reason
    text = f"{decline.detail}; {decline.suggestion}"
    assert [word for word in words if word not in text] == []
    assert decline.suggestion
