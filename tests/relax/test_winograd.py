"""Convolutions by Winograd's filtering: within the bound that their remark states."""

import numpy as np
import pytest
import tvm
from blocked_builders import AVX2, AVX512, NEON, RUNNABLE, compiled, layer, weights
from layer_cases import HALVE, OVERLAP
from relax_builders import data, module
from relax_runs import outputs, run
from tvm import te
from tvm.relax import op

from tvm_passes.errors import AllowError
from tvm_passes.namespaces import Schedule
from tvm_passes.relax import ReorderActivationAfterMaxPool
from tvm_passes.relax.blocked import BlockConv2d
from tvm_passes.relax.convolution import weight_of
from tvm_passes.remarks import Kind
from tvm_passes.schedules.algorithm import written_nest
from tvm_passes.schedules.conv2d import conv2d
from tvm_passes.schedules.families import FAMILIES, Barred, digest
from tvm_passes.schedules.operators import Conv2d, MaxPool2d
from tvm_passes.schedules.rules import schedules
from tvm_passes.schedules.structure import MAXIMUM, kind_of, layer_of
from tvm_passes.schedules.winograd_rule import winograd_layer_of

WINOGRAD = "winograd"
PADDED = {"filters": 32, "padding": (1, 1)}
BARE = {"bias": False, "act": lambda x: x}
CASES = {
    "no pool": ((1, 32, 14, 14), PADDED),
    "2x2": ((1, 32, 16, 24), PADDED | {"pool": HALVE}),
    "2x2 that leaves a row, partial tiles": ((1, 32, 19, 15), PADDED | {"pool": HALVE}),
    "2x2 that leaves most of a tile": ((1, 32, 13, 9), PADDED | {"pool": HALVE}),
    "nothing behind the pool": ((1, 32, 16, 16), PADDED | {"pool": HALVE, **BARE}),
    "4x4": ((1, 32, 16, 16), PADDED | {"pool": {"pool_size": (4, 4), "strides": (4, 4)}}),
    "4x2": ((1, 32, 16, 16), PADDED | {"pool": {"pool_size": (4, 2), "strides": (4, 2)}}),
    "3x3/2, padded": ((1, 32, 17, 15), PADDED | {"pool": OVERLAP}),
    "3x3/2, not padded": ((1, 32, 17, 14), PADDED | {"pool": OVERLAP | {"padding": (0, 0)}}),
    "3x2/2, padded on one side": (
        (1, 32, 18, 15),
        PADDED | {"pool": {"pool_size": (3, 2), "strides": (2, 2), "padding": (1, 0, 0, 1)}},
    ),
    "3x3/2, nothing behind the pool": ((2, 32, 16, 16), PADDED | {"pool": OVERLAP, **BARE}),
    "3x3/3": ((1, 32, 16, 16), PADDED | {"pool": {"pool_size": (3, 3), "strides": (3, 3)}}),
    "ceil": ((1, 32, 15, 15), PADDED | {"pool": HALVE | {"ceil_mode": True}}),
    "images, odd channels": ((3, 40, 12, 12), {"filters": 36, "pool": HALVE}),
    "padding on one side": ((1, 32, 13, 12), {"filters": 32, "padding": (0, 1, 2, 0)}),
    "groups": ((1, 64, 12, 12), {"filters": 64, "groups": 2, "padding": (1, 1), "pool": HALVE}),
    "groups of parts of a block": (
        (1, 48, 12, 12),
        {"filters": 24, "groups": 2, "padding": (1, 1), "pool": OVERLAP},
    ),
    "5x5": ((1, 32, 14, 14), {"filters": 48, "kernel": (5, 5), "padding": (2, 2), "pool": HALVE}),
}


def single(case, *, last=False):
    shape, attrs = CASES[case]
    if last:
        n, c, h, w = shape
        return module(lambda x: layer(x, data_layout="NHWC", **attrs), data((n, h, w, c)))
    return module(lambda x: layer(x, **attrs), data(shape))


def in_tiles(remarks):
    return [remark for remark in remarks if remark.reason == WINOGRAD]


def assert_within_bound(mod, target, x):
    remarks = []
    (found,) = run(compiled(mod, target, remarks, allow={WINOGRAD}), x)
    (expected,) = outputs(mod, x, target=target)
    (remark,) = in_tiles(remarks)
    bounds = dict(remark.numbers)
    error = np.abs(found - expected).max()
    assert error <= (bounds["error_bound"] + bounds["error_bound_as_written"]) * np.abs(x).max()
    assert error < 1e-4 * max(1, np.abs(expected).max())


def normal(mod):
    shape = tuple(int(extent) for extent in mod["main"].params[0].ty.shape.values)
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


@pytest.mark.parametrize("case", CASES)
def test_a_layer(case):
    mod = single(case)
    assert_within_bound(mod, RUNNABLE[-1], normal(mod))


@pytest.mark.parametrize("case", ["3x3/2, padded", "3x3/2, not padded", "ceil"])
def test_a_pool_whose_windows_cross_tiles_is_in_the_kernel(case):
    with AVX512:
        mod = tvm.transform.Sequential([tvm_kernels(AVX512)])(single(case))
    (kernel,) = [func for func in mod.functions.values() if is_winograd(func)]
    layer = winograd_layer_of(Schedule(kernel))
    assert layer.parts is not None
    assert not [func for func in mod.functions.values() if is_a_pool(func)]


@pytest.mark.parametrize("case", ["2x2", "groups", "groups of parts of a block"])
def test_channels_last(case):
    mod = single(case, last=True)
    assert_within_bound(mod, RUNNABLE[-1], normal(mod))


