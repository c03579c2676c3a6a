"""A max-pool on Winograd's tiles whose windows cross from one tile to the next.

The maximum of a window is that of its parts in each tile.  A tile gives the maxima of the parts
that lie in it, fewer than its outputs, from registers; windows are put together from those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

from tvm import te

from tvm_passes.namespaces import tir
from tvm_passes.schedules.operators import MaxPool2d, Pair, window_count
from tvm_passes.schedules.transforms import choose
from tvm_passes.winograd import Winograd

Part = tuple[int, int]
"""The first and the last of the outputs of a tile that a window takes, along one axis."""


@dataclass(frozen=True)
class Windows:
    """The windows of a pool and the tiles that it reads, along one axis.

    Parameters
    ----------
    tile
        Outputs of a tile.
    kernel, stride, before, after
        Of the pool; `before` and `after` are its padding.
    extent
        Elements that the pool reads.
    ceil_mode
        Of the pool.
    """

    tile: int
    kernel: int
    stride: int
    before: int
    after: int
    extent: int
    ceil_mode: bool

    @property
    def count(self) -> int:
        """How many windows there are."""
        room = self.extent + self.before + self.after - self.kernel
        return window_count(room, self.stride, self.ceil_mode)

    @property
    def tiles(self) -> int:
        """How many tiles there are."""
        return -(-self.extent // self.tile)

    @property
    def period(self) -> int:
        """Windows that begin in a tile."""
        return self.tile // self.stride

    @cached_property
    def spans(self) -> tuple[tuple[tuple[int, Part], ...], ...]:
        """Of each of those windows, where its parts lie: how many tiles further, and which part.

        The padding before the first tile is left out, so that a window may begin a tile before.
        """
        return tuple(self._span(n * self.stride - self.before) for n in range(self.period))

    def _span(self, first: int) -> tuple[tuple[int, Part], ...]:
        last, m = first + self.kernel - 1, self.tile
        return tuple(
            (at, (max(first - at * m, 0), min(last - at * m, m - 1)))
            for at in range(first // m, last // m + 1)
        )

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The parts of windows that a tile has."""
        return tuple(sorted({part for span in self.spans for _, part in span}))

    @property
    def are_few(self) -> bool:
        """Whether every tile has the same parts, fewer than it has outputs."""
        return self.tile % self.stride == 0 and len(self.parts) < self.tile


@dataclass(frozen=True)
class TakenAlong:
    """What a pool that a convolution's kernel takes along needs of the tiles.

    Parameters
    ----------
    extents
        Rows and columns that its windows read.
    given
        Maxima along columns and rows that a tile gives.
    windows
        The windows along rows and columns, where they cross from one tile to the next.
    """

    extents: Pair
    given: Pair
    windows: tuple[Windows, Windows] | None = None

    @property
    def counts(self) -> Pair:
        """Windows along columns and rows that are put together from parts, 0 where none are."""
        return (0, 0) if self.windows is None else (self.windows[0].count, self.windows[1].count)


