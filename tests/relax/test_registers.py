"""Small results may stay in registers: nothing sinks where that decides what is contracted."""

import numpy as np
import pytest
import tvm
from relax_builders import built, const, data, max_pool, positive, run_pass
from relax_runs import TARGETS, bits, cpu, run
from tvm import relax
from tvm.relax import op

from tvm_passes.decline import Reason
from tvm_passes.relax import decisions, engine

RELU = "relax.nn.relu"
SMALL, LARGE = (1, 64, 4, 4), (8, 64, 4, 4)


def noise(shape, seed=0):
    return const(np.random.default_rng(seed).standard_normal(shape))


def most(x):
    return op.max(x, [2, 3], keepdims=True)


def scaled(x):
    return op.multiply(x, positive((64, 1, 1)))


def shifted(x):
    return op.add(x, noise((64, 1, 1)))


def squared(x):
    return op.multiply(x, x)


def celu(x):
    below = op.minimum(op.subtract(op.exp(op.divide(x, const(0.7))), const(1.0)), const(0.0))
    return op.add(op.multiply(below, const(0.7)), op.nn.relu(x))


CASES = {
    "what sinks": (SMALL, lambda x: most(shifted(scaled(op.nn.relu(x))))),
    "past a sign": (SMALL, lambda x: most(shifted(op.negative(scaled(op.nn.relu(x)))))),
    "one function of several ops": (SMALL, lambda x: most(celu(x))),
    "what is below": (
        (2, 3, 4, 4),
        lambda x: op.subtract(
            op.multiply(max_pool(op.nn.relu(x)), positive((3, 2, 2))), noise((3, 2, 2))
        ),
    ),
    "what stays": ((1, 64, 2, 2), lambda x: most(op.sigmoid(shifted(squared(x))))),
}


@pytest.mark.parametrize(("shape", "body"), CASES.values(), ids=CASES)
def test_it_stays(shape, body):
    decision = decisions(built(lambda _, x: body(x), data(shape)))[0]
    assert decision.decline.reason in (Reason.ROUNDING, Reason.FOLDING)
    assert "registers" in decision.decline.detail


@pytest.mark.parametrize(("shape", "body"), CASES.values(), ids=CASES)
def test_bits_in_the_pipeline_of_tvm(shape, body):
    before = built(lambda _, x: body(x), data(shape))
    x = np.random.default_rng(1).standard_normal(shape, "float32")
    config = {"kind": "llvm", "mcpu": cpu(TARGETS[-1])}
    (expected,), (found,) = (
        run(engine.build(mod, config, reorder=False, kernels=False), x)
        for mod in (before, run_pass(before)[0])
    )
    np.testing.assert_array_equal(bits(found), bits(expected))


SINKS = {
    "with larger results": lambda x: most(shifted(scaled(op.nn.relu(x)))),
    "a sum above a product": lambda x: most(scaled(shifted(x))),
    "a sum, and a product with relu between": lambda x: most(shifted(op.nn.relu(scaled(x)))),
    "next to a sum alone": lambda x: shifted(most(op.nn.relu(x))),
    "next to a sum and what multiplies nothing": lambda x: op.nn.relu(shifted(most(op.nn.relu(x)))),
    "next to a product alone": lambda x: scaled(most(op.nn.relu(x))),
    "below a product that stays": lambda x: most(op.sigmoid(op.multiply(x, noise(SMALL)))),
}


@pytest.mark.parametrize("body", SINKS.values(), ids=SINKS)
def test_other_ops_sink(body):
    shape = LARGE if body is SINKS["with larger results"] else SMALL
    (decision,) = decisions(built(lambda _, x: body(x), data(shape)))
    assert decision.passed


PARTS = {
    "a small part": (LARGE, lambda x: op.strided_slice(x, [0], [0], [1]), False),
    "a large part": ((16, 64, 4, 4), lambda x: op.strided_slice(x, [0], [0], [8]), True),
    "small parts": (LARGE, lambda x: op.split(x, 8, 0)[3], False),
    "large parts": ((16, 64, 4, 4), lambda x: op.split(x, 2, 0)[1], True),
    "more": (LARGE, lambda x: op.concat([x, x], 0), True),
}


@pytest.mark.parametrize(("shape", "part", "passes"), PARTS.values(), ids=PARTS)
def test_parts_of_results(shape, part, passes):
    def body(builder, x):
        pooled = builder.emit(most(op.nn.relu(x)))
        return shifted(scaled(builder.emit(part(pooled))))

    (decision,) = decisions(built(body, data(shape)))
    assert decision.passed is passes


