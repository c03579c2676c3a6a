"""Rows of several ops: their numbers as NumPy computes them, and finding them in a graph."""

import numpy as np
import pytest

from tvm_passes.composites import COMPOSITES
from tvm_passes.decline import Direction
from tvm_passes.pattern import Apply, Data, Number
from tvm_passes.rules import RULES

NUMPY = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "power": np.power,
    "where": np.where,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "exp": np.exp,
    "log": np.log,
    "abs": np.abs,
    "negative": np.negative,
    "tanh": np.tanh,
    "clip": np.clip,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.logaddexp(x, 0),
    "erf": np.vectorize(__import__("math").erf),
}
x = np.linspace(-12, 12, 4001)
SIGMOID = 1 / (1 + np.exp(-x))
GELU = x / 2 * (1 + NUMPY["erf"](x / np.sqrt(2)))
FUNCTIONS = {
    "elu as a sum": np.where(x > 0, x, 0.7 * (np.exp(x) - 1)),
    "elu as a choice": np.where(x > 0, x, np.exp(x) - 1),
    "elu of a slope as a choice": np.where(x > 0, x, 0.7 * (np.exp(x) - 1)),
    "celu": np.where(x > 0, x, 0.7 * (np.exp(x / 0.7) - 1)),
    "relu as a choice": np.where(x > 0, x, 0.0),
    "leaky_relu as a choice": np.where(x > 0, x, 0.7 * x),
    "square as a product": x * x,
    "gelu composed": GELU,
    "silu composed": x * SIGMOID,
    "mish composed": x * np.tanh(np.logaddexp(x, 0)),
    "hard_swish composed": x * np.clip(x + 3, 0, 6) / 6,
    "softsign": x / (1 + np.abs(x)),
    "softplus as a sum": np.logaddexp(x, 0),
}
PARAMS = {"alpha": 0.7, "divisor": 0.7, "minus_alpha": -0.7}


def value(pattern):
    if isinstance(pattern, Data):
        return x
    if isinstance(pattern, Number):
        return PARAMS[pattern.name] if pattern.value is None else pattern.value
    return NUMPY[pattern.op](*map(value, pattern.args))


@pytest.mark.parametrize("rule", COMPOSITES, ids=lambda rule: rule.name)
def test_every_spelling_is_the_function_of_its_row_up_to_a_factor(rule):
    """Front ends multiply by 1/2 and divide by 6 before or after: that op is a row of its own."""
    expected = FUNCTIONS[rule.name]
    for pattern in rule.patterns:
        ratio = value(pattern)[-1] / expected[-1]
        assert round(ratio, 3) in (1.0, 2.0, 6.0)
        assert np.allclose(value(pattern), ratio * expected, atol=6e-3)


def test_the_functions_move_as_their_rows_say():
    for rule in COMPOSITES:
        steps = np.diff(FUNCTIONS[rule.name])
        turn = int(np.argmin(FUNCTIONS[rule.name]))
        falls_first = rule.direction is Direction.QUASI_CONVEX
        assert np.all(steps[turn:] >= -1e-12)
        assert (turn > 0) is falls_first
        assert np.all(steps[:turn] <= 1e-12)


def test_every_row_without_an_op_has_spellings():
    assert all(rule.forms or rule.patterns for rule in RULES)
    assert {rule.name for rule in COMPOSITES} == set(FUNCTIONS)


def test_which_patterns_add_products():
    x, two = Data(), Number(2.0)
    product = Apply("multiply", (x, two))
    assert Apply("add", (Apply("exp", (x,)), product)).adds_products
    assert Apply("sigmoid", (Apply("subtract", (two, product)),)).adds_products
    assert not Apply("multiply", (Apply("add", (x, two)), x)).adds_products
    assert not Apply("add", (Apply("exp", (product,)), two)).adds_products