def taken_along(pool: MaxPool2d, family: Winograd, rows: int, columns: int) -> TakenAlong | None:
    """What a pool needs of the tiles, None where it is better computed by itself.

    Parameters
    ----------
    pool
        The pool.
    family
        The tile.
    rows, columns
        Extents of what the pool reads.
    """
    if pool_in_tile(pool, family, rows, columns):
        height, width = pool.kernel
        return TakenAlong(
            extents=(rows - rows % height, columns - columns % width),
            given=(family.outputs // height, family.outputs // width),
        )
    along = [
        Windows(
            tile=family.outputs,
            kernel=pool.kernel[axis],
            stride=pool.strides[axis],
            before=pool.padding[axis],
            after=pool.padding[axis + 2],
            extent=extent,
            ceil_mode=pool.ceil_mode,
        )
        for axis, extent in enumerate((rows, columns))
    ]
    if pool.dilation != (1, 1) or not all(windows.are_few for windows in along):
        return None
    down, across = along
    return TakenAlong((rows, columns), (len(down.parts), len(across.parts)), (down, across))


def pool_in_tile(pool: MaxPool2d, family: Winograd, rows: int, columns: int) -> bool:
    """Whether each window of a pool lies in one tile of outputs.

    Parameters
    ----------
    pool
        The pool.
    family
        The tile.
    rows, columns
        Extents of what the pool reads.
    """
    height, width = pool.kernel
    if pool.kernel != pool.strides or any(pool.padding) or pool.dilation != (1, 1):
        return False
    if pool.ceil_mode and (rows % height or columns % width):
        return False
    return family.outputs % height == family.outputs % width == 0


def maxima_of_parts(tiles: te.Tensor, rows: Windows, columns: Windows) -> te.Tensor:
    """The maximum over each part of a window: [n, filters/b, down, across, part, part, b].

    Parameters
    ----------
    tiles
        [n, filters/b, down, across, m, m, b].
    rows, columns
        The windows.
    """
    batch, blocks, down, across, _, _, block = (int(extent) for extent in tiles.shape)
    lowest = tir.min_value(tiles.dtype)

    def value(*at: Any) -> Any:
        *tile, a, c, i = at

        def element(r: int, s: int) -> Any:
            found = tiles(*tile, r, s, i)
            for windows, index, output in ((rows, tile[2], r), (columns, tile[3], s)):
                if output >= windows.extent % windows.tile > 0:  # past the end, in the last tile
                    inside = index * windows.tile + output < windows.extent
                    found = tir.Select(inside, found, lowest)
            return found

        def of(part: Part, other: Part) -> Any:
            return _max([_max([element(r, s) for r in _range(part)]) for s in _range(other)])

        return choose(a, [choose(c, [of(p, q) for q in columns.parts]) for p in rows.parts])

    shape = (batch, blocks, down, across, len(rows.parts), len(columns.parts), block)
    return te.compute(shape, value, name="parts")


def maxima_of_windows(parts: te.Tensor, rows: Windows, columns: Windows) -> te.Tensor:
    """The maximum over each window: [n, filters/b, rows, columns, b].

    Parameters
    ----------
    parts
        As `maxima_of_parts` gives them.
    rows, columns
        The windows.
    """
    batch, blocks, _, _, _, _, block = (int(extent) for extent in parts.shape)
    lowest = tir.min_value(parts.dtype)

    def value(n: Any, o: Any, y: Any, x: Any, i: Any) -> Any:
        def element(down: tuple[int, Part], across: tuple[int, Part]) -> Any:
            (up, p), (left, q) = down, across
            row, column = y // rows.period + up, x // columns.period + left
            found = parts(n, o, row, column, rows.parts.index(p), columns.parts.index(q), i)
            outside = [
                condition
                for windows, tile, away in ((rows, row, up), (columns, column, left))
                for condition in _inside(windows, tile, away)
            ]
            return tir.if_then_else(tir.all(*outside), found, lowest) if outside else found

        def window(j: int, k: int) -> Any:
            return _max([element(p, q) for p in rows.spans[j] for q in columns.spans[k]])

        along = [[window(j, k) for k in range(columns.period)] for j in range(rows.period)]
        return choose(y % rows.period, [choose(x % columns.period, each) for each in along])

    shape = (batch, blocks, rows.count, columns.count, block)
    return te.compute(shape, value, name="windows")


def _inside(windows: Windows, tile: Any, away: int) -> list[Any]:
    """What must hold for a tile that is `away` from where a window begins to be there."""
    last = (windows.count - 1) // windows.period + away
    before = [tile >= 0] if away < 0 else []
    return before + ([tile < windows.tiles] if last >= windows.tiles else [])


def _range(part: Part) -> range:
    return range(part[0], part[1] + 1)


def _max(values: Sequence[Any]) -> Any:
    return reduce(tir.max, values)
