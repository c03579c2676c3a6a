"""Blocked convolutions, with the max-pool behind them in one kernel, give TVM's own bits."""

import re
from math import prod

import numpy as np
import pytest
import tvm
from blocked_builders import (
    AVX2,
    AVX512,
    NEON,
    RUNNABLE,
    SSE,
    assert_same_bits,
    blocked,
    compiled,
    is_kernel,
    kernel_names,
    layer,
    weights,
)
from layer_cases import GROUPED, HALVE, OVERLAP
from relax_builders import built, data, module
from relax_builders import conv as plain_conv
from relax_runs import cpu, hard_values, outputs, run
from tvm import relax, s_tir
from tvm.relax import op
from tvm.relax.backend.cpu_generic import pipeline as cpu_passes
from tvm.s_tir.dlight.cpu import Reduction

from tvm_passes.bench.assembly import main_loop
from tvm_passes.decline import KernelReason
from tvm_passes.namespaces import SCHEDULED, dlight
from tvm_passes.relax.blocked import BlockConv2d
from tvm_passes.relax.pipeline import passes_before_schedules
from tvm_passes.schedules.conv2d_rule import BlockedConv2d
from tvm_passes.schedules.rules import cpu_rules

CASES = {
    "no pool": ((1, 3, 13, 17), {}),
    "2x2": ((1, 16, 18, 14), {"filters": 32, "padding": (1, 1), "pool": HALVE}),
    "2x2 that leaves a row": ((1, 5, 17, 15), {"filters": 20, "pool": HALVE}),
    "3x3/2, padded": ((2, 3, 21, 19), {"filters": 33, "strides": (2, 2), "pool": OVERLAP}),
    "3x3/2": ((1, 4, 19, 23), {"pool": HALVE | {"pool_size": (3, 3)}}),
    "ceil": ((1, 8, 18, 13), {"pool": OVERLAP | {"padding": (0, 0), "ceil_mode": True}}),
    "ceil, the last window past the data": (
        (1, 8, 7, 8),
        {"pool": HALVE | {"padding": (1, 1), "ceil_mode": True}},
    ),
    "ceil, the last window past the data, in wide padding": (
        (1, 8, 7, 7),
        {"pool": HALVE | {"padding": (1, 1, 2, 3), "ceil_mode": True}},
    ),
    "2x3/2x1": ((1, 8, 12, 13), {"pool": {"pool_size": (2, 3), "strides": (2, 1)}}),
    "gaps between windows": ((1, 8, 16, 16), {"pool": HALVE | {"strides": (3, 3)}}),
    "dilated pool": ((1, 8, 14, 14), {"pool": HALVE | {"dilation": (2, 2)}}),
    "asymmetric": ((1, 7, 12, 9), {"padding": (0, 1, 2, 0), "pool": OVERLAP}),
    "dilated": ((1, 8, 16, 15), {"dilation": (2, 2), "padding": (2, 2), "pool": HALVE}),
    "1x1/2": ((1, 24, 14, 14), {"filters": 40, "kernel": (1, 1), "strides": (2, 2)}),
    "5x1": ((3, 8, 12, 12), {"kernel": (5, 1), "padding": (2, 0), "pool": HALVE}),
    "groups": ((1, 8, 12, 12), {"filters": 64, "groups": 2, "padding": (1, 1), "pool": HALVE}),
    **GROUPED,
    "four filters a channel": ((1, 6, 12, 11), {"filters": 24, "groups": 6, "strides": (2, 2)}),
    "depthwise": ((1, 20, 15, 15), {"filters": 20, "groups": 20, "pool": HALVE}),
    "sigmoid": ((1, 3, 12, 12), {"act": op.sigmoid, "pool": HALVE}),
    "one pixel": ((1, 9, 3, 3), {"filters": 4}),
    "one window": ((1, 8, 4, 4), {"pool": HALVE}),
}


def single(case, *, last=False):
    shape, attrs = CASES[case]
    if last:
        n, c, h, w = shape
        return module(lambda x: layer(x, data_layout="NHWC", **attrs), data((n, h, w, c)))
    return module(lambda x: layer(x, **attrs), data(shape))


