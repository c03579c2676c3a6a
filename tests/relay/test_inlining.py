"""Functions that TVM may inline later: a caller's arithmetic may meet what has sunk in them."""

import pytest
import tvm
from relay_builders import (
    assert_becomes,
    assert_untouched,
    const,
    data,
    max_pool,
    module,
    per_channel,
    positive,
    typed,
)
from tvm import relay

from tvm_passes.decline import Reason

FACTOR, SHIFT = positive((8, 1, 1)), per_channel((8, 1, 1))


def called(f, *, inline=True):
    """A module whose ``main`` calls a function of one argument."""
    x, y, callee = data(), data(name="y"), relay.GlobalVar("callee")
    func = module(f(y), y)["main"]
    if inline:
        func = func.with_attr("Inline", tvm.tir.IntImm("int32", 1))
    main = relay.Function([x], relay.Call(callee, [x * FACTOR]) + SHIFT)
    return typed(tvm.IRModule({callee: func, relay.GlobalVar("main"): main}))


@pytest.mark.parametrize(
    ("f", "reason"),
    [
        (lambda y: max_pool(y + SHIFT), Reason.FOLDING),
        (lambda y: relay.tanh(max_pool(y + SHIFT)), Reason.ROUNDING),
        (lambda y: max_pool(relay.tanh(y) * FACTOR), Reason.FOLDING),
        (lambda y: relay.tanh(max_pool(relay.tanh(y) / const(0.3))), Reason.ROUNDING),
    ],
    ids=["both", "argument", "result", "number"],
)
def test_arithmetic_next_to_the_caller_s_stays(f, reason):
    assert_untouched(called(f), reason)


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (lambda y: max_pool(relay.nn.relu(y)), lambda y: relay.nn.relu(max_pool(y))),
        (
            lambda y: max_pool(relay.tanh(relay.tanh(y) + SHIFT)),
            lambda y: relay.tanh(relay.tanh(max_pool(y)) + SHIFT),
        ),
    ],
    ids=["no arithmetic", "arithmetic inside"],
)
def test_what_the_caller_cannot_meet_sinks(f, expected):
    assert_becomes(called(f), called(expected))


def test_a_function_that_stays_one_stores_its_arguments():
    before = called(lambda y: max_pool(y + SHIFT), inline=False)
    assert_becomes(before, called(lambda y: max_pool(y) + SHIFT, inline=False))
