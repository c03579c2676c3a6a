"""Convolutions with their pools as GPU kernels, run on the CPU and compared with NumPy.

Data are small whole numbers, so results are equal bit by bit whatever the order of the sums.
"""

import numpy as np
import pytest
import tvm
from gpu_layers import Case, conv, largest_tile, pool
from opencl_runs import lower, run

from tvm_passes.schedules.gpu_conv2d_rule import TiledConv2d, layer_of, schedule
from tvm_passes.schedules.gpu_tiles import SHARED, best, candidates, shared_bytes

CASES = {
    "mnist": Case((1, 1, 28, 28), conv(1, 16, 5), pool(2, 2)),
    "odd sizes": Case((2, 5, 19, 23), conv(5, 13, 3, padding=1), pool(2, 2)),
    "odd sizes, NHWC": Case(
        (2, 5, 19, 23), conv(5, 13, 3, padding=1, channels_last=True), pool(2, 2)
    ),
    "stages of channels": Case((1, 24, 11, 13), conv(24, 8, 3, padding=1), pool(2, 2)),
    "stages of channels, NHWC": Case(
        (1, 160, 9, 9), conv(160, 8, 3, padding=1, channels_last=True), pool(2, 2)
    ),
    "resnet stem": Case((1, 3, 37, 41), conv(3, 24, 7, 2, padding=3), pool(3, 2, 1)),
    "resnet stem, NHWC": Case(
        (1, 3, 37, 41), conv(3, 24, 7, 2, padding=3, channels_last=True), pool(3, 2, 1)
    ),
    "overlap, NHWC": Case(
        (1, 16, 21, 21), conv(16, 20, 3, padding=1, channels_last=True), pool(3, 2)
    ),
    "alexnet": Case((1, 3, 67, 67), conv(3, 32, 11, 4, padding=2), pool(3, 2)),
    "pool of stride 1": Case((1, 8, 13, 13), conv(8, 16, 3, padding=1), pool(2, 1, (0, 0, 1, 1))),
    "ceil mode": Case((1, 8, 14, 14), conv(8, 16, 3, padding=1), pool(3, 2, ceil_mode=True)),
    "dilated": Case((1, 6, 23, 23), conv(6, 8, 3, padding=2, dilation=(2, 2)), pool(3, 3)),
    "dilated pool": Case((1, 6, 23, 23), conv(6, 8, 3), pool(2, 2, dilation=2)),
    "padded 4x4 pool": Case((1, 6, 23, 23), conv(6, 8, 3), pool(4, 4, 1)),
    "gaps between windows": Case((1, 6, 23, 23), conv(6, 8, 3), pool(2, 3)),
    "uneven kernel and padding": Case(
        (1, 4, 17, 12), conv(4, 6, (1, 5), padding=(0, 1, 2, 3)), pool(2, 2)
    ),
    "groups": Case((1, 12, 15, 15), conv(12, 24, 3, padding=1, groups=3), pool(2, 2)),
    "depthwise": Case((1, 12, 15, 15), conv(12, 12, 3, padding=1, groups=12), pool(2, 2)),
    "no pool": Case((1, 8, 17, 15), conv(8, 20, 3, padding=1), None),
    "no pool, NHWC": Case(
        (1, 40, 17, 15), conv(40, 20, 3, 2, padding=(0, 0, 1, 1), channels_last=True), None
    ),
    "pointwise": Case((1, 64, 14, 14), conv(64, 48, 1), None),
}
LARGE = ("overlap, NHWC", "stages of channels, NHWC", "no pool", "groups")


def compare(case, tile):
    weight, packed = case.weights(tile)
    data, given = case.inputs()
    got = run(schedule(case.func(tile)).mod["main"], given, packed)[-1]
    np.testing.assert_array_equal(got, case.expected(data, weight))


@pytest.mark.parametrize("name", CASES)
def test_equals_numpy(name):
    compare(CASES[name], best(CASES[name].nest))


