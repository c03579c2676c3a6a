"""On a GPU, where there is one (pytest -m gpu): what the kernels compute there."""

import json
from pathlib import Path

import numpy as np
import pytest
import tvm
from gpu_filterings import CASES as FILTERINGS
from gpu_layers import largest_tile
from test_gpu_conv2d import CASES, LARGE
from test_gpu_networks import leaky, network
from test_gpu_pool import GPU, POOLS, arrays
from test_gpu_winograd import maxima

from tvm_passes.cli import main
from tvm_passes.cuda.compiler import kernel_compiler
from tvm_passes.frontends import load_model
from tvm_passes.relax import engine
from tvm_passes.relax.gpu_trials import export
from tvm_passes.schedules.gpu_conv2d_rule import schedule
from tvm_passes.schedules.gpu_pool import MaxPool
from tvm_passes.schedules.gpu_tiles import best
from tvm_passes.winograd import convolved

MNIST = Path(__file__).parents[1] / "data" / "mnist.tflite"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not tvm.cuda().exist, reason="needs a CUDA GPU"),
]


def arch():
    return f"sm_{tvm.cuda().compute_version.replace('.', '')}"


def computed(func, folder, *inputs):
    """What a scheduled function writes into its last parameter."""
    target = tvm.target.Target({"kind": "cuda", "arch": arch(), "host": "llvm"})
    library = folder / f"{len(list(folder.iterdir()))}.so"
    export(func, target, library)
    device = tvm.cuda()
    shape = tuple(map(int, func.params[-1].ty.shape))
    out = tvm.runtime.tensor(np.full(shape, np.nan, np.float32), device)
    given = [tvm.runtime.tensor(np.ascontiguousarray(array), device) for array in inputs]
    tvm.runtime.load_module(str(library))["main"](*given, out)
    return out.numpy()


@pytest.mark.parametrize(
    ("name", "tile"),
    [*((name, best) for name in CASES), *((name, largest_tile) for name in LARGE)],
)
def test_kernels_equal_numpy(name, tile, tmp_path):
    case = CASES[name]
    chosen = best(case.nest) if tile is best else largest_tile(case)
    weight, packed = case.weights(chosen)
    data, given = case.inputs()
    out = computed(schedule(case.func(chosen)).mod["main"], tmp_path, given, packed)
    np.testing.assert_array_equal(out, case.expected(data, weight))


@pytest.mark.parametrize("name", FILTERINGS)
def test_filterings_are_within_the_bound_of_numpy(name, tmp_path):
    case = FILTERINGS[name]
    data, weight = case.inputs()
    inward, multiply, outward = case.kernels()
    transformed = computed(inward, tmp_path, case.given(data))
    sums = computed(multiply, tmp_path, transformed, case.packed(weight))
    found = case.found(computed(outward, tmp_path, sums))
    exact = maxima(convolved(data.astype("float64"), weight, case.padding), case.window)
    assert np.abs(found - exact).max() <= case.family.error_bound(weight) * np.abs(data).max()


@pytest.mark.parametrize("case", range(len(POOLS)))
def test_pools_equal_the_cpu_build_bit_by_bit(case, tmp_path):
    func = POOLS[case]
    *inputs, out = arrays(func)
    expected = tvm.runtime.tensor(out)
    tvm.compile(func, target="llvm")(*map(tvm.runtime.tensor, inputs), expected)
    found = computed(MaxPool().apply(func, GPU, False).mod["main"], tmp_path, *inputs)
    np.testing.assert_array_equal(found.view(np.uint32), expected.numpy().view(np.uint32))


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
