"""Functions that fall, at the other end of each window, and such that fall, then rise, at both."""

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
    module,
    per_channel,
    positive,
    reasons,
    run_pass,
)
from relax_runs import TARGETS, bits, cpu, hard_values, outputs
from tvm import relax
from tvm.relax import op

from tvm_passes.decline import Reason
from tvm_passes.errors import AllowError
from tvm_passes.relax import ReorderActivationAfterMaxPool
from tvm_passes.remarks import Kind

ALLOW = {"quasi-convex"}
NEGATIVE = const(-np.linspace(0.3, 2, 8).reshape(8, 1, 1))
SLOPES = const(np.linspace(-0.5, 0.5, 8))


def erfc(x):
    return op.subtract(const(1.0), op.erf(x))


FALLING = {
    "relax.negative": lambda x: op.negative(op.tanh(x)),
    "relax.subtract": erfc,
    "relax.multiply": lambda x: op.multiply(op.tanh(x), NEGATIVE),
    "relax.divide": lambda x: op.divide(const(1.0), op.add(op.exp(x), const(1.0))),
    "divide by channel": lambda x: op.divide(op.tanh(x), NEGATIVE),
    "relax.rsqrt": lambda x: op.rsqrt(op.add(op.nn.relu(x), const(0.5))),
    "relax.acos": lambda x: op.acos(op.tanh(x)),
}
"""Each is non-increasing, and its domain proved."""

SIGNS = const(np.linspace(-1, 2, 8).reshape(8, 1, 1))
BY_CHANNEL = {
    "relax.multiply": lambda x: op.multiply(op.tanh(x), SIGNS),
    "relax.divide": lambda x: op.divide(op.tanh(x), SIGNS),
    "of what falls": lambda x: op.multiply(op.nn.relu(op.negative(op.tanh(x))), SIGNS),
}
"""Each rises in some channels and falls in others."""

EXACT = {
    "relax.abs": op.abs,
    "relax.square": op.square,
    "relax.nn.leakyrelu": lambda x: op.nn.leakyrelu(x, -0.3),
    "relax.nn.prelu": lambda x: op.nn.prelu(x, SLOPES, axis=1),
}
INEXACT = {
    "relax.nn.gelu": op.nn.gelu,
    "relax.nn.gelu_tanh": op.nn.gelu_tanh,
    "relax.nn.silu": op.nn.silu,
}
QUASI_CONVEX = EXACT | INEXACT


def least(builder, x, **attrs):
    return op.negative(builder.emit(max_pool(builder.emit(op.negative(x)), **attrs)))


@pytest.mark.parametrize("name", FALLING)
def test_what_falls_sinks_below_the_minimum(name):
    f = FALLING[name]
    expected = built(lambda builder, x: f(builder.emit(least(builder, x))))
    assert_sinks(module(lambda x: max_pool(f(x))), expected)


@pytest.mark.parametrize("name", QUASI_CONVEX | BY_CHANNEL)
def test_what_falls_then_rises_sinks_below_the_maximum_and_the_minimum(name):
    f = (QUASI_CONVEX | BY_CHANNEL)[name]

    def expected(builder, x):
        high = builder.emit(f(builder.emit(max_pool(x))))
        low = builder.emit(f(builder.emit(least(builder, x))))
        return op.maximum(high, low)

    allow = ALLOW if name in QUASI_CONVEX else ()
    assert_sinks(module(lambda x: max_pool(f(x))), built(expected), allow=allow)


def test_what_is_below_such_a_function_is_evaluated_once_and_what_is_above_it_twice():
    shift, scale = per_channel((8, 1, 1)), positive((8, 1, 1))

    def above(x):
        return op.abs(op.negative(op.tanh(op.add(x, shift))))

    def below(x):
        return op.nn.relu(op.subtract(op.multiply(x, scale), const(0.5)))

    def expected(builder, x):
        layer = builder.emit(conv(x))
        high = builder.emit(above(builder.emit(max_pool(layer))))
        low = builder.emit(above(builder.emit(least(builder, layer))))
        return below(builder.emit(op.maximum(high, low)))

    before = module(lambda x: max_pool(below(above(conv(x)))), data(STORED))
    assert_sinks(before, built(expected, data(STORED)), allow=ALLOW)


@pytest.mark.parametrize("name", QUASI_CONVEX)
def test_without_leave_such_a_function_stays_and_the_remark_says_how_to_give_it(name):
    mod = module(lambda x: max_pool(QUASI_CONVEX[name](x)))
    _, (remark,) = run_pass(mod)
    assert_untouched(mod, Reason(remark.reason))
    assert remark.reason in {"quasi-convex", "negative-slope"}
    assert "quasi-convex" in remark.message


def test_leave_for_anything_else_is_refused():
    with pytest.raises(AllowError, match="device-math, quasi-convex, winograd, found 'gelu'"):
        ReorderActivationAfterMaxPool(allow={"gelu"})


@pytest.mark.parametrize(
    "f",
    [
        op.negative,
        lambda x: op.multiply(x, NEGATIVE),
        lambda x: op.subtract(const(1.0), x),
        lambda x: op.nn.relu(op.negative(x)),
        lambda x: op.multiply(x, SIGNS),
    ],
)
def test_what_falls_and_costs_no_more_than_a_negation_stays(f):
    _, remarks = run_pass(module(lambda x: max_pool(f(x))))
    assert [remark.reason for remark in remarks if remark.kind is Kind.MISSED] == ["does-not-pay"]


