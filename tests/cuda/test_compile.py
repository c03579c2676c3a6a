"""``tvm-reorder compile --target cuda``: what it writes, and what TVM's CUDA runtime would load."""

import json
from pathlib import Path

import pytest

from tvm_passes.cli import main
from tvm_passes.cuda import compiler
from tvm_passes.dialects import RELAX, installed
from tvm_passes.errors import how_to_install

MNIST = Path(__file__).parents[1] / "data" / "mnist.tflite"
FILES = ["kernels.cu", "kernels.cubin", "kernels.ptx", "lib.so", "manifest.json"]

pytestmark = pytest.mark.skipif(installed() != RELAX, reason="needs the TVM of Relax")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cuda") / "out"
    assert main(["compile", str(MNIST), "--target", "sm_90", "-o", str(folder), "-q"]) == 0
    return folder


def test_the_folder_holds_source_ptx_machine_code_and_host_code(compiled):
    assert sorted(path.name for path in compiled.iterdir()) == FILES
    assert "__global__" in (compiled / "kernels.cu").read_text()
    assert b".target sm_90" in (compiled / "kernels.ptx").read_bytes()
    assert (compiled / "kernels.cubin").read_bytes()[:4] == b"\x7fELF"
    device = json.loads((compiled / "manifest.json").read_text())["device"]
    assert device["arch"] == "sm_90"
    assert device["fast_math"] is False
    assert device["compiler"].startswith(("nvcc", "NVRTC"))
    assert device["kernels"]
    assert all(taken["spill_stores"] == 0 for taken in device["kernels"].values())


def test_tvms_runtime_loads_what_was_compiled_here_and_compiles_nothing(compiled):
    import tvm
    import tvm_ffi

    loader = "ffi.Module.load_from_bytes.cuda"
    if tvm.get_global_func(loader, allow_missing=True) is not None:
        pytest.skip("this machine has a CUDA runtime: pytest -m gpu runs the kernels")
    loaded = []

    def load(data):
        loaded.append(bytes(data))
        raise RuntimeError("no GPU here")

    tvm_ffi.register_global_func(loader, load)
    try:
        with pytest.raises(RuntimeError, match="no GPU here"):
            tvm.runtime.load_module(str(compiled / "lib.so"))
    finally:
        tvm_ffi.remove_global_func(loader)
    (data,) = loaded
    assert data[8:12] == b"fatb"
    assert (compiled / "kernels.cubin").read_bytes()[:4] in data
    assert b"__global__" not in data


def test_every_kernel_has_threads(compiled):
    source = (compiled / "kernels.cu").read_text()
    names = json.loads((compiled / "manifest.json").read_text())["device"]["kernels"]
    for name in names:
        body = source.rpartition(f"{name}(")[2]
        assert "threadIdx.x" in body or "blockIdx.x" in body, name


def test_the_message_says_what_compiled(capsys, tmp_path):
    argv = ["compile", str(MNIST), "--target", "cuda", "--fast-math", "-o", str(tmp_path / "out")]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert f"for sm_80 by {compiler.find_compiler().describe()}, fast math" in out
    assert f"wrote {tmp_path / 'out'}: {', '.join(FILES)}" in out


def test_a_second_result_replaces_the_first(tmp_path):
    folder = tmp_path / "out"
    for target in ("sm_90", "llvm"):
        assert main(["compile", str(MNIST), "--target", target, "-o", str(folder), "-q"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["lib.so", "manifest.json"]


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["--target", "sm_42"], "no GPU architecture 'sm_42'"),
        (["--target", "llvm", "--fast-math"], "fast math is for the target cuda"),
    ],
)
def test_refusals_are_one_line(capsys, tmp_path, argv, why):
    assert main(["compile", str(MNIST), "-o", str(tmp_path / "out"), "-q", *argv]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tvm-reorder: error: ")
    assert why in line
    assert not (tmp_path / "out").exists()


def test_without_a_compiler_the_line_says_what_to_install(capsys, tmp_path, monkeypatch):
    for name in ("_machine_nvcc", "_package_nvcc", "_nvrtc"):
        monkeypatch.setattr(compiler, name, lambda: None)
    argv = ["compile", str(MNIST), "--target", "cuda", "-o", str(tmp_path / "out"), "-q"]
    assert main(argv) == 1
    assert how_to_install("cuda") in capsys.readouterr().err
