"""Differences of bits: how far apart two values are, and what their difference is put down to."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_passes.compare import Difference, compare, inexact_bound, merge, raw_bits, ulp_distance

pytestmark = pytest.mark.no_tvm

FLOATS = ["float16", "float32", "float64"]
LOOSE = inexact_bound(np.dtype("float32"))
INTEGERS = ["int8", "uint8", "int32", "int64", "uint64"]
checked = settings(deadline=None, derandomize=True, database=None, max_examples=300)


def ulp(a, b, dtype):
    return int(ulp_distance(np.array(a, dtype), np.array(b, dtype)))


@pytest.mark.parametrize("dtype", FLOATS)
class TestUlpDistance:
    def test_neighbours_are_one_apart(self, dtype):
        x = np.array([1.0, 0.1, -3.5, 1000.0, 2.0, -2.0], dtype)
        up = np.nextafter(x, np.array(np.inf, dtype))
        assert ulp_distance(x, up).tolist() == [1] * len(x)
        assert ulp_distance(up, x).tolist() == [1] * len(x)

    def test_around_zero(self, dtype):
        least = np.finfo(dtype).smallest_subnormal
        assert ulp(0.0, -0.0, dtype) == 0
        assert ulp(0.0, least, dtype) == ulp(-0.0, least, dtype) == ulp(-0.0, -least, dtype) == 1
        assert ulp(-least, least, dtype) == 2
        assert ulp(3 * least, -2 * least, dtype) == 5

    def test_the_least_normal_number_follows_the_largest_denormal(self, dtype):
        info = np.finfo(dtype)
        denormal = info.smallest_normal - info.smallest_subnormal
        assert ulp(denormal, info.smallest_normal, dtype) == 1
        assert ulp(0, info.smallest_normal, dtype) == 2**info.nmant

    def test_infinity_follows_the_largest_number(self, dtype):
        most = np.finfo(dtype).max
        assert ulp(most, np.inf, dtype) == ulp(-most, -np.inf, dtype) == 1
        # From one infinity to the other is more than half of all bit patterns.
        assert ulp(-np.inf, np.inf, dtype) == 2 * int(raw_bits(np.array(np.inf, dtype)))


def test_one_ulp_of_one_is_epsilon():
    assert ulp(1, 1 + np.finfo("float32").eps, "float32") == 1
    assert ulp(1, 1 - np.finfo("float32").eps, "float32") == 2  # below a power of 2, steps halve


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_as_far_apart_as_they_are(dtype):
    info = np.iinfo(dtype)
    assert ulp(info.min, info.max, dtype) == 2 ** (8 * np.dtype(dtype).itemsize) - 1
    assert ulp(3, 10, dtype) == 7


@checked
@given(*[st.floats(width=16, allow_nan=False)] * 3)
def test_distances_add_up_along_the_number_line(a, b, c):
    low, middle, high = sorted([a, b, c])
    way = ulp(low, middle, "float16") + ulp(middle, high, "float16")
    assert ulp(low, high, "float16") == way
    assert (way == 0) == (low == high)


@checked
@given(st.floats(width=32, min_value=-(2.0**100), max_value=2.0**100), st.integers(0, 100))
def test_a_distance_is_the_number_of_steps(start, steps):
    x = np.float32(start)
    for _ in range(steps):
        x = np.nextafter(x, np.float32(-np.inf))
    assert ulp(start, x, "float32") == steps


def difference(original, reordered, dtype="float32", **special):
    """The kinds that two arrays differ in, with how many values of each."""
    findings = compare(np.array(original, dtype), np.array(reordered, dtype), "s", **special)
    return {finding.kind: finding.count for finding in findings}


class TestKinds:
    def test_equal_bits_are_no_finding(self):
        x = [0.0, -0.0, np.inf, np.nan, 1e-45, 3.0]
        assert difference(x, x) == {}
        assert difference([], []) == {}

    def test_the_sign_of_zero(self):
        assert difference([0.0, -0.0, 1.0], [-0.0, 0.0, 1.0]) == {Difference.ZERO_SIGN: 2}
        assert difference([0.0], [1e-45]) == {Difference.DIFFERENT: 1}

    def test_one_ulp_is_different(self):
        assert difference([1.0], [np.nextafter(np.float32(1), 2)]) == {Difference.DIFFERENT: 1}

    def test_overflow_meets_the_lowest_number_that_the_maximum_starts_from(self):
        lowest = np.finfo("float32").min
        assert difference([lowest], [-np.inf]) == {Difference.INFINITY: 1}
        assert difference([-lowest], [np.inf]) == {Difference.INFINITY: 1}
        assert difference([-np.inf], [lowest]) == {Difference.DIFFERENT: 1}
        assert difference([lowest], [lowest / 2]) == {Difference.DIFFERENT: 1}
        assert difference([1.0], [-np.inf]) == {Difference.DIFFERENT: 1}

    def test_infinite_inputs_excuse_all_but_nan(self):
        a, b = [0.0, 1.0, np.nan, 3.0], [-0.0, 2.0, 1.0, np.nan]
        expected = {Difference.ZERO_SIGN: 1, Difference.NAN: 1, Difference.INFINITY: 2}
        assert difference(a, b, infinity=True) == expected

    def test_only_where_something_infinite_went_in_are_differences_excused(self):
        a, b = [1.0, 2.0, np.nan, np.nan], [1.5, 2.5, 3.0, 3.0]
        where = np.array([True, False, True, False])
        allowed = {Difference.NAN: 1, Difference.INFINITY: 1, Difference.DIFFERENT: 2}
        assert difference(a, b, infinity=where) == allowed
        assert difference(a, b, nan=where) == {Difference.NAN: 2, Difference.DIFFERENT: 2}

    def test_a_nan_that_nothing_infinite_went_into_is_not_excused(self):
        assert difference([np.nan, 1.0], [1.0, 1.0]) == {Difference.DIFFERENT: 1}
        assert difference([np.nan, 1.0], [1.0, 1.0], infinity=True) == {Difference.NAN: 1}
        assert difference([1.0, 1.0], [np.nan, 1.0]) == {Difference.DIFFERENT: 1}
        assert difference([1.0], [np.nan], nan=True) == {Difference.NAN: 1}

    @pytest.mark.parametrize("dtype", [*INTEGERS, "bool"])
    def test_integers_differ_or_do_not(self, dtype):
        assert difference([0, 1], [0, 1], dtype) == {}
        assert difference([0, 1], [1, 1], dtype) == {Difference.DIFFERENT: 1}
        assert difference([0, 1], [1, 1], dtype, infinity=True) == {Difference.INFINITY: 1}

    def test_only_different_is_not_allowed(self):
        assert [kind for kind in Difference if not kind.allowed] == [Difference.DIFFERENT]

    def test_shapes_and_types_have_to_agree(self):
        with pytest.raises(ValueError, match="float32"):
            compare(np.zeros(3, "float32"), np.zeros(3, "float64"))
        with pytest.raises(ValueError, match="float32"):
            compare(np.zeros((3, 1), "float32"), np.zeros(3, "float32"))


class TestFindings:
    def test_worst_and_first(self):
        a = np.ones((2, 3), "float32")
        b = a.copy()
        b[0, 2] = np.nextafter(np.float32(1), 2)
        b[1, 1] = 1 + 3 * np.finfo("float32").eps
        (finding,) = compare(a, b, "random #1")
        assert (finding.count, finding.worst_ulp) == (2, 3)
        assert (finding.first.sample, finding.first.index) == ("random #1", (0, 2))
        assert finding.first.original == 1
        assert finding.first.reordered == b[0, 2]

    def test_a_scalar_has_an_empty_index(self):
        (finding,) = compare(np.array(1.0), np.array(2.0))
        assert finding.first.index == ()

    def test_a_nan_has_no_distance(self):
        (finding,) = compare(np.array([1.0, 1.0]), np.array([2.0, np.nan]))
        assert (finding.count, finding.worst_ulp) == (2, None)

    def test_merged_by_kind(self):
        one, other = np.array([1.0, 0.0]), np.array([3.0, -0.0])
        parts = [
            *compare(one, np.nextafter(one, -1), "a"),
            *compare(one, other, "b"),
            *compare(one, np.array([np.nan, 0.0]), "c"),
        ]
        zero, different = merge(parts)
        assert (zero.kind, zero.count, zero.first.sample) == (Difference.ZERO_SIGN, 1, "b")
        assert (different.count, different.worst_ulp) == (4, None)
        assert different.first.sample == "a"
        ((far,), (near,)) = compare(one, one + 2), compare(one, np.nextafter(one, -1))[:1]
        assert merge([far, near])[0].worst_ulp == merge([near, far])[0].worst_ulp == far.worst_ulp
        assert merge([]) == ()


class TestRounding:
    """What a rule that is exact in real numbers alone may change."""

    def test_close_values_are_put_down_to_it_where_one_is_at_play(self):
        a = np.array([0.25, -0.5], "float32")
        b = np.nextafter(a, np.float32(1))
        assert [f.kind for f in compare(a, b)] == [Difference.DIFFERENT]
        (finding,) = compare(a, b, bound=LOOSE)
        assert (finding.kind, finding.count, finding.worst_ulp) == (Difference.ROUNDING, 2, 1)
        assert finding.kind.allowed

    def test_how_close_is_measured_by_the_largest(self):
        eps = float(np.finfo("float32").eps)
        for size in (0.1, 1.0, 1000.0):
            a = np.array([size, 0.0, np.inf], "float32")
            limit = 64 * eps * max(size, 1)
            for share, kind in ((0.9, Difference.ROUNDING), (1.1, Difference.DIFFERENT)):
                b = a + np.array([0, share * limit, 0], "float32")
                assert [f.kind for f in compare(a, b, bound=LOOSE)] == [kind]

    def test_an_infinity_or_a_nan_is_not_close(self):
        a = np.array([1.0, 1.0])
        for other in (np.inf, np.nan):
            found = compare(a, np.array([other, other]), bound=LOOSE)
            assert [f.kind for f in found] == [Difference.DIFFERENT]

    def test_integers_are_never_close(self):
        (finding,) = compare(np.array([1]), np.array([2]), bound=LOOSE)
        assert finding.kind is Difference.DIFFERENT
