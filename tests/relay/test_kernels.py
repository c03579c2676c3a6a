"""What the rows of the table say of NaN, -0 and the infinities is what TVM's kernels give."""

import numpy as np
import pytest
from relay_builders import data, module
from relay_runs import outputs
from tvm import relay

from tvm_passes.rules import RULES

LOW, HIGH = -1.0, 6.0
KERNELS = {
    "relu": relay.nn.relu,
    "clip": lambda x: relay.clip(x, LOW, HIGH),
    "leaky_relu": lambda x: relay.nn.leaky_relu(x, alpha=0.1),
    "sigmoid": relay.sigmoid,
    "tanh": relay.tanh,
    # A constant 0 would be removed before it reaches a kernel.
    "bias_add": lambda x: relay.add(x, data((1,), x.type_annotation.dtype, name="b")),
}

NAN = {
    "0": lambda y: y == 0,
    "NaN": np.isnan,
    "a bound": lambda y: y in {LOW, HIGH},
}
NEGATIVE_ZERO = {
    "+0": (0.0, False),
    "kept": (0.0, True),
    "kept inside the bounds": (0.0, True),
    "1/2": (0.5, False),
    "+0 unless b is -0": (0.0, False),
}
"""Value and sign bit."""
INFINITY = {
    "-inf to 0, +inf kept": (0, np.inf),
    "the nearer bound": (LOW, HIGH),
    "0 and 1": (0, 1),
    "-1 and +1": (-1, 1),
    "kept": (-np.inf, np.inf),
}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_special_values(rule, dtype):
    inputs = [np.array([np.nan, -0.0, -np.inf, np.inf], dtype)]
    if rule.name == "bias_add":
        inputs.append(np.zeros(1, dtype))
    ((of_nan, of_zero, of_low, of_high),) = outputs(
        module(KERNELS[rule.name](data((4,), dtype))), *inputs
    )
    assert NAN[rule.nan.partition(";")[0]](of_nan)
    assert (abs(of_zero), np.signbit(of_zero)) == NEGATIVE_ZERO[
        rule.negative_zero.partition(";")[0]
    ]
    assert (of_low, of_high) == INFINITY[rule.infinity.partition(";")[0]]


def test_a_bias_of_negative_zero_keeps_the_sign():
    minus = np.array([-0.0], "float32")
    ((y,),) = outputs(module(KERNELS["bias_add"](data((1,)))), minus, minus)
    assert np.signbit(y)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_slope_of_0_at_minus_infinity(dtype):
    (rule,) = (rule for rule in RULES if rule.name == "leaky_relu")
    mod = module(relay.nn.leaky_relu(data((1,), dtype), alpha=0.0))
    ((y,),) = outputs(mod, np.array([-np.inf], dtype))
    said = rule.infinity.partition("; -inf to ")[2].partition(" for alpha = 0")[0]
    assert said == ("NaN" if np.isnan(y) else f"{y:g}")
