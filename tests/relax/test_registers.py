"""Small results may stay in registers: nothing sinks where that decides what is contracted."""

import numpy as np
import pytest
import tvm
from relax_builders import built, const, data, max_pool, positive, run_pass
from relax_runs import TARGETS, bits, cpu, run
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
    "next to a product alone": lambda x: scaled(most(op.nn.relu(x))),
    "below a product that stays": lambda x: most(op.sigmoid(op.multiply(x, noise(SMALL)))),
}


@pytest.mark.parametrize("body", SINKS.values(), ids=SINKS)
def test_other_ops_sink(body):
    shape = LARGE if body is SINKS["with larger results"] else SMALL
    (decision,) = decisions(built(lambda _, x: body(x), data(shape)))
    assert decision.passed


def test_parts_of_larger_results_may_be_small():
    def body(parts):
        return lambda b, x: shifted(scaled(parts(b.emit(most(op.nn.relu(x))))))

    for parts, passes in (
        (lambda x: op.strided_slice(x, [0], [0], [1]), False),
        (lambda x: op.concat([x, x], 0), True),
    ):
        (decision,) = decisions(built(body(parts), data(LARGE)))
        assert decision.passed is passes


def test_what_has_extents_that_are_not_known_is_stored():
    n = tvm.tirx.Var("n", "int64")
    mod = built(lambda _, x: most(shifted(scaled(op.nn.relu(x)))), data((n, 64, 4, 4)))
    assert [op.op for op in decisions(mod)[0].sunk] == ["relax.add", "relax.multiply", RELU]


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


def test_what_reads_the_other_name_of_a_result_is_below():
    def body(builder, x):
        pooled = builder.emit_output(builder.emit(most(scaled(x))))
        return [pooled, shifted(pooled)]

    (decision,) = decisions(built(body, data(LARGE)))
    assert decision.decline.reason is Reason.FOLDING
