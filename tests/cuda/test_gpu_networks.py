"""Whole networks through the pipeline: which kernels they become, and what those compute."""

import json
from pathlib import Path

import numpy as np
import pytest
import tvm
from opencl_runs import TARGET
from tvm import relax

from tvm_passes.bench.networks import NETWORKS
from tvm_passes.cuda.gpu import read_gpu
from tvm_passes.decline import KernelReason
from tvm_passes.frontends import load_model
from tvm_passes.relax import engine
from tvm_passes.relax.gpu_conv2d import TileConv2d
from tvm_passes.relax.pipeline import gpu_passes
from tvm_passes.relax.reorder import ReorderActivationAfterMaxPool
from tvm_passes.schedules.gpu_conv2d import LayerOf
from tvm_passes.schedules.gpu_fusion import MARGIN, fusion
from tvm_passes.schedules.gpu_space import parts_of
from tvm_passes.schedules.operators import Conv2d, MaxPool2d
from tvm_passes.target import parse_target

MNIST = Path(__file__).parents[1] / "data" / "mnist.tflite"
RECORD = Path(__file__).parents[2] / "scripts" / "records" / "gpu-networks.json"
CUDA = tvm.target.Target({"kind": "cuda", "arch": "sm_80", "host": "llvm"})
OPENCL = tvm.target.Target(TARGET)


def kernels(mod, target=CUDA, *, reorder=True):
    first = ReorderActivationAfterMaxPool() if reorder else None
    with target:
        return tvm.transform.Sequential(gpu_passes(target, first, ours=True))(mod)


def functions(mod):
    return {g.name_hint: f for g, f in mod.functions.items() if isinstance(f, tvm.tirx.PrimFunc)}


def weights(rng, *shape):
    return relax.const(rng.standard_normal(shape).astype(np.float32) / 4)


def network(activation):
    """Every kind of layer of the networks that the benchmarks name, once, at odd sizes."""
    rng = np.random.default_rng(0)
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 3, 35, 37), "float32"))
    nn, op = relax.op.nn, relax.op

    def conv(data, channels, filters, kernel, **attrs):
        weight = weights(rng, filters, channels, kernel, kernel)
        summed = builder.emit(nn.conv2d(data, weight, **attrs))
        return builder.emit(op.add(summed, weights(rng, filters, 1, 1)))

    def norm(data, channels, *, training=False):
        parameters = [weights(rng, channels) for _ in range(3)]
        variance = relax.const(rng.uniform(0.5, 2, channels).astype(np.float32))
        return builder.emit(
            builder.emit(nn.batch_norm(data, *parameters, variance, 1, training=training))[0]
        )

    with builder.function("main", [x]):
        with builder.dataflow():
            stem = builder.emit(activation(conv(x, 3, 8, 7, strides=2, padding=3)))
            stem = builder.emit(nn.max_pool2d(stem, (3, 3), (2, 2), (1, 1)))
            squeezed = builder.emit(activation(conv(stem, 8, 4, 1)))
            left = builder.emit(activation(conv(squeezed, 4, 8, 1)))
            right = builder.emit(activation(conv(squeezed, 4, 8, 3, padding=1)))
            fire = builder.emit(op.concat([left, right], 1))
            pooled = builder.emit(nn.max_pool2d(fire, (3, 3), (2, 2)))
            same = builder.emit(activation(conv(pooled, 16, 16, 3, padding=1)))
            residual = builder.emit(activation(builder.emit(op.add(same, pooled))))
            strided = builder.emit(activation(norm(conv(residual, 16, 8, 1), 8)))
            strided = norm(conv(strided, 8, 16, 3, strides=2, padding=1), 16)
            shortcut = norm(conv(residual, 16, 16, 1, strides=2), 16, training=True)
            projected = builder.emit(activation(builder.emit(op.add(strided, shortcut))))
            last = builder.emit(activation(conv(projected, 16, 8, 3, padding=1)))
            last = builder.emit(nn.max_pool2d(last, (2, 2), (1, 1), (0, 0, 1, 1)))
            mean = builder.emit(op.mean(last, [2, 3]))
            dense = builder.emit(op.matmul(mean, weights(rng, 8, 10)))
            out = builder.emit_output(builder.emit(nn.softmax(dense)))
        builder.emit_func_output(out)
    return builder.get()


