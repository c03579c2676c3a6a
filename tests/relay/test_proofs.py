"""What LLVM proves of data decides what it contracts: a swap adds no such proof, and takes none."""

import numpy as np
import pytest
from relay_builders import const, data, max_pool, module, per_channel, run_pass
from relay_runs import TARGETS, bits, outputs
from tvm import relay

from tvm_passes import RULES, Apply, Data, Direction, Number, Rule
from tvm_passes.decline import Reason
from tvm_passes.relay.reorder import decisions

SHAPE = (2, 64, 8, 8)
SLOPES = const(np.linspace(0.1, 0.9, 64))
ROWS = const(np.random.default_rng(2).standard_normal((64, 1)))
SHIFT = const(np.random.default_rng(1).standard_normal((1, 64, 1, 1)))


def prelu(x):
    return relay.nn.prelu(x, SLOPES, 1)


def bounded(x):
    return relay.clip(x, -3.0, 3.0)


def chosen(x):
    return relay.where(relay.less(x, const(-1.0)), const(1.0), x)


BODIES = {
    "a bound above a slope": lambda x: relay.max(prelu(bounded(x)), [3]) + ROWS,
    "a bound, above a slope below": lambda x: prelu(relay.max(bounded(x), [3])) + ROWS,
    "a slope and a sum below two bounds": lambda x: max_pool(
        prelu(relay.where(relay.greater(x, const(0.3)), bounded(x), relay.clip(x, -2.0, -1.0)))
        + SHIFT
    ),
    "relu above a magnitude": lambda x: relay.abs(max_pool(relay.nn.relu(x)) * const(2.3)) + SHIFT,
    "sigmoid above a choice": lambda x: chosen(max_pool(relay.sigmoid(x)) * const(2.3)) + SHIFT,
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_products_are_contracted_as_before(body):
    before = module(body(data(SHAPE)))
    x = 3 * np.random.default_rng(0).standard_normal(SHAPE, "float32") - 1
    after, _ = run_pass(before)
    for found, expected in zip(
        outputs(after, x, target=TARGETS[-1]), outputs(before, x, target=TARGETS[-1]), strict=True
    ):
        np.testing.assert_array_equal(bits(found), bits(expected))


def test_a_layer_ends_the_kernel():
    weight = const(np.ones((4, 64, 1, 1)))
    pooled = max_pool(relay.nn.relu(data(SHAPE)))
    convolved = relay.nn.conv2d(pooled, weight, channels=4, kernel_size=(1, 1))
    (decision,) = decisions(module(relay.abs(convolved) + const(0.3)))
    assert decision.passed


@pytest.mark.parametrize(
    "below",
    [
        relay.abs,
        lambda x: relay.concatenate([x, x], 1),
        lambda x: relay.nn.relu(x) + SHIFT,
        lambda x: relay.cos(relay.abs(x)),
        lambda x: relay.abs(x * const(2.3)),
        lambda x: relay.abs(x) / const(2.3),
        lambda x: relay.abs(relay.nn.pad(x, [[0, 0], [0, 0], [1, 1], [1, 1]])),
        lambda x: relay.abs(relay.nn.dropout(x)),
        lambda x: relay.abs(relay.concatenate([x, x], 1)),
    ],
)
def test_without_both_a_choice_and_a_sum_nothing_is_contracted(below):
    (decision,) = decisions(module(below(max_pool(relay.nn.relu(data(SHAPE))))))
    assert decision.passed


@pytest.mark.parametrize(
    "below",
    [
        lambda x: relay.abs(relay.cumsum(x, 1)),
        lambda x: relay.nn.prelu(relay.abs(x), per_channel((64,)), 1),
    ],
)
def test_what_may_add_for_all_that_is_known(below):
    (decision,) = decisions(module(below(max_pool(relay.nn.relu(data(SHAPE))))))
    assert decision.decline.reason is Reason.FOLDING


def test_an_operand_that_others_read_is_computed_as_before():
    # Below the pool, maximum would be in one kernel with what else reads the product.
    a, b, c = (data((1, 64, 1, 1), name=name) for name in "abc")
    product = a * b
    pooled = max_pool(relay.maximum(data(SHAPE), product))
    (decision,) = decisions(module(relay.maximum(product + c, pooled)))
    assert decision.decline.reason is Reason.ROUNDING


def test_a_row_of_one_s_own_may_end_in_a_product():
    inner = Apply("tanh", (Apply("multiply", (Data(), Number(2 / 3))),))
    pattern = Apply("multiply", (inner, Number(1.7159)))
    rule = Rule("scaled_tanh", Direction.NON_DECREASING, {}, patterns=(pattern,))
    scaled_tanh = relay.tanh(data(SHAPE) * const(2 / 3)) * const(1.7159)
    (decision,) = decisions(module(max_pool(scaled_tanh) + SHIFT), (*RULES, rule))
    assert decision.decline.reason is Reason.FOLDING
    assert decisions(module(max_pool(scaled_tanh)), (*RULES, rule))[0].passed
