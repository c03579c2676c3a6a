"""Relay's convolutions as blocked kernels: TVM's own results, to the rounding of sums."""

import numpy as np
import pytest
import tvm
from layer_cases import GROUPED, HALVE, OVERLAP
from relay_builders import const, data, typed
from relay_runs import HAS_FMA, bits, hard_values, outputs, run
from tvm import relay

from tvm_passes.decline import KernelReason
from tvm_passes.relay import build
from tvm_passes.relay.blocked import PASS_NAME, BlockConv2d
from tvm_passes.relay.kernels import kernels_of

TARGET = tvm.target.Target("llvm -mcpu=haswell" if HAS_FMA else "llvm")
NN = relay.nn


def weights(*shape, dtype="float32"):
    return const(np.random.default_rng(1).standard_normal(shape) * 0.2, dtype)


def layer(x, shape, filters=8, kernel=(3, 3), *, pool=None, act=NN.relu, **attrs):
    """conv2d, max_pool2d, bias and activation: a layer after the reorder."""
    last = attrs.get("data_layout") == "NHWC"
    per_group = shape[3 if last else 1] // attrs.get("groups", 1)
    extents = (*kernel, per_group, filters) if last else (filters, per_group, *kernel)
    layout = "HWIO" if last else "OIHW"
    y = NN.conv2d(
        x, weights(*extents), kernel_size=kernel, channels=filters, kernel_layout=layout, **attrs
    )
    if pool is not None:
        y = NN.max_pool2d(y, layout="NHWC" if last else "NCHW", **pool)
    return act(NN.bias_add(y, weights(filters), axis=3 if last else 1))


CASES = {
    "no pool": ((1, 3, 13, 17), {}),
    "2x2": ((1, 16, 18, 14), {"filters": 32, "padding": (1, 1), "pool": HALVE}),
    "3x3/2, padded": ((2, 3, 41, 39), {"filters": 33, "strides": (2, 2), "pool": OVERLAP}),
    "ceil": ((1, 8, 18, 13), {"pool": OVERLAP | {"ceil_mode": True}}),
    "ceil, the last window past the data": (
        (1, 8, 7, 8),
        {"pool": HALVE | {"padding": (1, 1), "ceil_mode": True}},
    ),
    "asymmetric": ((1, 7, 12, 9), {"padding": (0, 1, 2, 0), "pool": OVERLAP}),
    "dilated": ((1, 8, 16, 15), {"dilation": (2, 2), "padding": (2, 2), "pool": HALVE}),
    "groups": ((1, 8, 12, 12), {"filters": 64, "groups": 2, "pool": HALVE}),
    **GROUPED,
    "sigmoid": ((1, 3, 12, 12), {"act": relay.sigmoid, "pool": HALVE}),
    "tanh": ((1, 3, 12, 12), {"act": relay.tanh}),
    "leaky": ((1, 3, 12, 12), {"act": lambda x: NN.leaky_relu(x, 0.1), "pool": HALVE}),
}


def module(shape, body):
    x = data(shape)
    return typed(tvm.IRModule.from_expr(relay.Function([x], body(x, shape))))


def assert_close(mod, x, bound):
    """Equal but for the order of sums: `bound` is the number of terms times float32's epsilon."""
    expected = outputs(mod, x, target=TARGET)
    found = outputs(mod, x, target=TARGET, build=build)
    for one, other in zip(found, expected, strict=True):
        scale = max(1.0, float(np.abs(other).max()))
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= bound * scale


def values(shape):
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


