"""Functions that front ends spell with several ops sink as one, or as none."""

import numpy as np
import pytest
import tvm
from relay_builders import (
    SHAPE,
    assert_sinks,
    assert_untouched,
    const,
    conv,
    data,
    max_pool,
    module,
    per_channel,
    reasons,
    run_pass,
)
from relay_runs import TARGETS, bits, hard_values, outputs
from tvm import relay

from tvm_passes.decline import Direction, Reason
from tvm_passes.pattern import Apply, Data
from tvm_passes.rules import Rule

ALLOW = {"quasi-convex"}
ZERO, ONE, HALF, THREE, ALPHA, ROOT_2 = map(const, (0, 1, 0.5, 3, 0.7, 2**0.5))
ROOT_HALF, CUBIC_SLOPE = const(0.5**0.5), const(0.044715 * 0.79788456)
MINUS_ALPHA, SIXTH, CUBIC, TANH_SLOPE = map(const, (-0.7, 1 / 6, 0.044715, 0.79788456))


def elu(x):
    """As the ONNX and TFLite importers spell it."""
    return MINUS_ALPHA * relay.nn.relu(ONE - relay.exp(x)) + relay.nn.relu(x)


def elu_where(x):
    return relay.where(relay.greater(x, ZERO), x, ALPHA * (relay.exp(x) - ONE))


def gelu(x):
    return HALF * x * (ONE + relay.erf(x / ROOT_2))


def gelu_tanh(x):
    cube = relay.power(x, THREE)
    return x * (ONE + relay.tanh(TANH_SLOPE * (x + CUBIC * cube)))


def silu(x):
    return x * relay.sigmoid(x)


def mish(x):
    return x * relay.tanh(relay.log(ONE + relay.exp(x)))


def hard_swish(x):
    return x * relay.clip(x * SIXTH + HALF, 0, 1)


def square(x):
    return x * x


def elu_where_less(x):
    return relay.where(relay.less_equal(x, ZERO), relay.exp(x) - ONE, x)


def celu(x):
    """As PyTorch's importer spells it."""
    low = relay.minimum(ZERO, relay.exp(x / const(0.7)) - ONE)
    return ALPHA * low + relay.nn.relu(x)


def celu_onnx(x):
    curve = ALPHA * (relay.exp(x / const(0.7)) - ONE)
    return relay.maximum(ZERO, x) + relay.minimum(ZERO, curve)


def relu_where(x):
    return relay.where(relay.greater(x, ZERO), x, ZERO)


def leaky_relu_where(x):
    return relay.where(relay.less(x, ZERO), ALPHA * x, x)


def fast_gelu(x):
    cube = CUBIC_SLOPE * relay.power(x, const(3.0))
    return HALF * x * (ONE + relay.tanh(TANH_SLOPE * x + cube))


def tflite_gelu(x):
    return x * (HALF + relay.erf(x * ROOT_HALF) * HALF)


def power(x):
    return relay.power(x, const(2.0))


RISING = {
    "elu": elu,
    "elu_where": elu_where,
    "elu_where_less": elu_where_less,
    "celu": celu,
    "celu_onnx": celu_onnx,
    "relu_where": relu_where,
    "leaky_relu_where": leaky_relu_where,
}
INEXACT = {
    "fast_gelu": fast_gelu,
    "tflite_gelu": tflite_gelu,
    "power": power,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": silu,
    "mish": mish,
    "hard_swish": hard_swish,
}
QUASI_CONVEX = INEXACT | {"square": square}


def pooled(f):
    return module(max_pool(f(data())))


def least(x):
    return relay.negative(max_pool(relay.negative(x)))


@pytest.mark.parametrize("name", RISING)
def test_rising_functions_sink(name):
    f = RISING[name]
    assert_sinks(pooled(f), module(f(max_pool(data()))))


@pytest.mark.parametrize("name", QUASI_CONVEX)
def test_functions_that_fall_then_rise_sink_at_both_ends(name):
    f, x = QUASI_CONVEX[name], data()
    expected = module(relay.maximum(f(max_pool(x)), f(least(x))))
    assert_sinks(pooled(f), expected, allow=ALLOW)
    assert_untouched(pooled(f), Reason.QUASI_CONVEX)


@pytest.mark.parametrize("name", RISING)
def test_a_minimum_is_not_taken_above_such_a_function_of_another_pool(name):
    low = max_pool(relay.negative(relay.tanh(data())))
    _, remarks = run_pass(module(max_pool(RISING[name](low))))
    assert Reason.NOT_MONOTONE.value in [remark.reason for remark in remarks]


def test_a_chain_with_such_functions_sinks():
    shift, layer = per_channel((8, 1, 1)), conv(data())

    def chain(x):
        return relay.nn.relu(relay.nn.leaky_relu(elu(x + shift), alpha=0.3))

    assert_sinks(module(max_pool(chain(layer))), module(chain(max_pool(layer))))


def wide(value):
    return const(np.full((1, 1, 1, 1), value))


def wide_elu(x):
    return wide(-0.7) * relay.nn.relu(wide(1) - relay.exp(x)) + relay.nn.relu(x)


def wide_gelu(x):
    return wide(0.5) * x * (wide(1) + relay.erf(x / wide(2**0.5)))


