"""Arithmetic beside an addition: what reads the pool, and what the addend is made of."""

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
    run_pass,
)
from relay_runs import TARGETS, bits, hard_values, outputs
from tvm import relay

from tvm_passes.decline import Reason

HARMLESS = {
    "nothing": lambda x: x,
    "relu": relay.nn.relu,
    "leaky_relu": lambda x: relay.nn.leaky_relu(x, alpha=0.1),
    "tanh": relay.tanh,
    "conv2d": conv,
    "average pool": lambda x: relay.nn.avg_pool2d(x, (2, 2), (2, 2)),
    "flatten and dense": lambda x: relay.nn.dense(
        relay.nn.batch_flatten(x), relay.var("d", shape=(3, 512))
    ),
    "dense": lambda x: relay.nn.dense(x, relay.var("d", shape=(3, 8))),
    "reshape": lambda x: relay.reshape(x, (8, 64)),
    "transpose": lambda x: relay.transpose(x, (0, 2, 3, 1)),
    "squeeze": lambda x: relay.squeeze(x, axis=[0]),
    "a tuple of results": lambda x: relay.Tuple([x, relay.nn.relu(x)]),
}

ARITHMETIC = {
    "add": lambda x: relay.add(x, const(0.1)),
    "add from the left": lambda x: relay.add(const(0.1), x),
    "bias_add": lambda x: relay.nn.bias_add(x, per_channel((8,))),
    "multiply": lambda x: relay.multiply(x, const(0.3)),
    "subtract": lambda x: relay.subtract(x, const(0.3)),
    "batch_norm": lambda x: relay.nn.batch_norm(x, *[per_channel((8,))] * 4)[0],
    "dropout": lambda x: relay.multiply(relay.nn.dropout(x), const(0.3)),
    "one of two": lambda x: relay.Tuple([relay.nn.relu(x), relay.multiply(x, const(0.3))]),
    "an item of a tuple": lambda x: relay.multiply(
        relay.TupleGetItem(relay.Tuple([x, const(0.1)]), 0), const(0.3)
    ),
}


def add(x):
    return relay.add(x, per_channel((8, 1, 1)))


@pytest.mark.parametrize("name", HARMLESS)
def test_an_addition_sinks_before(name):
    read = HARMLESS[name]
    assert_becomes(module(read(max_pool(add(data())))), module(read(add(max_pool(data())))))


def test_an_addition_sinks_before_another_pool():
    assert_becomes(module(max_pool(max_pool(add(data())))), module(add(max_pool(max_pool(data())))))


@pytest.mark.parametrize("name", ARITHMETIC)
def test_an_addition_stays_before(name):
    mod = module(ARITHMETIC[name](max_pool(add(data()))))
    assert_untouched(mod, Reason.FOLDING)
    (remark,) = run_pass(mod)[1]
    assert ("multiply" if name == "one of two" else name.partition(" ")[0]) in remark.message


@pytest.mark.parametrize("name", ARITHMETIC)
def test_an_activation_sinks_before(name):
    def f(x):
        return relay.nn.relu(add(x))

    read = ARITHMETIC[name]
    assert_sinks(module(read(max_pool(f(data())))), module(read(f(max_pool(data())))))


MOVED = {
    "reshape": lambda b: relay.reshape(b, (8, 1, 1)),
    "expand_dims": lambda b: relay.expand_dims(b, axis=1, num_newaxis=2),
    "squeeze": lambda b: relay.squeeze(relay.reshape(b, (1, 8, 1, 1)), axis=[0]),
    "transpose": lambda b: relay.transpose(relay.reshape(b, (1, 1, 8)), (2, 0, 1)),
}


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("name", MOVED)
def test_an_addend_that_is_only_moved_sinks(name, constant):
    def mod(order):
        x = data()
        b = MOVED[name](per_channel((8,)) if constant else relay.var("b", shape=(8,)))
        return module(max_pool(x + b) if order == "before" else max_pool(x) + b)

    assert_sinks(mod("before"), mod("after"))


COMPUTED = {
    "multiply": lambda b: relay.multiply(b, b),
    "mean": lambda b: relay.mean(b, axis=[0], keepdims=True),
    "reshape of a product": lambda b: relay.reshape(relay.multiply(b, b), (1, 8, 1, 1)),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_an_addend_that_is_computed_stays(name):
    b = relay.var("b", shape=(8, 1, 1))
    assert_untouched(module(max_pool(data() + COMPUTED[name](b))), Reason.ROUNDING)


@pytest.mark.parametrize("target", TARGETS)
def test_an_addend_that_is_a_product_is_contracted(target):
    b = relay.var("b", shape=(8, 1, 1))
    before = module(max_pool(relay.sigmoid(data() + relay.multiply(b, const(0.3)))))
    expected = module(relay.sigmoid(max_pool(data() + relay.multiply(b, const(0.3)))))
    assert_sinks(before, expected, Reason.ROUNDING)
    x = hard_values((1, 8, 16, 16), "float32")
    y = np.random.default_rng(7).standard_normal((8, 1, 1)).astype("float32")
    (a,), (b,) = (outputs(mod, x, y, target=target) for mod in (before, expected))
    assert np.array_equal(bits(a), bits(b))
