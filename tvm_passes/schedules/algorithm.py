"""How a convolution is computed, as it is written or by Winograd's filtering: which is faster."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from math import ceil, prod

import numpy as np
from tvm import te

from tvm_passes.describe import WINOGRAD
from tvm_passes.schedules import tiles, winograd_tiles
from tvm_passes.schedules.conv2d import conv2d, pack_weight
from tvm_passes.schedules.families import FAMILIES, NONE_BARRED, UNFIT, Barred, is_filtered, takes
from tvm_passes.schedules.machine import Machine, block_of
from tvm_passes.schedules.operators import Conv2d, MaxPool2d, Pair, images_of
from tvm_passes.schedules.tiles import Nest
from tvm_passes.schedules.winograd import pack_transformed, winograd_conv2d
from tvm_passes.schedules.winograd_tiles import WinogradNest
from tvm_passes.schedules.winograd_windows import TakenAlong, taken_along
from tvm_passes.winograd import Winograd


@dataclass(frozen=True)
class Algorithm:
    """The computation of a kernel.

    Parameters
    ----------
    conv
        The convolution.
    pool
        The max-pool that the kernel takes along, if any.
    family
        Winograd's tile, None for the sum as it is written.
    instead
        Why the sum is as it is written, where others were allowed.
    """

    conv: Conv2d
    pool: MaxPool2d | None
    family: Winograd | None = None
    instead: str = field(default="", compare=False)

    def compute(self, data: te.Tensor, weight: te.Tensor) -> te.Tensor:
        """The result in blocks, of data and packed weights."""
        if self.family is None:
            return conv2d(data, weight, self.conv, self.pool)
        return winograd_conv2d(data, weight, self.conv, self.pool, self.family)

    @property
    def needs_blocks(self) -> bool:
        """Whether `compute` reads data in blocks of the convolution's own size alone."""
        return self.conv.depthwise or self.family is not None

    @property
    def name(self) -> str:
        """Winograd's tile, as papers write it, or nothing."""
        return "" if self.family is None else str(self.family)

    def error_bounds(self, weight: np.ndarray) -> dict[str, float]:
        """How far its sums may be off, and those written, as a share of the largest input.

        Parameters
        ----------
        weight
            In the order OIHW.
        """
        if self.family is None:
            return {}
        return self.family.error_bounds(weight)

    def pack(self, weight: np.ndarray, layout: str) -> np.ndarray:
        """The weights as `compute` takes them: see `pack_weight` and `pack_transformed`."""
        if self.family is None:
            return pack_weight(weight, layout, self.conv)
        return pack_transformed(weight, layout, self.conv, self.family)


@dataclass(frozen=True)
class Chooser:
    """Chooses computations for a CPU.

    Parameters
    ----------
    machine
        The CPU.
    allow
        Without ``winograd`` in it, sums are taken as they are written.
    barred
        Layers that are not to be computed by some families of tiles.
    """

    machine: Machine
    allow: Collection[str] = ()
    barred: Barred = NONE_BARRED

    @property
    def block(self) -> int:
        """Channels of a block of values."""
        return block_of(self.machine)

    def fastest(
        self,
        conv: Conv2d,
        pool: MaxPool2d | None,
        data: tuple[int, ...] | None,
        weight: Callable[[], np.ndarray],
    ) -> Algorithm:
        """The computation that should take the fewest cycles.

        Parameters
        ----------
        conv, pool
            The convolution, and the max-pool that alone reads it, if any.
        data
            Extents of the data, in the source layout.
        weight
            Gives the weights, in the order OIHW.
        """
        direct = Algorithm(conv, pool)
        if WINOGRAD not in self.allow:
            return direct
        if data is None or not is_filtered(conv):
            return replace(direct, instead=UNFIT)
        ways = sorted(predicted(direct, images_of(data, conv), self.machine), key=cycles_of)
        for _, way in ways:
            if way.family is not None and not self.barred.holds(weight(), way.family):
                return way
            if way.family is None:
                break
        return replace(direct, instead=_faster(ways))


def cycles_of(way: tuple[float, Algorithm]) -> float:
    """What `predicted` says of a way."""
    return way[0]