def relu(x):
    return relax.op.nn.relu(x)


def leaky(x):
    return relax.op.nn.leakyrelu(x, 0.125)


def test_whole_networks_were_compiled():
    """What scripts/gpu_networks.py has found."""
    found = json.loads(RECORD.read_text())
    archs = ("sm_80", "sm_90")
    assert set(found) == {f"{name}, {arch}" for name in NETWORKS for arch in archs}
    assert all(entry["wrong"] == [] and entry["spill_bytes"] == 0 for entry in found.values())


@pytest.mark.parametrize("target", [CUDA, OPENCL])
def test_every_kernel_of_every_layer_has_threads(target):
    mod = kernels(network(relu), target)
    found = functions(mod)
    assert found
    for name, func in found.items():
        assert func.attrs["tirx.is_scheduled"], name
        text = func.script()
        assert "blockIdx.x" in text or "launch_thread" in text, name


def test_a_block_with_its_pool_bias_and_activation_is_one_kernel():
    names = sorted(functions(kernels(load_model(MNIST, "relax"))))
    assert sum("max_pool2d" in name for name in names) == 2
    fused = [name for name in names if "max_pool2d" in name]
    assert all("conv2d" in name and "relu" in name for name in fused)
    plain = sorted(functions(kernels(load_model(MNIST, "relax"), reorder=False)))
    assert sum("max_pool2d" in name and "conv2d" in name for name in plain) == 0


def on_opencl(mod, data, path, *, reorder):
    """The output of a module whose kernels run on PoCL."""
    built = engine.build(mod, parse_target("opencl"), reorder=reorder, kernels=True)
    engine.export(built, path)
    return engine.load(path, (), "opencl")(data)[0]


def test_both_orders_give_the_same_bits(tmp_path):
    """Sums are taken in one order by both, so that only the reordered ops could differ."""
    data = np.random.default_rng(1).standard_normal((1, 3, 35, 37)).astype(np.float32)
    mod = network(leaky)
    original, reordered = (
        on_opencl(mod, data, tmp_path / f"{reorder}.so", reorder=reorder)
        for reorder in (False, True)
    )
    np.testing.assert_array_equal(original.view(np.uint32), reordered.view(np.uint32))
    machine = relax.VirtualMachine(tvm.compile(mod, "llvm"), tvm.cpu())
    expected = machine["main"](tvm.runtime.tensor(data)).numpy()
    # TVM's CPU build contracts no multiply-adds, and sums means and products in another order.
    np.testing.assert_allclose(reordered, expected, rtol=1e-4, atol=1e-6)


def test_weights_that_are_no_constants_stay_with_tvm():
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 3, 9, 9), "float32"))
    w = relax.Var("w", relax.TensorType((4, 3, 3, 3), "float32"))
    with builder.function("main", [x, w]):
        with builder.dataflow():
            out = builder.emit_output(builder.emit(relax.op.nn.conv2d(x, w)))
        builder.emit_func_output(out)
    (func,) = functions(kernels(builder.get())).values()
    assert func.attrs["tirx.is_scheduled"]