@pytest.mark.parametrize("name", LARGE)
def test_equals_numpy_with_many_sums_a_thread(name):
    tile = largest_tile(CASES[name])
    assert tile.accumulators >= 8
    compare(CASES[name], tile)


def test_negative_sums_under_a_padded_pool():
    """What is outside of the convolution's result is the lowest number, not a sum of zeros."""
    case = CASES["resnet stem"]
    tile = best(case.nest)
    weight, packed = case.weights(tile)
    data, given = case.inputs()
    got = run(schedule(case.func(tile)).mod["main"], abs(given), -abs(packed))[-1]
    np.testing.assert_array_equal(got, case.expected(abs(data), -abs(weight)))
    assert got.max() < 0


def test_the_epilogue_is_in_the_same_kernel():
    case = CASES["odd sizes"]
    tile = best(case.nest)

    def shifted_relu(x):
        return tvm.tirx.max(x - 3, tvm.tirx.const(0, "float32"))

    func = schedule(case.func(tile, shifted_relu)).mod["main"]
    weight, packed = case.weights(tile)
    data, given = case.inputs()
    got = run(func, given, packed)[-1]
    np.testing.assert_array_equal(got, np.maximum(case.expected(data, weight) - 3, 0))
    assert len(lower(func).launches) == 1


@pytest.mark.parametrize("name", ["mnist", "resnet stem", "stages of channels, NHWC"])
def test_takes_the_shared_memory_that_the_model_counts(name):
    case = CASES[name]
    for tile in (best(case.nest), largest_tile(case)):
        source = lower(schedule(case.func(tile)).mod["main"]).source
        takes = sum(
            int(line.split("[")[1].split("]")[0]) * (16 if "float4" in line else 4)
            for line in source.splitlines()
            if "__local" in line
        )
        assert 0 < takes <= shared_bytes(case.nest, tile) <= SHARED


@pytest.mark.parametrize("name", CASES)
def test_no_tile_reaches_past_a_small_layer(name):
    case = CASES[name]
    for tile in candidates(case.nest):
        assert tile.out_rows <= case.nest.rows.out
        assert tile.out_columns <= case.nest.columns.out
        assert tile.block_filters <= case.nest.filters
        assert tile.threads <= 1024


@pytest.mark.parametrize("extent", [1, 2, 3])
@pytest.mark.parametrize("of", [None, pool(2, 2), pool(3, 1, 1)])
def test_layers_of_few_outputs(extent, of):
    case = Case((1, 3, extent + 2, extent + 2), conv(3, 3, 3, padding=1), of)
    compare(case, best(case.nest))


def test_a_window_too_large_for_registers_is_still_right():
    case = Case((1, 1, 26, 26), conv(1, 1, 3), pool(12, 12))
    assert best(case.nest).out_columns == 1
    compare(case, best(case.nest))


class TestRule:
    GPU = tvm.target.Target({"kind": "cuda", "arch": "sm_80", "host": "llvm"})

    def test_schedules_on_gpus_alone(self):
        func = CASES["mnist"].func(best(CASES["mnist"].nest))
        assert TiledConv2d().apply(func, self.GPU, False) is not None
        assert TiledConv2d().apply(func, tvm.target.Target("llvm"), False) is None

    def test_leaves_other_functions_alone(self):
        x = tvm.te.placeholder((4, 4), name="x")
        other = tvm.te.create_prim_func([x, tvm.topi.nn.relu(x)])
        assert TiledConv2d().apply(other, self.GPU, False) is None
        assert layer_of(tvm.s_tir.Schedule(other)) is None
        with pytest.raises(ValueError, match="expected a tiled convolution"):
            schedule(other)

    def test_a_scheduled_function_is_no_layer_any_more(self):
        func = CASES["mnist"].func(best(CASES["mnist"].nest))
        assert TiledConv2d().apply(schedule(func).mod["main"], self.GPU, False) is None
