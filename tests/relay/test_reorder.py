"""What sinks: Before and Expected, for every rule, layout, spelling of a bias and pool."""

import numpy as np
import pytest
import tvm
from relay_builders import (
    assert_sinks,
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
from tvm import relay

from tvm_passes.decline import Direction, Reason
from tvm_passes.describe import vocabulary
from tvm_passes.relay import ReorderActivationAfterMaxPool, decisions
from tvm_passes.rules import RELAY, RULES, Form, Rule

UNARY = ("erf", "exp", "floor", "ceil", "round", "trunc", "sign", "atan", "asinh", "sinh")

ACTIVATIONS = {
    "nn.relu": relay.nn.relu,
    "clip": lambda x: relay.clip(x, -1.0, 6.0),
    "nn.leaky_relu": lambda x: relay.nn.leaky_relu(x, alpha=0.1),
    "sigmoid": relay.sigmoid,
    "tanh": relay.tanh,
    "nn.bias_add": lambda x: relay.nn.bias_add(x, relay.var("b", shape=(8,))),
    "add": lambda x: relay.add(x, per_channel((8, 1, 1))),
    "subtract": lambda x: relay.subtract(x, per_channel((8, 1, 1))),
    "multiply": lambda x: relay.multiply(x, positive((8, 1, 1))),
    "divide": lambda x: relay.divide(x, positive((8, 1, 1))),
    "maximum": lambda x: relay.maximum(x, per_channel((8, 1, 1))),
    "minimum": lambda x: relay.minimum(per_channel((8, 1, 1)), x),
    "nn.prelu": lambda x: relay.nn.prelu(x, positive((8,))),
    **{name: getattr(relay, name) for name in UNARY},
    "log": lambda x: relay.log(relay.exp(x) + const(1.0)),
    "log2": lambda x: relay.log2(relay.exp(x) + const(1.0)),
    "log10": lambda x: relay.log10(relay.exp(x) + const(1.0)),
    "sqrt": lambda x: relay.sqrt(relay.nn.relu(x)),
    "acosh": lambda x: relay.acosh(relay.maximum(x, const(1.5))),
    "asin": lambda x: relay.asin(relay.tanh(x)),
    "atanh": lambda x: relay.atanh(relay.clip(x, -0.9, 0.9)),
}

LAYOUTS = {
    "NCHW": ((1, 8, 16, 16), (8, 1, 1)),
    "NHWC": ((1, 16, 16, 8), (8,)),
    "NCHW16c": ((1, 2, 16, 16, 16), (1, 2, 1, 1, 16)),
}


def test_every_op_of_the_table_is_here():
    """But those whose results are of another type: they have tests of their own."""
    rising = [r for r in RULES if r.direction is Direction.NON_DECREASING and not r.results]
    assert set(ACTIVATIONS) == set(vocabulary(rising, RELAY).activations)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_each_activation_sinks(name):
    f = ACTIVATIONS[name]
    assert_sinks(module(max_pool(f(data()))), module(f(max_pool(data()))))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["nn.relu", "sigmoid", "sqrt"])
def test_each_activation_sinks_in_each_layout(name, layout):
    f, (shape, _) = ACTIVATIONS[name], LAYOUTS[layout]
    before = module(max_pool(f(data(shape)), layout=layout))
    assert_sinks(before, module(f(max_pool(data(shape), layout=layout))))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bias_first", [False, True])
def test_a_constant_added_in_either_order_sinks(layout, bias_first):
    shape, bias_shape = LAYOUTS[layout]
    bias = per_channel(bias_shape)

    def add(x):
        return relay.add(bias, x) if bias_first else relay.add(x, bias)

    before = module(max_pool(add(data(shape)), layout=layout))
    assert_sinks(before, module(add(max_pool(data(shape), layout=layout))))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bias_first", [False, True])
