"""Functions that front ends spell with several ops sink as one, or as none."""

import numpy as np
import pytest
import tvm
from relax_builders import (
    SHAPE,
    STORED,
    assert_sinks,
    assert_untouched,
    built,
    const,
    conv,
    data,
    max_pool,
    per_channel,
    reasons,
    run_pass,
)
from relax_runs import TARGETS, bits, cpu, hard_values, outputs
from tvm.relax import op

from tvm_passes.decline import Direction, Reason
from tvm_passes.pattern import Apply, Data, Number
from tvm_passes.rules import RULES, Rule

ALLOW = {"quasi-convex"}
ONE, HALF, THREE, SIX = (const(value) for value in (1.0, 0.5, 3.0, 6.0))
ROOT_2, ALPHA, MINUS_ALPHA, ZERO = (const(value) for value in (2**0.5, 0.7, -0.7, 0.0))
ROOT, CUBIC = const((2 / np.pi) ** 0.5), const(0.044715 * (2 / np.pi) ** 0.5)


def elu(b, x):
    """As the ONNX and TFLite importers spell it."""
    falling = b.emit(op.nn.relu(b.emit(op.subtract(ONE, b.emit(op.exp(x))))))
    return op.add(b.emit(op.multiply(MINUS_ALPHA, falling)), b.emit(op.nn.relu(x)))


def elu_where(b, x):
    positive = b.emit(op.greater(x, const(0.0)))
    curve = b.emit(op.subtract(b.emit(op.exp(x)), ONE))
    return op.where(positive, x, b.emit(op.multiply(ALPHA, curve)))


def gelu(b, x):
    half = b.emit(op.multiply(HALF, x))
    gate = b.emit(op.add(ONE, b.emit(op.erf(b.emit(op.divide(x, ROOT_2))))))
    return op.multiply(half, gate)


def silu(b, x):
    return op.multiply(x, b.emit(op.sigmoid(x)))


def mish(b, x):
    curve = b.emit(op.log(b.emit(op.add(ONE, b.emit(op.exp(x))))))
    return op.multiply(x, b.emit(op.tanh(curve)))


def hard_swish(b, x):
    gate = b.emit(op.clip(b.emit(op.add(x, THREE)), 0, 6))
    return op.multiply(x, b.emit(op.divide(gate, SIX)))


def square(_b, x):
    return op.multiply(x, x)


def elu_where_less(b, x):
    falls = b.emit(op.less_equal(x, const(0.0)))
    return op.where(falls, b.emit(op.subtract(b.emit(op.exp(x)), ONE)), x)


def _celu(b, x):
    return b.emit(op.subtract(b.emit(op.exp(b.emit(op.divide(x, ALPHA)))), ONE))


def celu(b, x):
    """As PyTorch's importer spells it."""
    low = b.emit(op.multiply(ALPHA, b.emit(op.minimum(ZERO, _celu(b, x)))))
    return op.add(low, b.emit(op.nn.relu(x)))


def celu_onnx(b, x):
    high = b.emit(op.maximum(ZERO, x))
    low = b.emit(op.minimum(ZERO, b.emit(op.multiply(ALPHA, _celu(b, x)))))
    return op.add(high, low)


def relu_where(b, x):
    return op.where(b.emit(op.greater(x, ZERO)), x, ZERO)


def leaky_relu_where(b, x):
    """As the ONNX importer spells a PReLU of slopes along no one axis."""
    return op.where(b.emit(op.less(x, ZERO)), b.emit(op.multiply(ALPHA, x)), x)


def fast_gelu(b, x):
    half, linear = b.emit(op.multiply(HALF, x)), b.emit(op.multiply(ROOT, x))
    cube = b.emit(op.multiply(b.emit(op.multiply(x, x)), x))
    terms = linear, b.emit(op.multiply(CUBIC, cube))
    gate = b.emit(op.add(ONE, b.emit(op.tanh(b.emit(op.add(*terms))))))
    return op.multiply(half, gate)


