"""CUDA kernels from Relay: by TVM's own generator, or, where it has none, through OpenCL C.

The wheel of TVM 0.19 lowers for CUDA with TOPI's schedules, but cannot generate CUDA C.  Its
OpenCL C says the same, and compiles as CUDA C behind a few definitions.  That gives kernels to
inspect and compare, not to run: the wheel has no CUDA runtime either.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tvm

TOPHUB, NOWHERE = "TOPHUB_LOCATION", "NONE"
"""TVM's switch to download no tuning records: TOPI's schedules for CUDA would, without tuning."""

GENERATOR, COMPILE = "target.build.cuda", "tvm_callback_cuda_compile"

DEFINITIONS = """
#define __global
#define __local __shared__
#define restrict __restrict__
#define CLK_LOCAL_MEM_FENCE
#define barrier(fence) __syncthreads()
#define convert_int(x) ((int)(x))
#define convert_float(x) ((float)(x))
#define OF(name, base) __device__ inline int name(int n) { \\
  return n == 0 ? base.x : n == 1 ? base.y : base.z; }
OF(get_group_id, blockIdx)
OF(get_local_id, threadIdx)
#undef OF
#define EACH2(op) make_float2(a.x op b.x, a.y op b.y)
#define EACH4(op) make_float4(a.x op b.x, a.y op b.y, a.z op b.z, a.w op b.w)
#define OPERATOR(op) \\
  __device__ inline float2 operator op(float2 a, float2 b) { return EACH2(op); } \\
  __device__ inline float4 operator op(float4 a, float4 b) { return EACH4(op); }
OPERATOR(+) OPERATOR(-) OPERATOR(*) OPERATOR(/)
#define LANES(n) \\
  __device__ inline float##n vload##n(int i, const float* p) { \\
    float##n v; for (int k = 0; k < n; ++k) (&v.x)[k] = p[i * n + k]; return v; } \\
  __device__ inline void vstore##n(float##n v, int i, float* p) { \\
    for (int k = 0; k < n; ++k) p[i * n + k] = (&v.x)[k]; }
LANES(2) LANES(4)
__device__ inline float2 max(float2 a, float2 b) {
  return make_float2(max(a.x, b.x), max(a.y, b.y)); }
"""
"""OpenCL C as CUDA C, as far as TVM's OpenCL generator uses it."""

KERNEL = re.compile(r"__kernel void (\w+)\(")
VECTOR = re.compile(r"\(\((float[24])\)\(")


def has_cuda() -> bool:
    """Whether this TVM generates CUDA C itself, and runs it."""
    return tvm.get_global_func("device_api.cuda", allow_missing=True) is not None


@contextmanager
def compiled_by(
    compile_source: Callable[[str], bytes],
    on_kernels: Callable[[tvm.IRModule], object] = lambda _: None,
) -> Iterator[None]:
    """While the context lasts, TVM's CUDA kernels are compiled by `compile_source`.

    Parameters
    ----------
    compile_source
        From CUDA C to what a driver loads.
    on_kernels
        Called with the lowered kernels, where TVM does not generate CUDA C itself.
    """

    def generate(kernels: tvm.IRModule, _target: Any) -> tvm.runtime.Module:
        on_kernels(kernels)
        opencl = tvm.target.Target("opencl")
        moved = {gvar: func.with_attr("target", opencl) for gvar, func in kernels.functions.items()}
        module = tvm.get_global_func("target.build.opencl")(tvm.IRModule(moved), opencl)
        compile_source(as_cuda(module.get_source(), kernels))
        return module

    def compile_kernels(source: str, *_target: Any) -> bytearray:
        return bytearray(compile_source(source))

    name, function = (COMPILE, compile_kernels) if has_cuda() else (GENERATOR, generate)
    before, location = tvm.get_global_func(name, allow_missing=True), os.environ.get(TOPHUB)
    tvm.register_func(name, function, override=True)
    os.environ[TOPHUB] = NOWHERE if location is None else location
    try:
        yield
    finally:
        if location is None:
            del os.environ[TOPHUB]
        if before is None:
            tvm._ffi.registry.remove_global_func(name)  # noqa: SLF001 - its only way
        else:
            tvm.register_func(name, before, override=True)


def as_cuda(source: str, kernels: tvm.IRModule) -> str:
    """OpenCL C of lowered kernels as CUDA C."""
    threads = {str(gvar.name_hint): _threads(func) for gvar, func in kernels.functions.items()}

    def bounded(found: re.Match[str]) -> str:
        name = found[1]
        return f'extern "C" __global__ void __launch_bounds__({threads[name]}) {name}('

    return DEFINITIONS + VECTOR.sub(r"(make_\1(", KERNEL.sub(bounded, source))


def _threads(func: Any) -> int:
    """Threads of a block of a kernel."""
    extents: dict[str, int] = {}

    def visit(node: Any) -> None:
        if isinstance(node, tvm.tir.AttrStmt) and node.attr_key == "thread_extent":
            tag = str(node.node.thread_tag)
            if tag.startswith("threadIdx"):
                extents[tag] = int(node.value)

    tvm.tir.stmt_functor.post_order_visit(func.body, visit)
    total = 1
    for extent in extents.values():
        total *= extent
    return total
