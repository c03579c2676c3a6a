"""Winograd convolutions as GPU kernels, run on the CPU, and which layers they are chosen for."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tvm
from gpu_filterings import CASES
from opencl_runs import lower, run
from test_gpu_networks import OPENCL, functions, weights
from tvm import relax

from tvm_passes.bench.networks import NETWORKS
from tvm_passes.cuda.compiler import PACKAGE, KernelCompiler, Options, find_compiler
from tvm_passes.cuda.gpu import read_gpu
from tvm_passes.cuda.static import report_version
from tvm_passes.relax import engine
from tvm_passes.relax.gpu_conv2d import TileConv2d
from tvm_passes.relax.pipeline import gpu_passes
from tvm_passes.relax.reorder import ReorderActivationAfterMaxPool
from tvm_passes.schedules.families import Barred, digest
from tvm_passes.schedules.gpu_winograd_rule import WinogradKernels
from tvm_passes.target import parse_target
from tvm_passes.winograd import convolved, direct_error_bound

RECORDS = Path(__file__).parents[2] / "scripts" / "records"
HALVE = {"pool_size": (2, 2), "strides": (2, 2)}
OVERLAP = {"pool_size": (3, 3), "strides": (2, 2)}
GPU = read_gpu("a100")
CUDA = tvm.target.Target({"kind": "cuda", "arch": GPU.arch, "host": "llvm"})
WINOGRAD = frozenset({"winograd"})


def maxima(values, window):
    n, k, h, w = values.shape
    (height, width), rows, columns = window, h // window[0], w // window[1]
    kept = values[:, :, : rows * height, : columns * width]
    return kept.reshape(n, k, rows, height, columns, width).max((3, 5))


@pytest.mark.parametrize("name", CASES)
def test_is_within_the_bound_of_numpy(name):
    case = CASES[name]
    data, weight = case.inputs()
    inward, multiply, outward = case.kernels()
    transformed = run(inward, case.given(data))[-1]
    sums = run(multiply, transformed, case.packed(weight))[-1]
    found = case.found(run(outward, sums)[-1])
    exact = maxima(convolved(data.astype("float64"), weight, case.padding), case.window)
    assert found.shape == exact.shape
    error = np.abs(found - exact).max()
    assert error <= case.family.error_bound(weight) * np.abs(data).max()
    assert error < 2e-5 * np.abs(exact).max()


def layer(shape, filters, pool=None, **attrs):
    """conv2d 3x3, bias, relu, max-pool."""
    rng = np.random.default_rng(0)
    x = relax.Var("x", relax.TensorType(shape, "float32"))
    last = attrs.get("data_layout") == "NHWC"
    channels = shape[3 if last else 1] // attrs.get("groups", 1)
    kernel = (3, 3, channels, filters) if last else (filters, channels, 3, 3)
    weight, bias = weights(rng, *kernel), weights(rng, *((filters,) if last else (filters, 1, 1)))
    layout = {"layout": "NHWC"} if last else {}
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            value = builder.emit(relax.op.nn.conv2d(x, weight, **{"padding": 1} | attrs))
            value = builder.emit(relax.op.nn.relu(builder.emit(relax.op.add(value, bias))))
            if pool:
                value = builder.emit(relax.op.nn.max_pool2d(value, **pool, **layout))
            value = builder.emit_output(value)
        builder.emit_func_output(value)
    return builder.get(), weight.value.numpy(), bias.value.numpy()


def said(mod, target=CUDA, **options):
    remarks = []
    with target:
        TileConv2d(on_remark=remarks.append, **{"allow": WINOGRAD} | options)(mod)
    return [(remark.kind.value, remark.reason) for remark in remarks]


LAST = {"data_layout": "NHWC", "kernel_layout": "HWIO"}
GROUPS = {"groups": 2}


@pytest.mark.parametrize(
    ("pool", "attrs"),
    [(None, {}), (HALVE, {}), (OVERLAP, {}), (HALVE, LAST), (HALVE, GROUPS), (None, LAST | GROUPS)],
    ids=["no pool", "2x2", "3x3/2", "2x2, NHWC", "2x2, groups", "NHWC, groups"],
)
def test_a_layer_with_bias_and_activation(pool, attrs, tmp_path):
    channels = 128 * attrs.get("groups", 1)
    layout = "data_layout" in attrs
    shape = (1, 31, 29, channels) if layout else (1, channels, 31, 29)
    mod, weight, bias = layer(shape, 96 * attrs.get("groups", 1), pool, **attrs)
    data = np.random.default_rng(1).standard_normal(shape).astype("float32")
    remarks = []
    built = engine.build(mod, parse_target("opencl"), allow=WINOGRAD, on_remark=remarks.append)
    engine.export(built, tmp_path / "lib.so")
    (found,) = engine.load(tmp_path / "lib.so", (), "opencl")(data)
    if layout:
        data, found = (array.transpose(0, 3, 1, 2) for array in (data, found))
        weight, bias = weight.transpose(3, 2, 0, 1), bias.reshape(-1, 1, 1)
    exact = np.maximum(convolved(data.astype("float64"), weight, (1,) * 4) + bias, 0)
    if pool is HALVE:
        exact = maxima(exact, (2, 2))
    elif pool:
        windows = np.lib.stride_tricks.sliding_window_view(exact, (3, 3), (2, 3))
        exact = windows[:, :, ::2, ::2].max((4, 5))
    (bounds,) = [dict(remark.numbers) for remark in remarks if remark.reason == "winograd"]
    error = np.abs(found - exact).max()
    assert error <= bounds["error_bound"] * np.abs(data).max()
    assert error < 1e-4
    assert bounds["error_bound_as_written"] == direct_error_bound(weight)


def test_pool_bias_and_activation_are_in_the_last_of_three_kernels():
    mod, *_ = layer((1, 128, 31, 29), 96, HALVE)
    with OPENCL:
        reorder, tile = ReorderActivationAfterMaxPool(), TileConv2d(allow=WINOGRAD)
        passes = gpu_passes(OPENCL, reorder, ours=True, tile=tile)
        names = sorted(functions(tvm.transform.Sequential(passes)(mod)))
    assert len(names) == 3
    assert sum("max_pool2d" in name and "relu" in name for name in names) == 1


WRITTEN = [("Analysis", "written-sums")]


class TestChoice:
    def test_deep_layers_are_filtered_and_others_summed_as_written(self):
        assert said(layer((1, 256, 56, 56), 256)[0]) == [("Passed", "winograd")]
        assert said(layer((1, 56, 56, 256), 256, **LAST)[0]) == [("Passed", "winograd")]
        assert said(layer((1, 3, 224, 224), 64)[0]) == WRITTEN
        assert said(layer((1, 16, 28, 28), 16)[0]) == WRITTEN
        assert said(layer((1, 256, 56, 56), 256, strides=2)[0]) == WRITTEN

    def test_only_where_it_is_allowed(self):
        assert said(layer((1, 256, 56, 56), 256)[0], allow=()) == []

    def test_groups_of_many_channels_are_filtered_and_of_few_summed_as_written(self):
        assert said(layer((1, 256, 56, 56), 256, groups=2)[0]) == [("Passed", "winograd")]
        assert said(layer((1, 128, 56, 56), 128, groups=32)[0]) == WRITTEN
        assert said(layer((1, 64, 112, 112), 64, groups=64)[0]) == WRITTEN

    @pytest.mark.parametrize(
        ("groups", "why"), [(64, "too few filters or tiles"), (4, "should take longer")]
    )
    def test_why_sums_are_as_written(self, groups, why):
        remarks = []
        with CUDA:
            mod, *_ = layer((1, 64, 56, 56), 64, groups=groups)
            TileConv2d(on_remark=remarks.append, allow=WINOGRAD)(mod)
        assert why in remarks[0].message

    def test_what_is_barred(self):
        mod, weight, _ = layer((1, 256, 28, 28), 256)
        names = ("F(4x4, 3x3)", "F(2x2, 3x3)")
        barred = Barred(frozenset((digest(weight), name) for name in names))
        assert said(mod) == [("Passed", "winograd")]
        assert said(mod, barred=barred) == WRITTEN


def test_the_next_stage_is_loaded_before_one_is_multiplied():
    case = replace(CASES["F(2x2)"], data=(1, 12, 7, 9))  # three stages
    source = lower(case.kernels()[1]).source
    loads, products, stores, *_ = source.partition("for (int c_0")[2].split("barrier(")
    assert "transformed_shared_local_ptr[" in loads
    assert "products_local_ptr[" in products
    assert "= transformed_shared_local_ptr[" in stores


class TestRule:
    def test_schedules_on_gpus_alone(self):
        x = tvm.te.placeholder((4, 4), name="x")
        other = tvm.te.create_prim_func([x, tvm.topi.nn.relu(x)])
        assert WinogradKernels().apply(other, CUDA, False) is None
        assert WinogradKernels().apply(other, tvm.target.Target("llvm"), False) is None


@pytest.mark.parametrize("attrs", [{}, LAST, GROUPS], ids=["NCHW", "NHWC", "groups"])
def test_machine_code_has_no_spills_and_a_third_of_the_multiply_adds(attrs):
    compiler = KernelCompiler(find_compiler((PACKAGE,)), Options(GPU.arch))
    count = 128 * attrs.get("groups", 1)
    shape = (1, 56, 56, count) if "data_layout" in attrs else (1, count, 56, 56)
    mod, *_ = layer(shape, count, HALVE, **attrs)
    fused, filtered = (
        report_version(mod, GPU, version, compiler) for version in ("fused", "winograd")
    )
    assert (len(fused.kernels), len(filtered.kernels)) == (1, 3)
    assert filtered.spilled == 0
    assert all(k.counts.finished and not k.counts.unknown for k in filtered.kernels)
    assert filtered.instructions()["FFMA"] < fused.instructions()["FFMA"] / 3
    assert filtered.conflicts < 0.01


def test_layers_of_vgg16_were_compared():
    """What scripts/gpu_winograd.py has found: by the roofline, the choice is the faster way."""
    found = json.loads((RECORDS / "gpu-winograd.json").read_text())
    assert {name.split(", ")[1] for name in found} == {"sm_80", "sm_90"}
    filtered = [entry for entry in found.values() if entry["family"]]
    assert len(filtered) > len(found) / 2
    for entry in filtered:
        assert entry["winograd"]["spill_bytes"] == 0
        assert entry["winograd"]["seconds"] < entry["fused"]["seconds"]


def test_whole_networks_were_compiled():
    """What scripts/gpu_networks.py --version winograd has found."""
    found = json.loads((RECORDS / "gpu-networks-winograd.json").read_text())
    assert set(found) == {f"{name}, {arch}" for name in NETWORKS for arch in ("sm_80", "sm_90")}
    assert all(entry["wrong"] == [] and entry["spill_bytes"] == 0 for entry in found.values())
    written = json.loads((RECORDS / "gpu-networks.json").read_text())
    assert found["vgg16, sm_90"]["kernels"] > written["vgg16, sm_90"]["kernels"]
