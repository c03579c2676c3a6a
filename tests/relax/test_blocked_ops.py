"""Ops between convolutions stay in blocks of channels, and give TVM's own bits."""

import numpy as np
import pytest
import tvm
from blocked_builders import (
    AVX2,
    RUNNABLE,
    assert_same_bits,
    blocked,
    compiled,
    is_kernel,
    kernel_names,
    layer,
    weights,
)
from layer_cases import HALVE, OVERLAP
from relax_builders import built, const, data, module
from relax_runs import outputs, run
from tvm import relax
from tvm.relax import op

from tvm_passes.schedules.spatial import Spatial

SHAPE = (1, 16, 14, 14)


def mean(x):
    return op.mean(layer(x, 20), [2, 3], keepdims=True)


def global_pool(x):
    return op.nn.adaptive_avg_pool2d(layer(x, 20), (1, 1))


def windows(x):
    return op.nn.avg_pool2d(layer(x, 20), (3, 3), (2, 2), padding=(1, 1))


def max_pool(x):
    return op.nn.max_pool2d(layer(x, 20, padding=(1, 1)), **OVERLAP)


def side_by_side(x):
    """A SqueezeNet fire module: whole blocks first, a partial one last."""
    return op.concat([layer(x, 16, padding=(1, 1)), layer(x, 20, (1, 1))], 1)


def shortcut(x):
    return op.nn.relu(op.add(layer(x, 16, padding=(1, 1), act=lambda y: y), x))


def per_channel(x):
    y = op.divide(op.subtract(layer(x, 20), weights(20, 1, 1)), weights(1, 20, 1, 1))
    return op.maximum(y, relax.const(0.25, "float32"))


def dense(x):
    y = op.nn.relu(op.add(op.matmul(op.reshape(x, (7, 448)), weights(448, 40)), weights(40)))
    return op.add(op.matmul(y, weights(40, 10)), weights(10))


def classifier(x):
    y = op.nn.batch_flatten(global_pool(x))
    return op.nn.softmax(op.add(op.matmul(y, weights(20, 10)), weights(10)))


def sequence(x):
    """Matrices in a tensor of three axes, and a product's sum with a plain value."""
    y = op.reshape(x, (2, 7, 224))
    return op.add(
        op.matmul(y, weights(224, 24)), op.reshape(op.matmul(y, weights(224, 24)), y_rows)
    )


y_rows = (2, 7, 24)


def exponentials(x):
    acts = (op.exp, op.sigmoid, op.tanh, op.nn.silu)
    return op.concat([layer(x, 16, padding=(1, 1), act=act) for act in acts], 1)


def by_a_value(x):
    return op.divide(layer(x, 20), layer(x, 20, act=op.exp))


KEPT = {
    "mean": mean,
    "global pool": global_pool,
    "average pool": windows,
    "max-pool": max_pool,
    "concat": side_by_side,
    "shortcut": shortcut,
    "per channel": per_channel,
    "dense": dense,
    "classifier": classifier,
    "sequence": sequence,
    "exponentials": exponentials,
    "quotient": by_a_value,
    "clip of integers": lambda x: op.clip(layer(x, 20), -2, 1),
}


@pytest.mark.parametrize("target", RUNNABLE[-2:], ids=lambda t: str(t.attrs.get("mcpu", "")))
@pytest.mark.parametrize("body", KEPT.values(), ids=KEPT)
def test_the_bits(body, target):
    assert_same_bits(module(body, data(SHAPE)), target)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(1, 1, 3, 3), (2, 3, 4, 5)])
def test_a_function_of_one_number(shape, dtype):
    mod = module(lambda x: op.max(op.nn.relu(x)), data(shape, dtype))
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    (found,) = run(compiled(mod, RUNNABLE[-1]), x)
    (expected,) = outputs(mod, x, target=RUNNABLE[-1])
    np.testing.assert_array_equal(found, expected)


def overflow_in_what_fills_a_block(builder, x):
    """exp of about 0 in 20 channels, of 100 in those that fill the second block."""
    down = relax.const(np.full((1, 20, 1, 1), -100, "float32"))
    y = builder.emit(layer(x, 20, act=lambda y: op.add(y, down)))
    return layer(builder.emit(op.exp(op.add(y, relax.const(100.0, "float32")))), 12)


def overflow_in_rows(builder, x):
    """The same for products with matrices."""
    y = builder.emit(op.matmul(op.reshape(x, (7, 448)), weights(448, 20)))
    y = op.add(op.multiply(y, const([0.1] * 20)), const([-100.0] * 20))
    return op.matmul(op.exp(op.add(y, relax.const(100.0, "float32"))), weights(20, 9))


@pytest.mark.parametrize("body", [overflow_in_what_fills_a_block, overflow_in_rows])
def test_what_fills_a_block_may_overflow(body):
    mod = built(body, data(SHAPE))
    assert_same_bits(mod, RUNNABLE[-1])
    x = np.random.default_rng(0).standard_normal(SHAPE).astype("float32")
    assert all(np.isfinite(found).all() for found in run(compiled(mod, RUNNABLE[-1]), x))


