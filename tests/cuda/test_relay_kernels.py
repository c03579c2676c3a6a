"""CUDA kernels from Relay: whose TVM generates none, so that they are there to be looked at."""

import json
from pathlib import Path

import pytest

from tvm_passes.cli import main
from tvm_passes.cuda.execution import Place, execute
from tvm_passes.cuda.sass import disassemble
from tvm_passes.dialects import RELAY, installed

MNIST = Path(__file__).parents[1] / "data" / "mnist.tflite"

pytestmark = pytest.mark.skipif(installed() != RELAY, reason="needs the TVM of Relay")


@pytest.fixture(scope="module", params=["--reorder", "--no-reorder"])
def compiled(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cuda") / "out"
    argv = ["compile", str(MNIST), "--target", "sm_90", "-o", str(folder), "-q", request.param]
    assert main(argv) == 0
    return folder


def test_source_ptx_and_machine_code_but_nothing_to_run(compiled):
    names = sorted(path.name for path in compiled.iterdir())
    assert names == ["kernels.cu", "kernels.cubin", "kernels.ptx", "manifest.json"]
    manifest = json.loads((compiled / "manifest.json").read_text())
    assert manifest["runs"] is False
    assert manifest["device"]["arch"] == "sm_90"
    kernels = manifest["device"]["kernels"]
    assert len(kernels) == 9
    assert all(taken["spill_stores"] == 0 for taken in kernels.values())
    assert all(taken["threads"] > 1 for taken in kernels.values())
    assert b".target sm_90" in (compiled / "kernels.ptx").read_bytes()


def test_the_pool_takes_the_maximum_of_four_and_the_activation(compiled):
    code = disassemble((compiled / "kernels.cubin").read_bytes())
    manifest = json.loads((compiled / "manifest.json").read_text())
    pools = [name for name in code if "max_pool2d" in name]
    assert len(pools) == 2
    for name in pools:
        assert ("relu" in name) is manifest["reordered"]
        counts = execute(code[name], Place((0, 0, 0)))
        assert counts.finished
        loads = 5 if manifest["reordered"] else 4  # the window, and the bias
        assert (counts.instructions["LDG"], counts.instructions["STG"]) == (loads, 1)


def test_it_says_so(capsys, tmp_path):
    import tvm

    assert main(["compile", str(MNIST), "--target", "cuda", "-o", str(tmp_path / "out")]) == 0
    assert "kernels to inspect, not to run" in capsys.readouterr().out
    assert tvm.get_global_func("target.build.cuda", allow_missing=True) is None


def test_vectors_of_opencl_compile():
    from tvm_passes.cuda.compiler import Options, compile_device_code, find_compiler
    from tvm_passes.relay.device_code import DEFINITIONS, VECTOR

    body = "vstore2(max(vload2(0, p) * ((float2)(p[0], p[1])), vload2(1, p)), 1, p);"
    source = (
        f'{DEFINITIONS}extern "C" __global__ void __launch_bounds__(32) k(__global float* p) '
        f"{{ barrier(CLK_LOCAL_MEM_FENCE); {body} }}"
    )
    converted = VECTOR.sub(r"(make_\1(", source)
    code = compile_device_code(find_compiler(), converted, Options("sm_80"))
    assert code.resources["k"].threads == 32


def test_both_orders_are_lined_up(capsys):
    assert main(["bench", "--static", str(MNIST), "--gpu", "h100", "--json"]) == 0
    versions = {
        entry["version"]: entry for entry in json.loads(capsys.readouterr().out)["versions"]
    }
    assert set(versions) == {"original", "reordered"}
    for version in versions.values():
        assert sum(kernel["calls"] for kernel in version["kernels"]) == 7
        assert all(kernel["finished"] and kernel["unique_bytes"] for kernel in version["kernels"])
        assert all(kernel["bank_conflicts"] is None for kernel in version["kernels"])
    maxima = {name: version["instructions"]["FMNMX"] for name, version in versions.items()}
    assert maxima["reordered"] < maxima["original"] / 2


def test_a_version_that_relay_does_not_have_is_one_line(capsys):
    assert main(["bench", "--static", str(MNIST), "--version", "fused", "-q"]) == 1
    assert "relay has no version fused: expected original, reordered" in capsys.readouterr().err
