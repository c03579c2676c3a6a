"""What must not change: Expected = Before, the function itself is returned, and the remark."""

import numpy as np
import pytest
from relay_builders import (
    assert_untouched,
    const,
    conv,
    data,
    max_pool,
    module,
    per_channel,
    positive,
    reasons,
    run_pass,
)
from tvm import relay

from tvm_passes.decline import Reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (max_pool, Reason.NO_ACTIVATION),
        (lambda x: max_pool(conv(x)), Reason.NO_ACTIVATION),
        (lambda x: max_pool(relay.cos(x)), Reason.NO_RULE),
        (lambda x: max_pool(relay.log(relay.nn.relu(x))), Reason.DOMAIN),
        (lambda x: max_pool(relay.log2(x)), Reason.DOMAIN),
        (lambda x: max_pool(relay.sqrt(x)), Reason.DOMAIN),
        (lambda x: max_pool(relay.atanh(relay.tanh(x))), Reason.DOMAIN),
        (lambda x: max_pool(relay.negative(x)), Reason.DOES_NOT_PAY),
        (lambda x: max_pool(relay.abs(x)), Reason.QUASI_CONVEX),
        (lambda x: relay.nn.avg_pool2d(relay.nn.relu(x), (2, 2), (2, 2)), Reason.NOT_SELECTING),
        (lambda x: max_pool(relay.nn.relu(x), stride=1, padding=(0, 0, 1, 1)), Reason.DOES_NOT_PAY),
        (lambda x: max_pool(relay.nn.relu(x), 1, 1), Reason.DOES_NOT_PAY),
    ],
)
def test_pools_with_nothing_to_sink(body, reason):
    assert_untouched(module(body(data())), reason)


def test_an_argmax_of_the_pool_is_not_a_pool():
    # No rows of the table: no site, no remark.
    assert_untouched(module(relay.argmax(relay.nn.relu(data()), axis=2)))
    assert_untouched(module(relay.mean(relay.nn.relu(data()), axis=2)))
    assert_untouched(module(relay.nn.adaptive_avg_pool2d(relay.nn.relu(data()), (2, 2))))


@pytest.mark.parametrize("alpha", [-0.1, float("nan"), float("inf"), float("-inf")])
def test_slopes(alpha):
    reason = Reason.NEGATIVE_SLOPE if alpha == -0.1 else Reason.NOT_FINITE
    assert_untouched(module(max_pool(relay.nn.leaky_relu(data(), alpha=alpha))), reason)


@pytest.mark.parametrize(
    ("slopes", "axis", "reason"),
    [
        (const(np.linspace(-0.1, 1, 8)), 1, Reason.NEGATIVE_SLOPE),
        (const(np.full(8, np.inf)), 1, Reason.NOT_FINITE),
        (const(np.linspace(0, 1, 16)), 2, Reason.VARIES_IN_WINDOW),
        (data((8,), name="a"), 1, Reason.NOT_CONSTANT),
    ],
)
def test_slopes_of_prelu(slopes, axis, reason):
    assert_untouched(module(max_pool(relay.nn.prelu(data(), slopes, axis=axis))), reason)


@pytest.mark.parametrize("f", [relay.multiply, relay.divide])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (-0.5, Reason.DOES_NOT_PAY),
        ([[[0.5]], [[-0.5]]] * 4, Reason.DOES_NOT_PAY),
        (np.nan, Reason.NOT_FINITE),
        (np.inf, Reason.NOT_FINITE),
    ],
)
def test_factors(f, value, reason):
    assert_untouched(module(max_pool(f(data(), const(value)))), reason)


def test_a_divisor_of_0():
    assert_untouched(module(max_pool(data() / const(0.0))), Reason.NOT_FINITE)


@pytest.mark.parametrize(
    ("f", "reason"), [(relay.subtract, Reason.DOES_NOT_PAY), (relay.divide, Reason.DOMAIN)]
)
def test_data_on_the_right(f, reason):
    assert_untouched(module(max_pool(f(const(1.0), data()))), reason)


@pytest.mark.parametrize("f", [relay.multiply, relay.maximum])
def test_operands_that_vary_over_the_window(f):
    assert_untouched(module(max_pool(f(data(), positive((16, 1))))), Reason.VARIES_IN_WINDOW)


