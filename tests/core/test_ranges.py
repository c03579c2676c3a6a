"""Bounds of what flows down a chain hold for every value, as it is rounded."""

from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from site_builders import op, pool

from tvm_passes.describe import resolve
from tvm_passes.ranges import (
    added,
    at_least,
    at_most,
    clipped,
    converted,
    filled,
    negated,
    not_negative,
    scaled,
    subtracted,
    values_of,
)
from tvm_passes.site import ALL, Move, Operand

F32 = np.float32
number = st.floats(
    width=32, allow_nan=False, allow_infinity=False, min_value=-(2**60), max_value=2**60
)

IMAGES = {
    "max(x, 0)": (not_negative, lambda x, _: np.maximum(x, F32(0))),
    "max(x, p)": (at_least("p"), np.maximum),
    "min(x, p)": (at_most("p"), np.minimum),
    "x + p": (added("p"), lambda x, p: x + p),
    "x - p": (added("p", -1), lambda x, p: x - p),
    "p - x": (subtracted("p"), lambda x, p: p - x),
    "-x": (negated, lambda x, _: -x),
    "x |p|": (scaled("p"), lambda x, p: x * p),
}


@pytest.mark.parametrize("name", IMAGES)
@given(data=st.data())
def test_no_result_is_out_of_bounds(name, data):
    image, f = IMAGES[name]
    low, high = sorted((data.draw(number), data.draw(number)))
    values = np.array(data.draw(st.lists(number, min_size=1, max_size=3)), F32)
    values = np.abs(values) if "|" in name else values
    one = op(params={"p": Operand((1, len(values), 1, 1), values)}, bounds=(low, high))
    x = np.array([low, high, *np.linspace(low, high, 5)], F32).clip(F32(low), F32(high))
    with np.errstate(over="ignore", under="ignore"):
        results = f(x[:, None], values[None])
    least, most = image(one)
    assert least <= results.min()
    assert results.max() <= most


def test_a_sum_of_numbers_that_are_not_negative_is_none():
    one = op(params={"p": Operand((1,), np.array([0.0, 1e-30], F32))}, bounds=(0.0, inf))
    assert added("p")(one)[0] == 0.0
    assert added("p", -1)(one)[0] < 0.0


@pytest.mark.parametrize("params", [{}, {"p": None}, {"p": Operand((1,), None)}])
def test_of_an_unknown_operand_nothing_follows(params):
    one = op(params=params, bounds=(0.0, 1.0))
    assert values_of(one, "p") == ALL
    assert added("p")(one) == ALL
    assert at_least("p")(one) == (0.0, inf)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 6.0, (0.0, 6.0)), (-3.0, 0.5, (-1.0, 0.5)), (None, 6.0, ALL), (1e-50, 6.0, (0.0, 6.0))],
)
def test_a_clip(low, high, expected):
    one = op(params={"low": low, "high": high}, bounds=(-1.0, inf))
    assert clipped("low", "high")(one) == expected


def test_each_op_gets_the_bounds_that_the_ops_above_give():
    chain = [(op("log"),), (op("bias_add"),), (op("exp", bounds=ALL),)]
    log, add, exp = resolve(chain, pool())
    assert exp.bounds == ALL
    assert add.bounds == (0.0, inf)
    assert 0.9 < log.bounds[0] < 1.0


@pytest.mark.parametrize(
    ("move", "expected"),
    [
        (Move("reshape", (), ()), (1.0, 2.0)),
        (Move("pad", (), (), padded=(2,)), (1.0, 2.0)),
        (Move("pad", (), (), padded=(2,), fills=True, fill=0.0), (0.0, 2.0)),
        (Move("pad", (), (), padded=(2,), fills=True, fill=3.0), (1.0, 3.0)),
        (Move("pad", (), (), padded=(2,), fills=True), ALL),
    ],
)
def test_what_padding_fills_in_counts(move, expected):
    assert filled((1.0, 2.0), move) == expected


def test_padding_between_two_ops_counts_for_the_lower_one():
    pad = Move("pad", (), (), padded=(2,), fills=True, fill=-1.0)
    chain = [(op("sqrt", bounds=ALL),), (op("relu", crosses=(pad,)),)]
    assert resolve(chain, pool())[0].bounds == (-1.0, inf)
    below = [(op("sqrt", crosses=(pad,), bounds=ALL),), (op("relu", crosses=(pad,)),)]
    assert resolve(below, pool())[0].bounds == (0.0, inf)


@pytest.mark.parametrize(
    ("reads", "dtype", "bounds", "found"),
    [
        ("float32", "float16", (0.1, 70000.0), (float(np.float16(0.1)), inf)),
        ("float32", "int32", (-0.5, 1.5), (-1, 2)),
        ("uint8", "float32", ALL, (0, 255)),
        ("float32", "int64", (0.0, inf), (0, inf)),
    ],
)
def test_bounds_of_another_element_type(reads, dtype, bounds, found):
    assert converted(op("cast", data_dtype=reads, dtype=dtype, bounds=bounds)) == found


def test_a_tensor_of_nothing_bounds_nothing():
    one = op(params={"p": Operand((0,), np.zeros(0, F32))})
    assert values_of(one, "p") == ALL


def test_bounds_of_integers_are_not_rounded():
    one = op(params={"p": -(2**31) - 1, "q": 5}, dtype="int64")
    assert clipped("p", "q")(one) == (-(2**31) - 1, 5)