def test_a_scalar_added_in_either_order_sinks(layout, bias_first):
    def add(x):
        return relay.add(const(0.5), x) if bias_first else relay.add(x, const(0.5))

    shape = LAYOUTS[layout][0]
    before = module(max_pool(add(data(shape)), layout=layout))
    assert_sinks(before, module(add(max_pool(data(shape), layout=layout))))


@pytest.mark.parametrize(
    ("layout", "axis"), [("NCHW", 1), ("NCHW", -3), ("NHWC", 3), ("NHWC", -1), ("NCHW", 0)]
)
def test_a_bias_add_along_an_axis_that_is_not_pooled_sinks(layout, axis):
    shape = LAYOUTS[layout][0]

    def bias_add(x):
        return relay.nn.bias_add(x, per_channel((shape[axis],)), axis=axis)

    before = module(max_pool(bias_add(data(shape)), layout=layout))
    assert_sinks(before, module(bias_add(max_pool(data(shape), layout=layout))))


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1, 1), (1, 1, 1), (1,), ()])
@pytest.mark.parametrize("bias_first", [False, True])
def test_a_bias_that_is_not_constant_sinks(shape, bias_first):
    def mod(order):
        x, b = data(), data(shape, name="b")

        def add(value):
            return relay.add(b, value) if bias_first else relay.add(value, b)

        return module(max_pool(add(x)) if order == "before" else add(max_pool(x)), x, b)

    assert_sinks(mod("before"), mod("after"))


def test_a_whole_chain_sinks():
    def chain(x):
        x = relay.nn.bias_add(x, per_channel((8,)))
        return relay.clip(relay.nn.leaky_relu(x, alpha=0.1), -1.0, 6.0)

    assert_sinks(module(max_pool(chain(conv(data())))), module(chain(max_pool(conv(data())))))


def test_the_other_consumer_of_the_producer_keeps_the_unpooled_tensor():
    def mod(order):
        layer = conv(data())
        sunk = (
            max_pool(relay.nn.relu(layer)) if order == "before" else relay.nn.relu(max_pool(layer))
        )
        return module(relay.Tuple([sunk, relay.exp(layer)]))

    assert_sinks(mod("before"), mod("after"))


def test_the_ops_below_a_shared_one_sink():
    def mod(order):
        shared = relay.sigmoid(data())
        sunk = (
            max_pool(relay.nn.relu(shared))
            if order == "before"
            else relay.nn.relu(max_pool(shared))
        )
        return module(relay.Tuple([sunk, relay.exp(shared)]))

    assert_sinks(mod("before"), mod("after"), Reason.SHARED)


def test_of_multiply_add_relu_only_the_relu_sinks():
    # relu moves off a fused multiply-add; the addition may not.
    def affine(x):
        return relay.add(relay.multiply(x, per_channel((8, 1, 1))), per_channel((8, 1, 1)))

    before = module(max_pool(relay.nn.relu(affine(data()))))
    expected = module(relay.nn.relu(max_pool(affine(data()))))
    assert_sinks(before, expected, Reason.ROUNDING)


def test_a_batch_norm_stays_and_the_relu_below_it_sinks():
    def norm(x):
        gamma, beta, mean, var = (per_channel((8,)) for _ in range(4))
        return relay.nn.batch_norm(x, gamma, beta, mean, var)[0]

    before = module(max_pool(relay.nn.relu(norm(data()))))
    assert_sinks(before, module(relay.nn.relu(max_pool(norm(data())))))


@pytest.mark.parametrize(
    "attrs",
    [
        {"kernel": 3, "stride": 2, "padding": (1, 1)},
        {"kernel": 3, "stride": 2, "padding": (1, 0, 0, 1)},
        {"kernel": 3, "stride": 2, "padding": (0, 2, 2, 0)},
        {"kernel": 3, "stride": 3, "ceil_mode": True},
        {"kernel": 2, "stride": 2, "dilation": (2, 2)},
        {"kernel": 3, "stride": 2, "dilation": (2, 1), "padding": (2, 1)},
        {"kernel": 1, "stride": 2},
        {"kernel": 5, "stride": 1},
        {"kernel": 16, "stride": 1},
    ],
    ids=str,
)
def test_the_pool_may_be(attrs):
    before = module(max_pool(relay.nn.relu(data()), **attrs))
    assert_sinks(before, module(relay.nn.relu(max_pool(data(), **attrs))))


