"""What follows a pool is contracted with no product that sinks: one rounding for two."""

import numpy as np
import pytest
from relay_builders import (
    assert_untouched,
    const,
    data,
    max_pool,
    module,
    per_channel,
    positive,
    reasons,
    run_pass,
)
from relay_runs import TARGETS, bits, hard_values, outputs
from tvm import relay

from tvm_passes.decline import Reason
from tvm_passes.relay import ReorderActivationAfterMaxPool

SHAPE = (1, 8, 32, 32)
ALONG = per_channel((1, 8))
BIAS = per_channel((8,))


def product(x):
    return x * positive((8, 1, 1))


def most(x, keepdims=False):
    return relay.max(x, [2, 3], keepdims)


def added(x):
    return x + const(0.3)


DECLINED = {
    "past a sign": lambda x: added(max_pool(relay.negative(product(x)))),
    "past a sign below": lambda x: added(relay.negative(max_pool(product(x)))),
    "with atanh": lambda x: relay.atanh(max_pool(x * const(0.1))),
    "past a reshape": lambda x: relay.reshape(most(product(x)), (1, 8)) + ALONG,
    "past squeeze": lambda x: relay.squeeze(most(product(x), True), [2, 3]) + ALONG,
    "past flatten": lambda x: relay.nn.batch_flatten(most(product(x), True)) + ALONG,
    "a sum past a sign": lambda x: (
        max_pool(relay.negative(relay.nn.bias_add(x, BIAS))) * const(0.3)
    ),
    "past a transposition": lambda x: added(relay.transpose(most(product(x), True), [0, 2, 3, 1])),
}


@pytest.mark.parametrize("body", DECLINED.values(), ids=DECLINED)
def test_it_stays(body):
    assert_untouched(module(body(data(SHAPE))), Reason.FOLDING)


def test_a_sum_stays_past_what_may_be_dropped():
    """An absolute value is dropped where nothing is negative."""
    mod = module(max_pool(relay.abs(relay.nn.bias_add(data(SHAPE), BIAS))) * const(0.3))
    _, remarks = run_pass(mod, allow={"quasi-convex"})
    assert reasons(remarks) == [Reason.FOLDING.value]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("body", DECLINED.values(), ids=DECLINED)
def test_bits(body, target):
    before, x = module(body(data(SHAPE))), hard_values(SHAPE, "float32")
    after = ReorderActivationAfterMaxPool()(before)
    (a,), (b,) = outputs(before, x, target=target), outputs(after, x, target=target)
    assert np.array_equal(bits(a), bits(b))
