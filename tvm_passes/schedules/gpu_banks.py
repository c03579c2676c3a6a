"""Where in the banks of shared memory a kernel's arrays lie, so that lanes of a warp do not meet.

Shared memory has 32 banks of 4 bytes; different words of one bank are read or written in turns
(CUDA C++ Programming Guide, 20.4.3).  Chosen here is by how much rows and the like are padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

WARP = 32
"""Lanes of a warp, and banks."""
FAR = WARP << 10
"""A stride that no two threads' words have in common, a multiple of the banks."""
WARPS_SEEN = 16
"""Warps of a copy that are looked at: they come round to the same banks."""
ROWS_TRIED = 4
"""Offsets of rows that are tried along with those of channels."""


def conflicts(scaled: np.ndarray, added: np.ndarray) -> tuple[float, ...]:
    """Turns besides the first of a warp's access to words ``scaled * stride + added``.

    Parameters
    ----------
    scaled, added
        One number for each thread.

    Returns
    -------
    tuple
        Means over all warps, for the strides that begin in bank 0 to 31.
    """
    strides = FAR + np.arange(WARP)
    found = _turns(scaled[None, :] * strides[:, None] + added[None, :])
    return tuple(float(turns) for turns in found)


def _turns(words: np.ndarray) -> np.ndarray:
    """Turns besides the first, [ways], means over warps, of words [ways, threads]."""
    starts = range(0, words.shape[1], WARP)
    total = np.zeros(len(words))
    for start in starts:
        own = np.sort(words[:, start : start + WARP], axis=1)
        first = np.ones_like(own, dtype=bool)
        first[:, 1:] = own[:, 1:] != own[:, :-1]  # lanes may access the same
        at = np.arange(len(own))[:, None] * WARP + own % WARP
        counts = np.bincount(at[first], minlength=len(own) * WARP)
        total += counts.reshape(-1, WARP).max(1) - 1
    return total / len(starts)


@lru_cache(maxsize=1 << 16)
def row_conflicts(threads: tuple[int, int, int], step: int) -> tuple[float, ...]:
    """Turns besides the first of a warp's read of data, by the offset of a row.

    Parameters
    ----------
    threads
        Along rows, filters and columns; those along filters read the same.
    step
        Rows from one thread's to the next's.
    """
    row, _, column = np.indices(threads).reshape(3, -1)
    return conflicts(row * step, column)


@dataclass(frozen=True)
class Offsets:
    """In which bank rows, lanes and channels of staged data begin, after those before them.

    Parameters
    ----------
    row, lane, channel
        Of the axes that have them; else 0.
    turns
        Besides the first, of a warp's write, on average.
    """

    row: int
    lane: int
    channel: int
    turns: float


@lru_cache(maxsize=1 << 12)
def staged(
    extents: tuple[int, int, int, int], reads: tuple[float, ...], most: int, *, channels_last: bool
) -> Offsets:
    """Offsets for data that threads copy row by row, and along a row lane by lane.

    Of those under which reads take the fewest turns, the ones under which writes do, too, and of
    those the ones that leave the least memory unused.

    Parameters
    ----------
    extents
        Channels, lanes, rows, columns: in the order of the array.
    reads
        Turns of reads by the offset of a row.
    most
        Words that there is room for.
    channels_last
        Whether neighbouring threads copy neighbouring channels; else one copies them all.
    """
    channels, lanes, rows, columns = extents
    apart = channels_last and channels > 1
    order = (rows, columns, lanes, channels if apart else 1)
    y, x, lane, c = np.indices(order).reshape(4, -1)[:, : WARPS_SEEN * WARP]
    free = [row for row in _from(columns) if reads[row] == min(reads)]
    choices = [
        (row, by_lane, by_channel)
        for row in (free[:ROWS_TRIED] if apart else free)
        for by_lane in (_from(rows * (columns + (row - columns) % WARP)) if lanes > 1 else [0])
        for by_channel in (range(WARP) if apart else [0])
    ]
    sizes = [_size(extents, choice) for choice in choices]
    fitting = [n for n, size in enumerate(sizes) if size <= most] or [_least(sizes)]
    choices, sizes = [choices[n] for n in fitting], [sizes[n] for n in fitting]
    at = np.array(choices)[:, :, None]
    words = y * (FAR + at[:, 0]) + lane * (FAR**2 + at[:, 1]) + c * (FAR**3 + at[:, 2])
    turns = np.round(_turns(words + x), 6)
    best = min(range(len(choices)), key=lambda n: (turns[n], sizes[n]))
    return Offsets(*choices[best], float(turns[best]))


@lru_cache(maxsize=1 << 12)
def gathered(
    channels: int, rows: int, within: int, reads: tuple[float, ...], *, channels_last: bool
) -> Offsets:
    """As `staged`, for data that are gathered: `within` words for each of the groups of rows."""
    row = next(row for row in _from(within) if reads[row] == min(reads))
    padded = within + (row - within) % WARP
    if not channels_last:
        return Offsets(row, 0, 0, 0.0)
    at, inside, c = np.indices((rows, within, channels)).reshape(3, -1)
    turns = np.round(conflicts(c, at * padded + inside), 6)
    best = min(_from(rows * padded), key=lambda channel: turns[channel])
    return Offsets(row, 0, best, float(turns[best]))


def _least(sizes: Sequence[int]) -> int:
    return min(range(len(sizes)), key=sizes.__getitem__)


def _from(plain: int) -> Sequence[int]:
    """All banks, beginning with that in which what has so many words would end by itself."""
    return [(plain + more) % WARP for more in range(WARP)]


def _size(extents: tuple[int, int, int, int], offsets: tuple[int, int, int]) -> int:
    channels, lanes, rows, columns = extents
    row, by_lane, by_channel = offsets
    size = rows * (columns + (row - columns) % WARP)
    if lanes > 1:
        size = lanes * (size + (by_lane - size) % WARP)
    return channels * (size + (by_channel - size) % WARP) if by_channel else channels * size


@dataclass(frozen=True)
class Pooling:
    """How shared un-pooled sums are read: steps of windows, groups, and how often."""

    down: int
    across: int
    group_rows: int
    group: int
    block: int
    writes: int
    reads: int
    channels_last: bool


@lru_cache(maxsize=1 << 16)
def group_conflicts(
    threads: tuple[int, int, int], filters: int, stores: tuple[int, int, int], pooling: Pooling
) -> tuple[float, ...]:
    """Turns besides the first of a warp's write, and of its read, of shared un-pooled sums.

    Weighed by how often they are written and read, by the offset of a group of columns.
    """
    row, filter_thread, column = np.indices(threads).reshape(3, -1)
    across = threads[2]
    down, group, block, last = pooling.down, pooling.group, pooling.block, pooling.channels_last
    scaled = row * pooling.group_rows * across + column
    written = conflicts(scaled, filter_thread * filters)
    rows, kept, columns = stores
    order = (rows, columns, kept) if last else (rows, kept, columns)
    y, *rest = np.indices(order).reshape(3, -1)
    x, k = rest if last else reversed(rest)
    first = x * pooling.across
    scaled = y * down * across + first // group
    read = conflicts(scaled, first % group * block + k)
    return tuple(
        pooling.writes * write + pooling.reads * turns
        for write, turns in zip(written, read, strict=True)
    )
