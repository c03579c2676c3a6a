"""Arithmetic that a compiler folds: (x + a) + b is not x + (a + b) in floating point.

relay.build's SimplifyExpr turns (x + a) + b into x + (a + b), and (x + a) * b into x * b + a * b,
at every optimization level.  An addition must neither come next to arithmetic nor part from it.
"""

import numpy as np
import pytest
from relay_builders import assert_untouched, const, data, max_pool, module, run_pass
from relay_runs import bits, outputs
from tvm import relay

from tvm_passes.decline import Reason
from tvm_passes.relay.reorder import decisions

SHAPE = (1, 16, 13, 11)


def batch_norm(x):
    gamma, beta, mean, var = (const(np.linspace(0.5, 2, 16) + n) for n in range(4))
    return relay.nn.batch_norm(x, gamma, beta, mean, var)[0]


def changed(bodies, x=None):
    """Those of `bodies`, by name, whose results the pass changes, on `x` or normal values.

    Each is built by itself: among others, SimplifyExpr misses what it folds in one of its own.
    """
    if x is None:
        x = np.random.default_rng(4).standard_normal(SHAPE).astype("float32")
    found = []
    for name, body in bodies.items():
        before = module(body)
        pairs = zip(outputs(before, x), outputs(run_pass(before)[0], x), strict=True)
        if not all(np.array_equal(bits(a), bits(b)) for a, b in pairs):
            found.append(name)
    return found


@pytest.mark.parametrize(
    "reader",
    [
        lambda x: relay.add(x, const(0.1)),
        lambda x: relay.multiply(x, const(0.3)),
        lambda x: relay.multiply(x, const(np.linspace(0.1, 3, 16).reshape(16, 1, 1))),
        lambda x: relay.nn.bias_add(x, const(np.linspace(-1, 1, 16))),
        lambda x: relay.divide(relay.subtract(x, const(0.1)), const(0.3)),
        lambda x: relay.multiply(relay.reshape(x, (16, 30)), const(0.3)),
        lambda x: relay.multiply(relay.nn.dropout(x), const(0.3)),
        lambda x: relay.multiply(relay.TupleGetItem(relay.Tuple([x, const(0.1)]), 0), const(0.3)),
        batch_norm,
    ],
    ids=[
        "add",
        "multiply by a scalar",
        "multiply by channel",
        "bias_add",
        "subtract divide",
        "reshape multiply",
        "dropout multiply",
        "tuple multiply",
        "batch_norm",
    ],
)
def test_what_follows_the_pool_is_not_folded_into_what_sank(reader):
    along = const(np.linspace(-2, 2, 16).reshape(16, 1, 1))
    functions = {
        "leaky_relu": lambda v: relay.nn.leaky_relu(v, alpha=0.3),
        "add relu": lambda v: relay.nn.relu(relay.add(v, const(0.7))),
        "bias_add": lambda v: relay.nn.bias_add(v, const(np.linspace(-2, 2, 16))),
        "add a scalar": lambda v: relay.add(v, const(0.7)),
        "add by channel": lambda v: relay.add(along, v),
    }
    bodies = {name: reader(max_pool(f(data(SHAPE)))) for name, f in functions.items()}
    assert changed(bodies) == []


@pytest.mark.parametrize("add", [relay.add, lambda v, b: relay.add(b, v)], ids=["left", "right"])
def test_an_addition_is_not_parted_from_the_one_above_it(add):
    # The upper one varies over the window and stays; the two are one addition for the compiler.
    full = const(np.random.default_rng(6).standard_normal(SHAPE))
    along = const(np.linspace(-2, 2, 16).reshape(16, 1, 1))
    functions = {
        "scalar": lambda v: add(v, const(0.7)),
        "scalar relu": lambda v: relay.nn.relu(add(v, const(0.7))),
        "by channel": lambda v: add(v, along),
    }
    bodies = {name: max_pool(f(relay.add(data(SHAPE), full))) for name, f in functions.items()}
    assert changed(bodies) == []


def test_an_addition_is_not_parted_from_the_product_above_it():
    scale = const(np.linspace(0.5, 2, 16).reshape(16, 1, 1))
    functions = {"add": relay.add, "subtract": relay.subtract}
    bodies = {
        name: max_pool(relay.nn.relu(relay.multiply(f(data(SHAPE), const(0.7)), scale)))
        for name, f in functions.items()
    }
    assert changed(bodies) == []


def test_folding_is_real():
    # If TVM stops folding, the rules that these tests are about may go.
    x = data(SHAPE)
    apart = module(relay.multiply(max_pool(relay.add(x, const(0.7))), const(0.3)))
    x = data(SHAPE)
    together = module(relay.multiply(relay.add(max_pool(x), const(0.7)), const(0.3)))
    value = np.random.default_rng(4).standard_normal(SHAPE).astype("float32")
    (a,), (b,) = outputs(apart, value), outputs(together, value)
    assert not np.array_equal(a, b)
    assert np.allclose(a, b, rtol=1e-5, atol=1e-6)


# What SimplifyExpr takes for one op: c / sqrt(x), and casts below a clip whose bounds they hold.


def casts(x, *dtypes):
    for dtype in dtypes:
        x = relay.cast(x, dtype)
    return x


def clipped(x):
    return relay.clip(x, 0.1, 6.0)


def requantized(x):
    scales = (const(0.3), relay.const(0), const(0.05), relay.const(2))
    return relay.qnn.requantize(x, *scales, compute_dtype="float32", out_dtype="int8")


