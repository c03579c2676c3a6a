"""Quantized sites: what sinks, on which element type the pool then works, and every bit of it."""

import numpy as np
import pytest
import tvm
from relay_builders import (
    assert_sinks,
    assert_untouched,
    const,
    data,
    max_pool,
    module,
    reasons,
    run_pass,
)
from relay_runs import TARGETS, bits, hard_values, outputs
from tvm import relay

from tvm_passes.decline import Reason

SCALES = np.linspace(0.02, 0.3, 8)


def integers(value):
    return const(value, "int32")


def quantize(x, dtype="int8", scale=0.05, zero_point=3, axis=1):
    return relay.qnn.op.quantize(x, const(scale), integers(zero_point), axis, dtype)


def dequantize(x, scale=0.05, zero_point=3, axis=1):
    return relay.qnn.op.dequantize(x, const(scale), integers(zero_point), axis)


def requantize(x, dtype="int8", scale=0.001, zero_point=0, out_scale=0.1, **attrs):
    scales = const(scale), integers(zero_point), const(out_scale), integers(3)
    return relay.qnn.op.requantize(x, *scales, axis=1, out_dtype=dtype, **attrs)


def check(f, dtype="float32"):
    before = module(max_pool(f(data(dtype=dtype))))
    assert_sinks(before, module(f(max_pool(data(dtype=dtype)))))


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("scale", [0.05, SCALES], ids=["tensor", "channel"])
def test_quantize_sinks_and_the_pool_reads_floats(dtype, scale):
    zero_point = 3 if np.ndim(scale) == 0 else np.arange(8)
    check(lambda x: quantize(relay.nn.relu(x), dtype, scale, zero_point))


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_dequantize_sinks_and_the_pool_reads_integers(dtype):
    check(lambda x: relay.nn.relu(dequantize(x)), dtype)


@pytest.mark.parametrize("read", ["int8", "uint8", "int32"])
@pytest.mark.parametrize("scale", [0.001, SCALES / 10], ids=["tensor", "channel"])
def test_requantize_sinks_with_the_clip_of_an_activation(read, scale):
    # As TFLite's importer writes a convolution's fused relu6.
    check(lambda x: relay.clip(requantize(x, "uint8", scale), 3.0, 200.0), read)


@pytest.mark.parametrize(
    "attrs",
    [{"scale": 0.1}, {"scale": 0.2}, {"zero_point": 1}, {"scale": SCALES, "out_scale": 0.1}],
    ids=str,
)
def test_a_requantization_of_32_bits_that_may_wrap_around(attrs):
    mod = module(max_pool(requantize(data(dtype="int32"), **attrs)))
    assert_untouched(mod, Reason.DTYPE)


def test_of_8_bits_it_may_not():
    check(lambda x: requantize(x, scale=0.4, zero_point=7), "int8")


@pytest.mark.parametrize(
    ("scale", "reason"),
    [(-0.05, Reason.NEGATIVE_SLOPE), (0.0, Reason.NOT_FINITE), (np.nan, Reason.NOT_FINITE)],
)
@pytest.mark.parametrize(
    ("f", "dtype"), [(quantize, "float32"), (dequantize, "int8"), (requantize, "int8")]
)
def test_scales_that_are_not_positive(f, dtype, scale, reason):
    mod = module(max_pool(f(data(dtype=dtype), scale=scale)))
    assert_untouched(mod, reason)


def test_scales_along_a_pooled_axis():
    mod = module(max_pool(quantize(data(), scale=np.linspace(0.1, 1, 16), axis=2)))
    assert_untouched(mod, Reason.VARIES_IN_WINDOW)


def test_dequantize_does_not_meet_an_addition_below_the_pool():
    mod = module(relay.add(max_pool(dequantize(data(dtype="int8"))), const(0.3)))
    assert_untouched(mod, Reason.FOLDING)