@pytest.mark.parametrize("last", [False, True], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("case", CASES)
def test_a_layer(case, last):
    shape, attrs = CASES[case]
    if last:
        n, c, h, w = shape
        shape, attrs = (n, h, w, c), attrs | {"data_layout": "NHWC"}
    if last and attrs.get("groups", 1) > 1:
        pytest.skip("TVM 0.19 has no grouped NHWC convolution to compare with")
    mod = module(shape, lambda x, shape: layer(x, shape, **attrs))
    assert_close(mod, values(shape), 16 * 9 * 1.2e-7)


def test_depthwise():
    def body(x, _):
        y = NN.conv2d(x, weights(20, 1, 3, 3), kernel_size=(3, 3), channels=20, groups=20)
        return NN.relu(NN.max_pool2d(y, **HALVE))

    shape = (1, 20, 16, 16)
    assert_close(module(shape, body), values(shape), 9 * 1.2e-7)


def test_blocks_of_another_layout_are_not_read_as_ones_own():
    """[1, 16, 16, 16] is NCHW to one convolution and NHWC to the next."""

    def body(x, shape):
        y = layer(x, shape, 16, padding=(1, 1))
        attrs = {"data_layout": "NHWC", "kernel_layout": "HWOI", "groups": 16}
        z = NN.conv2d(
            y, weights(3, 3, 16, 1), kernel_size=(3, 3), channels=16, padding=(1, 1), **attrs
        )
        return relay.add(z, y)

    shape = (1, 16, 16, 16)
    assert_close(module(shape, body), values(shape), 16 * 9 * 1.2e-7)


def network(x, shape):
    """A shortcut, a concatenation, pools between layers, and a head that needs plain values."""
    a = layer(x, shape, 16, padding=(1, 1), pool=HALVE)
    inner = (shape[0], 16, shape[2] // 2, shape[3] // 2)
    b = NN.relu(relay.add(layer(a, inner, 16, padding=(1, 1), act=lambda y: y), a))
    c = relay.concatenate([layer(b, inner, 32, (1, 1)), layer(b, inner, 20, padding=(1, 1))], 1)
    c = relay.multiply(NN.max_pool2d(c, (3, 3), (2, 2), padding=(1, 1)), weights(52, 1, 1))
    c = NN.avg_pool2d(c, (2, 2), (1, 1))
    y = NN.batch_flatten(NN.global_avg_pool2d(layer(c, (0, 52), 24)))
    return NN.softmax(NN.bias_add(NN.dense(y, weights(10, 24)), weights(10)))


def in_groups(x, shape):
    """Values in blocks of some layers' size are read by layers in blocks of another."""
    x = layer(x, shape, 32, padding=(1, 1), pool=HALVE)
    inner = (shape[0], 32, shape[2] // 2, shape[3] // 2)
    y = layer(x, inner, 32, groups=8, padding=(1, 1))
    x = relay.add(layer(y, inner, 32, (1, 1), act=relay.tanh), y)
    y = layer(y, inner, 32, groups=32, padding=(1, 1))
    y = relay.concatenate([layer(y, inner, 36, groups=2, padding=(1, 1)), x, y], 1)
    return layer(NN.max_pool2d(y, (2, 2)), (0, 100), 20, (5, 5), groups=10)


@pytest.mark.parametrize("body", [network, in_groups])
def test_a_network(body):
    shape = (2, 3, 24, 28)
    assert_close(module(shape, body), values(shape), 1e-5)


def kernels(mod):
    """The names of the functions that kernels compute."""
    return {kernel.attrs["global_symbol"] for kernel in kernels_of(mod)}


@pytest.mark.parametrize(("body", "count"), [(network, 6), (in_groups, 9)])
def test_what_a_kernel_stands_for(body, count):
    """The body of each kernel, run by Relay itself, is the network."""
    shape = (2, 3, 24, 28)
    mod = BlockConv2d(TARGET)(module(shape, body))
    assert len(kernels(mod)) == count
    inlined = relay.transform.DefuseOps()(mod)
    assert not kernels(inlined)
    x = values(shape)
    (found,) = outputs(inlined, x, target=TARGET)
    (expected,) = outputs(module(shape, body), x, target=TARGET)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("case", ["no pool", "2x2", "3x3/2, padded"])
def test_a_result_leaves_its_blocks_in_the_kernel_that_computes_it(case):
    shape, attrs = CASES[case]
    mod, x = module(shape, lambda x, shape: layer(x, shape, **attrs)), values(shape)
    blocked = BlockConv2d(TARGET)(mod)
    assert len(kernels(blocked)) == 1
    (found,) = outputs(relay.transform.DefuseOps()(blocked), x, target=TARGET)
    (expected,) = outputs(mod, x, target=TARGET)
    np.testing.assert_array_equal(found, expected)


def test_a_result_that_another_layer_reads_stays_in_blocks():
    shape = (1, 3, 12, 12)

    def body(x, shape):
        y = layer(x, shape)
        return relay.Tuple([y, layer(y, (1, 8, 10, 10))])

    mod = module(shape, body)
    assert len(kernels(BlockConv2d(TARGET)(mod))) == 3
    assert_close(mod, values(shape), 8 * 9 * 1.2e-7)


def test_alike_layers_share_a_kernel():
    shape = (1, 16, 8, 8)

    def body(x, shape):
        for _ in range(3):
            x = layer(x, shape, 16, padding=(1, 1))
        return x

    mod = BlockConv2d(TARGET)(module(shape, body))
    assert len(kernels(mod)) == 3, "plain to blocked, blocked to blocked, and blocked to plain"
    assert_close(module(shape, body), values(shape), 16 * 9 * 1.2e-7)


def test_the_library_survives_export(tmp_path):
    shape = (1, 3, 24, 28)
    mod, x = module(shape, network), values(shape)
    with tvm.transform.PassContext(opt_level=3):
        lib = build(mod, TARGET)
    lib.export_library(str(tmp_path / "lib.so"))
    (found,) = run(tvm.runtime.load_module(str(tmp_path / "lib.so")), x)
    assert np.array_equal(bits(found), bits(run(lib, x)[0]))


def test_the_pass_may_be_disabled():
    shape = (1, 3, 24, 28)
    mod, x = module(shape, network), hard_values(shape, "float32")
    with tvm.transform.PassContext(opt_level=3, disabled_pass=[PASS_NAME]):
        (found,) = run(build(mod, TARGET), x)
    (expected,) = outputs(mod, x, target=TARGET)
    assert np.array_equal(bits(found), bits(expected))


def plain_conv(x, w, **attrs):
    return NN.conv2d(x, w, kernel_size=(3, 3), channels=8, **attrs)


@pytest.mark.parametrize(
    ("reason", "build_body"),
    [
        (KernelReason.NOT_CONSTANT, lambda x, _: plain_conv(x, relay.var("w", shape=(8, 3, 3, 3)))),
        (
            KernelReason.LAYOUT,
            lambda x, _: plain_conv(x, weights(8, 3, 3, 3), out_layout="NHWC"),
        ),
        (
            KernelReason.DTYPE,
            lambda x, _: plain_conv(relay.cast(x, "float64"), weights(8, 3, 3, 3, dtype="float64")),
        ),
        (
            KernelReason.GROUPS,
            lambda x, _: NN.conv2d(
                x, weights(6, 1, 3, 3), kernel_size=(3, 3), channels=6, groups=3
            ),
        ),
    ],
    ids=lambda value: getattr(value, "value", ""),
)
def test_what_stays_with_tvm(reason, build_body):
    x = data((1, 3, 9, 9))
    body = build_body(x, None)
    mod = typed(tvm.IRModule.from_expr(relay.Function(relay.analysis.free_vars(body), body)))
    remarks = []
    after = BlockConv2d(TARGET, remarks.append)(mod)
    assert tvm.ir.structural_equal(after, mod)
    assert [(remark.reason, remark.site) for remark in remarks] == [
        (reason.value, "main/nn.conv2d#0")
    ]


def test_a_dynamic_shape_stays_with_tvm():
    x = relay.var("x", shape=(relay.Any(), 3, 9, 9))
    mod = typed(tvm.IRModule.from_expr(relay.Function([x], plain_conv(x, weights(8, 3, 3, 3)))))
    remarks = []
    assert BlockConv2d(TARGET, remarks.append)(mod).same_as(mod)
    assert [remark.reason for remark in remarks] == [KernelReason.SHAPE.value]


def test_other_targets_are_left_alone():
    mod = module((1, 3, 24, 28), network)
    assert BlockConv2d(tvm.target.Target("opencl", host="llvm"))(mod).same_as(mod)


def two_pools(x, _):
    y = plain_conv(x, weights(8, 3, 3, 3))
    return relay.Tuple([NN.max_pool2d(y, **HALVE), NN.max_pool2d(y, **OVERLAP)])


def pool_with_gaps(x, _):
    return NN.max_pool2d(plain_conv(x, weights(8, 3, 3, 3)), (2, 2), strides=(3, 3))


@pytest.mark.parametrize(
    ("body", "reason"),
    [(pool_with_gaps, KernelReason.POOL_GAPS), (two_pools, KernelReason.UNPOOLED_READ)],
)
def test_a_pool_that_stays_apart(body, reason):
    shape, remarks = (1, 3, 12, 12), []
    mod = module(shape, body)
    BlockConv2d(TARGET, remarks.append)(mod)
    (remark,) = remarks
    assert (remark.reason, remark.site) == (reason.value, "main/nn.conv2d#0")
    assert_close(mod, values(shape), 27 * np.finfo("float32").eps)


def test_build_says_that_the_context_leaves_kernels_out():
    mod = module((1, 3, 12, 12), lambda x, shape: layer(x, shape, pool=HALVE))
    with tvm.transform.PassContext(opt_level=3):
        build(mod, TARGET, on_remark=(high := []).append)
    with tvm.transform.PassContext(opt_level=2):
        build(mod, TARGET, on_remark=(low := []).append)
    assert KernelReason.OPT_LEVEL.value not in {remark.reason for remark in high}
    (remark,) = [remark for remark in low if remark.reason == KernelReason.OPT_LEVEL.value]
    assert "PassContext(opt_level=3)" in remark.message


def test_what_fills_a_block_may_overflow():
    """exp of about 0 in 20 channels, of 100 in those that fill the third block."""

    def body(x, shape):
        y = relay.add(layer(x, shape, 20, act=lambda y: y), const(np.full((20, 1, 1), -100)))
        y = relay.exp(relay.add(y, const(100.0)))
        return layer(y, (1, 20, 8, 8), 12)

    mod = module((1, 3, 10, 10), body)
    assert_close(mod, values((1, 3, 10, 10)), 4 * 180 * np.finfo("float32").eps)


def test_exponentials_of_exponentials():
    def chain(y):
        for _ in range(4):
            y = relay.sigmoid(y)
        return y

    mod = module((1, 3, 10, 10), lambda x, shape: layer(x, shape, 16, act=chain))
    assert_close(mod, values((1, 3, 10, 10)), 27 * np.finfo("float32").eps)