def test_without_our_kernels_tvms_own_schedules_are_used():
    sources = []

    def keep(source):
        sources.append(source)
        return source.encode()

    mod = load_model(MNIST, "relax")
    for ours in (True, False):
        target = {"kind": "cuda", "arch": "sm_80"}
        engine.build(mod, target, reorder=True, kernels=ours, compile_kernels=keep)
    assert "conv2d_max_pool2d" in sources[0]
    assert "conv2d_max_pool2d" not in sources[1]
    assert "max_pool2d_add" in sources[1]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_sums_over_many_channels_are_split(layout, tmp_path):
    """Both orders split them alike, so that their bits stay the same."""
    rng = np.random.default_rng(0)
    last = layout == "NHWC"
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 8, 8, 64) if last else (1, 64, 8, 8), "float32"))
    weight = weights(rng, *((3, 3, 64, 16) if last else (16, 64, 3, 3)))
    layouts = {"data_layout": layout, "kernel_layout": "HWIO" if last else "OIHW"}
    with builder.function("main", [x]):
        with builder.dataflow():
            value = builder.emit(relax.op.nn.conv2d(x, weight, padding=1, **layouts))
            value = builder.emit(leaky(value))
            value = relax.op.nn.max_pool2d(value, (2, 2), (2, 2), layout=layout)
            value = builder.emit_output(builder.emit(value))
        builder.emit_func_output(value)
    mod = builder.get()
    names = sorted(functions(kernels(mod, OPENCL)))
    assert len(names) == 2
    data = rng.standard_normal([int(n) for n in x.ty.shape.values]).astype(np.float32)
    original, reordered = (
        on_opencl(mod, data, tmp_path / f"{reorder}.so", reorder=reorder)
        for reorder in (False, True)
    )
    np.testing.assert_array_equal(original.view(np.uint32), reordered.view(np.uint32))
    machine = relax.VirtualMachine(tvm.compile(mod, "llvm"), tvm.cpu())
    expected = machine["main"](tvm.runtime.tensor(data)).numpy()
    np.testing.assert_allclose(reordered, expected, rtol=1e-4, atol=1e-5)


def test_a_pool_stays_apart_where_the_model_says_so():
    """ResNet's stem, whose windows overlap: sums at the edges of tiles cost an H100 more."""
    conv = Conv2d(3, 64, 1, (7, 7), (2, 2), (1, 1), (3,) * 4, False, 1)
    layer = LayerOf((1, 3, 224, 224), conv, MaxPool2d((3, 3), (2, 2), (1, 1), (1,) * 4))
    found = fusion(layer, read_gpu("h100"))
    assert found.together > MARGIN * found.apart
    rng = np.random.default_rng(0)
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(layer.shape, "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            value = relax.op.nn.conv2d(x, weights(rng, 64, 3, 7, 7), (2, 2), (3, 3))
            value = builder.emit(relu(builder.emit(value)))
            value = relax.op.nn.max_pool2d(value, (3, 3), (2, 2), (1, 1))
            value = builder.emit_output(builder.emit(value))
        builder.emit_func_output(value)
    remarks = []
    target = tvm.target.Target({"kind": "cuda", "arch": "sm_90", "host": "llvm"})
    with target:
        tile = TileConv2d(on_remark=remarks.append)
        passes = gpu_passes(target, ReorderActivationAfterMaxPool(), ours=True, tile=tile)
        names = sorted(functions(tvm.transform.Sequential(passes)(builder.get())))
    assert names == ["conv2d", "fused_max_pool2d_relu"]
    (remark,) = remarks
    assert remark.reason == KernelReason.SLOWER_FUSED.value
    assert f"{found.together * 1e6:.1f} us, two {found.apart * 1e6:.1f}" in remark.message


def test_layers_with_work_for_all_multiprocessors_are_not_split():
    def layer(channels, extent, kernel):
        conv = Conv2d(channels, 64, 1, (kernel,) * 2, (1, 1), (1, 1), (0,) * 4, False, 1)
        return LayerOf((1, channels, extent, extent), conv, None)

    assert parts_of(layer(64, 224, 3), CUDA) == 1
    assert parts_of(layer(3, 9, 3), CUDA) == 1
    assert parts_of(layer(1024, 7, 1), CUDA) > 1


def test_ops_outside_of_dataflow_blocks():
    builder, x = relax.BlockBuilder(), relax.Var("x", relax.TensorType((1, 3, 12, 12), "float32"))
    with builder.function("main", [x]):
        y = builder.emit(relax.op.nn.conv2d(x, weights(np.random.default_rng(0), 8, 3, 3, 3)))
        y = builder.emit(relax.op.nn.max_pool2d(builder.emit(relax.op.nn.relu(y)), (2, 2), (2, 2)))
        builder.emit_func_output(y)
    assert any("conv2d_max_pool2d" in name for name in functions(kernels(builder.finalize())))
