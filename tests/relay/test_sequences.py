"""Pools that read pools: what sinks below one sinks on, below the next, in one run of the pass."""

import pytest
from relay_builders import (
    assert_becomes,
    assert_untouched,
    const,
    data,
    max_pool,
    module,
    per_channel,
)
from tvm import relay

from tvm_passes.decline import Reason

WIDE = (1, 8, 64, 64)
relu, tanh, sigmoid = relay.nn.relu, relay.tanh, relay.sigmoid


def check(before, expected, shape=WIDE):
    """The rewrite of a function of one tensor."""
    return assert_becomes(module(before(data(shape))), module(expected(data(shape))))


def test_two_pools():
    check(lambda x: max_pool(max_pool(relu(x))), lambda x: relu(max_pool(max_pool(x))))


def test_five_pools():
    def pools(x):
        for _ in range(5):
            x = max_pool(x)
        return x

    check(lambda x: pools(relu(x)), lambda x: relu(pools(x)))


def test_activations_between_pools():
    check(lambda x: max_pool(tanh(max_pool(relu(x)))), lambda x: tanh(relu(max_pool(max_pool(x)))))


def test_three_pools_with_activations_between():
    def before(x):
        return max_pool(sigmoid(max_pool(tanh(max_pool(relu(x))))))

    check(before, lambda x: sigmoid(tanh(relu(max_pool(max_pool(max_pool(x)))))))


def test_a_pool_with_two_readers_keeps_what_sank_below_it():
    def before(x):
        shared = max_pool(relu(x))
        return relay.Tuple([max_pool(tanh(shared)), relay.cos(shared)])

    def expected(x):
        shared = relu(max_pool(x))
        return relay.Tuple([tanh(max_pool(shared)), relay.cos(shared)])

    check(before, expected)


def test_a_pool_that_is_a_result_keeps_what_sank_below_it():
    def before(x):
        shared = max_pool(relu(x))
        return relay.Tuple([max_pool(shared), shared])

    def expected(x):
        shared = relu(max_pool(x))
        return relay.Tuple([max_pool(shared), shared])

    check(before, expected)


@pytest.mark.parametrize(
    "move", [lambda x: relay.transpose(x, [2, 1, 0, 3]), relay.nn.batch_flatten]
)
def test_a_moved_pool_that_is_a_result_keeps_what_sank_below_it(move):
    def body(f, below):
        first = move(f(max_pool(below(data(WIDE)))))
        return module(relay.Tuple([first, relay.max(first, axis=[0])]))

    assert_becomes(body(lambda x: x, relu), body(relu, lambda x: x))


def test_two_pools_that_read_one_pool():
    def before(x):
        shared = max_pool(relu(x))
        return relay.Tuple([max_pool(shared), max_pool(shared, 4, 4)])

    def expected(x):
        shared = max_pool(x)
        return relay.Tuple([relu(max_pool(shared)), relu(max_pool(shared, 4, 4))])

    check(before, expected)


def test_an_average_between_two_pools():
    def average(x):
        return relay.nn.avg_pool2d(x, (2, 2), (2, 2))

    check(
        lambda x: max_pool(average(max_pool(relu(x)))),
        lambda x: max_pool(average(relu(max_pool(x)))),
    )


def test_a_second_pool_that_does_not_pay():
    check(
        lambda x: max_pool(max_pool(relu(x)), 3, 1, padding=(1, 1)),
        lambda x: max_pool(relu(max_pool(x)), 3, 1, padding=(1, 1)),
    )


def test_a_first_pool_that_does_not_pay():
    # Its activation stays above it; the second pool may not reach through it.
    before = module(max_pool(max_pool(relu(data()), 3, 1, padding=(1, 1))))
    assert_untouched(before, Reason.DOES_NOT_PAY, Reason.NO_ACTIVATION)


def test_a_second_pool_with_an_empty_window():
    check(
        lambda x: max_pool(max_pool(relu(x)), padding=(2, 2)),
        lambda x: max_pool(relu(max_pool(x)), padding=(2, 2)),
    )


def test_of_two_ops_one_sinks_below_both_pools():
    # The second pool's layout makes the bias vary over its windows.
    bias = per_channel((32, 1, 1))
    shape = (1, 32, 64, 8)

    def before(x):
        return max_pool(max_pool(relu(relay.add(x, bias))), layout="NHWC")

    def expected(x):
        return relu(max_pool(relay.add(max_pool(x), bias), layout="NHWC"))

    check(before, expected, shape)


def test_what_is_between_the_pools_stays_and_so_does_what_is_above_it():
    def before(x):
        return max_pool(tanh(relay.cos(max_pool(relu(x)))))

    check(before, lambda x: tanh(max_pool(relay.cos(relu(max_pool(x))))))


def test_an_addition_sinks_through_two_pools():
    check(
        lambda x: max_pool(max_pool(relu(relay.add(x, const(0.5))))),
        lambda x: relu(relay.add(max_pool(max_pool(x)), const(0.5))),
    )


def test_an_addition_below_a_product_does_not():
    scale = per_channel((8, 1, 1))

    def affine(x):
        return relay.add(relay.multiply(x, scale), const(0.5))

    check(
        lambda x: max_pool(max_pool(relu(affine(x)))),
        lambda x: relu(max_pool(max_pool(affine(x)))),
    )


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_chain_reaches_its_last_pool_whole(count):
    def chain(x):
        return relay.clip(relay.nn.leaky_relu(relay.nn.bias_add(x, const([0.5] * 8)), 0.1), -1, 6)

    def pools(x):
        for _ in range(count):
            x = max_pool(x)
        return x

    check(lambda x: pools(chain(x)), lambda x: chain(pools(x)))


def test_symbolic_extents():
    shape = (relay.Any(), 8, relay.Any(), relay.Any())
    check(lambda x: max_pool(max_pool(relu(x))), lambda x: relu(max_pool(max_pool(x))), shape)


def test_the_second_pool_counts_what_it_saves_itself():
    remarks = check(lambda x: max_pool(max_pool(relu(x))), lambda x: relu(max_pool(max_pool(x))))
    counted = [dict(remark.numbers) for remark in remarks if remark.reason == "cost"]
    first, second = ((c["evaluations_before"], c["evaluations_after"]) for c in counted)
    assert first == (8 * 64 * 64, 8 * 32 * 32)
    assert second == (8 * 32 * 32, 8 * 16 * 16)