def kept(reduce, x):
    return reduce(x, [2, 3], keepdims=True)


def test_axes_of_numbers_are_kept_for_them():
    x = data()
    sunk = relay.reshape(wide_elu(kept(relay.max, x)), (1, 8))
    assert_sinks(module(relay.max(wide_elu(x), [2, 3])), module(sunk))
    ends = [wide_gelu(kept(reduce, x)) for reduce in (relay.max, relay.min)]
    sunk = relay.reshape(relay.maximum(*ends), (1, 8))
    assert_sinks(module(relay.max(wide_gelu(x), [2, 3])), module(sunk), allow=ALLOW)


def test_numbers_of_more_axes_than_the_pool_reads():
    flat = relay.reshape(wide_elu(data()), (1, 8, 256))
    assert_untouched(module(relay.nn.max_pool1d(flat, 2, 2)), Reason.LAYOUT)


def test_a_second_pool_of_fewer_axes_than_numbers():
    before = relay.nn.max_pool1d(relay.max(wide_elu(data()), 3), 2, 2)
    pooled = wide_elu(relay.max(data(), 3, keepdims=True))
    after = relay.nn.max_pool1d(relay.reshape(pooled, (1, 8, 16)), 2, 2)
    assert_sinks(module(before), module(after), Reason.LAYOUT)


def test_what_is_read_on_the_way_keeps_all():
    x = data()
    gate = relay.sigmoid(x)
    both = module(relay.Tuple([max_pool(x * gate), relay.cos(gate)]))
    assert_untouched(both, Reason.VARIES_IN_WINDOW)


def test_the_data_of_all_ops_is_one_value():
    x, y = data(), data(name="y")
    assert_untouched(module(max_pool(x * relay.sigmoid(y)), x, y), Reason.VARIES_IN_WINDOW)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x / (ONE + relay.abs(x)),
        lambda x: relay.maximum(x, ZERO) + relay.log(ONE + relay.exp(relay.negative(relay.abs(x)))),
    ],
    ids=["softsign", "softplus"],
)
def test_kernels_that_fall_are_declined(f):
    assert_untouched(pooled(f), Reason.NOT_MONOTONE)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", [*RISING, "square"])
def test_values(name, target):
    # Each by itself: SimplifyExpr misses what it folds in one of its own.
    before = pooled((RISING | QUASI_CONVEX)[name])
    after, remarks = run_pass(before, allow=ALLOW)
    assert "sunk" in reasons(remarks)
    x = np.clip(hard_values(SHAPE, "float32"), -80, 80)
    (a,), (b,) = outputs(before, x, target=target), outputs(after, x, target=target)
    zero = np.float32(0)  # a window that holds both zeros yields either
    assert np.array_equal(bits(a + zero), bits(b + zero))


@pytest.mark.parametrize("name", INEXACT)
def test_the_rounding_of_what_is_exact_in_real_numbers_alone(name):
    before = pooled(INEXACT[name])
    after, _ = run_pass(before, allow=ALLOW)
    x = np.random.default_rng(0).uniform(-8, 2, SHAPE).astype("float32")
    (a,), (b,) = outputs(before, x), outputs(after, x)
    assert np.abs(a - b).max() <= 2 * np.finfo("float32").eps


def test_differences_the_other_way_round_are_other_functions():
    def other(x):
        return MINUS_ALPHA * relay.nn.relu(relay.exp(x) - ONE) + relay.nn.relu(x)

    assert_untouched(pooled(other), Reason.VARIES_IN_WINDOW)


def test_numbers_that_are_unknown_or_many_are_none():
    def other(one, slope):
        return lambda x: slope * relay.nn.relu(one - relay.exp(x)) + relay.nn.relu(x)

    unknown = data((1,), name="one")
    assert_untouched(pooled(other(unknown, MINUS_ALPHA)), Reason.VARIES_IN_WINDOW)
    assert_untouched(pooled(other(ONE, per_channel((8, 1, 1)))), Reason.VARIES_IN_WINDOW)


@pytest.mark.parametrize(
    ("spelling", "f"),
    [
        (Apply("tan", (Data(), Data())), relay.tan),  # of too many arguments
        (Apply("clip", (Data(), Data())), lambda x: relay.clip(x, 0, 1)),
        (Apply("tan", (Data(),)), lambda _: relay.tan(per_channel(SHAPE))),  # of a constant
    ],
)
def test_a_spelling_that_no_call_has(spelling, f):
    spellings = (Apply("cos", (spelling,)),)
    mine = Rule("mine", Direction.NON_DECREASING, forms={}, patterns=spellings)
    before = module(max_pool(relay.cos(f(data()))))
    after, _ = run_pass(before, rules=[mine])
    tvm.ir.assert_structural_equal(after, before)


@pytest.mark.parametrize("one", [0.9995, np.nextafter(np.float32(1), np.float32(0))])
def test_numbers_that_are_nearly_right_are_others(one):
    """exp(x) less than one is above small x from below 0."""

    def other(x):
        return relay.where(relay.greater(x, ZERO), x, relay.exp(x) - const(one))

    assert_untouched(pooled(other), Reason.NO_RULE)