def tflite_gelu(b, x):
    curve = b.emit(op.erf(b.emit(op.multiply(x, const(0.5**0.5)))))
    return op.multiply(x, b.emit(op.add(HALF, b.emit(op.multiply(curve, HALF)))))


def power(_b, x):
    return op.power(x, const(2.0))


RISING = {
    "elu": elu,
    "elu_where": elu_where,
    "elu_where_less": elu_where_less,
    "celu": celu,
    "celu_onnx": celu_onnx,
    "relu_where": relu_where,
    "leaky_relu_where": leaky_relu_where,
}
QUASI_CONVEX = {
    "fast_gelu": fast_gelu,
    "tflite_gelu": tflite_gelu,
    "power": power,
    "gelu": gelu,
    "silu": silu,
    "mish": mish,
    "hard_swish": hard_swish,
    "square": square,
}


def pooled(f):
    return built(lambda b, x: max_pool(b.emit(f(b, x))))


@pytest.mark.parametrize("name", RISING)
def test_rising_functions_sink(name):
    f = RISING[name]
    assert_sinks(pooled(f), built(lambda b, x: f(b, b.emit(max_pool(x)))))


@pytest.mark.parametrize("name", QUASI_CONVEX)
def test_functions_that_fall_then_rise_sink_at_both_ends(name):
    f = QUASI_CONVEX[name]

    def expected(b, x):
        high = b.emit(f(b, b.emit(max_pool(x))))
        low = b.emit(op.negative(b.emit(max_pool(b.emit(op.negative(x))))))
        return op.maximum(high, b.emit(f(b, low)))

    assert_sinks(pooled(f), built(expected), allow=ALLOW)
    assert_untouched(pooled(f), Reason.QUASI_CONVEX)


@pytest.mark.parametrize("name", RISING)
def test_a_minimum_is_not_taken_above_such_a_function_of_another_pool(name):
    def before(b, x):
        low = b.emit(max_pool(b.emit(op.negative(b.emit(op.tanh(x))))))
        return max_pool(b.emit(RISING[name](b, low)))

    _, remarks = run_pass(built(before))
    assert Reason.NOT_MONOTONE.value in [remark.reason for remark in remarks]


def wide(value):
    return const(np.full((1, 1, 1, 1), value))


def wide_elu(b, x):
    falling = b.emit(op.nn.relu(b.emit(op.subtract(wide(1), b.emit(op.exp(x))))))
    return b.emit(op.add(b.emit(op.multiply(wide(-0.7), falling)), b.emit(op.nn.relu(x))))


def wide_gelu(b, x):
    half = b.emit(op.multiply(wide(0.5), x))
    gate = b.emit(op.add(wide(1), b.emit(op.erf(b.emit(op.divide(x, wide(2**0.5)))))))
    return b.emit(op.multiply(half, gate))


def test_axes_of_numbers_are_kept_for_them():
    def sunk(b, x):
        return op.squeeze(wide_elu(b, b.emit(op.max(x, [2, 3], keepdims=True))), [2, 3])

    def sunk_at_both_ends(b, x):
        high, low = (
            wide_gelu(b, b.emit(end(x, [2, 3], keepdims=True))) for end in (op.max, op.min)
        )
        return op.squeeze(b.emit(op.maximum(high, low)), [2, 3])

    before = built(lambda b, x: op.max(wide_elu(b, x), [2, 3]), data(STORED))
    assert_sinks(before, built(sunk, data(STORED)))
    before = built(lambda b, x: op.max(wide_gelu(b, x), [2, 3]), data(STORED))
    assert_sinks(before, built(sunk_at_both_ends, data(STORED)), allow=ALLOW)


def test_numbers_of_more_axes_than_the_pool_reads():
    def flat(b, x):
        return op.nn.max_pool1d(b.emit(op.reshape(wide_elu(b, x), (1, 8, 256))), 2, 2)

    assert_untouched(built(flat), Reason.LAYOUT)


