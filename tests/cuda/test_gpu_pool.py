"""Max-pools with elementwise ops as GPU kernels, run on the CPU and compared with the CPU build."""

import numpy as np
import pytest
import tvm
from opencl_runs import lower, run
from tvm import te, topi

from tvm_passes.schedules.gpu_pool import MaxPool

GPU = tvm.target.Target({"kind": "cuda", "arch": "sm_80", "host": "llvm"})


def pool_add(shape, kernel, stride, padding=0, layout="NCHW", *, relu=False, ceil_mode=False):
    x = te.placeholder(shape, name="x")
    sides = [padding] * 4
    pooled = topi.nn.pool2d(
        topi.nn.relu(x) if relu else x, [kernel] * 2, [stride] * 2, [1, 1], sides, "max",
        ceil_mode, layout,
    )  # fmt: skip
    bias = te.placeholder((shape[1], 1, 1) if layout == "NCHW" else (shape[3],), name="bias")
    return te.create_prim_func([x, bias, topi.add(pooled, bias)])


def arrays(func):
    rng = np.random.default_rng(0)
    shapes = [tuple(map(int, param.ty.shape)) for param in func.params]
    values = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    values[0].flat[::7] = np.inf
    values[0].flat[1::5] = -0.0
    return values


POOLS = (
    pool_add((1, 7, 19, 23), 3, 2, 1),
    pool_add((2, 9, 11, 16), 2, 2, 0, "NHWC"),
    pool_add((1, 7, 19, 23), 2, 2, relu=True),
    pool_add((1, 3, 15, 15), 3, 3, 1, ceil_mode=True),
)


@pytest.mark.parametrize("func", POOLS)
def test_equals_the_cpu_build_bit_by_bit(func):
    *inputs, out = arrays(func)
    cpu = tvm.compile(func, target="llvm")
    expected = tvm.runtime.tensor(out)
    cpu(*map(tvm.runtime.tensor, inputs), expected)
    scheduled = MaxPool().apply(func, GPU, False).mod["main"]
    got = run(scheduled, *inputs)[-1]
    np.testing.assert_array_equal(got.view(np.uint32), expected.numpy().view(np.uint32))


def test_a_pool_alone_keeps_its_maxima_in_registers():
    x = te.placeholder((1, 3, 9, 9), name="x")
    pooled = topi.nn.pool2d(x, [3, 3], [2, 2], [1, 1], [0] * 4, "max")
    func = te.create_prim_func([x, pooled])
    scheduled = MaxPool().apply(func, GPU, False).mod["main"]
    values = np.random.default_rng(0).standard_normal((1, 3, 9, 9)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(values, (3, 3), (2, 3))[:, :, ::2, ::2]
    np.testing.assert_array_equal(run(scheduled, values)[-1], windows.max((4, 5)))
    assert lower(scheduled).source.count("pool_max_ptr[") == 1


def test_one_kernel_with_a_thread_an_output():
    func = pool_add((1, 64, 56, 56), 2, 2)
    (launch,) = lower(MaxPool().apply(func, GPU, False).mod["main"]).launches
    assert launch.grid[0] * launch.block[0] == 64 * 28 * 28


class TestLeavesToOthers:
    def test_cpus(self):
        assert (
            MaxPool().apply(pool_add((1, 4, 8, 8), 2, 2), tvm.target.Target("llvm"), False) is None
        )

    def test_large_windows(self):
        assert MaxPool().apply(pool_add((1, 4, 64, 64), 16, 16), GPU, False) is None

    @pytest.mark.parametrize("after", [lambda x: x, topi.exp])
    def test_one_number(self, after):
        x = te.placeholder((2, 3, 4), name="x")
        func = te.create_prim_func([x, after(topi.max(x))])
        assert MaxPool().apply(func, GPU, False) is None

    def test_functions_with_a_sum(self):
        x = te.placeholder((1, 8), name="x")
        assert MaxPool().apply(te.create_prim_func([x, topi.nn.softmax(x)]), GPU, False) is None

    def test_functions_without_a_pool(self):
        x = te.placeholder((1, 8), name="x")
        assert MaxPool().apply(te.create_prim_func([x, topi.nn.relu(x)]), GPU, False) is None

    def test_two_results(self):
        x = te.placeholder((1, 4, 8, 8), name="x")
        rectified = topi.nn.relu(x)
        pooled = topi.nn.pool2d(rectified, [2, 2], [2, 2], [1, 1], [0] * 4, "max")
        func = te.create_prim_func([x, rectified, pooled])
        assert MaxPool().apply(func, GPU, False) is None