@pytest.mark.parametrize("allow", [(), {"winograd"}], ids=["as written", "winograd"])
@pytest.mark.parametrize("act", [op.nn.relu, op.sigmoid, op.nn.leakyrelu])
def test_an_infinity_stays_out_of_what_fills_a_block(act, allow):
    """0 times infinity is no number: zero weights would carry it on."""
    kernel, padding = ((3, 3), (1, 1)) if allow else ((1, 1), (0, 0))

    def body(builder, x):
        y = builder.emit(layer(x, 20, (1, 1), act=act))
        return layer(y, 32, kernel, padding=padding, act=op.sigmoid)

    mod, remarks = built(body, data(SHAPE)), []
    x = np.random.default_rng(0).standard_normal(SHAPE).astype("float32")
    x[0, 3, 5, 6] = np.inf
    (found,) = run(compiled(mod, RUNNABLE[-1], remarks, allow), x)
    (expected,) = outputs(mod, x, target=RUNNABLE[-1])
    if allow:
        assert "winograd" in [remark.reason for remark in remarks]
        close = np.abs(found - expected) < 1e-4
        assert close.mean() > 0.8, "an infinity makes NaN of its tile alone"
    else:
        np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize("act", [op.exp, op.sigmoid, op.tanh])
def test_exponentials_of_exponentials(act):
    def chain(y):
        for _ in range(4):
            y = act(y)
        return y

    mod = module(lambda x: layer(x, 16, act=chain), data(SHAPE))
    assert_same_bits(mod, RUNNABLE[-1])


@pytest.mark.parametrize(
    "name", ["mean", "global pool", "average pool", "max-pool", "concat", "per channel"]
)
def test_values_are_unpacked_once(name):
    names = kernel_names(blocked(module(KEPT[name], data(SHAPE))))
    assert [kernel.startswith("unblocked") for kernel in names].count(True) == 1
    assert not any(kernel.startswith("blocked") for kernel in names)


def test_a_pool_on_two_threads():
    target = tvm.target.Target({"kind": "llvm", "num-cores": 2})
    mod = module(lambda x: op.nn.max_pool2d(x, **OVERLAP, ceil_mode=True), data((1, 16, 65, 66)))
    with target:
        pool = legalized(mod)
    assert "T.parallel" in Spatial().apply(pool, target, False).mod.script()
    assert_same_bits(mod, target)


def legalized(mod):
    functions = relax.transform.LegalizeOps()(mod).functions.values()
    return next(func for func in functions if is_kernel(func))


@pytest.mark.parametrize(("libc", "calls"), [("gnu", False), ("musl", True)])
def test_calls_of_expf(libc, calls):
    target = tvm.target.Target(
        {"kind": "llvm", "mcpu": "x86-64-v3", "mtriple": f"x86_64-unknown-linux-{libc}"}
    )
    mod = module(lambda x: layer(x, act=op.sigmoid), data(SHAPE))
    (library,) = compiled(mod, target).mod.imports
    assert ("expf" in library.inspect_source("asm")) == calls


def partial_first(x):
    return op.concat([layer(x, 20, padding=(1, 1)), layer(x, 16, (1, 1))], 1)


def with_an_input(x):
    return op.concat([layer(x, 16, padding=(1, 1)), x], 1)


def rows(x):
    return op.concat([layer(x, 16), layer(x, 16, act=op.exp)], 2)


def over_channels(x):
    return op.mean(layer(x, 16), [1], keepdims=True)


def dropped(x):
    return op.mean(layer(x, 16), [2, 3])


def along_rows(x):
    return op.add(layer(x, 20, padding=(1, 1)), weights(14, 1))


def broadcast(x):
    return op.add(op.mean(layer(x, 16), [2, 3], keepdims=True), layer(x, 16))


def by_an_input(x):
    y = op.reshape(x, (16, 196))
    return op.matmul(y, op.permute_dims(y))


def in_four_dimensions(x):
    return op.nn.max_pool2d(op.nn.relu(op.matmul(x, weights(14, 9))), (2, 2), (2, 2))


@pytest.mark.parametrize(
    "body",
    [
        partial_first,
        with_an_input,
        rows,
        over_channels,
        dropped,
        along_rows,
        broadcast,
        by_an_input,
        in_four_dimensions,
    ],
)
def test_what_needs_plain_values(body):
    assert_same_bits(module(body, data(SHAPE)), RUNNABLE[-1])


@pytest.mark.parametrize("groups", [1, 16], ids=["dense", "depthwise"])
def test_blocks_of_another_layout_are_not_read_as_ones_own(groups):
    """[1, 16, 16, 16] is NCHW to one convolution and NHWC to the next."""

    def body(x):
        y = layer(x, 16, padding=(1, 1))
        attrs = {"data_layout": "NHWC", "kernel_layout": "OHWI", "groups": groups}
        z = op.nn.conv2d(y, weights(16, 3, 3, 16 // groups), padding=(1, 1), **attrs)
        return op.add(z, y)

    assert_same_bits(module(body, data((1, 16, 16, 16))), RUNNABLE[-1])


def inception(builder, x):
    x = builder.emit(layer(x, 32, padding=(1, 1), pool=HALVE))
    a, b = builder.emit(layer(x, 16, (1, 1))), builder.emit(layer(x, 32, padding=(1, 1)))
    c = builder.emit(op.nn.max_pool2d(x, (3, 3), (1, 1), (1, 1)))
    y = builder.emit(op.concat([a, b, c], 1))
    y = builder.emit(layer(y, 48, groups=1, pool=OVERLAP))
    y = builder.emit(op.nn.batch_flatten(op.mean(y, [2, 3], keepdims=True)))
    return op.add(op.matmul(y, weights(48, 10)), const([0.5] * 10))


@pytest.mark.parametrize("target", RUNNABLE, ids=lambda t: str(t.attrs.get("mcpu", "")))
def test_a_network(target):
    assert_same_bits(built(inception, data((2, 3, 32, 28))), target)


def test_a_product_reads_blocks():
    names = kernel_names(blocked(module(dense, data(SHAPE)), AVX2))
    assert sorted(name.rstrip("0123456789") for name in names) == ["conv2d", "conv2d", "unblocked"]
