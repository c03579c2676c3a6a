"""Winograd's tiles that are used here, and the layers that they may compute."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from tvm_passes.schedules.operators import Conv2d
from tvm_passes.winograd import Winograd

FAMILIES = (Winograd(4, 3), Winograd(2, 3), Winograd(2, 5))
"""Tiles of six inputs and of four; with eight, sums are off by 7 times as much at best
(scripts/winograd_points.py)."""


def takes(conv: Conv2d, family: Winograd) -> bool:
    """Whether Winograd's filtering can compute a convolution."""
    return (
        conv.kernel == (family.taps, family.taps)
        and conv.strides == conv.dilation == (1, 1)
        and conv.dtype == "float32"
        and (conv.groups == 1 or conv.channels // conv.groups % conv.block == 0)
    )


UNFIT = "it filters 3x3 and 5x5 taps of stride 1, float32, groups of whole blocks of channels"
"""What a convolution is not that no family takes."""


def is_filtered(conv: Conv2d) -> bool:
    """Whether some family can compute a convolution."""
    return any(takes(conv, family) for family in FAMILIES)


@dataclass(frozen=True)
class Convolution:
    """A convolution of a model's ``main``.

    Parameters
    ----------
    site, op
        Its name, numbered in the order of the program, and its op.
    conv
        What it computes.
    weight
        [filters, channels / groups, taps, taps].
    """

    site: str
    op: str
    conv: Conv2d
    weight: np.ndarray


@dataclass(frozen=True)
class Barred:
    """Layers, known by their weights, that a family of tiles must not compute.

    Parameters
    ----------
    layers
        Digest of weights in the order OIHW, and the family's name.
    """

    layers: frozenset[tuple[str, str]] = frozenset()

    def holds(self, weight: np.ndarray, family: Winograd) -> bool:
        """Whether a layer is barred from a family."""
        return bool(self.layers) and (digest(weight), str(family)) in self.layers


NONE_BARRED = Barred()


def digest(weight: np.ndarray) -> str:
    """What a layer is known by: of its weights, in the order OIHW."""
    return hashlib.sha256(repr(weight.shape).encode() + weight.tobytes()).hexdigest()
