"""Padding, transpositions, reshapes and dropout between an activation and its pool."""

import numpy as np
import pytest
import tvm
from relax_builders import (
    assert_becomes,
    assert_sinks,
    assert_untouched,
    both,
    built,
    const,
    data,
    max_pool,
    module,
    per_channel,
    reasons,
    run_pass,
)
from relax_runs import TARGETS, bits, hard_values, outputs
from tvm import relax
from tvm.relax import op

from tvm_passes.decline import Reason
from tvm_passes.relax import decisions
from tvm_passes.relax.extract import site_module

relu, tanh = op.nn.relu, op.tanh
NHWC = (1, 16, 16, 8)


def pad(x, value=0.0, mode="constant"):
    return op.nn.pad(x, (0, 0, 0, 0, 1, 1, 1, 1), mode, value)


def to_nchw(x):
    return op.permute_dims(x, (0, 3, 1, 2))


def stem(x):
    """The pool behind Keras ResNet50's padding."""
    return max_pool(x, 3, 2)


# Padding.


@pytest.mark.parametrize(
    ("f", "value"),
    [
        (relu, 0.0),
        (relu, 2.0),
        (tanh, 0.0),
        (lambda x: op.nn.leakyrelu(x, 0.1), 0.0),
        (lambda x: op.clip(x, -1, 6), -1.0),
    ],
)
def test_padding_with_what_the_activation_keeps(f, value):
    before = module(lambda x: stem(pad(f(x), value)))
    assert_sinks(before, module(lambda x: f(stem(pad(x, value)))))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_with_copies(mode):
    before = module(lambda x: stem(pad(op.sigmoid(x), mode=mode)))
    assert_sinks(before, module(lambda x: op.sigmoid(stem(pad(x, mode=mode)))))


@pytest.mark.parametrize(
    ("f", "value"),
    [(op.sigmoid, 0.0), (relu, -1.0), (tanh, 1.0), (lambda x: op.add(x, const(0.5)), 0.0)],
)
def test_padding_that_the_activation_would_change(f, value):
    assert_untouched(module(lambda x: stem(pad(f(x), value))), Reason.PAD_VALUE)


def test_of_a_bias_and_a_relu_above_padding_the_relu_sinks():
    def biased(x):
        return op.add(x, per_channel((8, 1, 1)))

    before = module(lambda x: stem(pad(relu(biased(x)))))
    assert_sinks(before, module(lambda x: relu(stem(pad(biased(x))))), Reason.PAD_VALUE)


def test_what_is_below_padding_does_not_meet_it():
    def body(x):
        return op.sigmoid(pad(relu(x)))

    before = module(lambda x: stem(body(x)))
    assert_sinks(before, module(lambda x: op.sigmoid(relu(stem(pad(x))))))


def test_the_domain_below_padding_is_that_of_the_padding_too():
    def after(f):
        return module(lambda x: stem(op.sqrt(f(relu(x)))))

    assert [d.passed for d in decisions(after(lambda x: x))] == [True]
    (decision,) = decisions(after(lambda x: pad(x, -1.0)))
    assert decision.decline.reason is Reason.DOMAIN


# Transpositions and reshapes.


@pytest.mark.parametrize("f", [relu, op.sigmoid, lambda x: op.add(x, const(0.5))])
def test_an_activation_without_an_operand_sinks_past_any_move(f):
    for move in (
        op.permute_dims,
        lambda x: op.reshape(x, (1, 4, 32, 16)),
        lambda x: op.expand_dims(op.reshape(x, (8, 16, 16)), 0),
    ):
        before = module(lambda x, move=move: max_pool(move(f(x))))
        assert_sinks(before, module(lambda x, move=move: f(max_pool(move(x)))))


