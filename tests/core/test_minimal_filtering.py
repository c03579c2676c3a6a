"""Winograd's matrices are exact, and the error bound holds in float32."""

from fractions import Fraction

import numpy as np
import pytest

from tvm_passes.winograd import Winograd, as_array, convolved, direct_error_bound, filtered

FAMILIES = [Winograd(2, 3), Winograd(4, 3), Winograd(2, 5), Winograd(6, 3)]


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_a_row_of_outputs_is_exact_in_rational_numbers(family):
    data = [Fraction(n * n - 3 * n, 7) for n in range(family.tile)]
    taps = [Fraction(2 * n - 5, 3) for n in range(family.taps)]

    def times(matrix, vector):
        return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]

    pairs = zip(times(family.weight, taps), times(family.data, data), strict=True)
    found = times(family.output, [a * b for a, b in pairs])
    assert found == [
        sum(data[at + k] * taps[k] for k in range(family.taps)) for at in range(family.outputs)
    ]


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_coefficients_of_data_and_outputs_are_float32(family):
    for matrix in (family.data, family.output):
        array = as_array(matrix)
        assert (array == array.astype("float32")).all()


def in_float32(family, data, weight):
    """One tile of one filter, summed channel by channel."""
    b, a = (as_array(m).astype("float32") for m in (family.data, family.output))
    products = np.zeros((family.tile, family.tile), "float32")
    for channel, transformed in zip(data, family.transform(weight).T, strict=True):
        products += transformed.T.astype("float32") * (b @ channel @ b.T)
    return a @ products @ a.T


def exact(family, data, weight):
    m, r = family.outputs, family.taps
    wide = data.astype(float)
    return np.array(
        [[(wide[:, y : y + r, x : x + r] * weight).sum() for x in range(m)] for y in range(m)]
    )


INPUTS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "magnitudes": lambda rng, shape: rng.standard_normal(shape) * 10.0 ** rng.uniform(-6, 6, shape),
    "cancellation": lambda rng, shape: 1e4 + rng.standard_normal(shape),
}


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_the_error_bound(family, inputs):
    rng = np.random.default_rng(3)
    data = INPUTS[inputs](rng, (64, family.tile, family.tile)).astype("float32")
    weight = rng.standard_normal((64, family.taps, family.taps)).astype("float32")
    error = np.abs(in_float32(family, data, weight) - exact(family, data, weight)).max()
    bound = family.error_bound(weight[None]) * np.abs(data).max()
    assert 0 < error <= bound


def test_the_bound_of_sums_as_they_are_written():
    weight = np.ones((2, 3, 3, 3))
    weight[1] = -2
    assert direct_error_bound(weight) == 27 * 2.0**-24 * 54


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_filtering_an_image_is_convolving_it(family, groups):
    rng = np.random.default_rng(0)
    data = rng.standard_normal((2, 4, 9, 14))
    weight = rng.standard_normal((6, 4 // groups, family.taps, family.taps))
    expected = convolved(data, weight, (1, 2, 0, 1))
    assert expected.shape == (2, 6, 11 - family.taps, 18 - family.taps)
    corner = data[0, : 4 // groups, : family.taps - 1, : family.taps - 2]
    assert expected[0, 0, 0, 0] == pytest.approx((corner * weight[0, :, 1:, 2:]).sum())
    np.testing.assert_allclose(filtered(data, weight, (1, 2, 0, 1), family), expected, atol=1e-11)
