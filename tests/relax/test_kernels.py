"""What the rows of the table say of NaN, -0 and the infinities is what TVM's kernels give."""

import numpy as np
import pytest
from relax_builders import const, data, module
from relax_runs import outputs
from special_values import DIVISOR, FACTOR, HIGH, LOW, SHIFT, SIGNS, SLOPE, wrong_words
from tvm.relax import op

from tvm_passes.rules import RELAX, RULES

INPUTS = (np.nan, -0.0, -np.inf, np.inf)


def kernels(dtype):
    """A call of each row that has parameters; SHIFT is an input, which is not folded away."""
    return {
        "clip": lambda x, _: op.clip(x, LOW, HIGH),
        "leaky_relu": lambda x, _: op.nn.leakyrelu(x, SLOPE),
        "bias_add": op.add,
        "subtract": op.subtract,
        "multiply": lambda x, _: op.multiply(x, const(FACTOR, dtype)),
        "divide": lambda x, _: op.divide(x, const(DIVISOR, dtype)),
        "maximum": lambda x, _: op.maximum(x, const(LOW, dtype)),
        "minimum": lambda x, _: op.minimum(x, const(HIGH, dtype)),
        "subtract_from": lambda x, b: op.subtract(b, x),
        "multiply_negative": lambda x, _: op.multiply(x, const(-FACTOR, dtype)),
        "divide_negative": lambda x, _: op.divide(x, const(-DIVISOR, dtype)),
        "divide_into": lambda x, _: op.divide(const(DIVISOR, dtype), x),
        "multiply_by_channel": lambda x, _: op.multiply(x, const(SIGNS, dtype)),
        "divide_by_channel": lambda x, _: op.divide(x, const(SIGNS, dtype)),
        "square as a power": lambda x, _: op.power(x, const(2.0, dtype)),
        "leaky_relu_negative": lambda x, _: op.nn.leakyrelu(x, -SLOPE),
        "prelu_negative": lambda x, _: op.nn.prelu(x, const([-SLOPE] * 4, dtype), axis=0),
        "prelu": lambda x, _: op.nn.prelu(x, const([SLOPE] * 4, dtype), axis=0),
    }


def call(rule, dtype):
    (form,) = rule.forms[RELAX]
    space = op.nn if form.op.startswith("relax.nn.") else op
    plain = getattr(space, form.op.rpartition(".")[2])
    return kernels(dtype).get(rule.name, lambda x, _: plain(x))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_special_values(dtype):
    rules = [
        rule for rule in RULES if dtype in rule.dtypes and RELAX in rule.forms and not rule.results
    ]
    bodies = [call(rule, dtype) for rule in rules]
    mod = module(
        lambda x, b: [body(x, b) for body in bodies], data((4,), dtype), data((1,), dtype, "b")
    )
    results = outputs(mod, np.array(INPUTS, dtype), np.full(1, SHIFT, dtype))
    wrong = {rule.name: wrong_words(rule, y) for rule, y in zip(rules, results, strict=True)}
    assert {name: words for name, words in wrong.items() if words} == {}


def test_a_bias_of_negative_zero_keeps_the_sign():
    minus = np.array([-0.0], "float32")
    ((y,),) = outputs(module(op.add, data((1,)), data((1,), name="b")), minus, minus)
    assert np.signbit(y)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_slope_of_0_at_minus_infinity(dtype):
    (rule,) = (rule for rule in RULES if rule.name == "leaky_relu")
    mod = module(lambda x: op.nn.leakyrelu(x, 0.0), data((1,), dtype))
    ((y,),) = outputs(mod, np.array([-np.inf], dtype))
    said = rule.infinity.partition("; -inf to ")[2].partition(" for alpha = 0")[0]
    assert said == ("NaN" if np.isnan(y) else f"{y:g}")
