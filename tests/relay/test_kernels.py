"""What the rows of the table say of NaN, -0 and the infinities is what TVM's kernels give."""

import numpy as np
import pytest
from relay_builders import const, data, module
from relay_runs import outputs
from special_values import DIVISOR, FACTOR, HIGH, LOW, SHIFT, SIGNS, SLOPE, wrong_words
from tvm import relay

from tvm_passes.rules import RELAY, RULES

INPUTS = (np.nan, -0.0, -np.inf, np.inf)


def kernels(dtype):
    """A call of each row that has parameters; SHIFT is an input, which is not folded away."""
    return {
        "clip": lambda x, _: relay.clip(x, LOW, HIGH),
        "leaky_relu": lambda x, _: relay.nn.leaky_relu(x, alpha=SLOPE),
        "bias_add": relay.add,
        "subtract": relay.subtract,
        "multiply": lambda x, _: relay.multiply(x, const(FACTOR, dtype)),
        "divide": lambda x, _: relay.divide(x, const(DIVISOR, dtype)),
        "maximum": lambda x, _: relay.maximum(x, const(LOW, dtype)),
        "minimum": lambda x, _: relay.minimum(x, const(HIGH, dtype)),
        "subtract_from": lambda x, b: relay.subtract(b, x),
        "multiply_negative": lambda x, _: relay.multiply(x, const(-FACTOR, dtype)),
        "divide_negative": lambda x, _: relay.divide(x, const(-DIVISOR, dtype)),
        "divide_into": lambda x, _: relay.divide(const(DIVISOR, dtype), x),
        "multiply_by_channel": lambda x, _: relay.multiply(x, const(SIGNS, dtype)),
        "divide_by_channel": lambda x, _: relay.divide(x, const(SIGNS, dtype)),
        "square as a power": lambda x, _: relay.power(x, const(2.0, dtype)),
        "leaky_relu_negative": lambda x, _: relay.nn.leaky_relu(x, alpha=-SLOPE),
        "prelu_negative": lambda x, _: relay.nn.prelu(x, const([-SLOPE] * 4, dtype), axis=0),
        "prelu": lambda x, _: relay.nn.prelu(x, const([SLOPE] * 4, dtype), axis=0),
    }


def call(rule, dtype):
    name = rule.forms[RELAY][0].op
    space = relay.nn if name.startswith("nn.") else relay
    plain = getattr(space, name.rpartition(".")[2])
    return kernels(dtype).get(rule.name, lambda x, _: plain(x))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_special_values(dtype):
    rules = [
        rule for rule in RULES if dtype in rule.dtypes and RELAY in rule.forms and not rule.results
    ]
    x, b = data((4,), dtype), data((1,), dtype, name="b")
    mod = module(relay.Tuple([call(rule, dtype)(x, b) for rule in rules]), x, b)
    results = outputs(mod, np.array(INPUTS, dtype), np.full(1, SHIFT, dtype))
    wrong = {rule.name: wrong_words(rule, y) for rule, y in zip(rules, results, strict=True)}
    assert {name: words for name, words in wrong.items() if words} == {}


def test_a_bias_of_negative_zero_keeps_the_sign():
    minus = np.array([-0.0], "float32")
    ((y,),) = outputs(module(relay.add(data((1,)), data((1,), name="b"))), minus, minus)
    assert np.signbit(y)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_slope_of_0_at_minus_infinity(dtype):
    (rule,) = (rule for rule in RULES if rule.name == "leaky_relu")
    mod = module(relay.nn.leaky_relu(data((1,), dtype), alpha=0.0))
    ((y,),) = outputs(mod, np.array([-np.inf], dtype))
    said = rule.infinity.partition("; -inf to ")[2].partition(" for alpha = 0")[0]
    assert said == ("NaN" if np.isnan(y) else f"{y:g}")
