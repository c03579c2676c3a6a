"""On a GPU, where there is one (pytest -m gpu): what the kernels compute there."""

import json
from pathlib import Path

import numpy as np
import pytest
import tvm
from gpu_layers import largest_tile
from test_gpu_conv2d import CASES, LARGE
from test_gpu_networks import leaky, network

from tvm_passes.cli import main
from tvm_passes.cuda.compiler import kernel_compiler
from tvm_passes.frontends import load_model
from tvm_passes.relax import engine
from tvm_passes.relax.device_code import compiled_by, mark_compiled
from tvm_passes.schedules.gpu_conv2d_rule import schedule
from tvm_passes.schedules.gpu_tiles import best

MNIST = Path(__file__).parents[1] / "data" / "mnist.tflite"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not tvm.cuda().exist, reason="needs a CUDA GPU"),
]


def arch():
    return f"sm_{tvm.cuda().compute_version.replace('.', '')}"


@pytest.mark.parametrize(
    ("name", "tile"),
    [*((name, best) for name in CASES), *((name, largest_tile) for name in LARGE)],
)
def test_kernels_equal_numpy(name, tile, tmp_path):
    case = CASES[name]
    chosen = best(case.nest) if tile is best else largest_tile(case)
    weight, packed = case.weights(chosen)
    data, given = case.inputs()
    expected = case.expected(data, weight)
    target = tvm.target.Target({"kind": "cuda", "arch": arch(), "host": "llvm"})
    with compiled_by(kernel_compiler(arch())):
        built = tvm.compile(schedule(case.func(chosen)).mod["main"], target=target)
    library = tmp_path / "lib.so"
    built.export_library(str(library))
    mark_compiled(library)
    device = tvm.cuda()
    out = tvm.runtime.tensor(np.zeros(expected.shape, np.float32), device)
    run = tvm.runtime.load_module(str(library))
    run["main"](tvm.runtime.tensor(given, device), tvm.runtime.tensor(packed, device), out)
    np.testing.assert_array_equal(out.numpy(), expected)


def outputs(mod, data, folder, *, reorder):
    built = engine.build(
        mod,
        {"kind": "cuda", "arch": arch()},
        reorder=reorder,
        kernels=True,
        compile_kernels=kernel_compiler(arch()),
    )
    library = folder / f"{reorder}.so"
    engine.export(built, library)
    return engine.load(library, (), "cuda")(data)[0]


@pytest.mark.parametrize("name", ["mnist", "network"])
def test_both_orders_give_the_same_bits(name, tmp_path):
    mod = load_model(MNIST, "relax") if name == "mnist" else network(leaky)
    shape = engine.signature(mod)["inputs"][0]["shape"]
    data = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    original = outputs(mod, data, tmp_path, reorder=False)
    reordered = outputs(mod, data, tmp_path, reorder=True)
    np.testing.assert_array_equal(original.view(np.uint32), reordered.view(np.uint32))
    machine = tvm.relax.VirtualMachine(tvm.compile(mod, "llvm"), tvm.cpu())
    expected = machine["main"](tvm.runtime.tensor(data)).numpy()
    # A GPU fuses multiply-adds, and TVM's own kernels sum in another order.
    np.testing.assert_allclose(reordered, expected, rtol=1e-4, atol=1e-5)


def test_verify_and_bench(tmp_path):
    """On the GPU, what test_gpu_commands does on the CPU."""
    output = tmp_path / "gpu.json"
    assert main(["verify", str(MNIST), "--target", "cuda", "--rounds", "1"]) == 0
    argv = ["bench", str(MNIST), "--target", "cuda", "--rounds", "3", "--output", str(output)]
    assert main(argv) == 0
    (entry,) = json.loads(output.read_text())["results"]
    assert entry["target"]["arch"] == arch()
    assert set(entry["versions"]) >= {"original", "reordered", "scheduled", "fused"}
