"""Products are contracted with sums alike in both orders, whichever kernels they are fused into."""

from functools import partial

import numpy as np
import pytest
import tvm
from relax_builders import built, const, data, max_pool, per_channel, positive
from relax_runs import TARGETS, bits, cpu, run
from tvm import relax
from tvm.relax import op
from tvm.relax.backend.cpu_generic import pipeline

from tvm_passes.namespaces import Schedule, blocks_of, tir
from tvm_passes.relax import engine, tvm_reorder_pipeline
from tvm_passes.schedules.inlining import Inlined
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
    shape = (16, *SHAPE[1:])
    assert_alike(built(body, data(shape)), target, noise(shape))


def convolved(shape, weight, conv, axes, pool, constant=True):
    """conv -> product and sum -> relu -> pool, and inputs: data, and weights unless constant."""

    def body(builder, x, *weights):
        y = builder.emit(conv(x, *(weights or [const(noise(weight, 1))])))
        channels = (int(y.ty.shape[1]), *[1] * axes)
        y = scaled(builder, y, positive(channels), per_channel(channels))
        return pool(builder.emit(op.nn.relu(y)))

    params = [data(shape)] if constant else [data(shape), data(weight, name="w")]
    return built(body, *params), [noise(shape), noise(weight, 1)][: len(params)]


CONVOLVED = {
    "conv1d": convolved(
        (1, 8, 64), (16, 8, 3), op.nn.conv1d, 1, lambda y: op.nn.max_pool1d(y, [2], [2])
    ),
    "conv2d by an argument": convolved(
        (1, 4, 18, 18), (16, 4, 3, 3), op.nn.conv2d, 2, max_pool, constant=False
    ),
    "conv2d in groups": convolved(
        (1, 8, 18, 18), (24, 1, 3, 3), partial(op.nn.conv2d, groups=8), 2, max_pool
    ),
}


@pytest.mark.parametrize("target", TARGETS, ids=cpu)
@pytest.mark.parametrize(("mod", "inputs"), CONVOLVED.values(), ids=CONVOLVED)
def test_sums_that_no_rule_schedules(mod, inputs, target):
    assert_alike(mod, target, *inputs)


@pytest.mark.parametrize("target", TARGETS, ids=cpu)
@pytest.mark.parametrize("reduce", [op.max, op.min])
@pytest.mark.parametrize("keepdims", [False, True])
def test_one_number(reduce, keepdims, target):
    def body(builder, x):
        return reduce(builder.emit(op.sigmoid(x)), keepdims=keepdims)

    mod = built(body, data(SHAPE))
    for seed in range(8):
        assert_alike(mod, target, noise(SHAPE, seed))


def kernel(body, *params):
    """Of a function that TVM makes one kernel of."""
    with TARGETS[-1] as target:
        passes = [relax.transform.LegalizeOps(), *pipeline.legalize_passes(target)]
        mod = tvm.transform.Sequential(passes)(built(body, *params))
    (func,) = (func for func in mod.functions.values() if isinstance(func, tir.PrimFunc))
    return func


def biased_conv1d(builder, x, w):
    y = builder.emit(op.nn.conv1d(x, w, padding=1))
    return scaled(builder, y, const(2.0), const(1.0))


def inlined(func):
    return Inlined().apply(func, TARGETS[-1], False)


def test_what_a_sum_of_products_reads_stays_in_memory():
    """It reads an element for each channel and each element of a window."""
    func = kernel(biased_conv1d, data((1, 4, 9)), data((6, 4, 3), name="w"))
    assert [len(blocks_of(sch)) for sch in (Schedule(func), inlined(func))] == [4, 3]


def test_a_softmax_evaluates_an_exponential_once():
    func = kernel(lambda _, x: op.nn.softmax(x), data((4, 9)))
    assert inlined(func) is None


ROW = data((1, 64), name="g")
BROADCAST = {
    "a call": (lambda _, x, g: op.multiply(x, op.erf(g)), ROW),
    "a mean": (
        lambda _, x, g: op.multiply(x, op.mean(g, [0], keepdims=True)),
        data((8, 64), name="g"),
    ),
}


@pytest.mark.parametrize(("body", "part"), BROADCAST.values(), ids=BROADCAST)
def test_what_is_broadcast_is_not_computed_for_each_element(body, part):
    func = kernel(body, data((32, 64)), part)
    assert Spatial().apply(func, TARGETS[-1], False) is None
    left = Schedule(func) if (found := inlined(func)) is None else found
    assert len(blocks_of(left)) == 2


def test_products_that_are_broadcast_are_inlined():
    func = kernel(lambda _, x, g: op.add(x, op.multiply(g, const(0.3))), data((32, 64)), ROW)
    assert len(blocks_of(inlined(func))) == 1
    assert Spatial().apply(func, TARGETS[-1], False) is not None


def test_extents_that_are_not_known():
    shape = (tir.Var("n", "int64"), 4, 9)
    func = kernel(biased_conv1d, data(shape), data((6, 4, 3), name="w"))
    assert [len(blocks_of(sch)) for sch in (Schedule(func), inlined(func))] == [4, 3]


SUMS = {
    "conv1d": (op.nn.conv1d, (2, 4, 19), (6, 4, 3)),
    "conv2d": (partial(op.nn.conv2d, padding=1), (1, 4, 9, 11), (6, 4, 3, 3)),
    "conv2d in groups": (partial(op.nn.conv2d, groups=4), (1, 4, 9, 11), (12, 1, 3, 3)),
    "conv2d_transpose": (op.nn.conv2d_transpose, (1, 4, 9, 11), (4, 6, 3, 3)),
    "conv3d": (op.nn.conv3d, (1, 4, 6, 7, 5), (6, 4, 3, 3, 3)),
    "matmul": (op.matmul, (9, 24), (24, 11)),
}


@pytest.mark.parametrize("target", TARGETS, ids=cpu)
@pytest.mark.parametrize(("sum_of", "shape", "weight"), SUMS.values(), ids=SUMS)
def test_sums_keep_the_order_of_tvm(sum_of, shape, weight, target):
    """Between elementwise ops that are exact."""

    def body(builder, x, w):
        y = builder.emit(sum_of(builder.emit(op.negative(x)), w))
        return op.nn.relu(builder.emit(op.multiply(y, const(2.0))))

    mod = built(body, data(shape), data(weight, name="w"))
    builds = [{}, {"relax_pipeline": tvm_reorder_pipeline()}]
    executables = [tvm.compile(mod, target, **options) for options in builds]
    (stock,), (ours,) = (run(each, noise(shape), noise(weight, 1)) for each in executables)
    assert np.array_equal(bits(stock), bits(ours))


@pytest.mark.parametrize("reduce", [op.max, op.min])
def test_minima_are_scheduled_like_maxima(reduce):
    """In vectors, as few instructions a result."""
    func = kernel(lambda _, x: reduce(x, [1]), data(SHAPE))
    assert "T.vectorized" in Spatial().apply(func, TARGETS[-1], False).mod.script()
