"""Quantized sites: what sinks, on which element type the pool then works, and every bit of it."""

import numpy as np
import pytest
from relax_builders import (
    assert_sinks,
    assert_untouched,
    const,
    data,
    max_pool,
    module,
    reasons,
    run_pass,
)
from relax_runs import TARGETS, bits, cpu, hard_values, outputs
from tvm import relax
from tvm.relax import op

from tvm_passes.decline import Reason

SCALES = np.linspace(0.02, 0.3, 8)


def quantize(x, dtype="int8", scale=0.05, zero_point=3, axis=1):
    return op.quantize(x, const(scale), const(zero_point, dtype), axis, dtype)


def dequantize(x, dtype="int8", scale=0.05, zero_point=3, axis=1):
    return op.dequantize(x, const(scale), const(zero_point, dtype), axis)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("scale", [0.05, SCALES], ids=["tensor", "channel"])
def test_quantize_sinks_and_the_pool_reads_floats(dtype, scale):
    zero_point = 3 if np.ndim(scale) == 0 else np.arange(8)

    def f(x):
        return quantize(op.nn.relu(x), dtype, scale, zero_point)

    assert_sinks(module(lambda x: max_pool(f(x))), module(lambda x: f(max_pool(x))))


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_dequantize_sinks_and_the_pool_reads_integers(dtype):
    def f(x):
        return op.nn.relu(dequantize(x, dtype))

    before = module(lambda x: max_pool(f(x)), data(dtype=dtype))
    assert_sinks(before, module(lambda x: f(max_pool(x)), data(dtype=dtype)))


def test_a_chain_through_both_element_types_sinks_whole():
    def chain(x):
        return op.clip(quantize(op.nn.relu(dequantize(x, "uint8")), "int8"), -100, 90)

    before = module(lambda x: max_pool(chain(x)), data(dtype="uint8"))
    assert_sinks(before, module(lambda x: chain(max_pool(x)), data(dtype="uint8")))


@pytest.mark.parametrize(
    ("scale", "reason"),
    [(-0.05, Reason.NEGATIVE_SLOPE), (0.0, Reason.NOT_FINITE), (np.nan, Reason.NOT_FINITE)],
)
@pytest.mark.parametrize(("f", "dtype"), [(quantize, "float32"), (dequantize, "int8")])
def test_scales_that_are_not_positive(f, dtype, scale, reason):
    mod = module(lambda x: max_pool(f(x, scale=scale)), data(dtype=dtype))
    assert_untouched(mod, reason)


def test_scales_along_a_pooled_axis():
    scales = np.linspace(0.1, 1, 16)
    mod = module(lambda x: max_pool(quantize(x, scale=scales, axis=2)))
    assert_untouched(mod, Reason.VARIES_IN_WINDOW)


def test_a_scale_that_is_not_constant():
    def body(x, scale):
        return max_pool(op.quantize(x, scale, const(3, "int8"), 1, "int8"))

    assert_untouched(module(body, data(), data((), name="s")), Reason.NOT_CONSTANT)


def test_other_element_types():
    mod = module(lambda x: max_pool(dequantize(x, "int32")), data(dtype="int32"))
    assert_untouched(mod, Reason.DTYPE)


def test_dequantize_does_not_meet_an_addition_below_the_pool():
    # Both would be contracted into one multiply-add.
    mod = module(lambda x: op.add(max_pool(dequantize(x)), const(0.3)), data(dtype="int8"))
    assert_untouched(mod, Reason.FOLDING)


def test_quantize_sinks_below_an_addition_that_stays():
    # As TFLite's importer writes it: the bias is computed, and stays.
    bias = dequantize(const(np.arange(8), "int8"), axis=0)

    def biased(x):
        return op.add(x, op.reshape(bias, (8, 1, 1)))

    before = module(lambda x: max_pool(quantize(biased(x))))
    after = module(lambda x: quantize(max_pool(biased(x))))
    assert_sinks(before, after, Reason.ROUNDING)


def test_padding_is_of_the_element_type_above_quantize():
    edges = (0, 0, 0, 0, 1, 1, 1, 1)
    mod = module(lambda x: max_pool(op.nn.pad(quantize(x), edges, "constant", 3.0)))
    assert_untouched(mod, Reason.PAD_VALUE)


@pytest.mark.parametrize("target", TARGETS, ids=cpu)
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_bits(dtype, target):
    pools = [{}, {"kernel": 3, "padding": (1, 1)}]
    floats = [
        lambda x: quantize(x, dtype),
        lambda x: quantize(op.nn.relu(x), dtype, SCALES, np.arange(8)),
        lambda x: quantize(x, dtype, 1e-3, 0),  # saturates
    ]
    integers = [
        lambda x: dequantize(x, dtype),
        lambda x: dequantize(x, dtype, SCALES, np.arange(8)),
        lambda x: quantize(op.tanh(dequantize(x, dtype)), dtype, 0.01, 5),
    ]
    for functions, read in ((floats, "float32"), (integers, dtype)):
        bodies = [lambda x, f=f, a=a: max_pool(f(x), **a) for f in functions for a in pools]
        before = module(lambda x, bodies=bodies: [body(x) for body in bodies], data(dtype=read))
        after, remarks = run_pass(before)
        assert reasons(remarks).count("sunk") == len(bodies)
        x = hard_values((1, 8, 16, 16), read)
        pairs = zip(
            outputs(before, x, target=target), outputs(after, x, target=target), strict=True
        )
        assert [np.array_equal(bits(a), bits(b)) for a, b in pairs] == [True] * len(bodies)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_quantize_never_falls(dtype):
    line = np.sort(np.random.default_rng(0).uniform(-20, 20, (8, 20_000)), axis=1)
    x = line.astype("float32").reshape(1, 8, 100, 200)
    mod = module(lambda x: quantize(x, dtype, SCALES, np.arange(8)), data(x.shape))
    (y,) = outputs(mod, x)
    assert np.all(np.diff(y.reshape(8, -1).astype(int), axis=1) >= 0)
    assert y.min() == np.iinfo(dtype).min
    assert y.max() == np.iinfo(dtype).max


@pytest.mark.parametrize("f", [quantize, lambda x, axis: dequantize(quantize(x), axis=axis)])
def test_one_number_for_all_names_an_axis_that_is_there(f):
    """The third axis, which what the pool reads does not have."""

    def chain(x):
        return op.max(op.reshape(f(x, axis=3), (1, 2048)), [1])

    after, remarks = run_pass(module(chain))
    assert "sunk" in [remark.reason for remark in remarks]
    relax.analysis.well_formed(after)
    x = hard_values((1, 8, 16, 16), "float32")
    (a,), (b,) = (outputs(each, x) for each in (module(chain), after))
    assert np.array_equal(bits(a), bits(b))