def _faster(ways: list[tuple[float, Algorithm]]) -> str:
    """How far ahead the sum as it is written is, or that faster ways are barred."""
    written = next(cycles for cycles, way in ways if way.family is None)
    cycles, other = next((cycles, way) for cycles, way in ways if way.family is not None)
    if cycles < written:
        return f"calibration keeps it from {other.name}"
    return f"{other.name} should take {cycles / written:.2f} times as long"


def predicted(
    direct: Algorithm, images: tuple[int, int, int], machine: Machine
) -> Iterator[tuple[float, Algorithm]]:
    """Ways to compute a layer, each with its cycles."""
    conv, pool = direct.conv, direct.pool
    nest = written_nest(conv, pool, images)
    yield tiles.cycles(nest, tiles.candidates(nest, machine)[0], machine), direct
    for family in FAMILIES:
        if not takes(conv, family):
            continue
        along = None if pool is None else taken_along(pool, family, *_outputs(conv, images))
        found = _winograd_nest(conv, along, images, family)
        best = winograd_tiles.candidates(found, machine)[0]
        alone = 0.0 if along is not None or pool is None else _pool_cycles(nest, machine)
        yield (
            winograd_tiles.cycles(found, best, machine) + alone,
            Algorithm(conv, None if along is None else pool, family),
        )


def _outputs(conv: Conv2d, images: tuple[int, int, int]) -> Pair:
    """Rows and columns of a convolution's result."""
    rows, columns = (
        (extent + sum(conv.padding[axis::2]) - (conv.kernel[axis] - 1) * conv.dilation[axis] - 1)
        // conv.strides[axis]
        + 1
        for axis, extent in enumerate(images[1:])
    )
    return rows, columns


def written_nest(conv: Conv2d, pool: MaxPool2d | None, images: tuple[int, int, int]) -> Nest:
    """The extents of a layer as it is written, of whole blocks of channels: see `layer_of`."""
    rows, columns = _outputs(conv, images)
    out = [rows, columns]
    if pool is not None:
        out = [pool.windows(axis, out[axis]) for axis in (0, 1)]
        rows += pool.padding[0]  # which the kernel computes: see `conv2d`
    per_group = conv.channels // conv.groups
    row = (images[2] + sum(conv.padding[1::2])) * conv.channels * 4
    return Nest(
        batch=images[0],
        blocks=ceil(conv.filters / conv.block),
        block=conv.block,
        rows=rows,
        columns=columns,
        out_rows=out[0],
        out_columns=out[1],
        reduction=per_group * prod(conv.kernel),
        kernel_rows=(conv.kernel[0] - 1) * conv.dilation[0] + 1,
        stride=conv.strides[0],
        row_bytes=row if any(conv.padding) or (pool is not None and pool.padding[0]) else 0,
        read_bytes=0 if conv.groups > 1 else row,
        pool=(1, 1) if pool is None else pool.kernel,
        pool_stride=(1, 1) if pool is None else pool.strides,
        pool_padded=pool is not None and any(pool.padding),
        kernel_columns=(conv.kernel[1] - 1) * conv.dilation[1] + 1,
        column_stride=conv.strides[1],
    )


def _winograd_nest(
    conv: Conv2d, along: TakenAlong | None, images: tuple[int, int, int], family: Winograd
) -> WinogradNest:
    rows, columns = _outputs(conv, images) if along is None else along.extents
    return WinogradNest(
        batch=images[0],
        down=ceil(rows / family.outputs),
        across=ceil(columns / family.outputs),
        blocks=ceil(conv.filters / conv.block),
        block=conv.block,
        channels=conv.channels // conv.groups,
        channel_blocks=ceil(conv.channels / conv.block),
        tile=family.tile,
        outputs=family.outputs,
        given=(family.outputs, family.outputs) if along is None else along.given,
        windows=(0, 0) if along is None else along.counts,
    )


def _pool_cycles(nest: Nest, machine: Machine) -> float:
    """Cycles of a max-pool of its own, which loads each element of every window."""
    vectors = nest.batch * nest.blocks * machine.vectors(nest.block)
    loads = nest.out_rows * nest.out_columns * prod(nest.pool) / machine.loads
    stored = nest.rows * nest.columns / machine.loads
    return vectors * (loads + stored) / machine.cores
