"""What must not change: Expected = Before, the function itself is returned, and the remark."""

import numpy as np
import pytest
import tvm
from relax_builders import (
    assert_sinks,
    assert_untouched,
    built,
    const,
    conv,
    data,
    max_pool,
    module,
    per_channel,
    positive,
)
from tvm import relax
from tvm.relax import op

from tvm_passes.decline import Reason


def extent(name="n"):
    return tvm.tirx.Var(name, "int64")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (max_pool, Reason.NO_ACTIVATION),
        (lambda x: max_pool(conv(x)), Reason.NO_ACTIVATION),
        (lambda x: max_pool(op.cos(x)), Reason.NO_RULE),
        (lambda x: max_pool(op.negative(x)), Reason.DOES_NOT_PAY),
        (lambda x: max_pool(op.nn.gelu(x)), Reason.QUASI_CONVEX),
        (lambda x: max_pool(op.nn.silu(x)), Reason.QUASI_CONVEX),
        (lambda x: max_pool(op.log(x)), Reason.DOMAIN),
        (lambda x: max_pool(op.log(op.nn.relu(x))), Reason.DOMAIN),
        (lambda x: max_pool(op.sqrt(op.add(op.nn.relu(x), const(-1.0)))), Reason.DOMAIN),
        (lambda x: max_pool(op.acosh(op.exp(x))), Reason.DOMAIN),
        (lambda x: max_pool(op.asin(op.clip(x, -1.01, 1.0))), Reason.DOMAIN),
        (lambda x: max_pool(op.atanh(op.tanh(x))), Reason.DOMAIN),
        (lambda x: max_pool(op.nn.softplus(x, 1.0, 3.0)), Reason.NOT_MONOTONE),
        (lambda x: max_pool(op.nn.softplus(x, 3.0)), Reason.NOT_MONOTONE),
        (lambda x: op.nn.avg_pool2d(op.nn.relu(x), (2, 2), (2, 2)), Reason.NOT_SELECTING),
        (lambda x: max_pool(op.nn.relu(x), stride=1, padding=(0, 0, 1, 1)), Reason.DOES_NOT_PAY),
        (lambda x: max_pool(op.nn.relu(x), 1, 1), Reason.DOES_NOT_PAY),
    ],
)
def test_pools_with_nothing_to_sink(body, reason):
    assert_untouched(module(body), reason)


def test_reductions_that_are_no_rows():
    assert_untouched(module(lambda x: op.mean(op.nn.relu(x), axis=[2, 3])))
    assert_untouched(module(lambda x: op.argmax(op.nn.relu(x), axis=2)))
    assert_untouched(module(lambda x: op.nn.adaptive_avg_pool2d(op.nn.relu(x), (2, 2))))


@pytest.mark.parametrize("alpha", [-0.1, float("nan"), float("inf"), float("-inf")])
def test_slopes(alpha):
    reason = Reason.NEGATIVE_SLOPE if alpha == -0.1 else Reason.NOT_FINITE
    assert_untouched(module(lambda x: max_pool(op.nn.leakyrelu(x, alpha))), reason)


@pytest.mark.parametrize(
    ("slopes", "axis", "reason"),
    [
        (np.linspace(-0.1, 1, 8), 1, Reason.NEGATIVE_SLOPE),
        (np.full(8, np.inf), 1, Reason.NOT_FINITE),
        (np.linspace(0, 1, 16), 2, Reason.VARIES_IN_WINDOW),
    ],
)
def test_slopes_of_prelu(slopes, axis, reason):
    prelu = module(lambda x: max_pool(op.nn.prelu(x, const(slopes), axis=axis)))
    assert_untouched(prelu, reason)


def test_slopes_that_are_not_constant():
    mod = module(lambda x, a: max_pool(op.nn.prelu(x, a, axis=1)), data(), data((8,), name="a"))
    assert_untouched(mod, Reason.NOT_CONSTANT)


@pytest.mark.parametrize("f", [op.multiply, op.divide])
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
    assert_untouched(module(lambda x: max_pool(f(x, const(value)))), reason)


def test_a_divisor_of_0():
    assert_untouched(module(lambda x: max_pool(op.divide(x, const(0.0)))), Reason.NOT_FINITE)


@pytest.mark.parametrize(
    ("f", "reason"), [(op.subtract, Reason.DOES_NOT_PAY), (op.divide, Reason.DOMAIN)]
)
def test_data_on_the_right(f, reason):
    assert_untouched(module(lambda x: max_pool(f(const(1.0), x))), reason)


def test_a_quotient_of_a_constant_below_0():
    mod = module(lambda x: max_pool(op.divide(const(-1.0), op.add(op.exp(x), const(1.0)))))
    assert_untouched(mod, Reason.NEGATIVE_SLOPE)


@pytest.mark.parametrize("f", [op.multiply, op.maximum])
def test_operands_that_vary_over_the_window(f):
    mod = module(lambda x: max_pool(f(x, positive((16, 1)))))
    assert_untouched(mod, Reason.VARIES_IN_WINDOW)


