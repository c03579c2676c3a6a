"""The rows that quantize: their scales and zero points, and what compilers make of them."""

from dataclasses import replace

import numpy as np
import pytest
from site_builders import MULTIPLY, op, pool, site

from tvm_passes.decision import decide
from tvm_passes.decline import Reason
from tvm_passes.site import Operand

ROWS = {
    "quantize (relay)": {"dtype": "int8", "data_dtype": "float32"},
    "quantize (relax)": {"dtype": "int8", "data_dtype": "float32"},
    "dequantize": {"dtype": "float32", "data_dtype": "int8"},
    "requantize": {"dtype": "int8", "data_dtype": "uint8"},
}
PARAMS = [(row, param) for row in ROWS for param in op(row).params]


def decision(row, producer=None, below=(), absorbers=(), **params):
    one = op(row, **ROWS[row])
    one = replace(one, params=dict(one.params) | params)
    given = {} if producer is None else {"producer": producer}
    where = pool(dtype=one.dtype)
    return decide(site(one, pool=where, arithmetic_below=below, absorbers=absorbers, **given))


@pytest.mark.parametrize("row", ROWS)
def test_each_row_sinks(row):
    assert decision(row).passed


@pytest.mark.parametrize(("row", "param"), PARAMS)
def test_parameters_that_vary_over_the_window(row, param):
    varying = Operand((1, 1, 16, 1), np.ones((1, 1, 16, 1)))
    assert decision(row, **{param: varying}).decline.reason is Reason.VARIES_IN_WINDOW


@pytest.mark.parametrize(("row", "param"), [(r, p) for r, p in PARAMS if p.endswith("scale")])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (-1.0, Reason.NEGATIVE_SLOPE),
        (0.0, Reason.NOT_FINITE),
        (np.nan, Reason.NOT_FINITE),
        (None, Reason.NOT_CONSTANT),
    ],
)
def test_scales_that_are_not_above_0(row, param, value, reason):
    scale = Operand((1, 1, 1, 1), None if value is None else np.full((1, 1, 1, 1), value))
    assert decision(row, **{param: scale}).decline.reason is reason


def test_a_requantization_of_32_bits_needs_room():
    one = op("requantize", dtype="int8", data_dtype="int32")
    where = pool(dtype="int8")
    assert decide(site(one, pool=where)).decline.reason is Reason.DTYPE  # a scale of 1
    zero, half = (Operand((1,) * 4, np.full((1,) * 4, value)) for value in (0, 0.5))
    params = dict(one.params) | {"in_zero_point": zero, "in_scale": half}
    assert decide(site(replace(one, params=params), pool=where)).passed


def test_relay_divides_where_it_quantizes():
    declined = decision("quantize (relay)", producer=MULTIPLY).decline
    assert declined.reason is Reason.ROUNDING
    assert decision("quantize (relax)", producer=MULTIPLY).passed


@pytest.mark.parametrize("row", ["quantize (relay)", "dequantize"])
def test_a_scale_that_could_be_folded_into_weights(row):
    assert decision(row, absorbers=("nn.conv2d",)).decline.reason is Reason.FOLDING
    assert decision("quantize (relax)", absorbers=("nn.conv2d",)).passed


def test_a_product_does_not_meet_arithmetic_below():
    assert decision("dequantize", below=("add",)).decline.reason is Reason.FOLDING
    assert decision("requantize", below=("add",)).passed
