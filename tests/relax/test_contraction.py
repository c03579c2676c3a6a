"""What follows a pool is contracted with no product that sinks: one rounding for two."""

import numpy as np
import pytest
from relax_builders import assert_untouched, built, const, data, max_pool, per_channel, positive
from relax_runs import TARGETS, bits, cpu, hard_values, run
from tvm.relax import op

from tvm_passes.decline import Reason
from tvm_passes.relax import engine

SHAPE = (1, 8, 32, 32)
ALONG = per_channel((1, 8))


def product(x):
    return op.multiply(x, positive((8, 1, 1)))


def most(x, keepdims=False):
    return op.max(x, [2, 3], keepdims)


def chained(*steps):
    """Steps bound to variables, one after the other."""

    def body(builder, x):
        for step in steps:
            x = builder.emit(step(x))
        return op.add(x, ALONG) if x.ty.ndim == 2 else op.add(x, const(0.3))

    return built(body, data(SHAPE))


DECLINED = {
    "a multiplication at the end of selu": (op.nn.selu, max_pool),
    "past a sign": (product, op.negative, max_pool),
    "past a sign below": (product, max_pool, op.negative),
    "with atanh": (lambda x: op.multiply(x, const(0.1)), max_pool, op.atanh),
    "past a clip to all numbers": (
        product,
        lambda x: op.clip(x, float(np.finfo("float32").min), float(np.finfo("float32").max)),
        max_pool,
    ),
    "past a reshape": (product, most, lambda x: op.reshape(x, (1, 8))),
    "past squeeze": (product, lambda x: most(x, True), lambda x: op.squeeze(x, [2, 3])),
    "past flatten": (product, lambda x: most(x, True), op.flatten),
    "past a transposition": (
        product,
        lambda x: most(x, True),
        lambda x: op.permute_dims(x, [0, 2, 3, 1]),
    ),
}


@pytest.mark.parametrize("steps", DECLINED.values(), ids=DECLINED)
def test_it_stays(steps):
    assert_untouched(chained(*steps), Reason.FOLDING)


@pytest.mark.parametrize("target", TARGETS, ids=cpu)
@pytest.mark.parametrize("steps", DECLINED.values(), ids=DECLINED)
def test_bits(steps, target):
    mod, x = chained(*steps), hard_values(SHAPE, "float32")
    features = {name: target.attrs[name] for name in ("mcpu",) if name in target.attrs}
    orders = [
        engine.build(mod, {"kind": "llvm"} | features, reorder=reorder, kernels=True)
        for reorder in (False, True)
    ]
    (before,), (after,) = (run(executable, x) for executable in orders)
    assert np.array_equal(bits(before), bits(after))