def test_a_bias_sinks_past_a_transposition_in_another_shape():
    bias = per_channel((8,))

    def after(x):
        pooled = max_pool(to_nchw(x))
        return relu(op.add(pooled, op.reshape(bias, (1, 8, 1, 1))))

    before = module(lambda x: max_pool(to_nchw(relu(op.add(x, bias)))), data(NHWC))
    assert_sinks(before, module(after, data(NHWC)))


def test_a_bias_sinks_past_a_reshape_that_needs_no_other_shape():
    bias = per_channel((8,))  # as in Keras' Conv1D: a two-dimensional pool

    def pool(x):
        return op.nn.max_pool2d(op.expand_dims(x, 1), (1, 2), (1, 2), layout="NHWC")

    shape = (1, 16, 8)
    before = module(lambda x: pool(op.add(x, bias)), data(shape))
    assert_sinks(before, module(lambda x: op.add(pool(x), bias), data(shape)))


@pytest.mark.parametrize("axis", [3, -1])
def test_a_prelu_sinks_past_a_transposition_along_another_axis(axis):
    slopes = const([0.1, 0.2, 0.0, 0.4, 0.5, 0.6, 0.7, 0.8])
    before = module(lambda x: max_pool(to_nchw(op.nn.prelu(x, slopes, axis))), data(NHWC))
    after = module(lambda x: op.nn.prelu(max_pool(to_nchw(x)), slopes, 1), data(NHWC))
    assert_sinks(before, after)


def test_an_argument_sinks_past_two_moves():
    def params():
        return data(NHWC), data((8,), name="b")

    def moved(x):
        return op.max(op.reshape(to_nchw(x), (1, 8, 256)), [2], keepdims=True)

    before = module(lambda x, b: moved(op.add(b, x)), *params())

    def after(builder, x, b):
        pooled = builder.emit(moved(x))
        return op.add(op.reshape(b, (1, 8, 1)), pooled)

    assert_sinks(before, built(after, *params()))


@pytest.mark.parametrize(
    ("shape", "move"),
    [
        ((8, 16, 1), lambda x: op.permute_dims(x, (0, 2, 1, 3))),
        ((8, 1, 1), lambda x: op.reshape(x, (1, 4, 32, 16))),
    ],
)
def test_a_bias_that_the_move_tears_apart(shape, move):
    mod = module(lambda x: op.max(move(op.add(x, per_channel(shape))), [3]))
    assert_untouched(mod, Reason.LAYOUT)


def test_a_bias_that_varies_over_the_axes_that_are_pooled_below():
    mod = module(lambda x: max_pool(to_nchw(op.add(x, per_channel((16, 1, 1))))), data(NHWC))
    assert_untouched(mod, Reason.VARIES_IN_WINDOW)


def test_a_symbolic_batch():
    def var():
        return data((tvm.tirx.Var("n", "int64"), *NHWC[1:]))

    bias = per_channel((8,))
    before = module(lambda x: max_pool(to_nchw(op.add(x, bias))), var())
    reshaped = op.reshape(bias, (1, 8, 1, 1))
    assert_sinks(before, module(lambda x: op.add(max_pool(to_nchw(x)), reshaped), var()))


@pytest.mark.parametrize("move", [pad, lambda x: op.reshape(x, (1, 8, 16, 16))])
def test_a_move_that_others_read_keeps_what_is_above_it(move):
    def body(builder, x):
        moved = builder.emit(move(relu(x)))
        return [max_pool(moved), op.exp(moved)]

    assert_untouched(built(body), Reason.SHARED)


def test_a_move_that_is_a_result_keeps_what_is_above_it():
    def body(builder, x):
        moved = builder.emit_output(pad(relu(x)))
        return [max_pool(moved)]

    assert_untouched(built(body), Reason.OUTPUT)


def test_a_move_of_a_convolution_is_no_activation():
    weight = per_channel((4, 8, 3, 3))
    mod = module(lambda x: max_pool(pad(op.nn.conv2d(x, weight))))
    assert_untouched(mod, Reason.NO_ACTIVATION)
    assert_untouched(module(lambda x: max_pool(pad(op.cos(x)))), Reason.NO_RULE)


