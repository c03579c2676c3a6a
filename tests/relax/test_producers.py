"""What a chain begins with: convolutions, whose sums are rounded and whose work is known."""

import pytest
import tvm
from relax_builders import assert_sinks, const, data, max_pool, module, per_channel, run_pass
from tvm.relax import op

from tvm_passes.relax import decisions


def pool1d(x):
    return op.nn.max_pool1d(x, (2,), (2,))


def pool3d(x):
    return op.nn.max_pool3d(x, (2, 2, 2), (2, 2, 2))


def pool_nhwc(x):
    return max_pool(x, layout="NHWC")


def conv_nhwc(x, w):
    return op.nn.conv2d(x, w, data_layout="NHWC", kernel_layout="HWIO")


def conv_grouped(x, w):
    return op.nn.conv2d(x, w, groups=4)


CASES = {
    "conv1d": (op.nn.conv1d, pool1d, (1, 8, 12), (4, 8, 5), 8 * 5),
    "conv2d": (op.nn.conv2d, max_pool, (1, 8, 12, 10), (4, 8, 5, 3), 8 * 5 * 3),
    "NHWC": (conv_nhwc, pool_nhwc, (1, 12, 10, 8), (5, 3, 8, 4), 8 * 5 * 3),
    "groups": (conv_grouped, max_pool, (1, 8, 12, 10), (4, 2, 5, 3), 2 * 5 * 3),
    "conv3d": (op.nn.conv3d, pool3d, (1, 8, 12, 10, 10), (4, 8, 5, 3, 3), 8 * 5 * 3 * 3),
}


def params(shape, weight):
    return data(shape), data(weight, name="w")


@pytest.mark.parametrize("name", CASES)
def test_a_bias_sinks_from_every_convolution(name):
    layer, pool, shape, weight, _ = CASES[name]

    def f(x):
        return op.add(x, const(0.5))

    before = module(lambda x, w: pool(f(layer(x, w))), *params(shape, weight))
    assert_sinks(before, module(lambda x, w: f(pool(layer(x, w))), *params(shape, weight)))


@pytest.mark.parametrize("name", CASES)
def test_the_work_of_an_output_is_counted(name):
    layer, pool, shape, weight, macs = CASES[name]
    mod = module(lambda x, w: pool(op.tanh(layer(x, w))), *params(shape, weight))
    (decision,) = decisions(mod)
    assert decision.site.producer.macs_per_output == macs
    numbers = dict(run_pass(mod)[1][-1].numbers)
    kept = numbers["evaluations_after"] / numbers["evaluations_before"]
    assert numbers["arithmetic_saved"] == (1 - kept) / macs


def test_a_weight_of_symbolic_extent_is_not_counted():
    n = tvm.tirx.Var("n", "int64")
    x, w = data((1, n, 12, 10)), data((4, n, 3, 3), name="w")
    mod = module(lambda x, w: max_pool(op.tanh(op.nn.conv2d(x, w))), x, w)
    assert decisions(mod)[0].site.producer.macs_per_output is None
    assert "arithmetic_saved" not in dict(run_pass(mod)[1][-1].numbers)


def test_a_bias_sinks_from_a_constant():
    constant = per_channel((1, 8, 16, 16))

    def f(x):
        return op.add(x, const(0.5))

    before = module(lambda _: max_pool(f(constant)))
    assert_sinks(before, module(lambda _: f(max_pool(constant))))
