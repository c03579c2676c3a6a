"""Padding, transpositions, reshapes and dropout between an activation and its pool."""

import numpy as np
import pytest
from relay_builders import (
    assert_becomes,
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

from tvm_passes.decline import Reason
from tvm_passes.relay.extract import site_module
from tvm_passes.relay.reorder import decisions

relu, tanh, sigmoid = relay.nn.relu, relay.tanh, relay.sigmoid
NHWC = (1, 16, 16, 8)
EDGES = ((0, 0), (0, 0), (1, 1), (1, 1))


def pad(x, value=0.0):
    return relay.nn.pad(x, EDGES, value)


def mirrored(x):
    return relay.nn.mirror_pad(x, EDGES)


def to_nchw(x):
    return relay.transpose(x, (0, 3, 1, 2))


def stem(x):
    """The pool behind Keras ResNet50's padding."""
    return max_pool(x, 3, 2)


def check(before, after, *, shape=(1, 8, 16, 16), declined=None):
    assert_sinks(module(before(data(shape))), module(after(data(shape))), declined)


# Padding.


@pytest.mark.parametrize(
    ("f", "value"),
    [
        (relu, 0.0),
        (relu, 2.0),
        (tanh, 0.0),
        (lambda x: relay.nn.leaky_relu(x, 0.1), 0.0),
        (lambda x: relay.clip(x, -1, 6), -1.0),
    ],
)
def test_padding_with_what_the_activation_keeps(f, value):
    check(lambda x: stem(pad(f(x), value)), lambda x: f(stem(pad(x, value))))


@pytest.mark.parametrize(
    "move", [mirrored, lambda x: relay.nn.pad(x, EDGES, pad_mode="edge")], ids=["mirror", "edge"]
)
def test_padding_with_copies(move):
    check(lambda x: stem(move(sigmoid(x))), lambda x: sigmoid(stem(move(x))))


@pytest.mark.parametrize(
    ("f", "value"),
    [(sigmoid, 0.0), (relu, -1.0), (tanh, 1.0), (lambda x: relay.add(x, const(0.5)), 0.0)],
)
def test_padding_that_the_activation_would_change(f, value):
    assert_untouched(module(stem(pad(f(data()), value))), Reason.PAD_VALUE)


def test_padding_with_an_unknown_number():
    value = relay.var("value", shape=())
    mod = module(stem(relay.nn.pad(relu(data()), EDGES, value)))
    assert_untouched(mod, Reason.PAD_VALUE)


def test_of_a_bias_and_a_relu_above_padding_the_relu_sinks():
    def biased(x):
        return relay.nn.bias_add(x, per_channel((8,)))

    check(
        lambda x: stem(pad(relu(biased(x)))),
        lambda x: relu(stem(pad(biased(x)))),
        declined=Reason.PAD_VALUE,
    )


def test_the_domain_below_padding_is_that_of_the_padding_too():
    assert [d.passed for d in decisions(module(stem(relay.sqrt(relu(data())))))] == [True]
    (decision,) = decisions(module(stem(relay.sqrt(pad(relu(data()), -1.0)))))
    assert decision.decline.reason is Reason.DOMAIN


# Transpositions and reshapes.


@pytest.mark.parametrize("f", [relu, sigmoid, lambda x: relay.add(x, const(0.5))])
def test_an_activation_without_an_operand_sinks_past_any_move(f):
    for move in (
        relay.transpose,
        lambda x: relay.reshape(x, (1, 4, 32, 16)),
        lambda x: relay.expand_dims(relay.squeeze(x, [0]), 0),
    ):
        check(lambda x, m=move: max_pool(m(f(x))), lambda x, m=move: f(max_pool(m(x))))


def test_a_bias_sinks_past_a_transposition_in_another_shape():
    bias = per_channel((8,))
    check(
        lambda x: max_pool(to_nchw(relu(relay.add(x, bias)))),
        lambda x: relu(relay.add(max_pool(to_nchw(x)), relay.reshape(bias, (1, 8, 1, 1)))),
        shape=NHWC,
    )


@pytest.mark.parametrize("axis", [3, -1])
def test_a_bias_add_sinks_past_a_transposition_along_another_axis(axis):
    bias = per_channel((8,))
    check(
        lambda x: max_pool(to_nchw(relay.nn.bias_add(x, bias, axis=axis))),
        lambda x: relay.nn.bias_add(max_pool(to_nchw(x)), bias, axis=1),
        shape=NHWC,
    )


def test_a_prelu_sinks_past_a_transposition_along_another_axis():
    slopes = const([0.1, 0.2, 0.0, 0.4, 0.5, 0.6, 0.7, 0.8])
    check(
        lambda x: max_pool(to_nchw(relay.nn.prelu(x, slopes, 3))),
        lambda x: relay.nn.prelu(max_pool(to_nchw(x)), slopes, 1),
        shape=NHWC,
    )


def test_a_bias_add_of_one_channel():
    bias = per_channel((1,))
    check(
        lambda x: max_pool(to_nchw(relay.nn.bias_add(x, bias, axis=3))),
        lambda x: relay.nn.bias_add(max_pool(to_nchw(x)), bias, axis=0),
        shape=(1, 16, 16, 1),
    )


def test_a_bias_sinks_past_a_reshape_that_needs_no_other_shape():
    bias = per_channel((8,))  # as in Keras' Conv1D: a two-dimensional pool

    def pool(x):
        x = relay.expand_dims(x, 1)
        return relay.nn.max_pool2d(x, (1, 2), (1, 2), layout="NHWC")

    check(lambda x: pool(relay.add(x, bias)), lambda x: relay.add(pool(x), bias), shape=(1, 16, 8))


def test_an_argument_sinks_past_two_moves():
    def params():
        return data(NHWC), data((8,), name="b")

    def moved(x):
        return relay.max(relay.reshape(to_nchw(x), (1, 8, 256)), [2], keepdims=True)

    x, b = params()
    before = module(moved(relay.add(b, x)), x, b)
    x, b = params()
    after = module(relay.add(relay.reshape(b, (1, 8, 1)), moved(x)), x, b)
    assert_sinks(before, after)


@pytest.mark.parametrize(
    ("shape", "move"),
    [
        ((8, 16, 1), lambda x: relay.transpose(x, (0, 2, 1, 3))),
        ((8, 1, 1), lambda x: relay.reshape(x, (1, 4, 32, 16))),
    ],
)
def test_a_bias_that_the_move_tears_apart(shape, move):
    mod = module(relay.max(move(relay.add(data(), per_channel(shape))), [3]))
    assert_untouched(mod, Reason.LAYOUT)


def test_a_bias_add_whose_axis_a_reshape_splits():
    body = relay.reshape(relay.nn.bias_add(data(), per_channel((8,))), (1, 2, 4, 256))
    assert_untouched(module(relay.max(body, [3])), Reason.LAYOUT)


def test_a_symbolic_batch():
    shape, bias = (relay.Any(), *NHWC[1:]), per_channel((8,))
    check(
        lambda x: max_pool(to_nchw(relay.add(x, bias))),
        lambda x: relay.add(max_pool(to_nchw(x)), relay.reshape(bias, (1, 8, 1, 1))),
        shape=shape,
    )


@pytest.mark.parametrize("move", [pad, lambda x: relay.reshape(x, (1, 8, 16, 16))])
def test_a_move_that_others_read_keeps_what_is_above_it(move):
    moved = move(relu(data()))
    assert_untouched(module(relay.Tuple([max_pool(moved), relay.exp(moved)])), Reason.SHARED)


def test_a_move_that_is_a_result_keeps_what_is_above_it():
    moved = pad(relu(data()))
    assert_untouched(module(relay.Tuple([max_pool(moved), moved])), Reason.OUTPUT)


def test_a_move_of_a_convolution_is_no_activation():
    assert_untouched(module(max_pool(pad(conv(data())))), Reason.NO_ACTIVATION)
    assert_untouched(module(max_pool(pad(relay.cos(data())))), Reason.NO_RULE)


def test_what_sank_below_a_pool_sinks_on_past_a_move():
    bias = per_channel((8,))

    def before(x):
        pooled = max_pool(relu(relay.nn.bias_add(x, bias, axis=3)), layout="NHWC")
        return max_pool(to_nchw(pooled))

    def after(x):
        pooled = max_pool(to_nchw(max_pool(x, layout="NHWC")))
        return relu(relay.nn.bias_add(pooled, bias, axis=1))

    assert_becomes(module(before(data(NHWC))), module(after(data(NHWC))))


def test_what_sank_below_a_reduction_sinks_on_where_its_axes_are_gone():
    bias = per_channel((8,))

    def before(x):
        return relay.max(relay.max(relu(relay.nn.bias_add(x, bias)), [3]), [2])

    def after(x):
        pooled = relay.max(relay.max(x, [3]), [2], keepdims=True)
        return relay.reshape(relu(relay.nn.bias_add(pooled, bias, axis=1)), (1, 8))

    assert_becomes(module(before(data())), module(after(data())))


# Dropout.


def test_dropout_is_nothing_at_inference():
    check(lambda x: max_pool(relay.nn.dropout(relu(x))), lambda x: relu(max_pool(x)))


def test_dropout_stays_where_nothing_sinks():
    assert_untouched(module(max_pool(relay.nn.dropout(data()))), Reason.NO_ACTIVATION)


def test_dropout_whose_mask_is_read_keeps_what_is_above_it():
    pair = relay.nn.dropout_raw(relu(data()))
    first, second = (relay.TupleGetItem(pair, n) for n in range(2))
    assert_untouched(module(relay.Tuple([max_pool(first), second])), Reason.SHARED)


# Bits.

CASES = {
    "pad": lambda x: stem(pad(relu(to_nchw(x)))),
    "pad tanh": lambda x: stem(pad(tanh(to_nchw(x)))),
    "prelu": lambda x: max_pool(to_nchw(relay.nn.prelu(x, const(np.arange(1, 9)), 3))),
    "mirror": lambda x: stem(mirrored(sigmoid(to_nchw(x)))),
    "transpose": lambda x: max_pool(to_nchw(relu(relay.add(x, per_channel((8,)))))),
    "bias_add": lambda x: max_pool(to_nchw(tanh(relay.nn.bias_add(x, per_channel((8,)), 3)))),
    "flatten": lambda x: relay.max(
        relay.reshape(to_nchw(tanh(relay.add(x, per_channel((8,))))), (1, 8, 256)), [2]
    ),
    "dropout": lambda x: max_pool(relay.nn.dropout(tanh(to_nchw(x)))),
}


@pytest.mark.parametrize("target", TARGETS)
def test_bits(target):
    x = data(NHWC)
    before = module(relay.Tuple([case(x) for case in CASES.values()]))
    after, remarks = run_pass(before)
    assert reasons(remarks).count("sunk") == len(CASES)
    value = hard_values(NHWC, "float32")
    pairs = zip(
        outputs(before, value, target=target), outputs(after, value, target=target), strict=True
    )
    same = [np.array_equal(bits(a), bits(b)) for a, b in pairs]
    assert dict(zip(CASES, same, strict=True)) == dict.fromkeys(CASES, True)


@pytest.mark.parametrize("name", CASES)
def test_a_site_by_itself_has_its_moves(name):
    mod = module(CASES[name](data(NHWC)))
    (decision,) = decisions(mod)
    (again,) = decisions(site_module(mod, decision.site.name))
    assert [op.op for op in again.sunk] == [op.op for op in decision.sunk]
    assert again.site.pool.in_shape == decision.site.pool.in_shape
    assert again.sunk[0].crosses == decision.sunk[0].crosses