@pytest.mark.parametrize("target", RUNNABLE[:-1])
def test_narrower_vectors(target):
    mod = single("2x2")
    assert_within_bound(mod, target, normal(mod))


def test_magnitudes_far_apart():
    mod = single("2x2")
    x = normal(mod) * 10.0 ** np.random.default_rng(1).uniform(-6, 6, normal(mod).shape)
    assert_within_bound(mod, RUNNABLE[-1], x.astype("float32"))


def test_who_does_not_allow_it_gets_the_written_sums():
    mod, remarks = single("2x2"), []
    (found,) = run(compiled(mod, RUNNABLE[-1], remarks), normal(mod))
    (expected,) = outputs(mod, normal(mod), target=RUNNABLE[-1])
    np.testing.assert_array_equal(found, expected, strict=True)
    assert not [remark for remark in remarks if remark.op == "relax.nn.conv2d"]


@pytest.mark.parametrize(
    ("shape", "attrs"),
    [
        ((1, 3, 64, 64), {"filters": 16, "padding": (1, 1), "pool": HALVE}),
        ((1, 32, 16, 16), {"filters": 32, "strides": (2, 2)}),
        ((1, 32, 16, 16), {"filters": 32, "dilation": (2, 2)}),
        ((1, 32, 16, 16), {"filters": 32, "kernel": (1, 1)}),
        ((1, 32, 16, 16), {"filters": 32, "groups": 32}),
        ((1, 20, 16, 16), {"filters": 32, "groups": 2}),
    ],
    ids=["three channels", "strides", "dilation", "1x1", "depthwise", "groups of ten channels"],
)
def test_what_is_summed_as_written_all_the_same(shape, attrs):
    remarks = []
    mod = module(lambda x: layer(x, **attrs), data(shape))
    with AVX512:
        BlockConv2d(remarks.append, {WINOGRAD})(mod)
    (remark,) = remarks
    assert (remark.kind, remark.reason) == (Kind.ANALYSIS, "written-sums")
    why = "should take" if shape[1] == 3 else "stride 1, float32, groups of whole blocks"
    assert why in remark.message


def test_transforms_pay_where_many_filters_share_them():
    remarks = []
    mod = module(lambda x: layer(x, filters=64, padding=(1, 1), pool=HALVE), data((1, 3, 64, 64)))
    with AVX512:
        BlockConv2d(remarks.append, {WINOGRAD})(mod)
    assert [(remark.kind, remark.reason) for remark in remarks] == [(Kind.PASSED, WINOGRAD)]


def test_a_layer_that_calibration_bars_from_the_faster_tiles():
    mod, remarks = single("no pool"), []
    weight = weight_of(mod["main"].body.blocks[0].bindings[0].value)
    barred = Barred(frozenset((digest(weight), str(family)) for family in FAMILIES))
    with AVX512:
        BlockConv2d(remarks.append, {WINOGRAD}, barred)(mod)
    (remark,) = remarks
    assert "calibration keeps it from F(4x4, 3x3)" in remark.message


def test_float16_is_summed_as_written():
    remarks = []

    def body(x):
        return op.nn.conv2d(x, weights(32, 32, 3, 3, dtype="float16"))

    with AVX512:
        BlockConv2d(remarks.append, {WINOGRAD})(module(body, data((1, 32, 16, 16), "float16")))
    assert [remark.reason for remark in remarks] == ["written-sums"]


@pytest.mark.parametrize("case", ["2x2", "nothing behind the pool", "3x3/2, padded"])
@pytest.mark.parametrize("target", [AVX2, AVX512, NEON], ids=["avx2", "avx512", "neon"])
def test_every_candidate_of_the_schedule_is_one(target, case):
    with target:
        mod = tvm.transform.Sequential([tvm_kernels(target)])(single(case))
    (kernel,) = [func for func in mod.functions.values() if is_winograd(func)]
    ways = schedules(kernel, target)
    assert len(ways) > 8
    for make in ways[:: len(ways) // 3]:
        assert make().mod is not None


def tvm_kernels(target):
    from tvm_passes.relax.pipeline import passes_before_schedules

    return tvm.transform.Sequential(passes_before_schedules(target, allow={WINOGRAD}))


def is_a_pool(func):
    if not isinstance(func, tvm.tirx.PrimFunc) or is_winograd(func):
        return False
    sch = Schedule(func)
    children = sch.get_child_blocks(sch.get_sblock("root"))
    return any(kind_of(sch.get(item)) == MAXIMUM for item in children)


def is_winograd(func):
    return isinstance(func, tvm.tirx.PrimFunc) and winograd_layer_of(Schedule(func)) is not None


@pytest.mark.parametrize("pool", [None, HALVE, OVERLAP], ids=["no pool", "2x2", "3x3/2, padded"])
@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (1, 1, 1, 1)], ids=["valid", "padded"])
def test_the_extents_that_costs_are_computed_from_are_those_of_the_kernel(pool, padding):
    conv = Conv2d(32, 48, 1, (3, 3), (1, 1), (1, 1), padding, channels_last=False, block=16)
    found = None
    if pool is not None:
        sides = (*pool.get("padding", (0, 0)), *pool.get("padding", (0, 0)))
        found = MaxPool2d(pool["pool_size"], pool["strides"], (1, 1), sides)
    operands = te.placeholder((2, 2, 13, 17, 16)), te.placeholder((3, 32, 3, 3, 16))
    func = te.create_prim_func([*operands, conv2d(*operands, conv, found)])
    assert layer_of(Schedule(func)).nest == written_nest(conv, found, (2, 13, 17))


def test_what_allow_may_name():
    with pytest.raises(AllowError, match="device-math, quasi-convex, winograd, found 'fft'"):
        ReorderActivationAfterMaxPool(allow={"fft"})
