"""Reductions that select, pools that share an activation, and pools in PyTorch's tuples."""

import numpy as np
import pytest
import tvm
from relax_builders import (
    SHAPE,
    assert_becomes,
    assert_sinks,
    assert_untouched,
    both,
    built,
    const,
    conv,
    data,
    max_pool,
    module,
    per_channel,
    pooled,
    reasons,
    run_pass,
)
from relax_runs import TARGETS, bits, hard_values, outputs
from tvm import relax
from tvm.relax import op

from tvm_passes.decline import Reason
from tvm_passes.relax import decisions

relu, tanh = op.nn.relu, op.tanh


def biased(x):
    return relu(op.add(x, per_channel((8, 1, 1))))


# Maximum and minimum over axes.


@pytest.mark.parametrize("reduce", [op.max, op.min])
@pytest.mark.parametrize("axis", [[2, 3], [-1, -2], 1, [0, 1, 2, 3], None], ids=str)
@pytest.mark.parametrize("keepdims", [False, True])
def test_an_activation_sinks_below_a_reduction(reduce, axis, keepdims):
    def pool(x):
        return reduce(x, axis, keepdims)

    assert_sinks(module(lambda x: pool(relu(x))), module(lambda x: relu(pool(x))))


@pytest.mark.parametrize("f", [lambda x: op.add(x, const(0.5)), lambda x: op.clip(x, 0, 6)])
def test_a_scalar_needs_no_axes(f):
    assert_sinks(module(lambda x: op.max(f(x), [2, 3])), module(lambda x: f(op.max(x, [2, 3]))))


@pytest.mark.parametrize("reduce", [op.max, op.min])
def test_axes_are_kept_for_a_bias_and_squeezed_after_it(reduce):
    before = module(lambda x: reduce(biased(conv(x)), [2, -1]))
    after = module(lambda x: op.squeeze(biased(reduce(conv(x), [2, -1], keepdims=True)), [2, 3]))
    assert_sinks(before, after)


def test_a_bias_sinks_below_a_reduction_that_keeps_its_axes():
    before = module(lambda x: op.max(biased(x), [2, 3], keepdims=True))
    assert_sinks(before, module(lambda x: biased(op.max(x, [2, 3], keepdims=True))))


def test_a_bias_along_the_reduced_axis_stays():
    mod = module(lambda x: op.max(op.add(x, per_channel((8, 1, 1))), [1]))
    assert_untouched(mod, Reason.VARIES_IN_WINDOW)


def test_a_symbolic_batch():
    def var():
        return data((tvm.tirx.Var("n", "int64"), 8, 16, 16))

    before = module(lambda x: op.max(biased(x), [2, 3]), var())
    after = module(lambda x: op.squeeze(biased(op.max(x, [2, 3], keepdims=True)), [2, 3]), var())
    assert_sinks(before, after)


@pytest.mark.parametrize(
    ("shape", "axis", "reason"),
    [
        ((1, 8, "h", 16), [2, 3], Reason.EMPTY_WINDOW),
        ((1, 8, 0, 16), [2, 3], Reason.EMPTY_WINDOW),
        ((1, 8, 1, 1), [2, 3], Reason.DOES_NOT_PAY),
        ((), None, Reason.LAYOUT),
    ],
    ids=str,
)
def test_reductions_that_stay(shape, axis, reason):
    extents = [tvm.tirx.Var(n, "int64") if isinstance(n, str) else n for n in shape]
    assert_untouched(module(lambda x: op.max(relu(x), axis), data(extents)), reason)


def test_a_reduction_of_unknown_rank():
    x = relax.Var("x", relax.TensorType(dtype="float32"))
    assert_untouched(module(lambda x: op.max(relu(x), [2]), x), Reason.LAYOUT)


def test_what_sank_below_a_reduction_sinks_on_below_the_next():
    before = module(lambda x: op.max(op.max(relu(x), [3]), [2]))
    assert_becomes(before, module(lambda x: relu(op.max(op.max(x, [3]), [2]))))


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_bits_of_reductions(target):
    shape = (2, 8, 13, 11)

    def chain(x):
        return tanh(op.add(x, per_channel((8, 1, 1))))

    def body(x):
        return [
            reduce(f(x), axis, keepdims)
            for reduce in (op.max, op.min)
            for axis, keepdims in (([2, 3], False), ([3], True), ([1, 2, 3], False))
            for f in (relu, chain if axis != [1, 2, 3] else tanh)
        ]

    before = module(body, data(shape))
    after, remarks = run_pass(before)
    assert sum(remark.reason == "sunk" for remark in remarks) == 12
    x = hard_values(shape, "float32")
    pairs = zip(outputs(before, x, target=target), outputs(after, x, target=target), strict=True)
    assert [np.array_equal(bits(a), bits(b)) for a, b in pairs] == [True] * 12


# Several pools that read one activation.