@pytest.mark.parametrize("last", [False, True], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("case", CASES)
def test_a_layer(case, last):
    assert_same_bits(single(case, last=last), RUNNABLE[-1])


@pytest.mark.parametrize("target", RUNNABLE[:-1], ids=cpu)
@pytest.mark.parametrize("case", ["2x2", "3x3/2, padded", "depthwise", "groups of half a block"])
def test_narrower_vectors(case, target):
    assert_same_bits(single(case), target)


@pytest.mark.parametrize("width", [14, 28, 52])
def test_inner_loops_have_no_conditions(width):
    """Of 4 outputs 7 are two tiles; 14 and 26 are no multiple, but have a factor in common."""
    mod = module(lambda x: layer(x, 16, (5, 5), pool=HALVE, padding=(2, 2)), data((1, 1, 6, width)))
    with AVX512:
        (kernel,) = (name for name in kernel_names(legalized(mod)) if "conv2d" in name)
    (library,) = compiled(mod, AVX512).mod.imports
    loop = main_loop(library.inspect_source("asm"), kernel)
    assert loop.instructions["multiply-add"] >= 32
    assert (loop.instructions["branch"], loop.instructions.get("store", 0), loop.spills) == (
        1,
        0,
        0,
    )


def legalized(mod):
    return tvm.transform.Sequential(passes_before_schedules(AVX512))(mod)


def network(builder, x):
    x = builder.emit(layer(x, 20, pool=HALVE, padding=(1, 1)))
    x = builder.emit(layer(x, 24, (1, 1)))
    y = builder.emit(layer(x, 24, groups=24, padding=(1, 1), act=op.nn.leakyrelu))
    x = builder.emit(op.nn.max_pool2d(op.add(x, y), (2, 2), (1, 1)))
    x = builder.emit(layer(x, 33, pool=OVERLAP))
    return op.nn.avg_pool2d(op.multiply(x, weights(1, 33, 1, 1)), (2, 2))


def in_groups(builder, x):
    """Values in blocks of some layers' size are read by layers in blocks of another."""
    x = builder.emit(layer(x, 32, pool=HALVE, padding=(1, 1)))
    y = builder.emit(layer(x, 32, groups=8, padding=(1, 1)))
    x = builder.emit(op.add(layer(y, 32, (1, 1), act=op.tanh), y))
    y = builder.emit(layer(y, 32, groups=32, padding=(1, 1)))
    y = builder.emit(op.concat([layer(y, 36, groups=2, padding=(1, 1)), x, y], 1))
    return layer(builder.emit(op.nn.max_pool2d(y, (2, 2))), 20, groups=10, kernel=(5, 5))


@pytest.mark.parametrize("target", RUNNABLE, ids=cpu)
@pytest.mark.parametrize("body", [network, in_groups])
def test_a_network(body, target):
    assert_same_bits(built(body, data((2, 3, 30, 26))), target)


def test_values_stay_blocked_between_layers():
    names = kernel_names(blocked(built(network, data((2, 3, 30, 26)))))
    assert sum("unblocked" in name for name in names) == 1
    assert sum(name.startswith("blocked") for name in names) == 0


def test_values_are_packed_into_other_blocks_once():
    def body(builder, x):
        y = builder.emit(layer(x, 32, groups=8))
        z = builder.emit(layer(x, 32))
        a, b = builder.emit(op.add(z, y)), builder.emit(op.multiply(z, y))
        return op.maximum(a, b)

    mod = built(body, data((1, 32, 12, 12)))
    after = blocked(mod, AVX512)
    assert after["main"].script().count("call_tir(blocked") == 1
    assert_same_bits(mod, RUNNABLE[-1])


def test_a_product_is_contracted_with_the_sum_behind_it():
    """TVM's own kernels store the product, and round it: a rounding is all that differs."""

    def tail(y):
        return op.subtract(op.add(y, relax.const(1.0, "float32")), op.multiply(y, y))

    shape, target = (1, 8, 12, 12), RUNNABLE[-1]
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")
    (y,) = outputs(module(lambda x: layer(x, 32), data(shape)), x, target=target)
    mod = module(lambda x: tail(layer(x, 32)), data(shape))
    (found,), (expected,) = run(compiled(mod, target), x), outputs(mod, x, target=target)
    rounding = 2.0**-24 * (y * y + np.abs(expected) + np.abs(found))
    assert (np.abs(found - expected) <= rounding).all()


def test_values_are_unpacked_where_another_op_reads_them():
    def body(x):
        y = layer(x, 20, pool=HALVE)
        return op.nn.softmax(op.permute_dims(y, (0, 2, 3, 1)))

    assert_same_bits(module(body, data((1, 3, 12, 12))), RUNNABLE[-1])


def test_an_unpooled_result_that_is_an_output():
    def body(x):
        y = op.nn.conv2d(x, weights(8, 3, 3, 3))
        return [y, op.nn.max_pool2d(y, **HALVE)]

    mod = module(body, data((1, 3, 12, 12)))
    x = hard_values((1, 3, 12, 12), "float32")
    found = run(compiled(mod, RUNNABLE[-1]), x)
    for one, other in zip(found, outputs(mod, x, target=RUNNABLE[-1]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_float16_is_summed_in_float32():
    """TVM's own operator sums float16 in float16; this one rounds a float32 sum once."""
    shape, attrs = (1, 16, 18, 14), {"padding": (1, 1)}
    narrow = weights(32, 16, 3, 3, dtype="float16")
    wide = relax.const(narrow.value.numpy().astype("float32"))
    pool = HALVE["pool_size"], HALVE["strides"]
    x = np.random.default_rng(0).standard_normal(shape).astype("float16")
    mods = [
        module(lambda x, w=w: op.nn.max_pool2d(op.nn.conv2d(x, w, **attrs), *pool), data(shape, dt))
        for w, dt in ((narrow, "float16"), (wide, "float32"))
    ]
    (found,) = run(compiled(mods[0], RUNNABLE[-1]), x)
    (expected,) = outputs(mods[1], x.astype("float32"), target=RUNNABLE[-1])
    np.testing.assert_array_equal(found, expected.astype("float16"))


@pytest.mark.parametrize("target", [SSE, AVX2, AVX512, NEON], ids=["sse", "avx2", "avx512", "neon"])
@pytest.mark.parametrize(
    "pool",
    [HALVE, OVERLAP, OVERLAP | {"padding": (0, 0)}],
    ids=["registers", "padded strip", "strip"],
)
def test_the_unpooled_result_is_never_allocated(pool, target):
    mod = module(lambda x: layer(x, 64, pool=pool, padding=(1, 1)), data((1, 3, 224, 224)))
    with target:
        (kernel,) = kernels(scheduled(mod, target))
    *tile, rows = allocated(kernel)
    strip = tile.pop() if pool is not HALVE else 0
    assert sum(tile) <= 64 * 64, "accumulators and maxima of one register tile"
    assert rows + strip < 4 * 64 * 224 * 224 / 8, "rows of the padded input, and of one strip"


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (
            lambda: module(op.nn.conv2d, data((1, 8, 9, 9)), data((8, 8, 3, 3), name="w")),
            KernelReason.NOT_CONSTANT,
        ),
        (
            lambda: module(
                lambda x: op.nn.conv2d(x, weights(8, 3, 3, 3), out_layout="NHWC"),
                data((1, 3, 9, 9)),
            ),
            KernelReason.LAYOUT,
        ),
        (
            lambda: module(
                lambda x: op.nn.conv2d(x, relax.const(np.zeros((8, 3, 3, 3)), "float64")),
                data((1, 3, 9, 9), "float64"),
            ),
            KernelReason.DTYPE,
        ),
        (
            lambda: module(
                lambda x: op.nn.conv2d(x, weights(6, 2, 3, 3), groups=3), data((1, 6, 9, 9))
            ),
            KernelReason.GROUPS,
        ),
        (
            lambda: module(
                lambda x: op.nn.conv2d(x, weights(8, 3, 3, 3)),
                data((tvm.tirx.Var("n", "int64"), 3, 9, 9)),
            ),
            KernelReason.SHAPE,
        ),
    ],
    ids=lambda value: getattr(value, "value", ""),
)
def test_what_stays_with_tvm(build, reason):
    mod, remarks = build(), []
    with AVX2:
        after = BlockConv2d(remarks.append)(mod)
    tvm.ir.assert_structural_equal(after["main"], mod["main"])
    (remark,) = remarks
    assert remark.reason == reason.value
    assert remark.site == "main/relax.nn.conv2d#0"
    seen.add(reason)


def gaps(x):
    return op.nn.max_pool2d(op.nn.conv2d(x, weights(8, 3, 3, 3)), (2, 2), (3, 3))


def twice(x):
    y = op.nn.conv2d(x, weights(8, 3, 3, 3))
    return [op.nn.max_pool2d(y, **HALVE), op.nn.max_pool2d(y, **OVERLAP)]


def other_layout(x):
    y = op.nn.conv2d(x, weights(8, 3, 3, 3))
    return op.nn.max_pool2d(y, (2, 2), (2, 2), layout="NHWC")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (gaps, KernelReason.POOL_GAPS),
        (twice, KernelReason.UNPOOLED_READ),
        (other_layout, KernelReason.LAYOUT),
    ],
)
def test_a_pool_that_stays_apart(body, reason):
    mod, remarks = module(body, data((1, 3, 12, 12))), []
    with AVX2:
        BlockConv2d(remarks.append)(mod)
    (remark,) = remarks
    assert (remark.reason, remark.site) == (reason.value, "main/relax.nn.conv2d#0")
    assert_same_bits(mod, RUNNABLE[-1])
    seen.add(reason)


