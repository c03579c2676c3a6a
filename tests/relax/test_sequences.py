"""Pools that read pools: what sinks below one sinks on, below the next, in one run of the pass."""

import pytest
import tvm
from relax_builders import (
    assert_becomes,
    assert_untouched,
    built,
    const,
    data,
    max_pool,
    module,
    per_channel,
)
from tvm import relax
from tvm.relax import op

from tvm_passes.decline import Reason

WIDE = (1, 8, 64, 64)
relu, tanh, sigmoid = op.nn.relu, op.tanh, op.sigmoid


def check(before, expected, shape=WIDE):
    """The rewrite of a function of one tensor."""
    return assert_becomes(module(before, data(shape)), module(expected, data(shape)))


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
    def before(builder, x):
        shared = builder.emit(max_pool(relu(x)))
        return [max_pool(tanh(shared)), op.cos(shared)]

    def expected(builder, x):
        shared = builder.emit(relu(max_pool(x)))
        return [tanh(max_pool(shared)), op.cos(shared)]

    assert_becomes(built(before), built(expected))


def test_a_pool_that_is_a_result_keeps_what_sank_below_it():
    def build(body):
        builder, x = relax.BlockBuilder(), data()
        with builder.function("main", [x]):
            with builder.dataflow():
                shared = builder.emit_output(body(x))
                again = builder.emit_output(max_pool(shared))
            builder.emit_func_output(relax.Tuple([again, shared]))
        return builder.finalize()

    assert_becomes(build(lambda x: max_pool(relu(x))), build(lambda x: relu(max_pool(x))))


@pytest.mark.parametrize("move", [lambda x: op.permute_dims(x, [2, 1, 0, 3]), op.flatten])
def test_a_moved_pool_that_is_a_result_keeps_what_sank_below_it(move):
    def build(body):
        builder, x = relax.BlockBuilder(), data(WIDE)
        with builder.function("main", [x]):
            with builder.dataflow():
                moved = builder.emit_output(move(body(x)))
                again = builder.emit_output(op.max(moved, axis=[0]))
            builder.emit_func_output(relax.Tuple([again, moved]))
        return builder.finalize()

    assert_becomes(build(lambda x: max_pool(relu(x))), build(lambda x: relu(max_pool(x))))


def test_two_pools_that_read_one_pool():
    def before(builder, x):
        shared = builder.emit(max_pool(relu(x)))
        return [max_pool(shared), max_pool(shared, 4, 4)]

    def expected(builder, x):
        shared = builder.emit(max_pool(x))
        return [relu(max_pool(shared)), relu(max_pool(shared, 4, 4))]

    assert_becomes(built(before), built(expected))


def test_an_average_between_two_pools():
    def average(x):
        return op.nn.avg_pool2d(x, (2, 2), (2, 2))

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
    before = module(lambda x: max_pool(max_pool(relu(x), 3, 1, padding=(1, 1))))
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
        return max_pool(max_pool(relu(op.add(x, bias))), layout="NHWC")

    def expected(x):
        return relu(max_pool(op.add(max_pool(x), bias), layout="NHWC"))

    check(before, expected, shape)


def test_what_is_between_the_pools_stays_and_so_does_what_is_above_it():
    def before(x):
        return max_pool(tanh(op.cos(max_pool(relu(x)))))

    check(before, lambda x: tanh(max_pool(op.cos(relu(max_pool(x))))))


def test_an_addition_sinks_through_two_pools():
    check(
        lambda x: max_pool(max_pool(relu(op.add(x, const(0.5))))),
        lambda x: relu(op.add(max_pool(max_pool(x)), const(0.5))),
    )


def test_an_addition_below_a_product_does_not():
    scale = per_channel((8, 1, 1))

    def affine(x):
        return op.add(op.multiply(x, scale), const(0.5))

    check(
        lambda x: max_pool(max_pool(relu(affine(x)))),
        lambda x: relu(max_pool(max_pool(affine(x)))),
    )


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_chain_reaches_its_last_pool_whole(count):
    def chain(x):
        return op.clip(op.nn.leakyrelu(op.add(x, const(0.5)), 0.1), -1, 6)

    def pools(x):
        for _ in range(count):
            x = max_pool(x)
        return x

    check(lambda x: pools(chain(x)), lambda x: chain(pools(x)))


def test_symbolic_extents():
    n, h, w = (tvm.tirx.Var(name, "int64") for name in "nhw")
    shape = (n, 8, h, w)
    check(lambda x: max_pool(max_pool(relu(x))), lambda x: relu(max_pool(max_pool(x))), shape)


def test_the_second_pool_counts_what_it_saves_itself():
    remarks = check(lambda x: max_pool(max_pool(relu(x))), lambda x: relu(max_pool(max_pool(x))))
    counted = [dict(remark.numbers) for remark in remarks if remark.reason == "cost"]
    first, second = ((c["evaluations_before"], c["evaluations_after"]) for c in counted)
    assert first == (8 * 64 * 64, 8 * 32 * 32)
    assert second == (8 * 32 * 32, 8 * 16 * 16)