def test_an_activation_of_several_pools_sinks_below_each():
    def build(order):
        def body(builder, x):
            if order == "before":
                shared = builder.emit(biased(x))
                return [max_pool(shared), max_pool(shared, 3, 3), op.max(shared, [2, 3], True)]
            return [biased(max_pool(x)), biased(max_pool(x, 3, 3)), biased(op.max(x, [2, 3], True))]

        return built(body)

    assert_sinks(*both(build))


def test_the_pools_may_be_far_apart():
    def build(order):
        def body(builder, x):
            if order == "before":
                shared = builder.emit(relu(x))
                first = builder.emit(max_pool(tanh(max_pool(shared))))
                return [op.add(first, max_pool(shared, 4, 4))]
            first = builder.emit(tanh(relu(max_pool(max_pool(x)))))
            return [op.add(first, relu(max_pool(x, 4, 4)))]

        return built(body, data((4, 8, 16, 16)))

    assert_becomes(*both(build))


@pytest.mark.parametrize(
    ("pools", "reasons"),
    [
        # As in spatial pyramid pooling: together they write more than they read.
        ([lambda x: max_pool(x, 3, 1), lambda x: max_pool(x, 5, 1)], [Reason.SHARED] * 2),
        ([max_pool, op.exp], [Reason.SHARED]),
        ([max_pool, lambda x: max_pool(x, padding=(2, 2))], [Reason.SHARED, Reason.EMPTY_WINDOW]),
        (
            [max_pool, lambda x: op.nn.avg_pool2d(x, (2, 2), (2, 2))],
            [Reason.SHARED, Reason.NOT_SELECTING],
        ),
    ],
)
def test_an_activation_of_several_readers_stays(pools, reasons):
    def body(builder, x):
        shared = builder.emit(relu(x))
        return [pool(shared) for pool in pools]

    assert_untouched(built(body), *reasons)


def test_of_two_ops_one_sinks_below_both_pools():
    # A maximum over channels may not have the bias.
    def build(order):
        def body(builder, x):
            layer = builder.emit(conv(x))
            add = builder.emit(op.add(layer, per_channel((8, 1, 1))))
            if order == "before":
                shared = builder.emit(relu(add))
                return [max_pool(shared), op.max(shared, [1])]
            return [relu(max_pool(add)), relu(op.max(add, [1]))]

        return built(body)

    before, after = both(build)
    remarks = assert_becomes(before, after)
    missed = [remark.reason for remark in remarks if remark.kind.value == "Missed"]
    assert missed == [Reason.VARIES_IN_WINDOW.value] * 2


def test_pools_that_share_once_other_ops_have_sunk():
    # First the tanh sinks; then two pools are all that reads the relu.
    def build(order):
        def body(builder, x):
            if order == "before":
                shared = builder.emit(relu(x))
                return [max_pool(shared), max_pool(tanh(shared))]
            return [relu(max_pool(x)), tanh(relu(max_pool(x)))]

        return built(body)

    remarks = assert_becomes(*both(build))
    assert [r.site[-2:] for r in remarks if r.reason == "sunk"] == ["#1", "#0", "#1"]
    assert not [remark for remark in remarks if remark.reason == "shared"]


def test_what_stays_shared_is_said_once():
    def body(builder, x):
        shared = builder.emit(relu(x))
        return [max_pool(shared), max_pool(tanh(shared)), op.exp(shared)]

    _, remarks = run_pass(built(body))
    assert reasons(remarks) == ["sunk", "cost", "shared", "shared"]


def test_bits_of_pools_that_share():
    def body(builder, x):
        shared = builder.emit(tanh(op.add(x, per_channel((8, 1, 1)))))
        return [max_pool(shared), max_pool(shared, 3, 3, padding=(1, 1)), op.min(shared, [2, 3])]

    before = built(body)
    x = hard_values((1, 8, 16, 16), "float32")
    for a, b in zip(outputs(before, x), outputs(run_pass(before)[0], x), strict=True):
        assert np.array_equal(bits(a), bits(b))


# The tuple of values and indices that PyTorch's importer makes of a pool.


def torch_pool(builder, x, order, f=relu):
    """The pool's values, out of the tuple."""
    values = builder.emit(pooled(x, order, f))
    indices = builder.emit(op.zeros_like(values, "int64"))
    pair = builder.emit(relax.Tuple([values, indices]))
    return builder.emit(relax.TupleGetItem(pair, 0))


def test_an_activation_sinks_below_a_pool_in_a_tuple():
    def build(order):
        return built(lambda builder, x: tanh(torch_pool(builder, x, order)))

    assert_sinks(*both(build))


def test_an_addition_sinks_below_a_pool_in_a_tuple():
    def add(x):
        return op.add(x, per_channel((8, 1, 1)))

    def build(order):
        return built(lambda builder, x: conv(torch_pool(builder, conv(x), order, add)))

    assert_sinks(*both(build))