seen = set()


def test_no_reason_is_untested():
    elsewhere = {KernelReason.SLOWER_FUSED, KernelReason.OPT_LEVEL}  # tests/cuda, tests/relay
    assert seen == set(KernelReason) - elsewhere


def test_no_images():
    mod = module(lambda x: layer(x, pool=HALVE), data((0, 3, 12, 12)))
    (found,) = run(compiled(mod, RUNNABLE[-1]), np.zeros((0, 3, 12, 12), "float32"))
    assert found.shape == (0, 8, 5, 5)


def test_ops_outside_of_dataflow_blocks():
    builder, x = relax.BlockBuilder(), data((1, 3, 12, 12))
    with builder.function("main", [x]):
        y = builder.emit(op.nn.conv2d(x, weights(8, 3, 3, 3)))
        y = builder.emit(op.nn.max_pool2d(builder.emit(op.nn.relu(y)), **HALVE))
        builder.emit_func_output(y)
    mod = builder.finalize()
    with AVX2:
        found = tvm.transform.Sequential(passes_before_schedules(AVX2))(mod)
    assert [name for name in kernel_names(found) if name.startswith("fused_conv2d")]
    assert_same_bits(mod, RUNNABLE[-1])


@pytest.mark.parametrize(("cores", "parallel"), [({}, True), ({"num-cores": 1}, False)])
def test_loops_of_other_machines_are_parallel(cores, parallel):
    target = tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v3", **cores})
    mod = module(lambda x: layer(x, 64, pool=HALVE, padding=(1, 1)), data((1, 16, 56, 56)))
    with target:
        (kernel,) = kernels(scheduled(mod, target))
    assert ("T.parallel" in kernel.script()) == parallel