@pytest.mark.parametrize("axes", [(1, 2, 3), (0, 1, 2, 3)])
def test_a_reduction_keeps_axes_for_the_one_that_is_named(axes):
    """TVM compiles no qnn.requantize of data without axes."""
    before = module(relay.max(requantize(data(dtype="int8"), scale=0.4), axes))
    after, remarks = run_pass(before)
    assert "sunk" in reasons(remarks)
    x = hard_values((1, 8, 16, 16), "int8")
    (a,), (b,) = (outputs(mod, x) for mod in (before, after))
    np.testing.assert_array_equal(a, b)


def test_more_sinks_once_the_function_below_has_sunk():
    # FoldScaleAxis could fold the factor through the relu; once that is gone, a pool is below.
    biased = relay.nn.bias_add(dequantize(data(dtype="int8")), const(np.ones(8)))
    mod = module(max_pool(relay.nn.relu(max_pool(biased))))
    after, remarks = run_pass(mod)
    assert reasons(remarks).count("sunk") == 2
    again, _ = run_pass(after)
    tvm.ir.assert_structural_equal(again, after)


def test_padding_is_of_the_element_type_above_quantize():
    padded = relay.nn.pad(quantize(data()), ((0, 0), (0, 0), (1, 1), (1, 1)), 3.0)
    assert_untouched(module(max_pool(padded)), Reason.PAD_VALUE)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_bits(dtype, target):
    cases = {
        "float32": [
            lambda x: quantize(x, dtype),
            lambda x: quantize(relay.nn.relu(x), dtype, SCALES, np.arange(8)),
            lambda x: quantize(x, dtype, 1e-3, 0),  # saturates
        ],
        dtype: [
            dequantize,
            lambda x: dequantize(x, SCALES, np.arange(8)),
            lambda x: quantize(relay.tanh(dequantize(x)), dtype, 0.01, 5),
            lambda x: requantize(x, dtype, 0.4, 7),
        ],
        "int32": [
            lambda x: requantize(x, dtype, SCALES / 1e6, 0, 3.0, rounding="UPWARD"),
            lambda x: requantize(x, dtype, 1e-7, 0, 1.0, rounding="TONEAREST"),
            lambda x: relay.clip(requantize(x, dtype, 0.04), 5.0, 99.0),
        ],
    }
    for read, functions in cases.items():
        x = data(dtype=read)
        pools = ({}, {"kernel": 3, "padding": (1, 1)})
        bodies = [max_pool(f(x), **attrs) for f in functions for attrs in pools]
        before = module(relay.Tuple(bodies))
        after, remarks = run_pass(before)
        assert reasons(remarks).count("sunk") == len(bodies)
        value = hard_values((1, 8, 16, 16), read)
        pairs = zip(
            outputs(before, value, target=target), outputs(after, value, target=target), strict=True
        )
        assert [np.array_equal(bits(a), bits(b)) for a, b in pairs] == [True] * len(bodies)


@pytest.mark.parametrize("rounding", ["UPWARD", "TONEAREST"])
def test_requantize_never_falls(rounding):
    info = np.iinfo("int32")
    line = np.random.default_rng(0).integers(info.min, info.max, (8, 20_000), endpoint=True)
    line[:, :2] = info.min, info.max
    x = np.sort(line, axis=1).astype("int32").reshape(1, 8, 100, 200)
    scales = np.geomspace(1e-9, 0.5, 8)
    mod = module(requantize(data(x.shape, "int32"), "int8", scales, 0, 1.0, rounding=rounding))
    (y,) = outputs(mod, x)
    assert np.all(np.diff(y.reshape(8, -1).astype(int), axis=1) >= 0)
    assert (y.min(), y.max()) == (-128, 127)


@pytest.mark.parametrize("f", [quantize, lambda x, axis: dequantize(quantize(x), axis=axis)])
def test_one_number_for_all_names_an_axis_that_is_there(f):
    """The third axis, which what the pool reads does not have."""
    before = module(relay.max(relay.reshape(f(data(), axis=3), (1, 2048)), axis=[1]))
    after, remarks = run_pass(before)
    assert "sunk" in [remark.reason for remark in remarks]
    x = hard_values((1, 8, 16, 16), "float32")
    (a,), (b,) = (outputs(each, x) for each in (before, after))
    assert np.array_equal(bits(a), bits(b))
