"""What sinks: Before and Expected, for every rule, layout, spelling of a bias and pool."""

import numpy as np
import pytest
import tvm
from relax_builders import (
    SHAPE,
    STORED,
    assert_sinks,
    built,
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
from tvm import relax
from tvm.relax import op

from tvm_passes.decline import Direction, Reason
from tvm_passes.describe import vocabulary
from tvm_passes.relax import ReorderActivationAfterMaxPool, decisions
from tvm_passes.rules import RELAX, RULES, Form, Rule

UNARY = ("erf", "exp", "floor", "ceil", "round", "trunc", "sign", "atan", "asinh", "sinh")

ACTIVATIONS = {
    "relax.nn.relu": op.nn.relu,
    "relax.clip": lambda x: op.clip(x, -1.0, 6.0),
    "relax.nn.leakyrelu": lambda x: op.nn.leakyrelu(x, 0.1),
    "relax.sigmoid": op.sigmoid,
    "relax.tanh": op.tanh,
    "relax.add": lambda x: op.add(x, per_channel((8, 1, 1))),
    "relax.subtract": lambda x: op.subtract(x, per_channel((8, 1, 1))),
    "relax.multiply": lambda x: op.multiply(x, positive((8, 1, 1))),
    "relax.divide": lambda x: op.divide(x, positive((8, 1, 1))),
    "relax.maximum": lambda x: op.maximum(x, per_channel((8, 1, 1))),
    "relax.minimum": lambda x: op.minimum(per_channel((8, 1, 1)), x),
    "relax.nn.prelu": lambda x: op.nn.prelu(x, positive((8,)), axis=1),
    "relax.nn.selu": op.nn.selu,
    "relax.nn.softplus": op.nn.softplus,
    **{f"relax.{name}": getattr(op, name) for name in UNARY},
    "relax.log": lambda x: op.log(op.exp(x) + const(1.0)),
    "relax.sqrt": lambda x: op.sqrt(op.nn.relu(x)),
    "relax.acosh": lambda x: op.acosh(op.maximum(x, const(1.5))),
    "relax.asin": lambda x: op.asin(op.tanh(x)),
    "relax.atanh": lambda x: op.atanh(op.clip(x, -0.9, 0.9)),
}

LAYOUTS = {
    "NCHW": ((1, 8, 16, 16), (8, 1, 1)),
    "NHWC": ((1, 16, 16, 8), (8,)),
    "NCHW16c": ((1, 2, 16, 16, 16), (1, 2, 1, 1, 16)),
}


def test_every_op_of_the_table_is_here():
    """But those whose results are of another type: they have tests of their own."""
    rising = [r for r in RULES if r.direction is Direction.NON_DECREASING and not r.results]
    assert set(ACTIVATIONS) == set(vocabulary(rising, RELAX).activations)


def test_a_factor_sinks_past_an_activation_below():
    """Relax folds no factors into weights."""

    def body(f, below):
        return module(lambda x: op.nn.relu(f(max_pool(below(x)))))

    factor = ACTIVATIONS["relax.multiply"]
    assert_sinks(body(lambda x: x, factor), body(factor, lambda x: x))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_each_activation_sinks(name):
    f = ACTIVATIONS[name]
    assert_sinks(module(lambda x: max_pool(f(x))), module(lambda x: f(max_pool(x))))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["relax.nn.relu", "relax.sigmoid", "relax.sqrt"])
def test_each_activation_sinks_in_each_layout(name, layout):
    f, (shape, _) = ACTIVATIONS[name], LAYOUTS[layout]
    before = module(lambda x: max_pool(f(x), layout=layout), data(shape))
    assert_sinks(before, module(lambda x: f(max_pool(x, layout=layout)), data(shape)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bias_first", [False, True])
@pytest.mark.parametrize("scalar", [False, True])
def test_a_constant_added_in_either_order_sinks(layout, bias_first, scalar):
    shape, bias_shape = LAYOUTS[layout]
    bias = const(0.5) if scalar else per_channel(bias_shape)

    def add(x):
        return op.add(bias, x) if bias_first else op.add(x, bias)

    before = module(lambda x: max_pool(add(x), layout=layout), data(shape))
    assert_sinks(before, module(lambda x: add(max_pool(x, layout=layout)), data(shape)))


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1, 1), (1, 1, 1), (1,), ()])
@pytest.mark.parametrize("bias_first", [False, True])
def test_a_bias_that_is_not_constant_sinks(shape, bias_first):
    def add(x, b):
        return op.add(b, x) if bias_first else op.add(x, b)

    def params():
        return data(), data(shape, name="b")

    before = module(lambda x, b: max_pool(add(x, b)), *params())
    assert_sinks(before, module(lambda x, b: add(max_pool(x), b), *params()))


def test_a_whole_chain_sinks():
    def chain(x):
        return op.clip(op.nn.leakyrelu(op.add(x, per_channel((8, 1, 1))), 0.1), -1.0, 6.0)

    before = module(lambda x: max_pool(chain(conv(x))))
    assert_sinks(before, module(lambda x: chain(max_pool(conv(x)))))