@pytest.mark.parametrize(
    ("low", "high", "reason"),
    [(6.0, 0.0, Reason.INVERTED_BOUNDS), (float("nan"), 6.0, Reason.NOT_FINITE)],
)
def test_bounds(low, high, reason):
    assert_untouched(module(max_pool(relay.clip(data(), low, high))), reason)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_biases_that_are_not_finite(value, dtype):
    bias = np.zeros(8, dtype)
    bias[5] = value
    body = max_pool(relay.nn.bias_add(data(dtype=dtype), const(bias, dtype)))
    assert_untouched(module(body), Reason.NOT_FINITE)


@pytest.mark.parametrize(
    "f", [relay.sigmoid, relay.tanh, relay.nn.leaky_relu, lambda x: relay.add(x, x)]
)
def test_bfloat16_where_results_are_rounded_at_the_end_of_a_kernel(f):
    body = max_pool(f(data(dtype="bfloat16")))
    assert_untouched(module(body), Reason.DTYPE)


def test_an_addend_that_is_computed():
    # Once below the pool, p * q + max(x) would be contracted where it was not before.
    p, q = (data((1, 8, 1, 1), name=name) for name in "pq")
    assert_untouched(module(max_pool(data() + p * q)), Reason.ROUNDING)


def test_an_addend_that_is_a_reshaped_constant():
    _, remarks = run_pass(module(max_pool(data() + relay.reshape(const(np.ones(8)), (8, 1, 1)))))
    assert reasons(remarks)[0] == "sunk"


def test_an_addition_next_to_one_that_stays():
    # Relay merges both additions above the pool: they go or stay together.
    c1 = per_channel((8, 1, 1))  # of both signs: it stays
    c2, c3 = (const(np.full((8, 1, 1), n)) for n in (0.7, 0.1))
    assert_untouched(module(max_pool(data() * c1 + c2 + c3)), Reason.ROUNDING)


def test_a_let_bound_activation():
    x, v = data(), relay.var("v")
    body = relay.Let(v, relay.nn.relu(x), max_pool(v))
    assert_untouched(module(body), Reason.NO_ACTIVATION)


@pytest.mark.parametrize("shape", [(16, 1), (16,), (1, 1, 16, 1), (16, 16), (8, 16, 16)])
def test_biases_that_vary_over_the_window(shape):
    assert_untouched(
        module(max_pool(relay.add(data(), per_channel(shape)))), Reason.VARIES_IN_WINDOW
    )


@pytest.mark.parametrize(("layout", "axis"), [("NCHW", -1), ("NCHW", 2), ("NHWC", 1), ("NHWC", -2)])
def test_a_bias_add_along_a_pooled_axis(layout, axis):
    body = relay.nn.bias_add(data((1, 16, 16, 16)), per_channel((16,)), axis=axis)
    assert_untouched(module(max_pool(body, layout=layout)), Reason.VARIES_IN_WINDOW)


def test_a_channel_bias_of_the_other_layout():
    bias = per_channel((16,))
    body = max_pool(relay.add(data((1, 16, 16, 16)), bias), layout="NCHW")
    assert_untouched(module(body), Reason.VARIES_IN_WINDOW)


@pytest.mark.parametrize("flip", [False, True])
def test_a_residual_addition(flip):
    layer, x = conv(data(), padding=(1, 1)), data(name="y")
    both = relay.add(x, layer) if flip else relay.add(layer, x)
    assert_untouched(module(max_pool(both)), Reason.VARIES_IN_WINDOW)


def test_a_sum_with_itself():
    x = data()
    assert_untouched(module(max_pool(relay.add(x, x))), Reason.VARIES_IN_WINDOW)


def test_a_bias_as_large_as_the_data_that_is_not_constant():
    full = data(name="b")
    assert_untouched(module(max_pool(relay.add(data(), full))), Reason.VARIES_IN_WINDOW)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32"])
def test_integer_additions_wrap(dtype):
    body = relay.add(data(dtype=dtype), const(100, dtype))
    assert_untouched(module(max_pool(body)), Reason.DTYPE)


def test_a_broadcast_of_the_data():
    body = relay.add(data((1, 1, 16, 16)), per_channel((8, 1, 1)))
    assert_untouched(module(max_pool(body)), Reason.SHAPE)


