"""Winograd convolutions as the GPU schedules see them."""

from dataclasses import dataclass

import numpy as np
from tvm import te

from tvm_passes.schedules.gpu_winograd import (
    pack_transformed,
    products,
    result,
    transformed_data,
)
from tvm_passes.schedules.gpu_winograd_rule import schedule
from tvm_passes.schedules.gpu_winograd_tiles import Filtering, ProductTile
from tvm_passes.winograd import Winograd

SMALL = ProductTile(4, 4, 4, 8, 4)
"""Sixteen threads, of one group of filters and two of tiles each."""


@dataclass(frozen=True)
class Case:
    """A layer, [batch, channels, *extents] and filters, padded on four sides.

    The kernels' data and result are [batch, *extents, channels] where channels come last.
    """

    family: Winograd
    data: tuple[int, int, int, int]
    filters: int
    padding: tuple[int, int, int, int]
    window: tuple[int, int] = (1, 1)
    tile: ProductTile = SMALL
    channels_last: bool = False
    groups: int = 1

    @property
    def filtering(self):
        batch, channels, height, width = self.data
        top, left, bottom, right = self.padding
        reach = self.family.taps - 1
        rows, columns = height + top + bottom - reach, width + left + right - reach
        kept = (rows - rows % self.window[0], columns - columns % self.window[1])
        image = (batch, channels, self.filters, height, width)
        more = (self.window, self.channels_last, self.groups)
        return Filtering(self.family, *image, *kept, *more)

    def kernels(self):
        """The three kernels, scheduled."""
        size, tile, filtering = self.family.tile, self.tile, self.filtering
        channels, filters, tiles = filtering.padded(tile)
        rows, columns = tile.split_filters(filters), tile.split_tiles(tiles)
        batch, count, *extents = self.data
        shape = (batch, *extents, count) if self.channels_last else self.data
        data = te.placeholder(shape, name="data")
        elements = (size, size, self.groups)
        found = te.placeholder((*elements, channels, *columns), name="transformed")
        weight = te.placeholder((*elements, channels, *rows), name="weight")
        sums = te.placeholder((*elements, *rows, *columns), name="sums")
        stated = (
            (data, transformed_data(data, filtering, tile, self.padding[:2])),
            (found, weight, products(found, weight, tile)),
            (sums, result(sums, filtering)),
        )
        return [schedule(te.create_prim_func(list(each))).mod["main"] for each in stated]

    def inputs(self):
        """Normal values, and weights in the order OIHW."""
        rng = np.random.default_rng(0)
        taps = self.family.taps
        weight = rng.standard_normal((self.filters, self.data[1] // self.groups, taps, taps))
        return rng.standard_normal(self.data).astype("float32"), weight.astype("float32")

    def given(self, data):
        """The data as the kernels read them."""
        return data.transpose(0, 2, 3, 1).copy() if self.channels_last else data

    def found(self, result):
        """What the kernels write, channels first."""
        return result.transpose(0, 3, 1, 2) if self.channels_last else result

    def packed(self, weight):
        return pack_transformed(weight, self.filtering, self.tile)


F2, F4, F2_5 = Winograd(2, 3), Winograd(4, 3), Winograd(2, 5)
ALL = (1, 1, 1, 1)
CASES = {
    "F(4x4), 2x2 pool that leaves a row": Case(F4, (2, 5, 15, 11), 13, ALL, (2, 2)),
    "F(4x4), 4x2 pool": Case(F4, (1, 8, 12, 10), 16, ALL, (4, 2)),
    "F(4x4), blocks of filters": Case(F4, (1, 9, 9, 14), 20, ALL, tile=ProductTile(4, 7, 8, 4, 8)),
    "F(2x2)": Case(F2, (2, 5, 7, 9), 6, ALL),
    "F(2x2), 2x2 pool, no padding": Case(F2, (1, 4, 9, 8), 6, (0, 0, 0, 0), (2, 2)),
    "F(2x2, 5x5), padded on some sides": Case(F2_5, (1, 4, 9, 8), 6, (0, 1, 2, 0)),
    "NHWC, F(4x4), 2x2 pool that leaves a row": Case(
        F4, (2, 5, 15, 11), 13, ALL, (2, 2), channels_last=True
    ),
    "NHWC, F(2x2), channels and tiles of several warps": Case(
        F2, (1, 19, 14, 13), 20, ALL, channels_last=True
    ),
    "F(4x4), three groups, 2x2 pool": Case(F4, (2, 15, 9, 11), 21, ALL, (2, 2), groups=3),
    "NHWC, F(2x2), two groups": Case(
        F2, (1, 22, 7, 9), 26, ALL, tile=ProductTile(4, 4, 4, 8, 8), channels_last=True, groups=2
    ),
    "F(2x2), depthwise": Case(F2, (1, 5, 7, 9), 5, ALL, groups=5),
}