def test_an_addition_does_not_meet_arithmetic_through_a_tuple():
    def body(builder, x):
        values = torch_pool(builder, x, "before", lambda x: op.add(x, per_channel((8, 1, 1))))
        return op.multiply(values, const(0.3))

    assert_untouched(built(body), Reason.FOLDING)


def test_what_sank_below_a_pool_in_a_tuple_sinks_on():
    def build(order):
        def body(builder, x):
            if order == "before":
                return max_pool(tanh(torch_pool(builder, x, "before")))
            return tanh(relu(max_pool(torch_pool(builder, x, "before", lambda x: x))))

        return built(body)

    assert_becomes(*both(build))


@pytest.mark.parametrize("also", ["tuple", "indices"])
def test_a_tuple_that_others_read_keeps_what_sank(also):
    def body(builder, x):
        values = builder.emit(max_pool(relu(x)))
        indices = builder.emit(op.argmax(values, 3) if also == "indices" else op.exp(values))
        pair = builder.emit(relax.Tuple([values, indices]))
        again = max_pool(builder.emit(relax.TupleGetItem(pair, 0)))
        return [again, builder.emit(relax.TupleGetItem(pair, 1))]

    first, second = decisions(built(body))
    assert first.passed
    assert second.decline.reason is Reason.SHARED


def test_a_tuple_that_leaves_keeps_what_sank():
    def body(builder, x):
        values = builder.emit(max_pool(relu(x)))
        pair = builder.emit_output(relax.Tuple([values, x]))
        return [max_pool(builder.emit(relax.TupleGetItem(pair, 0)))]

    first, second = decisions(built(body))
    assert first.passed
    assert second.decline.reason is Reason.OUTPUT


def test_bits_of_pools_in_tuples():
    def body(builder, x):
        first = torch_pool(builder, conv(x), "before", biased)
        return torch_pool(builder, first, "before", tanh)

    before = built(body)
    assert [decision.passed for decision in decisions(before)] == [True, True]
    x = hard_values((1, 8, 16, 16), "float32")
    (a,), (b,) = outputs(before, x), outputs(run_pass(before)[0], x)
    assert np.array_equal(bits(a), bits(b))


@pytest.mark.parametrize("dead", [max_pool, op.exp, lambda x: op.add(x, const(1.0))])
def test_what_a_tuple_holds_in_vain_is_read_but_for_numbers_of_its_own(dead):
    """A pool or arithmetic that nothing takes out of the tuple reads the pool all the same."""

    def held(builder, x):
        values = builder.emit(pooled(builder.emit(op.astype(x, "float32")), "before"))
        pair = builder.emit(relax.Tuple([values, builder.emit(dead(values))]))
        return max_pool(builder.emit(relax.TupleGetItem(pair, 0)))

    mod = built(held, data(SHAPE, "int8"))
    after, remarks = run_pass(mod)
    relax.analysis.well_formed(after)
    assert reasons(remarks)[0] == "sunk"
    x = hard_values(SHAPE, "int8")
    (a,), (b,) = (outputs(each, x) for each in (mod, after))
    assert np.array_equal(bits(a), bits(b))


def test_zeros_of_a_pool_that_are_read_count_as_a_reader():
    def body(builder, x, y):
        pooled = builder.emit(max_pool(builder.emit(relu(x))))
        return op.add(y, builder.emit(op.zeros_like(pooled)))

    (decision,) = decisions(built(body, data(), data((1, 8, 8, 8), name="y")))
    assert decision.decline.reason is Reason.FOLDING
    assert "relax.zeros_like" in decision.decline.detail


def test_zeros_of_a_pool_that_are_taken_out_of_a_tuple_count_as_a_reader():
    def body(builder, x, y):
        values = builder.emit(max_pool(op.add(x, per_channel((8, 1, 1)))))
        pair = builder.emit(relax.Tuple([values, builder.emit(op.zeros_like(values))]))
        zeros = builder.emit(relax.TupleGetItem(pair, 1))
        return [op.tanh(values), op.add(y, zeros)]

    (decision,) = decisions(built(body, data(), data((1, 8, 8, 8), name="y")))
    assert "relax.zeros_like" in decision.decline.detail


@pytest.mark.parametrize("where", ["output", "tuple", "nowhere"])
def test_zeros_of_a_pool_count_as_a_reader_where_they_leave(where):
    def body(builder, x):
        values = builder.emit(max_pool(op.add(x, per_channel((8, 1, 1)))))
        zeros = builder.emit(op.zeros_like(values)) if where != "output" else op.zeros_like(values)
        return [values, *{"output": [zeros], "tuple": [relax.Tuple([zeros, x])]}.get(where, [])]

    (decision,) = decisions(built(body))
    assert decision.passed == (where == "nowhere")
    assert decision.passed or "relax.zeros_like" in decision.decline.detail
