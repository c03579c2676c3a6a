"""What becomes of NaN, of both zeros and of infinities: the cells of the README's table."""

# ruff: noqa: RUF001 - the table has minus signs

from pathlib import Path

import numpy as np
from arrays import bits

README = Path(__file__).parent.parent / "README.md"
SHAPE = (1, 8, 12, 12)
LOWEST = np.finfo("float32").min


def window(*values):
    """Windows of random numbers and of these, in every order that a window may hold them."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(SHAPE)
    return np.where(rng.random(SHAPE) < 0.5, rng.choice(values, SHAPE), x).astype("float32")


def only(value):
    """A quarter of the windows hold nothing but this value."""
    x = window(1.0)
    x[:, :2] = value
    return x


def same_bits(before, after, _x):
    assert np.array_equal(bits(before), bits(after))


def same_values(before, after, _x):
    assert np.array_equal(before, after)


def of_the_lowest(before, after, _x):
    """The number itself before; after the swap, f of it."""
    assert np.all(before[:, :2] == LOWEST)
    assert np.all(np.isfinite(after))
    assert np.array_equal(bits(before[:, 2:]), bits(after[:, 2:]))


def of_the_highest(before, after, _x):
    """f of infinity before; after the swap, f of the highest finite number."""
    assert np.all(np.isfinite(after))
    assert np.all(before[:, :2] <= after[:, :2])
    assert np.array_equal(bits(before[:, 2:]), bits(after[:, 2:]))


def may_differ(before, after, x):
    """Where there is no NaN, nothing does."""
    clean = ~np.isnan(x).reshape(1, 8, 6, 2, 6, 2).any(axis=(3, 5))
    assert clean.any()
    assert np.array_equal(bits(before[clean]), bits(after[clean]))


TINY = float(np.finfo("float32").smallest_subnormal)
ZEROS = (0.0, -0.0, TINY, -TINY, -1.0)
CELLS = {
    "finite numbers": (window(0.5, -0.5, 1e30, -1e30), same_bits, same_bits, same_bits),
    "zeros of both signs, or numbers that *f* rounds to zero": (
        window(*ZEROS),
        same_values,
        same_values,
        same_values,
    ),
    "+∞ and a smaller number": (
        np.minimum(window(np.inf), np.tile(np.array([[np.inf, 0.5]]), (12, 6))).astype("float32"),
        same_bits,
        same_bits,
        same_bits,
    ),
    "+∞ alone": (only(np.inf), same_bits, same_bits, of_the_highest),
    "−∞ and a larger number": (
        np.maximum(window(-np.inf), np.tile(np.array([[-np.inf, 0.5]]), (12, 6))).astype("float32"),
        same_bits,
        same_bits,
        same_bits,
    ),
    "−∞ alone": (only(-np.inf), same_bits, of_the_lowest, same_bits),
    "NaN": (window(np.nan), may_differ, same_bits, may_differ),
}
