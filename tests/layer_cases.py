"""Layers that kernels of both dialects are tried on: extents of the data, and what is behind it."""

HALVE = {"pool_size": (2, 2), "strides": (2, 2)}
OVERLAP = {"pool_size": (3, 3), "strides": (2, 2), "padding": (1, 1)}

GROUPED = {
    "groups of half a block": (
        (1, 24, 12, 12),
        {"filters": 24, "groups": 6, "padding": (1, 1), "pool": HALVE},
    ),
    "groups that end inside of blocks": (
        (1, 24, 13, 12),
        {"filters": 40, "groups": 2, "padding": (1, 1), "pool": OVERLAP},
    ),
    "groups of odd numbers": ((1, 27, 11, 12), {"filters": 9, "groups": 3, "pool": HALVE}),
}
"""Groups of parts of a block of channels."""
