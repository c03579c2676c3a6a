"""Inputs that are hard on a maximum, and the bits of results."""

from __future__ import annotations

import numpy as np


def bits(array):
    return array.view(f"u{array.itemsize}")


def hard_values(shape, dtype, *, infinite=False):
    """Negatives, ties, both zeros, denormals and large values; infinities where asked for."""
    rng = np.random.default_rng(0)
    info = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else None
    if info:
        return rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    limits = np.finfo(dtype)
    special = [0.0, -0.0, limits.tiny / 8, -limits.tiny / 8, 1e4, -1e4, 0.5, -0.5]
    special += [np.inf, -np.inf] if infinite else []
    x = rng.standard_normal(shape) * 3
    x = np.where(rng.random(shape) < 0.3, np.round(x), x)  # ties
    return np.where(rng.random(shape) < 0.3, rng.choice(special, shape), x).astype(dtype)
