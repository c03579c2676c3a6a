"""Winograd's minimal filtering F(m x m, r x r): its matrices, and how far its sums may be off.

    y = A^T [(G g G^T) * (B^T d B)] A

gives m x m outputs of a convolution with r x r taps from a tile of (m + r - 1) squared inputs, at
one product an element of the tile instead of r * r an output.  Lavin and Gray, "Fast Algorithms
for Convolutional Neural Networks" (2015); the matrices by Toom and Cook's interpolation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

Matrix = tuple[tuple[Fraction, ...], ...]

POINTS = tuple(Fraction(n, 4) for n in (0, 3, -3, 6, -6, 2, -2))
"""Where the polynomials are evaluated, beside infinity: 0 first, then pairs of p and -p.

Quarters are exact in binary.  Sums over 256 channels of normally distributed values were off by
half as much as with the usual 0, 1, -1, 2, -2 (root mean square 1.6e-6 against 3.1e-6 for m = 4).
"""

TWO_TO_TWO = tuple(Fraction(n) for n in (0, 1, -1))
"""The points of four inputs: no coefficient but 0, 1, -1 and 1/2."""

UNIT = 2.0**-24
"""Half the distance from 1 to the next float32: the relative error of one rounding."""


@dataclass(frozen=True)
class Winograd:
    """One member of the family, F(`outputs` x `outputs`, `taps` x `taps`).

    Parameters
    ----------
    outputs, taps
        m and r: extents of what a tile gives, and of the window, along rows and columns.
    """

    outputs: int
    taps: int

    def __str__(self) -> str:
        """As papers write it."""
        return f"F({self.outputs}x{self.outputs}, {self.taps}x{self.taps})"

    @property
    def tile(self) -> int:
        """Inputs of a tile along rows and columns."""
        return self.outputs + self.taps - 1

    @cached_property
    def points(self) -> tuple[Fraction, ...]:
        """The finite points, `tile` - 1 of them."""
        return TWO_TO_TWO if self.tile == len(TWO_TO_TWO) + 1 else POINTS[: self.tile - 1]

    @cached_property
    def data(self) -> Matrix:
        """B^T, [tile, tile]: the polynomials that vanish at all finite points but one."""
        others = [[q for q in self.points if q != p] for p in self.points]
        rows = [_from_roots(roots) for roots in (*others, self.points)]
        return tuple((*row, *[Fraction(0)] * (self.tile - len(row))) for row in rows)

    @cached_property
    def weight(self) -> Matrix:
        """G, [tile, taps]: the filter at each point, over what its polynomial is there."""
        rows = []
        for p in self.points:
            scale = Fraction(1)
            for q in self.points:
                scale *= p - q if q != p else 1
            rows.append(tuple(p**k / scale for k in range(self.taps)))
        return (*rows, _last(self.taps))

    @cached_property
    def output(self) -> Matrix:
        """A^T, [outputs, tile]: powers of the points."""
        at_infinity = _last(self.outputs)
        return tuple(
            (*(p**row for p in self.points), at_infinity[row]) for row in range(self.outputs)
        )

    def transform(self, weight: np.ndarray) -> np.ndarray:
        """Weights as the products take them.

        Parameters
        ----------
        weight
            [..., taps, taps].

        Returns
        -------
        np.ndarray
            float64, [tile, tile, ...].
        """
        matrix = as_array(self.weight)
        found: np.ndarray = np.einsum("er,...rs,vs->ev...", matrix, weight.astype(float), matrix)
        return found

    def error_bound(self, weight: np.ndarray) -> float:
        """How far an output may be from the exact sum, over the largest input.

        To first order in the unit roundoff; Higham, "Accuracy and Stability of Numerical
        Algorithms", 3.1: a sum of n terms is off by at most n roundings of its absolute terms.

        Parameters
        ----------
        weight
            [filters, channels, taps, taps].
        """
        inputs = np.abs(as_array(self.data)).sum(1)
        outputs = np.abs(as_array(self.output))
        products = np.abs(self.transform(weight)).sum(3) * np.outer(inputs, inputs)[:, :, None]
        terms = np.einsum("ie,evk,jv->ijk", outputs, products, outputs)
        roundings = weight.shape[1] + 1 + 4 * self.tile
        return float(roundings * UNIT * terms.max())

    def error_bounds(self, weight: np.ndarray) -> dict[str, float]:
        """`error_bound` and that of the sums as they are written, as remarks name them."""
        return {
            "error_bound": self.error_bound(weight),
            "error_bound_as_written": direct_error_bound(weight),
        }


def direct_error_bound(weight: np.ndarray) -> float:
    """`Winograd.error_bound` of the sum as it is written."""
    count = weight[0].size
    return float(count * UNIT * np.abs(weight).reshape(len(weight), -1).sum(1).max())


def as_array(matrix: Matrix) -> np.ndarray:
    """A matrix in float64."""
    return np.array([[float(value) for value in row] for row in matrix])


def _from_roots(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients, from the constant up, of the monic polynomial with these roots."""
    found, zero = [Fraction(1)], Fraction(0)
    for root in roots:
        shifted = zip([zero, *found], [*found, zero], strict=True)
        found = [low - root * high for low, high in shifted]
    return found