def test_what_sank_below_a_pool_sinks_on_past_a_move():
    bias = per_channel((8,))

    def before(x):
        pooled = max_pool(relu(op.add(x, bias)), layout="NHWC")
        return max_pool(to_nchw(pooled))

    def after(x):
        pooled = max_pool(to_nchw(max_pool(x, layout="NHWC")))
        return relu(op.add(pooled, op.reshape(bias, (1, 8, 1, 1))))

    assert_becomes(module(before, data(NHWC)), module(after, data(NHWC)))


def test_what_sank_below_a_reduction_sinks_on_where_its_axes_are_gone():
    bias = per_channel((8, 1, 1))

    def before(x):
        return op.max(op.max(relu(op.add(x, bias)), [3]), [2])

    def after(x):
        pooled = op.max(op.max(x, [3]), [2], keepdims=True)
        return op.squeeze(relu(op.add(pooled, op.reshape(bias, (1, 8, 1)))), [2])

    assert_becomes(module(before), module(after))


# Dropout.


def dropped(builder, x):
    pair = builder.emit(op.nn.dropout(x, 0.5))
    return builder.emit(relax.TupleGetItem(pair, 0))


def test_dropout_is_nothing_at_inference():
    def build(order):
        def body(builder, x):
            if order == "before":
                return max_pool(dropped(builder, builder.emit(relu(x))))
            return relu(max_pool(x))

        return built(body)

    assert_sinks(*both(build))


def test_dropout_stays_where_nothing_sinks():
    assert_untouched(built(lambda builder, x: max_pool(dropped(builder, x))), Reason.NO_ACTIVATION)


def test_dropout_whose_mask_is_read_keeps_what_is_above_it():
    def body(builder, x):
        pair = builder.emit(op.nn.dropout(builder.emit(relu(x)), 0.5))
        mask = builder.emit(relax.TupleGetItem(pair, 1))
        return [max_pool(builder.emit(relax.TupleGetItem(pair, 0))), mask]

    assert_untouched(built(body), Reason.SHARED)


# Bits.

CASES = {
    "pad": lambda x: stem(pad(relu(to_nchw(x)))),
    "pad tanh": lambda x: stem(pad(tanh(to_nchw(x)))),
    "prelu": lambda x: max_pool(to_nchw(op.nn.prelu(x, const(np.arange(1, 9)), 3))),
    "reflect": lambda x: stem(pad(op.sigmoid(to_nchw(x)), mode="reflect")),
    "transpose": lambda x: max_pool(to_nchw(relu(op.add(x, per_channel((8,)))))),
    "flatten": lambda x: op.max(
        op.reshape(to_nchw(tanh(op.add(x, per_channel((8,))))), (1, 8, 256)), [2]
    ),
}


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_bits(target):
    before = module(lambda x: [case(x) for case in CASES.values()], data(NHWC))
    after, remarks = run_pass(before)
    assert reasons(remarks).count("sunk") == len(CASES)
    x = hard_values(NHWC, "float32")
    pairs = zip(outputs(before, x, target=target), outputs(after, x, target=target), strict=True)
    same = [np.array_equal(bits(a), bits(b)) for a, b in pairs]
    assert dict(zip(CASES, same, strict=True)) == dict.fromkeys(CASES, True)


@pytest.mark.parametrize("name", CASES)
def test_a_site_by_itself_has_its_moves(name):
    (decision,) = decisions(module(CASES[name], data(NHWC)))
    alone = site_module(module(CASES[name], data(NHWC)), decision.site.name)
    (again,) = decisions(alone)
    assert [op.op for op in again.sunk] == [op.op for op in decision.sunk]
    assert again.site.pool.in_shape == decision.site.pool.in_shape
    assert again.sunk[0].crosses == decision.sunk[0].crosses
