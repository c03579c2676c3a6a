"""The compilers of CUDA C: which is taken, what it makes, and what it refuses."""

import re
import shutil

import pytest

from tvm_passes.cuda import compiler as module
from tvm_passes.cuda.compiler import (
    MACHINE,
    NVRTC,
    PACKAGE,
    Nvcc,
    Options,
    compile_device_code,
    find_compiler,
    kernel_compiler,
    require_arch,
)
from tvm_passes.cuda.resources import read_resources
from tvm_passes.errors import DeviceCompilerError, how_to_install

pytestmark = pytest.mark.no_tvm

KERNEL = """
#include <cuda.h>
extern "C" __global__ void __launch_bounds__(64) scale_kernel(float* __restrict__ x) {
  __shared__ float tile[64];
  tile[threadIdx.x] = expf(x[threadIdx.x]);
  __syncthreads();
  x[threadIdx.x] = tile[63 - threadIdx.x] / 3.0f;
}
"""


def available(place):
    try:
        return find_compiler((place,))
    except DeviceCompilerError:
        return None


@pytest.mark.parametrize("place", [MACHINE, PACKAGE, NVRTC])
def test_each_compiler_makes_ptx_and_machine_code(place):
    compiler = available(place)
    if compiler is None and place == PACKAGE:
        pytest.fail("the extra dev brings nvidia-cuda-nvcc: run make test, or install it")
    if compiler is None:
        pytest.skip(f"no {place} here: install NVIDIA's toolkit or cuda-bindings")
    source = KERNEL.replace("#include <cuda.h>", "") if place == NVRTC else KERNEL
    code = compile_device_code(compiler, source, Options("sm_90"))
    assert b".target sm_90" in code.ptx
    assert code.cubin.startswith(b"\x7fELF")
    assert code.compiler == compiler.describe()
    taken = code.resources["scale_kernel"]
    assert (taken.threads, taken.shared, taken.spill_stores) == (64, 256, 0)
    assert 0 < taken.registers < 64


def test_a_fat_binary_holds_ptx_for_later_gpus():
    code = compile_device_code(find_compiler((PACKAGE,)), KERNEL, Options("sm_80"))
    assert code.cubin[:4] in code.binary
    assert len(code.binary) > len(code.cubin)


def test_fast_math_is_off_unless_asked_for():
    compiler = find_compiler()
    exact = compile_device_code(compiler, KERNEL, Options("sm_80"))
    fast = compile_device_code(compiler, KERNEL, Options("sm_80", fast_math=True))
    assert b"div.rn.f32" in exact.ptx or b"div.full" not in exact.ptx
    assert b"mul.ftz.f32" in fast.ptx
    assert b"mul.ftz.f32" not in exact.ptx


class TestOrder:
    def test_the_machine_goes_before_the_package(self, monkeypatch):
        first, second = Nvcc("a", "machine"), Nvcc("b", "package")
        monkeypatch.setattr(module, "_machine_nvcc", lambda: first)
        monkeypatch.setattr(module, "_package_nvcc", lambda: second)
        assert find_compiler() is first
        monkeypatch.setattr(module, "_machine_nvcc", lambda: None)
        assert find_compiler() is second

    def test_cuda_path_goes_before_path(self, monkeypatch, tmp_path):
        fake = tmp_path / "bin" / "nvcc"
        fake.parent.mkdir()
        fake.write_text("#!/bin/sh\n")
        fake.chmod(0o755)
        monkeypatch.setenv("CUDA_PATH", str(tmp_path))
        assert find_compiler((MACHINE,)).path == fake

    def test_none_is_one_line_that_says_what_to_install(self, monkeypatch):
        for name in ("_machine_nvcc", "_package_nvcc", "_nvrtc"):
            monkeypatch.setattr(module, name, lambda: None)
        with pytest.raises(DeviceCompilerError, match=re.escape(how_to_install("cuda"))):
            find_compiler()

    def test_an_empty_machine_has_no_nvcc(self, monkeypatch):
        monkeypatch.setattr(shutil, "which", lambda _name: None)
        monkeypatch.setattr(module, "package_folders", list)
        assert available(MACHINE) is None
        assert available(PACKAGE) is None


class TestRefusals:
    def test_an_architecture_that_the_compiler_does_not_know(self):
        with pytest.raises(DeviceCompilerError, match=r"no GPU architecture 'sm_42': .*sm_90"):
            kernel_compiler("sm_42")

    def test_an_architecture_with_a_feature_suffix(self):
        require_arch(find_compiler(), "sm_90a")

    def test_source_that_does_not_compile(self):
        with pytest.raises(DeviceCompilerError, match="refuses a kernel: this decl"):
            compile_device_code(find_compiler(), "nonsense;", Options("sm_80"))

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            (("tile[64]", "tile[20000]"), "shared"),
            (("(64)", "(2048)"), "2048 threads a block, sm_80 has 1024"),
        ],
    )
    def test_a_kernel_over_the_limits(self, change, why):
        with pytest.raises(DeviceCompilerError, match=why) as refused:
            compile_device_code(find_compiler(), KERNEL.replace(*change), Options("sm_80"))
        assert "\n" not in str(refused.value)

    def test_more_registers_than_a_block_has(self):
        log = (
            "ptxas info : Compiling entry function 'k' for 'sm_80'\n"
            "    0 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads\n"
            "ptxas info : Used 255 registers, used 1 barriers, 128 bytes smem\n"
        )
        taken = read_resources(log, "void __launch_bounds__(512) k(float* x)")["k"]
        assert (taken.spill_stores, taken.spill_loads, taken.shared) == (8, 12, 128)
        with pytest.raises(DeviceCompilerError, match="130560 registers a block, sm_80 has 65536"):
            module.check_limits("k", taken, "sm_80")
