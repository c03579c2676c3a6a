"""What lies between an activation and its pool and moves elements without computing any.

f(move(x)) = move(f(x)) for every elementwise f, if f(fill) = fill where the move fills elements in.
An op that is carried past a move has its operands written for the axes that the pool reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod

from tvm_passes.site import ElementwiseOp, Move, Operand, Shape

UNKNOWN = (1 << 61) - 1
"""Stands for the one symbolic extent of a shape: a prime that no known extent has as a factor."""


def carried(shape: Shape, move: Move) -> Shape | None:
    """The shape of an operand below a move, one extent an axis; None where it has none.

    The operand is aligned to the data above the move, and keeps the order of its elements.

    >>> carried((1, 1, 1, 8), Move("transpose", (1, 4, 4, 8), (1, 8, 4, 4), axes=(0, 3, 1, 2)))
    (1, 8, 1, 1)
    >>> carried((1, 8, 1, 1), Move("reshape", (1, 8, 4, 4), (8, 16)))
    (8, 1)
    """
    if None in shape:
        return None
    if move.axes is not None:
        order = [axis for axis in move.axes if shape[axis] != 1]
        return tuple(shape[axis] for axis in move.axes) if order == sorted(order) else None
    if move.padded:
        return shape if all(shape[axis] == 1 for axis in move.padded) else None
    return _reshaped(shape, move)


def lowered(op: ElementwiseOp, moves: Sequence[Move], reads: Shape, pool: Shape) -> ElementwiseOp:
    """Describe an op as if it stood right above its pool.

    Parameters
    ----------
    op
        The op, described where it stands.
    moves
        What lies between it and the pool, nearest the pool first.
    reads
        Extents of the data that the node below the op reads.
    pool
        Extents of the data that the pool reads.
    """
    if not moves:
        return op
    params: dict[str, object] = {}
    stuck = ""
    for name, value in op.params.items():
        params[name] = value
        if isinstance(value, Operand):
            shape = carried_past(value.shape, moves)
            stuck = stuck or (name if shape is None else "")
            params[name] = replace(value, shape=shape or value.shape)
    shape = pool if op.shape == reads else op.shape
    return replace(
        op, params=params, shape=shape, computed=op.shape, crosses=tuple(moves), stuck=stuck
    )


def carried_past(shape: Shape, moves: Sequence[Move]) -> Shape | None:
    """The shape of an operand below all moves, nearest the pool first."""
    below: Shape | None = shape
    for move in reversed(moves):
        below = carried(below, move) if below is not None else None
    return below


def respelled(own: Shape, aligned: Shape) -> bool:
    """Whether an operand of a shape must be reshaped to be broadcast as `aligned` says.

    >>> respelled((8,), (1, 1, 8)), respelled((8,), (8, 1)), respelled((1, 8), (8,))
    (False, True, True)
    """
    return _without_ones(own) != _without_ones(aligned) or len(own) > len(aligned)


def _without_ones(shape: Shape) -> Shape:
    first = next((n for n, extent in enumerate(shape) if extent != 1), len(shape))
    return shape[first:]


def _reshaped(shape: Shape, move: Move) -> Shape | None:
    """The operand's shape where each group of axes that is regrouped has it whole or not at all."""
    before, after = _known(move.in_shape), _known(move.out_shape)
    unknown = [side.count(UNKNOWN) for side in (before, after)]
    if unknown not in ([0, 0], [1, 1]) or 0 in before or prod(before) != prod(after):
        return None
    result: list[int | None] = []
    for group, to in _groups(before, after):
        part = shape[group]
        if all(extent == 1 for extent in part):
            result += [1] * len(after[to])
        elif part == move.in_shape[group]:
            result += move.out_shape[to]
        else:
            return None
    return tuple(result)


def _known(shape: Shape) -> list[int]:
    return [UNKNOWN if extent is None else extent for extent in shape]


def _groups(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """The least runs of axes of two shapes of as many elements that hold as many themselves."""
    i = j = 0
    while i < len(before) or j < len(after):
        start, to = i, j
        i, j = min(i + 1, len(before)), min(j + 1, len(after))
        while (left := prod(before[start:i])) != (right := prod(after[to:j])):
            i, j = (i + 1, j) if left < right else (i, j + 1)
        yield slice(start, i), slice(to, j)


def axis_of(shape: Shape, data: Shape) -> int | None:
    """The one axis of the data along which an operand of a shape runs, or None.

    >>> axis_of((1, 8, 1), (4, 8, 2))
    1
    """
    along = [axis for axis, extent in enumerate(shape) if extent != 1]
    if len(along) > 1:
        return None
    return along[0] if along else next((n for n, extent in enumerate(data) if extent == 1), None)


Shapes = Mapping[int, Shape]
"""Shapes of a call's tensor operands, by the index of the argument, one extent an axis."""
