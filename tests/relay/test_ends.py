"""Functions that fall, at the other end of each window, and such that fall, then rise, at both."""

import numpy as np
import pytest
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

from tvm_passes import relay as passes
from tvm_passes.decline import Reason
from tvm_passes.errors import AllowError

ALLOW = {"quasi-convex"}
NEGATIVE = const(-np.linspace(0.3, 2, 8).reshape(8, 1, 1))
SLOPES = const(np.linspace(-0.5, 0.5, 8))


def erfc(x):
    return const(1.0) - relay.erf(x)


FALLING = {
    "negative": lambda x: relay.negative(relay.tanh(x)),
    "subtract": erfc,
    "multiply": lambda x: relay.tanh(x) * NEGATIVE,
    "divide": lambda x: const(1.0) / (relay.exp(x) + const(1.0)),
    "divide by channel": lambda x: relay.tanh(x) / NEGATIVE,
    "rsqrt": lambda x: relay.rsqrt(relay.nn.relu(x) + const(0.5)),
    "acos": lambda x: relay.acos(relay.tanh(x)),
}
"""Each is non-increasing, and its domain proved."""

SIGNS = np.linspace(-1, 2, 8).reshape(8, 1, 1)
BY_CHANNEL = {
    "multiply": lambda x: relay.tanh(x) * const(SIGNS),
    "divide": lambda x: relay.tanh(x) / const(SIGNS),
    "of what falls": lambda x: relay.nn.relu(relay.negative(relay.tanh(x))) * const(SIGNS),
}
"""Each rises in some channels and falls in others."""

QUASI_CONVEX = {
    "abs": relay.abs,
    "nn.leaky_relu": lambda x: relay.nn.leaky_relu(x, alpha=-0.3),
    "nn.prelu": lambda x: relay.nn.prelu(x, SLOPES, axis=1),
}


def least(x):
    return relay.negative(max_pool(relay.negative(x)))


@pytest.mark.parametrize("name", FALLING)
def test_what_falls_sinks_below_the_minimum(name):
    f = FALLING[name]
    assert_sinks(module(max_pool(f(data()))), module(f(least(data()))))


@pytest.mark.parametrize("name", QUASI_CONVEX | BY_CHANNEL)
def test_what_falls_then_rises_sinks_below_the_maximum_and_the_minimum(name):
    f, x = (QUASI_CONVEX | BY_CHANNEL)[name], data()
    expected = module(relay.maximum(f(max_pool(x)), f(least(x))))
    allow = ALLOW if name in QUASI_CONVEX else ()
    assert_sinks(module(max_pool(f(data()))), expected, allow=allow)


def test_what_is_below_such_a_function_is_evaluated_once_and_what_is_above_it_twice():
    shift = per_channel((8, 1, 1))

    def above(x):
        return relay.abs(relay.negative(relay.tanh(x + shift)))

    def below(x):
        return relay.nn.relu(x - const(0.5))

    layer = conv(data())
    expected = module(below(relay.maximum(above(max_pool(layer)), above(least(layer)))))
    assert_sinks(module(max_pool(below(above(conv(data()))))), expected, allow=ALLOW)


@pytest.mark.parametrize("name", QUASI_CONVEX)
def test_without_leave_such_a_function_stays_and_the_remark_says_how_to_give_it(name):
    mod = module(max_pool(QUASI_CONVEX[name](data())))
    _, (remark,) = run_pass(mod)
    assert_untouched(mod, Reason(remark.reason))
    assert remark.reason in {"quasi-convex", "negative-slope"}
    assert "quasi-convex" in remark.message


def test_leave_for_anything_else_is_refused():
    with pytest.raises(AllowError, match="device-math, quasi-convex, winograd, found 'gelu'"):
        passes.ReorderActivationAfterMaxPool(allow={"gelu"})


def test_falling_twice_is_rising():
    def logistic(x):
        return const(1.0) / (relay.exp(relay.negative(x)) + const(1.0))

    assert_sinks(module(max_pool(logistic(data()))), module(logistic(max_pool(data()))))


@pytest.mark.parametrize("name", ["max", "min"])
def test_a_reduction_turns_into_its_opposite(name):
    pool, opposite = getattr(relay, name), relay.min if name == "max" else relay.max
    before = module(pool(erfc(data()), axis=[2, 3]))
    assert_sinks(before, module(erfc(opposite(data(), axis=[2, 3]))))


@pytest.mark.parametrize("f", [relay.abs, BY_CHANNEL["multiply"]])
def test_the_minimum_of_what_falls_then_rises_is_inside(f):
    _, (remark,) = run_pass(module(relay.min(f(data()), axis=[2, 3])), allow=ALLOW)
    assert remark.reason == "not-monotone"


def test_below_another_pool_nothing_turns_into_a_minimum():
    mod = module(max_pool(relay.nn.relu(max_pool(relay.negative(relay.tanh(data()))))))
    assert "not-monotone" in reasons(run_pass(mod)[1])


def test_nor_below_one_that_dropout_lies_above():
    pooled = max_pool(relay.negative(relay.tanh(data())))
    mod = module(max_pool(relay.nn.dropout(pooled, 0.5)))
    assert "not-monotone" in reasons(run_pass(mod)[1])


def test_above_another_layer_s_pool_it_does():
    mod = module(max_pool(relay.nn.relu(conv(max_pool(relay.negative(relay.tanh(data())))))))
    remarks = run_pass(mod)[1]
    assert "not-monotone" not in reasons(remarks)
    assert reasons(remarks).count("sunk") == 2


POOLS = ({}, {"kernel": 3, "stride": 2, "padding": (1, 1)})


@pytest.mark.parametrize("target", TARGETS)
def test_the_values_are_the_same(target):
    functions = [*FALLING.values(), *QUASI_CONVEX.values(), *BY_CHANNEL.values()]
    functions.append(lambda x: relay.nn.relu(relay.abs(relay.tanh(x)) - const(0.5)))
    x = data()
    before = module(relay.Tuple([max_pool(f(x), **attrs) for f in functions for attrs in POOLS]))
    after, remarks = run_pass(before, allow=ALLOW)
    assert reasons(remarks).count("sunk") == len(functions) * len(POOLS)
    x = hard_values(SHAPE, "float32")
    zero = np.float32(0)  # a window that holds both zeros yields either
    pairs = zip(outputs(before, x, target=target), outputs(after, x, target=target), strict=True)
    same = [np.array_equal(bits(a + zero), bits(b + zero)) for a, b in pairs]
    assert [n for n, equal in enumerate(same) if not equal] == []