def convolved(x):
    weight = relay.const(np.ones((4, 16, 1, 1), "int8"))
    numbers = (relay.const(1), relay.const(0), const(0.3), const(0.1))
    return relay.qnn.conv2d(x, weight, *numbers, kernel_size=(1, 1), channels=4)


ONE, MOST = const(1.0), float(np.finfo("float32").max)

MEETS = {
    "truncated": lambda x: casts(max_pool(clipped(x)), "uint8", "float32"),
    "rounded": lambda x: casts(max_pool(clipped(x)), "float16", "float32"),
    "truncated past a product with 1": lambda x: casts(
        max_pool(clipped(x)) * ONE, "uint8", "float32"
    ),
    "truncated past a clip of all": lambda x: casts(
        max_pool(relay.clip(clipped(x), -MOST, MOST)), "uint8", "float32"
    ),
    "truncated past a clip of all below": lambda x: casts(
        relay.clip(max_pool(clipped(x)), -MOST, MOST), "uint8", "float32"
    ),
    "truncated by a requantization": lambda x: requantized(max_pool(casts(clipped(x), "int8"))),
    "truncated by a convolution": lambda x: convolved(max_pool(casts(clipped(x), "int8"))),
    "truncated past a dropout": lambda x: casts(
        relay.nn.dropout(max_pool(clipped(x))), "uint8", "float32"
    ),
    "truncated past a sum with zeros": lambda x: casts(
        max_pool(clipped(x)) + relay.zeros((1, 16, 1, 1), "float32"), "uint8", "float32"
    ),
    "truncated past a product with ones": lambda x: casts(
        max_pool(clipped(x)) * relay.ones_like(max_pool(x)), "uint8", "float32"
    ),
    "truncated past a sum with a 0 that is computed": lambda x: casts(
        max_pool(clipped(x)) + relay.cast(const(0, "int32"), "float32"), "uint8", "float32"
    ),
    "truncated past an argument": lambda x: casts(
        max_pool(clipped(x)) + relay.var("zero", shape=()), "uint8", "float32"
    ),
    "truncated past a layout's own": lambda x: casts(
        relay.layout_transform(max_pool(clipped(x)), "NCHW", "NCHW"), "uint8", "float32"
    ),
    "truncated to another's type": lambda x: relay.cast(
        relay.cast_like(max_pool(clipped(x)), const(0, "uint8")), "float32"
    ),
    "root": lambda x: const(3.0) / max_pool(relay.sqrt(clipped(x))),
    "root past a sum with 0": lambda x: (
        const(3.0) / (const(0.0) + max_pool(relay.sqrt(clipped(x))))
    ),
    "root past a cast to the same": lambda x: (
        const(3.0) / relay.cast(max_pool(relay.sqrt(clipped(x))), "float32")
    ),
    "root past a quotient by 1": lambda x: const(3.0) / max_pool(relay.sqrt(clipped(x)) / ONE),
}


@pytest.mark.parametrize("name", MEETS)
def test_what_is_taken_for_one_does_not_meet(name):
    body = MEETS[name](data(SHAPE))
    if name != "truncated past an argument":
        assert changed({name: body}) == []
    decision = decisions(module(body))[0]
    assert decision.decline.reason is Reason.FOLDING
    assert not decision.passed


def test_a_factor_stays_below_the_layer_it_may_be_folded_into():
    weight = const(np.linspace(-1, 1, 16 * 9).reshape(1, 16, 3, 3))
    layer = relay.nn.conv2d(data(SHAPE), weight, kernel_size=(3, 3))
    assert_untouched(module(max_pool(layer * const(0.3))), Reason.FOLDING)


def test_a_clip_meets_another():
    (decision,) = decisions(
        module(casts(relay.clip(max_pool(clipped(data(SHAPE))), 1.0, 4.0), "uint8", "float32"))
    )
    assert decision.passed


@pytest.mark.parametrize("addend", [None, 0], ids=["next to it", "past a sum with 0"])
def test_a_cast_is_not_parted_from_one_that_wraps_around(addend):
    x = data(SHAPE, "int8")
    wrapped = relay.cast(x, "uint8")
    if addend is not None:
        wrapped = relay.add(wrapped, relay.const(addend, "uint8"))
    values = np.random.default_rng(4).integers(-128, 128, SHAPE).astype("int8")
    assert changed({"cast": max_pool(relay.cast(wrapped, "float32"))}, values) == []


def test_a_requantization_is_not_parted_from_a_cast():
    cast = relay.cast(clipped(data(SHAPE)), "int8")
    body = relay.Tuple([max_pool(requantized(cast)), relay.nn.relu(cast)])
    assert changed({"requantize": body}) == []
    (decision,) = decisions(module(body))
    assert decision.decline.reason in (Reason.ROUNDING, Reason.SHARED)
    assert not decision.passed


def test_a_requantization_of_several_sinks():
    x = data(SHAPE, "int32")
    scales = (const(0.05), relay.const(0), const(0.3), relay.const(2))
    several = relay.concatenate([x, x], 1)
    found = relay.qnn.requantize(several, *scales, compute_dtype="float32", out_dtype="int8")
    (decision,) = decisions(module(max_pool(found)))
    assert decision.passed


def test_taking_casts_below_a_clip_for_nothing_is_real():
    # As in `test_folding_is_real`.
    value = np.random.default_rng(4).uniform(0, 6, SHAPE).astype("float32")
    (found,) = outputs(module(casts(clipped(data(SHAPE)), "uint8", "float32")), value)
    assert not np.array_equal(found, np.trunc(found))