@pytest.mark.parametrize(
    ("low", "high", "reason"),
    [(6.0, 0.0, Reason.INVERTED_BOUNDS), (float("nan"), 6.0, Reason.NOT_FINITE)],
)
def test_bounds(low, high, reason):
    assert_untouched(module(lambda x: max_pool(op.clip(x, low, high))), reason)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_biases_that_are_not_finite(value, dtype):
    bias = np.zeros((8, 1, 1))
    bias[5] = value
    assert_untouched(
        module(lambda x: max_pool(op.add(x, const(bias, dtype))), data(dtype=dtype)),
        Reason.NOT_FINITE,
    )


@pytest.mark.parametrize("shape", [(16, 1), (16,), (1, 1, 16, 1), (16, 16), (8, 16, 16)])
def test_biases_that_vary_over_the_window(shape):
    assert_untouched(
        module(lambda x: max_pool(op.add(x, per_channel(shape)))), Reason.VARIES_IN_WINDOW
    )


def test_a_channel_bias_of_the_other_layout():
    square = (1, 16, 16, 16)
    assert_untouched(
        module(lambda x: max_pool(op.add(x, per_channel((16,)))), data(square)),
        Reason.VARIES_IN_WINDOW,
    )
    assert_untouched(
        module(lambda x: max_pool(op.add(x, per_channel((16, 1, 1))), layout="NHWC"), data(square)),
        Reason.VARIES_IN_WINDOW,
    )


@pytest.mark.parametrize("flip", [False, True])
def test_a_residual_addition(flip):
    def body(x, y):
        layer = conv(x, padding=(1, 1))
        return max_pool(op.add(y, layer) if flip else op.add(layer, y))

    assert_untouched(module(body, data(), data(name="y")), Reason.VARIES_IN_WINDOW)


def test_a_sum_with_itself():
    def body(builder, x):
        active = builder.emit(op.nn.relu(x))
        return max_pool(builder.emit(op.add(active, active)))

    assert_untouched(built(body), Reason.VARIES_IN_WINDOW)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32"])
def test_integer_additions_wrap(dtype):
    assert_untouched(
        module(lambda x: max_pool(op.add(x, const(100, dtype))), data(dtype=dtype)), Reason.DTYPE
    )


def test_a_broadcast_of_the_data():
    assert_untouched(
        module(lambda x: max_pool(op.add(x, per_channel((8, 1, 1)))), data((1, 1, 16, 16))),
        Reason.SHAPE,
    )


def test_a_bias_that_widens_the_batch():
    wider = data((4, 8, 1, 1), name="b")
    assert_untouched(module(lambda x, b: max_pool(op.add(x, b)), data(), wider), Reason.SHAPE)


def test_a_symbolic_batch_under_a_bias_of_symbolic_batch():
    n = extent()
    params = data((n, 8, 16, 16)), data((n, 8, 1, 1), name="b")
    assert_untouched(module(lambda x, b: max_pool(op.add(x, b)), *params), Reason.SHAPE)


def test_a_symbolic_height_under_a_bias_of_symbolic_height():
    h = extent("h")
    mod = module(lambda x, b: max_pool(op.add(x, b)), data((1, 8, h, 16)), data((h, 1), name="b"))
    assert_untouched(mod, Reason.SHAPE)


@pytest.mark.parametrize("padding", [(1, 1), (2, 0, 0, 0), (0, 0, 2, 0)])
def test_a_symbolic_height_and_a_padding_that_could_fill_a_window(padding):
    assert_untouched(
        module(lambda x: max_pool(op.nn.relu(x), padding=padding), data((1, 8, extent("h"), 16))),
        Reason.EMPTY_WINDOW,
    )


@pytest.mark.parametrize("attrs", [{"ceil_mode": True}, {"dilation": (2, 2)}], ids=str)
def test_a_symbolic_height_and_windows_that_may_reach_past_it(attrs):
    assert_untouched(
        module(lambda x: max_pool(op.nn.relu(x), **attrs), data((1, 8, extent("h"), 16))),
        Reason.EMPTY_WINDOW,
    )


def test_a_symbolic_height_under_a_pool_of_stride_1():
    assert_untouched(
        module(lambda x: max_pool(op.nn.relu(x), 3, 1), data((1, 8, extent("h"), 16))),
        Reason.DOES_NOT_PAY,
    )


@pytest.mark.parametrize(
    ("size", "attrs"),
    [
        (16, {"padding": (2, 2)}),
        (16, {"padding": (0, 2)}),
        (16, {"padding": (0, 0, 0, 2)}),
        (16, {"kernel": 2, "stride": 3, "padding": (2, 2)}),
        (2, {"dilation": (3, 3), "stride": 1, "padding": (1, 1)}),  # taps at -1 and 2
    ],
    ids=str,
)
def test_windows_wholly_in_padding(size, attrs):
    mod = module(lambda x: max_pool(op.nn.relu(x), **attrs), data((1, 8, size, size)))
    assert any(empty_windows(mod, axis) for axis in range(2))
    assert_untouched(mod, Reason.EMPTY_WINDOW)