def test_falling_twice_is_rising():
    def logistic(x):
        return op.divide(const(1.0), op.add(op.exp(op.negative(x)), const(1.0)))

    before = module(lambda x: max_pool(logistic(x)))
    assert_sinks(before, module(lambda x: logistic(max_pool(x))))


@pytest.mark.parametrize(
    ("f", "reason"),
    [
        (lambda x: op.negative(op.tanh(op.abs(x))), Reason.NOT_MONOTONE),
        (lambda x: op.abs(op.subtract(op.abs(x), const(1.0))), Reason.NOT_MONOTONE),
    ],
)
def test_of_functions_with_a_maximum_inside_only_what_is_below_sinks(f, reason):
    _, remarks = run_pass(module(lambda x: max_pool(f(x))), allow=ALLOW)
    assert reason.value in reasons(remarks)


@pytest.mark.parametrize("name", ["max", "min"])
def test_a_reduction_turns_into_its_opposite(name):
    pool, opposite = getattr(op, name), op.min if name == "max" else op.max
    before = module(lambda x: pool(erfc(x), axis=[2, 3]))
    assert_sinks(before, module(lambda x: erfc(opposite(x, axis=[2, 3]))))


@pytest.mark.parametrize("f", [op.abs, BY_CHANNEL["relax.multiply"]])
def test_the_minimum_of_what_falls_then_rises_is_inside(f):
    mod = module(lambda x: op.min(f(x), axis=[2, 3]))
    _, (remark,) = run_pass(mod, allow=ALLOW)
    assert remark.reason == "not-monotone"


def test_a_minimum_spelled_as_a_maximum():
    def expected(builder, x):
        return op.negative(op.negative(op.tanh(op.nn.relu(builder.emit(least(builder, x))))))

    before = module(lambda x: op.negative(max_pool(op.negative(op.tanh(op.nn.relu(x))))))
    assert_sinks(before, built(expected))


def test_below_another_pool_nothing_turns_into_a_minimum():
    mod = module(lambda x: max_pool(op.nn.relu(max_pool(op.negative(op.tanh(x))))))
    assert "not-monotone" in reasons(run_pass(mod)[1])


def test_nor_below_one_that_dropout_lies_above():
    def dropped(builder, x):
        pooled = builder.emit(max_pool(builder.emit(op.negative(builder.emit(op.tanh(x))))))
        pair = builder.emit(op.nn.dropout(pooled, 0.5))
        return max_pool(builder.emit(relax.TupleGetItem(pair, 0)))

    assert "not-monotone" in reasons(run_pass(built(dropped))[1])


def test_above_another_layer_s_pool_it_does():
    mod = module(lambda x: max_pool(op.nn.relu(conv(max_pool(op.negative(op.tanh(x)))))))
    remarks = run_pass(mod)[1]
    assert "not-monotone" not in reasons(remarks)
    assert reasons(remarks).count("sunk") == 2


def test_what_follows_the_larger_result_sinks_on_below_the_next_pool():
    def expected(builder, x):
        high = builder.emit(op.abs(builder.emit(max_pool(x))))
        low = builder.emit(op.abs(builder.emit(least(builder, x))))
        return op.tanh(builder.emit(max_pool(builder.emit(op.maximum(high, low)))))

    before = module(lambda x: max_pool(max_pool(op.tanh(op.abs(x)))))
    after, remarks = run_pass(before, allow=ALLOW)
    assert reasons(remarks).count("sunk") == 2
    tvm.ir.assert_structural_equal(after, built(expected))


POOLS = ({}, {"kernel": 3, "stride": 2, "padding": (1, 1)})


@pytest.mark.parametrize("target", TARGETS, ids=cpu)
def test_the_values_are_the_same(target):
    functions = [*FALLING.values(), *EXACT.values(), *BY_CHANNEL.values()]
    functions.append(lambda x: op.nn.relu(op.subtract(op.abs(op.tanh(x)), const(0.5))))
    before = module(lambda x: [max_pool(f(x), **attrs) for f in functions for attrs in POOLS])
    after, remarks = run_pass(before, allow=ALLOW)
    assert reasons(remarks).count("sunk") == len(functions) * len(POOLS)
    x = hard_values(SHAPE, "float32")
    zero = np.float32(0)  # a window that holds both zeros yields either
    pairs = zip(outputs(before, x, target=target), outputs(after, x, target=target), strict=True)
    same = [np.array_equal(bits(a + zero), bits(b + zero)) for a, b in pairs]
    assert [n for n, equal in enumerate(same) if not equal] == []


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_rounding_of_what_is_exact_in_real_numbers_alone(dtype):
    before = module(lambda x: [max_pool(f(x)) for f in INEXACT.values()], data(SHAPE, dtype))
    after, _ = run_pass(before, allow=ALLOW)
    x = np.random.default_rng(0).uniform(-8, 2, SHAPE).astype(dtype)
    for a, b in zip(outputs(before, x), outputs(after, x), strict=True):
        assert np.abs(a.astype("f8") - b.astype("f8")).max() <= 2 * np.finfo(dtype).eps