def test_the_other_consumer_of_the_producer_keeps_the_unpooled_tensor():
    def before(builder, x):
        layer = builder.emit(conv(x))
        active = builder.emit(op.nn.relu(layer))
        return [max_pool(active), op.exp(layer)]

    def expected(builder, x):
        layer = builder.emit(conv(x))
        return [op.nn.relu(builder.emit(max_pool(layer))), op.exp(layer)]

    assert_sinks(built(before), built(expected))


def test_the_ops_below_a_shared_one_sink():
    def before(builder, x):
        shared = builder.emit(op.sigmoid(x))
        return [max_pool(builder.emit(op.nn.relu(shared))), op.exp(shared)]

    def expected(builder, x):
        shared = builder.emit(op.sigmoid(x))
        return [op.nn.relu(builder.emit(max_pool(shared))), op.exp(shared)]

    assert_sinks(built(before), built(expected), Reason.SHARED)


def test_of_multiply_add_relu_only_the_relu_sinks_where_factors_are_negative():
    def affine(x):
        return op.add(op.multiply(x, per_channel((8, 1, 1))), per_channel((8, 1, 1)))

    before = module(lambda x: max_pool(op.nn.relu(affine(x))))
    expected = module(lambda x: op.nn.relu(max_pool(affine(x))))
    assert_sinks(before, expected, Reason.ROUNDING)


def test_multiply_add_relu_sinks_whole_where_no_factor_is_negative():
    def affine(x):
        return op.nn.relu(op.add(op.multiply(x, positive((8, 1, 1))), per_channel((8, 1, 1))))

    before = module(lambda x: max_pool(affine(conv(x))), data(STORED))
    assert_sinks(before, module(lambda x: affine(max_pool(conv(x))), data(STORED)))


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
    before = module(lambda x: max_pool(op.nn.relu(x), **attrs))
    assert_sinks(before, module(lambda x: op.nn.relu(max_pool(x, **attrs))))


@pytest.mark.parametrize(
    ("pool", "shape"),
    [
        (lambda x: op.nn.max_pool1d(x, (2,), (2,)), (1, 8, 16)),
        (lambda x: op.nn.max_pool1d(x, (2,), (2,), layout="NWC"), (1, 16, 8)),
        (lambda x: op.nn.max_pool3d(x, (2, 2, 2), (2, 2, 2)), (1, 4, 8, 8, 8)),
        (lambda x: op.nn.max_pool3d(x, (2, 2, 2), (2, 2, 2), layout="NDHWC"), (1, 8, 8, 8, 4)),
    ],
)
def test_pools_of_other_ranks(pool, shape):
    before = module(lambda x: pool(op.tanh(x)), data(shape))
    assert_sinks(before, module(lambda x: op.tanh(pool(x)), data(shape)))


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16", "int8", "uint8", "int32"])
@pytest.mark.parametrize("f", [op.nn.relu, lambda x: op.clip(x, 0, 6)])
def test_relu_and_clip_sink_for_every_element_type(f, dtype):
    before = module(lambda x: max_pool(f(x)), data(dtype=dtype))
    assert_sinks(before, module(lambda x: f(max_pool(x)), data(dtype=dtype)))


@pytest.mark.parametrize("symbolic", [(0,), (2,), (0, 2, 3)])
def test_symbolic_batch_height_and_width(symbolic):
    def var():
        extents = [tvm.tirx.Var("nchw"[axis], "int64") for axis in range(4)]
        return data([extents[axis] if axis in symbolic else SHAPE[axis] for axis in range(4)])

    def chain(x):
        return op.nn.relu(op.add(x, const(np.ones((8, 1, 1)))))

    for padding in ((1, 1), (0, 0, 2, 2), (2, 1, 0, 1)):
        attrs = {"kernel": 3, "stride": 2, "padding": padding}
        before = module(lambda x, attrs=attrs: max_pool(chain(x), **attrs), var())
        expected = module(lambda x, attrs=attrs: chain(max_pool(x, **attrs)), var())
        assert_sinks(before, expected)


def test_a_tensor_of_known_rank_and_unknown_extents():
    def var():
        return relax.Var("x", relax.TensorType(dtype="float32", ndim=4))

    before = module(lambda x: max_pool(op.nn.relu(x)), var())
    assert_sinks(before, module(lambda x: op.nn.relu(max_pool(x)), var()))


def test_a_row_of_the_users_own():
    cumsum = Rule("cumsum", Direction.NON_DECREASING, {RELAX: (Form("relax.cumsum"),)})
    mod = module(lambda x: max_pool(op.cumsum(x, axis=1)))
    after = ReorderActivationAfterMaxPool(rules=(*RULES, cumsum))(mod)
    tvm.ir.assert_structural_equal(after, module(lambda x: op.cumsum(max_pool(x), axis=1)))
    assert reasons(run_pass(mod)[1]) == ["no-rule"]
    assert reasons(run_pass(mod, rules=())[1]) == ["no-rule"]
    (decision,) = decisions(mod, (*RULES, cumsum))
    assert decision.passed