@pytest.mark.parametrize("attrs", [{"stride": 3}, {"padding": (1, 1)}], ids=str)
def test_a_rounded_up_window_that_tvm_drops_again(attrs):
    # Relay keeps a window that starts at 15 of 15 and Relax, as PyTorch, has none.
    attrs = {"ceil_mode": True} | attrs
    before = module(lambda x: max_pool(op.nn.relu(x), **attrs), data((1, 8, 15, 15)))
    assert not any(empty_windows(before, axis) for axis in range(2))
    expected = module(lambda x: op.nn.relu(max_pool(x, **attrs)), data((1, 8, 15, 15)))
    assert_sinks(before, expected)


def empty_windows(mod, n):
    """The windows along one axis without an element, in the shape that TVM infers."""
    pool = mod["main"].body.blocks[0].bindings[-1].value
    extent, count = (int(e.ty.shape.values[2 + n]) for e in (pool.args[0], pool))
    kernel, stride, before, dilation = (
        int(field[n])
        for field in (
            pool.attrs.pool_size,
            pool.attrs.strides,
            pool.attrs.padding,
            pool.attrs.dilation,
        )
    )
    starts = [window * stride - before for window in range(count)]
    taps = range(0, kernel * dilation, dilation)
    return [start for start in starts if not any(0 <= start + t < extent for t in taps)]


def test_a_pool_that_changes_the_layout():
    assert_untouched(
        module(lambda x: max_pool(op.nn.relu(x), layout="NCHW", out_layout="NHWC")), Reason.LAYOUT
    )


def test_a_tensor_of_unknown_rank():
    x = relax.Var("x", relax.TensorType(dtype="float32"))
    assert_untouched(module(lambda x: max_pool(op.nn.relu(x)), x), Reason.LAYOUT)


def test_an_activation_with_two_consumers():
    def body(builder, x):
        shared = builder.emit(op.nn.relu(x))
        return [max_pool(shared), op.exp(shared)]

    assert_untouched(built(body), Reason.SHARED)


def test_an_activation_that_a_tuple_holds_too():
    def body(builder, x):
        shared = builder.emit(op.nn.relu(x))
        return [max_pool(shared), relax.Tuple([shared, x])]

    assert_untouched(built(body), Reason.OUTPUT)


def test_an_activation_under_a_second_name():
    def body(builder, x):
        shared = builder.emit(op.nn.relu(x))
        return [max_pool(shared), shared]

    assert_untouched(built(body), Reason.OUTPUT)


def test_an_activation_that_a_match_cast_reads_too():
    def body(builder, x):
        shared = builder.emit(op.nn.relu(x))
        cast = builder.match_cast(shared, relax.TensorType((1, 8, 16, 16), "float32"))
        return [max_pool(shared), op.exp(cast)]

    assert_untouched(built(body), Reason.SHARED)


def test_an_activation_that_is_an_output_of_its_block():
    builder, x = relax.BlockBuilder(), data()
    with builder.function("main", [x]):
        with builder.dataflow():
            shared = builder.emit_output(op.nn.relu(x))
            pooled = builder.emit_output(max_pool(shared))
        builder.emit_func_output(relax.Tuple([pooled, shared]))
    assert_untouched(builder.finalize(), Reason.OUTPUT)


def test_multiply_then_add():
    def body(x):
        return max_pool(op.add(op.multiply(x, per_channel((8, 1, 1))), per_channel((8, 1, 1))))

    assert_untouched(module(body), Reason.ROUNDING)


@pytest.mark.parametrize("f", [op.sigmoid, op.tanh, op.nn.leakyrelu, lambda x: op.add(x, x)])
def test_bfloat16_where_results_are_rounded_at_the_end_of_a_kernel(f):
    assert_untouched(module(lambda x: max_pool(f(x)), data(dtype="bfloat16")), Reason.DTYPE)


def test_an_addend_that_is_computed():
    # Once below the pool, p * q + max(x) would be contracted where it was not before.
    p, q = (data((1, 8, 1, 1), name=name) for name in "pq")
    mod = module(lambda x, p, q: max_pool(op.add(x, op.multiply(p, q))), data(), p, q)
    assert_untouched(mod, Reason.ROUNDING)


def test_an_addition_next_to_one_that_stays():
    c1 = per_channel((8, 1, 1))  # of both signs: it stays
    c2, c3 = (const(np.full((8, 1, 1), n)) for n in (0.7, 0.1))
    mod = module(lambda x: max_pool(op.add(op.add(op.multiply(x, c1), c2), c3)))
    assert_untouched(mod, Reason.ROUNDING)
