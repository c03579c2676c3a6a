"""Recognise a layer in a PrimFunc by what its blocks compute, never by what they are called."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, prod
from typing import Any

import numpy as np

from tvm_passes.namespaces import (
    PARALLEL_DATA,
    REDUCTION,
    BufferLoad,
    Schedule,
    blocks_of,
    buffer_of,
    detect_linear_equation,
    tir,
)
from tvm_passes.schedules.tiles import Nest

BLOCKED_RANK = 5
"""Axes of a blocked result: image, block of channels, row, column, channel in the block."""

SUM, TOTAL = "sum of products", "sum"
MAXIMUM, MINIMUM = "maximum", "minimum"
ELEMENTWISE, OTHER = "elementwise", "other"


@dataclass(frozen=True)
class Plain:
    """The block that takes a value out of blocks of channels.

    Parameters
    ----------
    block
        The block.
    axes
        Which of its axes count images, channels, rows and columns.
    """

    block: Any
    axes: tuple[int, int, int, int]


@dataclass(frozen=True)
class Layer:
    """The blocks of a blocked convolution with what surrounds it.

    Parameters
    ----------
    copy
        What is computed before the convolution: its padded input, if anything.
    convolution
        The sum of products.
    pool_padding
        What is computed between it and the pool.
    pool
        The maximum over windows, if any.
    epilogue
        Elementwise blocks after that, the last of which writes the result in blocks.
    plain
        What takes the result out of them, if anything does.
    nest
        The extents.
    """

    copy: Any | None
    convolution: Any
    pool_padding: tuple[Any, ...]
    pool: Any | None
    epilogue: tuple[Any, ...]
    plain: Plain | None
    nest: Nest


def layer_of(sch: Schedule) -> Layer | None:
    """The layer that a function computes, or None where it is no blocked convolution."""
    blocks, plain = without_plain(sch)
    kinds = [kind_of(sch.get(item)) for item in blocks]
    sums = [n for n, kind in enumerate(kinds) if kind == SUM]
    pools = [n for n, kind in enumerate(kinds) if kind == MAXIMUM]
    if len(sums) != 1 or len(pools) > 1 or sums[0] > 1:
        return None
    if set(kinds) - {SUM, MAXIMUM, ELEMENTWISE}:
        return None
    at, last = sums[0], pools[0] if pools else sums[0]
    if last < at or last == len(blocks) - 1 or not _flows(sch, blocks, at):
        return None
    copy, pool = (blocks[0] if at else None), (blocks[last] if pools else None)
    parts = (copy, blocks[at], pool, blocks[-1])
    nest = _nest(*(None if item is None else sch.get(item) for item in parts))
    if nest is None:
        return None
    padding, epilogue = tuple(blocks[at + 1 : last]), tuple(blocks[last + 1 :])
    nest = replace(nest, pool_padded=bool(padding))
    return Layer(copy, blocks[at], padding, pool, epilogue, plain, nest)


def without_plain(sch: Schedule) -> tuple[list[Any], Plain | None]:
    """The blocks of a function, and what takes its result out of blocks of channels, if any does.

    That one is then not among the blocks.
    """
    blocks = blocks_of(sch)
    axes = plain_axes(sch.get(blocks[-1])) if len(blocks) > 1 else None
    if axes is None or len(sch.get_consumers(blocks[-2])) != 1:
        return blocks, None
    return blocks[:-1], Plain(blocks[-1], axes)


def plain_axes(stmt: Any) -> tuple[int, int, int, int] | None:
    """Axes of images, channels, rows and columns of a block that takes a value out of blocks.

    It loads [n, c // b, h, w, c % b] and nothing else.
    """
    load = stmt.body.value if kind_of(stmt) == ELEMENTWISE else None
    if not isinstance(load, BufferLoad) or len(load.indices) != BLOCKED_RANK:
        return None
    variables = [axis.var for axis in stmt.iter_vars]
    found = [
        next((n for n, var in enumerate(variables) if var.same_as(load.indices[at])), None)
        for at in (0, 2, 3)
    ]
    others = {*range(len(variables))} - {*found}
    if None in found or len(others) != 1 or len(variables) != BLOCKED_RANK - 1:
        return None
    image, row, column = found
    return image, others.pop(), row, column  # type: ignore[return-value]


def kind_of(stmt: Any) -> str:
    """What a block computes, told from its axes and the value that it stores."""
    types = {int(var.iter_type) for var in stmt.iter_vars}
    store = stmt.body
    if not isinstance(store, tir.BufferStore) or not types <= {PARALLEL_DATA, REDUCTION}:
        return OTHER
    if REDUCTION not in types:
        again = any(buffer_of(read).same_as(store.buffer) for read in stmt.reads)
        return OTHER if again else ELEMENTWISE
    if not isinstance(store.value, tir.Max | tir.Min | tir.Add):
        return OTHER
    if not _loads(store.value.a, store.buffer):
        return OTHER
    if isinstance(store.value, tir.Add):
        return SUM if isinstance(store.value.b, tir.Mul) else TOTAL
    return MAXIMUM if isinstance(store.value, tir.Max) else MINIMUM


def _loads(expr: Any, buffer: Any) -> bool:
    return isinstance(expr, BufferLoad) and buffer_of(expr).same_as(buffer)


def _flows(sch: Schedule, blocks: list[Any], at: int) -> bool:
    """Whether all before the convolution is for it alone, and all that follows ends in one."""
    if any(len(sch.get_consumers(item)) != 1 for item in blocks[:at]):
        return False
    return all(sch.get_consumers(item) for item in blocks[at:-1])


def _nest(copy: Any, convolution: Any, pool: Any, output: Any) -> Nest | None:
    """The extents of a layer's loops, where they are known and the result is blocked."""
    out, (spatial, reduction) = output.iter_vars, _axes(convolution)
    if len(out) != BLOCKED_RANK or len(spatial) != BLOCKED_RANK:
        return None
    if not all(isinstance(v.dom.extent, tir.IntImm) for v in (*out, *convolution.iter_vars)):
        return None
    batch, blocks, rows, columns, width = map(_extent, spatial)
    along_rows, along_columns = (_window(convolution, spatial[n].var, reduction) for n in (2, 3))
    pooled = ((1, 1), (1, 1)) if pool is None else _pool_windows(pool)
    if along_rows is None or along_columns is None or pooled is None:
        return None
    if (batch, blocks, width) != (_extent(out[0]), _extent(out[1]), _extent(out[4])):
        return None
    kernel_rows, stride = along_rows
    input_rows = (rows - 1) * stride + kernel_rows
    return Nest(
        batch=batch,
        blocks=blocks,
        block=width,
        rows=rows,
        columns=columns,
        out_rows=_extent(out[2]),
        out_columns=_extent(out[3]),
        reduction=prod(map(_extent, reduction)),
        kernel_rows=kernel_rows,
        stride=stride,
        row_bytes=0 if copy is None else _bytes(copy) // batch // input_rows,
        read_bytes=_read_bytes(convolution, spatial) // batch // input_rows,
        pool=pooled[0],
        pool_stride=pooled[1],
        kernel_columns=along_columns[0],
        column_stride=along_columns[1],
    )


def _read_bytes(convolution: Any, spatial: list[Any]) -> int:
    """Size of what a convolution takes windows of, 0 where blocks read channels of their own."""
    block, row = spatial[1].var, spatial[2].var
    for read in convolution.reads:
        used = [var for dim in read.region for var in tir.analysis.undefined_vars(dim.min, [])]
        if any(var.same_as(row) for var in used) and not buffer_of(read).same_as(
            convolution.body.buffer
        ):
            return 0 if any(var.same_as(block) for var in used) else _size(buffer_of(read))
    return 0


def _pool_windows(pool: Any) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Extents and steps of a pool's windows along rows and columns."""
    spatial, reduction = _axes(pool)
    if len(spatial) != BLOCKED_RANK:
        return None
    along = [_window(pool, spatial[n].var, reduction) for n in (2, 3)]
    if along[0] is None or along[1] is None:
        return None
    (rows, row_step), (columns, column_step) = along[0], along[1]
    return (rows, columns), (row_step, column_step)


def _window(stmt: Any, var: Any, reduction: list[Any]) -> tuple[int, int] | None:
    """Elements that a window spans along the axis of `var`, and the step between windows."""
    for read in stmt.reads:
        if buffer_of(read).same_as(stmt.body.buffer):
            continue
        for dim in read.region:
            found = _linear(dim.min, [var, *(axis.var for axis in reduction)])
            if found is not None and found[0] > 0:
                steps = zip(found[1:], reduction, strict=True)
                reach = sum(step * (_extent(axis) - 1) for step, axis in steps)
                return reach + 1, found[0]
    return None


def _linear(expr: Any, variables: list[Any]) -> list[int] | None:
    """Coefficients of an expression that is linear in `variables`."""
    found = detect_linear_equation(expr, variables)
    if not found or not all(isinstance(c, tir.IntImm) for c in found[:-1]):
        return None
    return [int(c) for c in found[:-1]]


def split_axes(sch: Schedule, item: Any) -> tuple[list[Any], list[Any]]:
    """The loops of a block's own axes: the spatial ones, then those it sums or selects over."""
    axes = sch.get(item).iter_vars
    loops = list(sch.get_loops(item))[-len(axes) :]
    pairs = list(zip(loops, axes, strict=True))
    spatial = [loop for loop, axis in pairs if int(axis.iter_type) == PARALLEL_DATA]
    return spatial, [loop for loop, axis in pairs if int(axis.iter_type) != PARALLEL_DATA]


def _axes(stmt: Any) -> tuple[list[Any], list[Any]]:
    """A block's spatial axes and its reduction axes."""
    spatial = [axis for axis in stmt.iter_vars if int(axis.iter_type) == PARALLEL_DATA]
    return spatial, [axis for axis in stmt.iter_vars if int(axis.iter_type) == REDUCTION]


def is_static(stmt: Any) -> bool:
    """Whether the extents of all axes of a block are known."""
    return all(isinstance(axis.dom.extent, tir.IntImm) for axis in stmt.iter_vars)


def extents(stmt: Any, *, reduction: bool) -> list[int]:
    """Extents of the axes that a block sums or selects over, or else of the others."""
    return [_extent(axis) for axis in _axes(stmt)[reduction]]


def _extent(axis: Any) -> int:
    return int(axis.dom.extent)


def _bytes(stmt: Any) -> int:
    """Size of the buffer that a block fills."""
    return _size(stmt.body.buffer)


def _size(buffer: Any) -> int:
    return prod(map(int, buffer.shape)) * np.dtype(str(buffer.dtype)).itemsize


def results_of(stmt: Any) -> float:
    """How many elements a block has; infinite where an extent is not known."""
    axes = [axis for axis in stmt.iter_vars if int(axis.iter_type) == PARALLEL_DATA]
    extents = [axis.dom.extent for axis in axes]
    return prod(int(n) if isinstance(n, tir.IntImm) else inf for n in extents)
