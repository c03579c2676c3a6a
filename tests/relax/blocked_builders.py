"""Layers after the reorder, targets to compile them for, and the comparison with TVM's own."""

from __future__ import annotations

import numpy as np
import tvm
from relax_runs import CPU_FLAGS, HAS_FMA, hard_values, outputs, run
from tvm import relax
from tvm.relax import op

from tvm_passes.namespaces import tir
from tvm_passes.relax import tvm_reorder_pipeline
from tvm_passes.relax.blocked import BlockConv2d


def one_core(**attrs):
    return tvm.target.Target({"kind": "llvm", "num-cores": 1, **attrs})


AVX2, AVX512 = one_core(mcpu="x86-64-v3"), one_core(mcpu="x86-64-v4")
SSE, NEON = one_core(), one_core(mtriple="aarch64-linux-gnu")
RUNNABLE = [SSE]
if HAS_FMA:
    RUNNABLE.append(AVX2)
if CPU_FLAGS.exists() and {"avx512f", "avx512vl"} <= set(CPU_FLAGS.read_text().split()):
    RUNNABLE.append(AVX512)


def weights(*shape, dtype="float32"):
    return relax.const((np.random.default_rng(1).standard_normal(shape) * 0.2).astype(dtype))


def layer(x, filters=8, kernel=(3, 3), *, groups=1, pool=None, bias=True, act=op.nn.relu, **attrs):
    """conv2d, max_pool2d, bias and activation: a layer after the reorder."""
    last = attrs.get("data_layout") == "NHWC"
    shape = [int(extent) for extent in x.ty.shape.values]
    per_group = shape[3 if last else 1] // groups
    extents = (filters, *kernel, per_group) if last else (filters, per_group, *kernel)
    layout = "OHWI" if last else "OIHW"
    y = op.nn.conv2d(x, weights(*extents), groups=groups, kernel_layout=layout, **attrs)
    if pool is not None:
        y = op.nn.max_pool2d(y, layout="NHWC" if last else "NCHW", **pool)
    if bias:
        y = op.add(y, weights(filters) if last else weights(1, filters, 1, 1))
    return act(y)


def compiled(mod, target, remarks=None, allow=()):
    with target:
        on_remark = (remarks if remarks is not None else []).append
        pipeline = tvm_reorder_pipeline(on_remark=on_remark, allow=allow)
    return tvm.compile(mod, target, relax_pipeline=pipeline)


def blocked(mod, target=AVX2):
    with target:
        return BlockConv2d()(mod)


def kernel_names(mod):
    """The names of a module's PrimFuncs."""
    return [gvar.name_hint for gvar, func in mod.functions.items() if is_kernel(func)]


def is_kernel(func):
    return isinstance(func, tir.PrimFunc)


def assert_same_bits(mod, target):
    shape = tuple(int(extent) for extent in mod["main"].params[0].ty.shape.values)
    x = hard_values(shape, "float32")
    expected = outputs(mod, x, target=target)
    for one, other in zip(run(compiled(mod, target), x), expected, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