def test_other_targets_are_left_alone():
    mod = module(plain_conv, data((1, 8, 9, 9)))
    with tvm.target.Target({"kind": "cuda", "arch": "sm_80"}):
        assert BlockConv2d()(mod).same_as(mod)
    assert BlockConv2d()(mod).same_as(mod)


def scheduled(mod, target):
    """The module as the pipeline leaves it before it lowers the dataflow."""
    passes = [
        BlockConv2d(),
        *cpu_passes.legalize_passes(target),
        dlight.ApplyDefaultSchedule(BlockedConv2d()),
    ]
    return tvm.transform.Sequential(passes)(mod)


def test_rules_compose_with_those_of_tvm():
    """The first that knows a kernel schedules it."""

    def network(x):
        return op.nn.softmax(op.mean(layer(x, 16, padding=(1, 1), pool=HALVE), [2, 3]))

    mod = module(network, data((1, 8, 14, 14)))
    with AVX2:
        passes = [BlockConv2d(), *cpu_passes.legalize_passes(AVX2)]
        legalized = tvm.transform.Sequential(passes)(mod)
        ours, theirs, both = (
            dlight.ApplyDefaultSchedule(*rules)(legalized.clone())
            for rules in (cpu_rules(), [Reduction()], [*cpu_rules(), Reduction()])
        )
    names = {"conv": "fused_conv2d_add_relu", "softmax": "softmax"}
    tvm.ir.assert_structural_equal(both[names["conv"]], ours[names["conv"]])
    tvm.ir.assert_structural_equal(both[names["softmax"]], theirs[names["softmax"]])
    with pytest.raises(ValueError, match="StructuralEqual"):
        tvm.ir.assert_structural_equal(theirs[names["conv"]], ours[names["conv"]])
    x = hard_values((1, 8, 14, 14), "float32")
    (found,) = run(tvm.compile(both, SSE, relax_pipeline=lowered), x)
    np.testing.assert_allclose(found, outputs(mod, x)[0], rtol=1e-6)


def lowered(mod, _ctx=None):
    """What is left to do of a scheduled module."""
    target = tvm.target.Target.current()
    passes = [*cpu_passes.dataflow_lower_passes(target), *cpu_passes.finalize_passes(target)]
    return tvm.transform.Sequential(passes)(mod)


def kernels(mod):
    return [f for f in mod.functions.values() if is_kernel(f) and SCHEDULED in f.attrs]


def allocated(kernel):
    """Bytes of a kernel's buffers, each as large as what is used of it at a time, ascending."""
    passes = [
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.CompactBufferAllocation(),
        s_tir.transform.LowerOpaqueBlock(),
    ]
    mod = tvm.transform.Sequential(passes)(tvm.IRModule({"main": kernel}))
    shapes = re.findall(r"= T\.alloc_buffer\(\((.*?)\), (?:\"|annotations)", mod.script())
    sizes = [4 * prod(map(int, re.findall(r"\b\d+\b", shape))) for shape in shapes]
    (found,) = s_tir.analysis.calculate_allocated_bytes(mod).values()
    assert sum(map(int, found.values())) <= sum(sizes), "those alive at a time"
    return sorted(sizes)