def _last(size: int) -> tuple[Fraction, ...]:
    """The unit vector of the highest power: its coefficient is the value at infinity."""
    return tuple(Fraction(int(n == size - 1)) for n in range(size))


def convolved(data: np.ndarray, weight: np.ndarray, padding: Sequence[int]) -> np.ndarray:
    """A convolution of stride 1, in the element type of its data, its sums as they are written.

    Parameters
    ----------
    data
        [n, channels, h, w].
    weight
        [filters, channels / groups, taps, taps].
    padding
        Zeros on top, left, bottom, right.
    """
    taps = weight.shape[2]
    padded = _padded(data, padding)
    rows, columns = (extent - taps + 1 for extent in padded.shape[2:])
    total = np.zeros((len(data), len(weight), rows, columns), data.dtype)
    for i, j in np.ndindex(taps, taps):
        window = padded[:, :, i : i + rows, j : j + columns]
        total += _grouped(weight[:, :, i, j].astype(data.dtype), window)
    return total


def filtered(
    data: np.ndarray, weight: np.ndarray, padding: Sequence[int], family: Winograd
) -> np.ndarray:
    """`convolved` by Winograd's filtering, in the element type of its data."""
    m, size = family.outputs, family.tile
    padded = _padded(data, padding)
    rows, columns = (extent - family.taps + 1 for extent in padded.shape[2:])
    padded = _padded(padded, (0, 0, -rows % m, -columns % m))
    tiles = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(2, 3))
    inward, outward = (as_array(each).astype(data.dtype) for each in (family.data, family.output))
    transformed = inward @ tiles[:, :, ::m, ::m] @ inward.T
    weights = family.transform(weight).astype(data.dtype)
    n, _, down, across, _, _ = transformed.shape
    products = np.empty((n, len(weight), down, across, size, size), data.dtype)
    for e, v in np.ndindex(size, size):
        products[..., e, v] = _grouped(weights[e, v], transformed[..., e, v])
    found = outward @ products @ outward.T
    image: np.ndarray = found.transpose(0, 1, 2, 4, 3, 5).reshape(n, -1, down * m, across * m)
    return image[:, :, :rows, :columns]


def _padded(data: np.ndarray, padding: Sequence[int]) -> np.ndarray:
    top, left, bottom, right = padding
    return np.pad(data, [(0, 0), (0, 0), (top, bottom), (left, right)])


def _grouped(weight: np.ndarray, data: np.ndarray) -> np.ndarray:
    """Sums over the channels of a group: [filters, c / groups] and [n, c, h, w]."""
    n, channels, *extents = data.shape
    groups = channels // weight.shape[1]
    of_group = weight.reshape(groups, -1, weight.shape[1])
    flat = data.reshape(n, groups, weight.shape[1], -1)
    return (of_group @ flat).reshape(n, len(weight), *extents)
