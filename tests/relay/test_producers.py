"""What a chain begins with: convolutions, whose sums are rounded and whose work is known."""

import pytest
from relay_builders import assert_sinks, const, data, max_pool, module, per_channel, run_pass
from tvm import relay

from tvm_passes.relay import decisions


def weight(shape):
    return relay.var("w", shape=shape)


def conv1d(x):
    return relay.nn.conv1d(x, weight((4, 8, 5)), channels=4, kernel_size=(5,))


def conv2d(x):
    return relay.nn.conv2d(x, weight((4, 8, 5, 3)), channels=4, kernel_size=(5, 3))


def conv2d_nhwc(x):
    attrs = {"data_layout": "NHWC", "kernel_layout": "HWIO"}
    return relay.nn.conv2d(x, weight((5, 3, 8, 4)), channels=4, kernel_size=(5, 3), **attrs)


def conv2d_grouped(x):
    return relay.nn.conv2d(x, weight((4, 2, 5, 3)), channels=4, kernel_size=(5, 3), groups=4)


def conv2d_blocked(x):
    attrs = {"data_layout": "NCHW4c", "kernel_layout": "OIHW4i2o", "out_layout": "NCHW2c"}
    kernel = weight((2, 2, 5, 3, 4, 2))
    return relay.nn.contrib_conv2d_nchwc(x, kernel, channels=4, kernel_size=(5, 3), **attrs)


def conv3d(x):
    return relay.nn.conv3d(x, weight((4, 8, 5, 3, 3)), channels=4, kernel_size=(5, 3, 3))


def pool1d(x):
    return relay.nn.max_pool1d(x, (2,), (2,))


def pool3d(x):
    return relay.nn.max_pool3d(x, (2, 2, 2), (2, 2, 2))


def pool_nhwc(x):
    return max_pool(x, layout="NHWC")


def pool_blocked(x):
    return max_pool(x, layout="NCHW2c")


CASES = {
    "conv1d": (conv1d, pool1d, (1, 8, 12), 8 * 5),
    "conv2d": (conv2d, max_pool, (1, 8, 12, 10), 8 * 5 * 3),
    "NHWC": (conv2d_nhwc, pool_nhwc, (1, 12, 10, 8), 8 * 5 * 3),
    "groups": (conv2d_grouped, max_pool, (1, 8, 12, 10), 2 * 5 * 3),
    "NCHWc": (conv2d_blocked, pool_blocked, (1, 2, 12, 10, 4), 8 * 5 * 3),
    "conv3d": (conv3d, pool3d, (1, 8, 12, 10, 10), 8 * 5 * 3 * 3),
}


@pytest.mark.parametrize("name", CASES)
def test_a_bias_sinks_from_every_convolution(name):
    layer, pool, shape, _ = CASES[name]

    def f(x):
        return relay.add(x, const(0.5))

    assert_sinks(module(pool(f(layer(data(shape))))), module(f(pool(layer(data(shape))))))


@pytest.mark.parametrize("name", CASES)
def test_the_work_of_an_output_is_counted(name):
    layer, pool, shape, macs = CASES[name]
    mod = module(pool(relay.tanh(layer(data(shape)))))
    (decision,) = decisions(mod)
    assert decision.site.producer.macs_per_output == macs
    numbers = dict(run_pass(mod)[1][-1].numbers)
    kept = numbers["evaluations_after"] / numbers["evaluations_before"]
    assert numbers["arithmetic_saved"] == (1 - kept) / macs


def test_a_weight_of_symbolic_extent_is_not_counted():
    layer = relay.nn.conv2d(data(), weight((4, relay.Any(), 3, 3)), channels=4, kernel_size=(3, 3))
    mod = module(max_pool(relay.tanh(layer)))
    assert decisions(mod)[0].site.producer.macs_per_output is None
    assert "arithmetic_saved" not in dict(run_pass(mod)[1][-1].numbers)


@pytest.mark.parametrize(
    "source", [data, lambda: per_channel((1, 8, 16, 16))], ids=["parameter", "constant"]
)
def test_a_bias_sinks_from_a_value_in_memory(source):
    def f(x):
        return relay.add(x, const(0.5))

    # A constant first argument: the chain goes on through it as through any tensor.
    x = source()
    assert_sinks(module(max_pool(f(x))), module(f(max_pool(x))))
