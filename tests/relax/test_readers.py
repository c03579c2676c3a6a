"""Arithmetic beside an addition: what reads the pool, and what the addend is made of."""

import pytest
from relax_builders import (
    assert_becomes,
    assert_sinks,
    assert_untouched,
    built,
    const,
    conv,
    data,
    max_pool,
    module,
    per_channel,
    run_pass,
)
from tvm.relax import op

from tvm_passes.decline import Reason

HARMLESS = {
    "nothing": lambda x: x,
    "relu": op.nn.relu,
    "leaky_relu": lambda x: op.nn.leakyrelu(x, 0.1),
    "tanh": op.tanh,
    "conv2d": conv,
    "average pool": lambda x: op.nn.avg_pool2d(x, (2, 2), (2, 2)),
    "flatten and matmul": lambda x: op.matmul(op.flatten(x), per_channel((512, 3))),
    "matmul": lambda x: op.matmul(x, per_channel((8, 3))),
    "reshape": lambda x: op.reshape(x, (8, 64)),
    "permute_dims": lambda x: op.permute_dims(x, (0, 2, 3, 1)),
    "squeeze": lambda x: op.squeeze(x, [0]),
}

ARITHMETIC = {
    "add": lambda x: op.add(x, const(0.1)),
    "add from the left": lambda x: op.add(const(0.1), x),
    "multiply": lambda x: op.multiply(x, const(0.3)),
    "subtract": lambda x: op.subtract(x, const(0.3)),
    "batch_norm": lambda x: op.nn.batch_norm(x, *[per_channel((8,))] * 4, axis=1)[0],
}


def add(x):
    return op.add(x, per_channel((8, 1, 1)))


@pytest.mark.parametrize("name", HARMLESS)
def test_an_addition_sinks_before(name):
    read = HARMLESS[name]
    before = module(lambda x: read(max_pool(add(x))))
    assert_becomes(before, module(lambda x: read(add(max_pool(x)))))


def test_an_addition_sinks_before_another_pool():
    before = module(lambda x: max_pool(max_pool(add(x))))
    assert_becomes(before, module(lambda x: add(max_pool(max_pool(x)))))


@pytest.mark.parametrize("name", ARITHMETIC)
def test_an_addition_stays_before(name):
    mod = module(lambda x: ARITHMETIC[name](max_pool(add(x))))
    assert_untouched(mod, Reason.FOLDING)
    (remark,) = run_pass(mod)[1]
    found = remark.message.partition("next to ")[2]
    assert found.startswith(("relax.", "relax.nn."))
    assert name.partition(" ")[0] in found


def test_an_addition_stays_before_one_reader_of_two():
    def body(builder, x):
        pooled = builder.emit(max_pool(add(x)))
        return [op.nn.relu(pooled), op.multiply(pooled, const(0.3))]

    assert_untouched(built(body), Reason.FOLDING)


@pytest.mark.parametrize("name", ARITHMETIC)
def test_an_activation_sinks_before(name):
    def f(x):
        return op.nn.relu(add(x))

    read = ARITHMETIC[name]
    before = module(lambda x: read(max_pool(f(x))))
    assert_sinks(before, module(lambda x: read(f(max_pool(x)))))


MOVED = {
    "reshape": lambda b: op.reshape(b, (8, 1, 1)),
    "expand_dims": lambda b: op.expand_dims(b, [1, 2]),
    "squeeze": lambda b: op.squeeze(op.reshape(b, (1, 8, 1, 1)), [0]),
    "permute_dims": lambda b: op.permute_dims(op.reshape(b, (1, 1, 8)), (2, 0, 1)),
}


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("name", MOVED)
def test_an_addend_that_is_only_moved_sinks(name, constant):
    def build(order):
        def body(builder, x, b):
            moved = builder.emit(MOVED[name](per_channel((8,)) if constant else b))
            if order == "before":
                return max_pool(builder.emit(op.add(x, moved)))
            return op.add(builder.emit(max_pool(x)), moved)

        return built(body, data(), data((8,), name="b"))

    assert_sinks(build("before"), build("after"))


COMPUTED = {
    "multiply": lambda b: op.multiply(b, b),
    "mean": lambda b: op.mean(b, axis=[0], keepdims=True),
    "reshape of a product": lambda b: op.reshape(op.multiply(b, b), (1, 8, 1, 1)),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_an_addend_that_is_computed_stays(name):
    params = data(), data((8, 1, 1), name="b")
    mod = module(lambda x, b: max_pool(op.add(x, COMPUTED[name](b))), *params)
    assert_untouched(mod, Reason.ROUNDING)
