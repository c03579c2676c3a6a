"""Take the result of a kernel out of blocks of channels while the part at hand is in the cache."""

from __future__ import annotations

from math import gcd
from typing import Any

from tvm_passes.namespaces import Schedule
from tvm_passes.schedules.loops import cut_off_last, vectorize_tile
from tvm_passes.schedules.structure import Plain


def tile_plain(
    sch: Schedule, plain: Plain, width: int, part: tuple[int, int, int | None]
) -> list[Any]:
    """Tile the block that takes a result out of blocks of channels.

    Inside of the loops that are returned it copies vectors of channels where they are contiguous
    in memory, else it transposes square tiles of channels and columns in registers.

    Parameters
    ----------
    sch, plain
        The block.
    width
        Channels of a block.
    part
        Blocks of channels, rows and columns that a part of the result has, None for all columns.

    Returns
    -------
    list
        The loops over images, over parts along rows and columns, over parts along channels, and
        over the rows of a part.
    """
    loops = sch.get_loops(plain.block)
    image, channel, row, column = (loops[at] for at in plain.axes)
    channels, across = (int(sch.get(loop).extent) for loop in (channel, column))
    blocks, rows, columns = part
    columns = across if columns is None else min(columns, across)
    group, block, channel = sch.split(channel, [None, blocks, width])
    strip, row = sch.split(row, [None, rows])
    segment, column = sch.split(column, [None, columns])
    outside = [image, strip, segment, group, row]
    if plain.axes[-1] != len(loops) - 1:
        lanes = gcd(channels, width)
        inner, channel = sch.split(channel, [None, lanes])
        sch.reorder(*outside, column, block, inner, channel)
        sch.vectorize(channel)
    else:
        whole = columns == across
        lanes = min(across, width) if whole else gcd(across, columns, width)
        tile, column = sch.split(column, [None, lanes])
        sch.reorder(*outside, block, tile, channel, column)
        if whole:
            cut_off_last(sch, tile)
        vectorize_tile(sch, channel, column)
    return [image, sch.fuse(strip, segment), group, row]
