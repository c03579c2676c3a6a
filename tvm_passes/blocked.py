"""A tensor in blocks of channels, whatever the dialect of its expression."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from tvm_passes.schedules.operators import Conv2d


@dataclass(frozen=True)
class Blocked:
    """A value in blocks, and what it stands for.

    Parameters
    ----------
    value
        [n, c/block, h, w, block].
    shape
        Of the plain value: [n, c, h, w], [n, h, w, c] if `channels_last`, or any [..., c], which
        is then [1, 1, m, c] with m the product of the other extents.
    channels_last
        Where its channels are.
    block
        Channels of a block.
    """

    value: Any
    shape: tuple[int, ...]
    channels_last: bool
    block: int

    @property
    def axis(self) -> int:
        """The axis of the plain value that holds channels."""
        return len(self.shape) - 1 if self.channels_last else 1

    @property
    def channels(self) -> int:
        """Channels of the plain value: those past them fill the last block."""
        return self.shape[self.axis]

    def constant(self, array: np.ndarray) -> np.ndarray | None:
        """A constant operand in these blocks.

        Parameters
        ----------
        array
            Broadcast against the plain value.

        Returns
        -------
        np.ndarray | None
            A scalar, or [1, c/block, 1, 1, block] with ones past the last channel; None where it
            is neither one number nor one a channel.
        """
        if array.size == 1:
            return array.reshape(())
        aligned = (1,) * (len(self.shape) - array.ndim) + array.shape
        if len(aligned) != len(self.shape):
            return None
        if not prod(aligned) == aligned[self.axis] == self.channels:
            return None
        filled = np.pad(array.reshape(-1), (0, -array.size % self.block), constant_values=1)
        return filled.reshape(1, -1, 1, 1, self.block)

    def is_read_by(self, conv: Conv2d) -> bool:
        """Whether a convolution's kernel reads its data in these blocks."""
        if self.channels_last != conv.channels_last:
            return False
        return not conv.depthwise or self.block == conv.block


def rows_of(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The extents [1, 1, m, c] of a tensor [..., c]."""
    return (1, 1, prod(shape[:-1]), shape[-1])