def beside(builder, x, y, p):
    """A product and a sum, in the kernel of what reads a pool and before it, but not below it."""
    product = builder.emit(op.multiply(y, p))
    pooled = builder.emit(max_pool(builder.emit(op.tanh(builder.emit(op.sigmoid(x))))))
    return op.multiply(pooled, builder.emit(op.subtract(product, noise((1, 5, 1, 1), 1))))


def test_what_is_computed_beside_a_pool():
    params = [data((1, 5, 2, 2)), *(data((1, 5, 1, 1), name=name) for name in "yp")]
    (decision,) = decisions(built(beside, *params))
    assert decision.decline.reason is Reason.FOLDING
    assert "beside the pool" in decision.decline.detail


@pytest.mark.parametrize(
    ("below", "passes"),
    [
        (lambda x, y: op.add(x, op.nn.relu(y)), False),
        (lambda x, y: op.concat([x, op.nn.relu(y)], 0), False),
        (lambda x, y: op.nn.relu(op.add(x, op.nn.relu(y))), False),
        (op.add, True),
        (lambda x, y: op.add(x, op.reshape(y, (1, 64, 1, 1))), True),
        (lambda x, y: op.nn.conv2d(x, op.nn.relu(y)), True),
    ],
)
def test_what_is_stored_beside_a_pool(below, passes):
    def body(builder, x, y):
        return below(builder.emit(most(op.nn.relu(x))), y)

    (decision,) = decisions(built(body, data(SMALL), data((1, 64, 1, 1), name="y")))
    assert decision.passed is passes


def test_items_of_tuples_are_no_other_values():
    def body(builder, x):
        pooled = builder.emit(most(op.nn.relu(x)))
        pair = builder.emit(relax.Tuple([pooled, relax.const(np.zeros(1, "int64"))]))
        return shifted(builder.emit(relax.TupleGetItem(pair, 0)))

    (decision,) = decisions(built(body, data(SMALL)))
    assert decision.passed


APART = {
    "softmax": lambda x: op.nn.softmax(x, 1),
    "log_softmax": lambda x: op.nn.log_softmax(x, 1),
    "mean": lambda x: op.mean(x, [1], keepdims=True),
    "variance": lambda x: op.variance(x, [1], keepdims=True),
    "layer_norm": lambda x: op.nn.layer_norm(
        x, const(np.ones(64)), const(np.zeros(64)), axes=[1], epsilon=1e-5
    ),
}


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("apart", APART.values(), ids=APART)
def test_ops_in_no_kernel_with_what_they_read(apart, ours):
    (decision,) = decisions(built(lambda _, x: apart(most(op.nn.relu(x))), data(SMALL)))
    assert decision.passed
    mod = built(lambda _, x: op.exp(apart(op.tanh(x))), data(SMALL))
    executable = engine.build(mod, {"kind": "llvm"}, reorder=ours, kernels=ours)
    assert "@tir_tanh" in executable.as_text()


def test_what_has_extents_that_are_not_known_is_stored():
    n = tvm.tirx.Var("n", "int64")
    mod = built(lambda _, x: most(shifted(scaled(op.nn.relu(x)))), data((n, 64, 4, 4)))
    assert [op.op for op in decisions(mod)[0].sunk] == ["relax.add", "relax.multiply", RELU]
    mod = built(lambda _, x: shifted(scaled(most(op.nn.relu(x)))), data((n, 64, 4, 4)))
    assert decisions(mod)[0].passed


def test_kernels_of_gpus_store_nothing():
    shape, body = CASES["what sinks"]
    with tvm.target.Target({"kind": "cuda", "arch": "sm_80"}):
        (decision,) = decisions(built(lambda _, x: body(x), data(shape)))
    assert decision.passed


def test_another_name_for_a_result_reads_nothing():
    def body(builder, x):
        return builder.emit(shifted(builder.emit(most(op.nn.relu(x)))))  # put out under another

    (decision,) = decisions(built(body, data(SMALL)))
    assert decision.passed


def test_names_of_names():
    def body(builder, x):
        pooled = builder.emit(most(op.nn.relu(x)))
        name = builder.emit_output(pooled)
        return builder.emit_output(name)

    (decision,) = decisions(built(body, data(SMALL)))
    assert decision.passed


def test_what_reads_the_other_name_of_a_result_is_below():
    def body(builder, x):
        pooled = builder.emit_output(builder.emit(most(scaled(x))))
        return [pooled, shifted(pooled)]

    (decision,) = decisions(built(body, data(LARGE)))
    assert decision.decline.reason is Reason.FOLDING