def test_a_second_pool_of_fewer_axes_than_numbers():
    def before(b, x):
        return op.nn.max_pool1d(b.emit(op.max(wide_elu(b, x), 3)), 2, 2)

    def sunk(b, x):
        pooled = wide_elu(b, b.emit(op.max(x, 3, keepdims=True)))
        return op.nn.max_pool1d(b.emit(op.squeeze(pooled, [3])), 2, 2)

    assert_sinks(built(before, data(STORED)), built(sunk, data(STORED)), Reason.LAYOUT)


def test_a_chain_with_such_functions_sinks():
    def chain(b, x):
        shifted = b.emit(op.add(x, per_channel((8, 1, 1))))
        return op.nn.relu(b.emit(op.multiply(const(1.05), b.emit(elu(b, shifted)))))

    def before(b, x):
        return max_pool(b.emit(chain(b, b.emit(conv(x)))))

    def expected(b, x):
        return chain(b, b.emit(max_pool(b.emit(conv(x)))))

    assert_sinks(built(before, data(STORED)), built(expected, data(STORED)))


def test_one_such_function_sinks_below_two_pools_in_a_row():
    def before(b, x):
        return max_pool(b.emit(max_pool(b.emit(elu(b, x)))))

    def expected(b, x):
        return elu(b, b.emit(max_pool(b.emit(max_pool(x)))))

    after, _ = run_pass(built(before, data(STORED)))
    tvm.ir.assert_structural_equal(after, built(expected, data(STORED)))


@pytest.mark.parametrize("leak", ["inner", "output"])
def test_what_is_read_on_the_way_keeps_all(leak):
    def body(b, x):
        gate = b.emit(op.sigmoid(x))
        pool = max_pool(b.emit(op.multiply(x, gate)))
        return [pool, op.cos(gate) if leak == "inner" else gate]

    assert_untouched(built(body), Reason.VARIES_IN_WINDOW)


def test_the_data_of_all_ops_is_one_value():
    def body(b, x, y):
        return max_pool(b.emit(op.multiply(x, b.emit(op.sigmoid(y)))))

    assert_untouched(built(body, data(), data(name="y")), Reason.VARIES_IN_WINDOW)


@pytest.mark.parametrize("alpha", [0.3, -0.3])
def test_a_slope_of_the_wrong_sign_is_declined(alpha):
    def wrong(b, x):
        falling = b.emit(op.nn.relu(b.emit(op.subtract(ONE, b.emit(op.exp(x))))))
        return op.add(b.emit(op.multiply(const(alpha), falling)), b.emit(op.nn.relu(x)))

    passed = "sunk" in reasons(run_pass(pooled(wrong))[1])
    assert passed is (alpha < 0)


def test_differences_the_other_way_round_are_other_functions():
    def other(b, x):
        rising = b.emit(op.nn.relu(b.emit(op.subtract(b.emit(op.exp(x)), ONE))))
        return op.add(b.emit(op.multiply(MINUS_ALPHA, rising)), b.emit(op.nn.relu(x)))

    assert_untouched(pooled(other), Reason.VARIES_IN_WINDOW)


def test_other_constants_are_other_functions():
    def other(b, x):
        return op.multiply(x, b.emit(op.clip(b.emit(op.add(x, ONE)), 0, 6)))

    assert_untouched(pooled(other), Reason.VARIES_IN_WINDOW)


@pytest.mark.parametrize("name", ["softsign", "softplus"])
def test_kernels_that_fall_are_declined(name):
    def f(b, x):
        size = b.emit(op.abs(x))
        if name == "softsign":
            return op.divide(x, b.emit(op.add(ONE, size)))
        curve = b.emit(op.add(ONE, b.emit(op.exp(b.emit(op.negative(size))))))
        return op.add(b.emit(op.maximum(x, const(0.0))), b.emit(op.log(curve)))

    assert_untouched(pooled(f), Reason.NOT_MONOTONE)


