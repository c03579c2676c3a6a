"""Batch normalization becomes weights and a bias, within rounding, and hides no pool."""

import numpy as np
import pytest
from relax_builders import built, data, max_pool
from relax_runs import outputs
from tvm import relax
from tvm.relax import op

from tvm_passes.relax import ReorderActivationAfterMaxPool
from tvm_passes.relax.batch_norm import BATCH_NORM, FoldBatchNorm
from tvm_passes.relax.convolution import CONV2D, op_name

SHAPE = (1, 3, 9, 8)
FILTERS = 6
LAST = {"data_layout": "NHWC", "kernel_layout": "HWIO"}
RANDOM = np.random.default_rng(3)
BOUND = 3 * 9 * np.finfo(np.float32).eps
"""Of the largest output: the convolution's terms, each rounded once more."""


def const(*shape):
    return relax.const(RANDOM.standard_normal(shape).astype("float32"))


def norm(x, axis=1, channels=FILTERS, **attrs):
    """Scales of both signs, and variances above 0."""
    variance = relax.const(RANDOM.uniform(0.1, 2, channels).astype("float32"))
    parameters = (const(channels), const(channels), const(channels), variance)
    return op.nn.batch_norm(x, *parameters, axis=axis, training=False, **attrs)


def conv(x, **attrs):
    return op.nn.conv2d(x, const(FILTERS, 3, 3, 3), padding=(1, 1), **attrs)


def first(builder, normalized):
    return builder.emit(relax.TupleGetItem(builder.emit(normalized), 0))


def names(mod):
    calls = (op_name(b.value) for block in mod["main"].body.blocks for b in block.bindings)
    return [call for call in calls if call]


def last(b, x):
    weight = const(3, 3, 8, FILTERS)
    return first(b, norm(b.emit(op.nn.conv2d(x, weight, padding=(1, 1), **LAST)), axis=3))


def depthwise(b, x):
    y = op.nn.conv2d(x, const(3, 1, 3, 3), groups=3)
    return first(b, norm(b.emit(y), channels=3))


def biased(b, x):
    return first(b, norm(b.emit(op.add(b.emit(conv(x)), const(FILTERS, 1, 1)))))


FOLDED = {
    "conv": lambda b, x: first(b, norm(b.emit(conv(x)))),
    "bias": biased,
    "channels last": last,
    "depthwise": depthwise,
    "no scale, no center": lambda b, x: first(b, norm(b.emit(conv(x)), scale=False, center=False)),
}


def assert_close(mod, after):
    x = RANDOM.standard_normal(SHAPE).astype("float32")
    for found, expected in zip(outputs(after, x), outputs(mod, x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=BOUND * np.abs(expected).max())


@pytest.mark.parametrize("name", FOLDED)
def test_folded(name):
    mod = built(FOLDED[name], data(SHAPE))
    after = FoldBatchNorm()(mod)
    assert names(after) == [CONV2D, "relax.add"]
    assert_close(mod, after)


def read_twice(b, x):
    y = b.emit(conv(x))
    return [first(b, norm(y)), op.nn.relu(y)]


NOT_INTO_WEIGHTS = {
    "no conv": lambda b, x: first(b, norm(x, channels=3)),
    "read twice": read_twice,
    "bias of one pixel": lambda b, x: first(
        b, norm(b.emit(op.add(b.emit(conv(x)), const(1, FILTERS, 9, 8))))
    ),
}


@pytest.mark.parametrize("name", NOT_INTO_WEIGHTS)
def test_one_product_and_one_sum(name):
    mod = built(NOT_INTO_WEIGHTS[name], data(SHAPE))
    after = FoldBatchNorm()(mod)
    assert {"relax.multiply", "relax.add"} <= {*names(after)}
    assert BATCH_NORM not in names(after)
    assert_close(mod, after)


def statistics(b, x):
    """The new mean is an output, too."""
    y = b.emit(norm(b.emit(conv(x))))
    return [b.emit(relax.TupleGetItem(y, n)) for n in (0, 1)]


def without(_, x):
    return op.nn.relu(x)


@pytest.mark.parametrize("body", [statistics, without])
def test_left_alone(body):
    mod = built(body, data(SHAPE))
    assert FoldBatchNorm()(mod)["main"].same_as(mod["main"])


def test_an_activation_sinks_below_a_pool_that_follows():
    mod = built(lambda b, x: max_pool(op.nn.relu(first(b, norm(b.emit(conv(x)))))), data(SHAPE))
    after = ReorderActivationAfterMaxPool()(FoldBatchNorm()(mod))
    assert names(after) == [CONV2D, "relax.nn.max_pool2d", "relax.add", "relax.nn.relu"]
