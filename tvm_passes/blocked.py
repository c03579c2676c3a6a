"""A tensor in blocks of channels, whatever the dialect of its expression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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


def rows_of(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The extents [1, 1, m, c] of a tensor [..., c]."""
    rows = 1
    for extent in shape[:-1]:
        rows *= extent
    return (1, 1, rows, shape[-1])