@pytest.mark.parametrize("target", TARGETS, ids=cpu)
def test_values(target):
    functions = [*RISING.values(), square]
    loose = [gelu, silu, mish, hard_swish]
    before = built(lambda b, x: [max_pool(b.emit(f(b, x))) for f in (*functions, *loose)])
    after, remarks = run_pass(before, allow=ALLOW)
    assert reasons(remarks).count("sunk") == len(functions) + len(loose)
    x = np.clip(hard_values(SHAPE, "float32"), -80, 80)
    zero = np.float32(0)  # a window that holds both zeros yields either
    for n, (a, b) in enumerate(
        zip(outputs(before, x, target=target), outputs(after, x, target=target), strict=True)
    ):
        if n < len(functions):
            assert np.array_equal(bits(a + zero), bits(b + zero)), n
        assert np.abs(a - b).max() <= 2 * np.finfo("float32").eps


def test_a_row_of_the_users_own_of_several_ops():
    shifted = Rule(
        "x + exp(x)",
        Direction.NON_DECREASING,
        forms={},
        patterns=(Apply("add", (Data(), Apply("exp", (Data(),)))),),
        is_arithmetic=True,
    )

    def f(b, x):
        return op.add(x, b.emit(op.exp(x)))

    before, expected = pooled(f), built(lambda b, x: f(b, b.emit(max_pool(x))))
    assert_sinks(before, expected, rules=(*RULES, shifted))
    assert_untouched(before, Reason.VARIES_IN_WINDOW)


@pytest.mark.parametrize(
    ("spelling", "f"),
    [
        (Apply("tan", (Data(), Data())), op.tan),  # of too many arguments
        (Apply("tan", (Data(), Number(1.0))), op.tan),
        (Apply("clip", (Data(), Data())), lambda x: op.clip(x, 0, 1)),  # of a number
        (Apply("tan", (Data(),)), lambda _: op.tan(per_channel(SHAPE))),  # of a constant
    ],
)
def test_a_spelling_that_no_call_has(spelling, f):
    spellings = (Apply("cos", (spelling,)),)
    mine = Rule("mine", Direction.NON_DECREASING, forms={}, patterns=spellings)
    before = built(lambda b, x: max_pool(b.emit(op.cos(b.emit(f(x))))))
    after, _ = run_pass(before, rules=[mine])
    tvm.ir.assert_structural_equal(after, before)


def test_numbers_that_are_unknown_or_many_are_none():
    def other(one, slope):
        def f(b, x):
            falling = b.emit(op.nn.relu(b.emit(op.subtract(one, b.emit(op.exp(x))))))
            return op.add(b.emit(op.multiply(slope, falling)), b.emit(op.nn.relu(x)))

        return f

    unknown = data((1,), name="one")
    some = other(unknown, MINUS_ALPHA)
    mod = built(lambda b, x, _: max_pool(b.emit(some(b, x))), data(), unknown)
    assert_untouched(mod, Reason.VARIES_IN_WINDOW)
    assert_untouched(pooled(other(ONE, per_channel((8, 1, 1)))), Reason.VARIES_IN_WINDOW)


@pytest.mark.parametrize("one", [0.9995, np.nextafter(np.float32(1), np.float32(0))])
def test_numbers_that_are_nearly_right_are_others(one):
    """exp(x) less than one is above small x from below 0."""

    def other(b, x):
        curve = b.emit(op.subtract(b.emit(op.exp(x)), const(one)))
        return op.where(b.emit(op.greater(x, ZERO)), x, curve)

    assert_untouched(pooled(other), Reason.NO_RULE)


@pytest.mark.parametrize(("beta", "threshold"), [(2.0, 20.0), (1.0, -5.0)])
def test_mish_is_of_the_softplus_that_its_row_is_about(beta, threshold):
    """With a threshold of -5 it is x tanh(x) above that."""

    def other(b, x):
        return op.multiply(x, b.emit(op.tanh(b.emit(op.nn.softplus(x, beta, threshold)))))

    mod = pooled(other)
    after, _ = run_pass(mod, allow={"quasi-convex"})
    tvm.ir.assert_structural_equal(after, mod)