@pytest.mark.parametrize(("padding", "accepted"), [([1], True), ([1, 1], True), ([3], False)])
def test_padding_written_short(padding, accepted):
    # As other front ends than TVM's Python functions may leave it.
    full = max_pool(data(), 3, 2).attrs
    names = ("pool_size", "strides", "dilation", "layout", "out_layout", "ceil_mode")
    fields = {name: getattr(full, name) for name in names} | {"padding": padding}
    attrs = tvm.ir.make_node("relay.attrs.MaxPool2DAttrs", **fields)

    def pool(x):
        return relay.Call(relay.op.get("nn.max_pool2d"), [x], attrs)

    before = module(pool(relay.nn.relu(data())))
    if accepted:
        assert_sinks(before, module(relay.nn.relu(pool(data()))))
    else:
        assert reasons(run_pass(before)[1]) == [Reason.EMPTY_WINDOW.value]


@pytest.mark.parametrize(
    ("pool", "shape"),
    [
        (lambda x: relay.nn.max_pool1d(x, (2,), (2,)), (1, 8, 16)),
        (lambda x: relay.nn.max_pool1d(x, (2,), (2,), layout="NWC"), (1, 16, 8)),
        (lambda x: relay.nn.max_pool3d(x, (2, 2, 2), (2, 2, 2)), (1, 4, 8, 8, 8)),
        (lambda x: relay.nn.max_pool3d(x, (2, 2, 2), (2, 2, 2), layout="NDHWC"), (1, 8, 8, 8, 4)),
    ],
)
def test_pools_of_other_ranks(pool, shape):
    assert_sinks(module(pool(relay.tanh(data(shape)))), module(relay.tanh(pool(data(shape)))))


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16", "int8", "uint8", "int32"])
@pytest.mark.parametrize("f", [relay.nn.relu, lambda x: relay.clip(x, 0.0, 6.0)])
def test_relu_and_clip_sink_for_every_element_type(f, dtype):
    before = module(max_pool(f(data(dtype=dtype))))
    assert_sinks(before, module(f(max_pool(data(dtype=dtype)))))


@pytest.mark.parametrize(
    ("shape", "bias"),
    [
        ((relay.Any(), 8, 16, 16), const(np.ones(8))),
        ((1, 8, relay.Any(), 16), const(np.ones(8))),
        ((relay.Any(), 8, relay.Any(), relay.Any()), const(np.ones(8))),
    ],
)
def test_symbolic_batch_height_and_width(shape, bias):
    def chain(x):
        return relay.nn.relu(relay.nn.bias_add(x, bias))

    for padding in ((1, 1), (0, 0, 2, 2), (2, 1, 0, 1)):
        attrs = {"kernel": 3, "stride": 2, "padding": padding}
        before = module(max_pool(chain(data(shape)), **attrs))
        assert_sinks(before, module(chain(max_pool(data(shape), **attrs))))


def test_a_row_of_the_users_own():
    cumsum = Rule("cumsum", Direction.NON_DECREASING, {RELAY: (Form("cumsum"),)})
    mod = module(max_pool(relay.cumsum(data(), axis=1)))
    after = ReorderActivationAfterMaxPool(rules=(*RULES, cumsum))(mod)
    tvm.ir.assert_structural_equal(after, module(relay.cumsum(max_pool(data()), axis=1)))
    assert reasons(run_pass(mod)[1]) == ["no-rule"]
    assert reasons(run_pass(mod, rules=())[1]) == ["no-rule"]
    (decision,) = decisions(mod, (*RULES, cumsum))
    assert decision.passed