def test_a_symbolic_batch_that_the_bias_may_widen():
    body = relay.add(data((relay.Any(), 8, 16, 16)), data((relay.Any(), 8, 1, 1), name="b"))
    assert_untouched(module(max_pool(body)), Reason.SHAPE)


def test_a_symbolic_height_under_a_bias_of_symbolic_height():
    shape = (1, 8, relay.Any(), 16)
    body = relay.add(data(shape), data((relay.Any(), 1), name="b"))
    assert_untouched(module(max_pool(body)), Reason.SHAPE)


@pytest.mark.parametrize("padding", [(1, 1), (2, 0, 0, 0), (0, 0, 2, 0)])
def test_a_symbolic_height_and_a_padding_that_could_fill_a_window(padding):
    relu = relay.nn.relu(data((1, 8, relay.Any(), 16)))
    assert_untouched(module(max_pool(relu, padding=padding)), Reason.EMPTY_WINDOW)


@pytest.mark.parametrize(
    ("size", "attrs"),
    [
        (16, {"padding": (2, 2)}),
        (16, {"padding": (0, 2)}),
        (16, {"padding": (0, 0, 0, 2)}),
        (16, {"kernel": 2, "stride": 3, "padding": (2, 2)}),
        (15, {"kernel": 2, "stride": 3, "ceil_mode": True}),  # the sixth starts at 15 of 15
        (15, {"padding": (1, 1), "ceil_mode": True}),  # the ninth starts at 15 of 15
        (2, {"dilation": (3, 3), "stride": 1, "padding": (1, 1)}),  # taps at -1 and 2
    ],
    ids=str,
)
def test_windows_wholly_in_padding(size, attrs):
    mod = module(max_pool(relay.nn.relu(data((1, 8, size, size))), **attrs))
    assert empty_windows(mod["main"].body)
    assert_untouched(mod, Reason.EMPTY_WINDOW)


def empty_windows(pool):
    """The windows along H without an element of the data, in the shape that TVM infers."""
    extent, count = (int(call.checked_type.shape[2]) for call in (pool.args[0], pool))
    top, taps = int(pool.attrs.padding[0]), range(int(pool.attrs.pool_size[0]))
    left, right = int(pool.attrs.padding[1]), int(pool.attrs.padding[3])
    if (left, right) != (top, int(pool.attrs.padding[2])):
        extent, count = (int(call.checked_type.shape[3]) for call in (pool.args[0], pool))
        top = left
    stride, dilation = int(pool.attrs.strides[0]), int(pool.attrs.dilation[0])
    starts = [n * stride - top for n in range(count)]
    return [s for s in starts if not any(0 <= s + t * dilation < extent for t in taps)]


def test_a_pool_that_changes_the_layout():
    body = max_pool(relay.nn.relu(data()), layout="NCHW", out_layout="NHWC")
    assert_untouched(module(body), Reason.LAYOUT)


def test_an_activation_with_two_consumers():
    shared = relay.nn.relu(data())
    assert_untouched(module(relay.Tuple([max_pool(shared), relay.exp(shared)])), Reason.SHARED)


def test_an_activation_that_is_the_result():
    p = relay.var("p")
    shared = relay.nn.relu(data())
    assert_untouched(module(relay.Let(p, max_pool(shared), shared)), Reason.OUTPUT)


def test_an_activation_in_the_tuple_of_results():
    shared = relay.nn.relu(data())
    p = relay.var("p")
    bound = relay.Let(p, max_pool(shared), relay.Tuple([p, shared]))
    assert_untouched(module(bound), Reason.OUTPUT)
    before = module(relay.Tuple([max_pool(shared), shared]))
    assert_untouched(before, Reason.OUTPUT)


def test_an_activation_in_a_nested_tuple_of_results():
    shared = relay.nn.relu(data())
    before = module(relay.Tuple([max_pool(shared), relay.Tuple([relay.Tuple([shared])])]))
    assert_untouched(before, Reason.OUTPUT)


def test_multiply_then_add():
    scaled = relay.multiply(data(), per_channel((8, 1, 1)))
    assert_untouched(module(max_pool(relay.add(scaled, per_channel((8, 1, 1))))), Reason.ROUNDING)
