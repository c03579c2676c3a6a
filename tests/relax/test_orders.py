"""Products are contracted with sums alike in both orders, whichever kernels they are fused into."""

import numpy as np
import pytest
from relax_builders import built, data, per_channel, positive
from relax_runs import TARGETS, bits, cpu, run
from tvm import relax
from tvm.relax import op

from tvm_passes.namespaces import tir
from tvm_passes.relax import engine
from tvm_passes.schedules.spatial import Spatial

SHAPE = (1, 32, 18, 18)
FACTOR, SHIFT = positive((32, 1, 1)), per_channel((32, 1, 1))


def noise(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, "float32")


def scaled(builder, x, factor=FACTOR, shift=SHIFT):
    """A product and a sum, as of a batch normalization."""
    return builder.emit(op.add(builder.emit(op.multiply(x, factor)), shift))


def assert_alike(mod, target, *inputs):
    """Both orders give the same bits, and the pass changes the module."""
    features = {name: target.attrs[name] for name in ("mcpu",) if name in target.attrs}
    orders = [
        engine.build(mod, {"kind": "llvm"} | features, reorder=reorder, kernels=True)
        for reorder in (False, True)
    ]
    assert engine.text(engine.reorder(mod)) != engine.text(mod)
    (before,), (after,) = (run(executable, *inputs) for executable in orders)
    assert np.array_equal(bits(before), bits(after))


MINIMA = {
    "min": lambda b, x: op.min(scaled(b, x), [2, 3]),
    "max of what falls": lambda b, x: op.max(
        op.negative(op.sigmoid(scaled(b, x, positive((18,)), per_channel((18,))))), [2, 3]
    ),
}


@pytest.mark.parametrize("target", TARGETS, ids=cpu)
@pytest.mark.parametrize("body", MINIMA.values(), ids=MINIMA)
def test_minima(body, target):
    assert_alike(built(body, data(SHAPE)), target, noise(SHAPE))


@pytest.mark.parametrize("reduce", [op.max, op.min])
def test_minima_are_scheduled_like_maxima(reduce):
    """In vectors, as few instructions a result."""
    with TARGETS[-1] as target:
        mod = relax.transform.LegalizeOps()(built(lambda _, x: reduce(x, [1]), data(SHAPE)))
    (func,) = (func for func in mod.functions.values() if isinstance(func, tir.PrimFunc))
    assert "T.vectorized" in Spatial().apply(func, target, False).mod.script()
