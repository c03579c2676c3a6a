"""Figures of kernels: counts against counts by hand, inner loops, sites, the roofline."""

import numpy as np
import pytest

from tvm_passes import dialects
from tvm_passes.bench.assembly import inner_loops, kernel_lines, kind, main_loop
from tvm_passes.bench.sites import by_site, roofline, site_kernels, site_times

DIALECT = dialects.installed()
needs_tvm = pytest.mark.skipif(DIALECT is None, reason="needs a TVM")

# Counting.


def counted(outputs):
    """Counts of the PrimFunc that computes a tensor expression from the placeholders given."""
    from tvm import te

    from tvm_passes.bench.counting import count

    return count(te.create_prim_func(outputs))


@needs_tvm
def test_evaluations_of_relu_before_and_after_a_pool():
    from tvm import te

    x = te.placeholder((1, 2, 4, 4), name="x")
    relu = te.compute(x.shape, lambda *i: te.max(x(*i), te.const(0.0, "float32")), name="relu")

    def pool(data):
        a, b = te.reduce_axis((0, 2)), te.reduce_axis((0, 2))
        return te.compute(
            (1, 2, 2, 2), lambda n, c, h, w: te.max(data[n, c, 2 * h + a, 2 * w + b], axis=[a, b])
        )

    before = counted([x, pool(relu)])
    assert before.evaluations == {"maximum with a constant": 32}
    assert before.maxima == 32
    pooled = pool(x)
    after = counted(
        [x, te.compute(pooled.shape, lambda *i: te.max(pooled(*i), te.const(0.0, "float32")))]
    )
    assert after.evaluations == {"maximum with a constant": 8}
    assert after.maxima == 32
    assert (before.exact, after.exact) == (True, True)


@needs_tvm
@pytest.mark.parametrize("intrinsic", ["exp", "tanh", "sigmoid", "erf"])
def test_intrinsics_are_counted_by_name(intrinsic):
    from tvm import te

    from tvm_passes.namespaces import tir

    x = te.placeholder((3, 5), name="x")
    y = te.compute((3, 5), lambda i, j: getattr(tir, intrinsic)(x[i, j]) + te.const(1.0, "float32"))
    found = counted([x, y])
    assert found.evaluations == {intrinsic: 15}
    assert found.arithmetic == 15


@needs_tvm
def test_selection_by_value_and_by_place():
    """A leaky relu selects by value; padding selects by place and computes nothing."""
    from tvm import te

    from tvm_passes.namespaces import tir

    x = te.placeholder((6,), name="x")
    zero = te.const(0.0, "float32")
    leaky = te.compute(
        (6,), lambda i: tir.Select(x[i] > zero, x[i], x[i] * te.const(0.1, "float32"))
    )
    branching = te.compute((6,), lambda i: tir.if_then_else(x[i] > zero, x[i], zero))
    found = counted([x, leaky])
    assert found.evaluations == {"selection by value": 6}
    assert found.arithmetic == 6
    assert counted([x, branching]).evaluations == {"selection by value": 6}
    inside = lambda i: tir.all(i >= 2, i < 8)  # noqa: E731
    padded = te.compute((10,), lambda i: tir.if_then_else(inside(i), tir.exp(x[i - 2]), zero))
    assert counted([x, padded]).evaluations == {"exp": 6}


@needs_tvm
def test_a_bound_that_is_a_parameter_of_no_axes():
    """As ONNX's Clip gives it; the sum over all elements is no evaluation."""
    from tvm import te

    x, low = te.placeholder((4, 3), name="x"), te.placeholder((), name="low")
    clipped = te.compute(x.shape, lambda i, j: te.max(x[i, j], low()))
    a, b = te.reduce_axis((0, 4)), te.reduce_axis((0, 3))
    most = te.compute((), lambda: te.max(clipped[a, b], axis=[a, b]))
    found = counted([x, low, most])
    assert (found.evaluations, found.maxima) == ({"maximum with a constant": 12}, 12)


@needs_tvm
def test_iterations_that_a_split_adds_are_not_counted():
    from tvm import te

    from tvm_passes.bench.counting import count
    from tvm_passes.namespaces import Schedule, block, tir

    x = te.placeholder((10,), name="x")
    y = te.compute((10,), lambda i: tir.exp(x[i]), name="y")
    sch = Schedule(te.create_prim_func([x, y]))
    (i,) = sch.get_loops(block(sch, "y"))
    sch.split(i, [None, 4])
    found = count(sch.mod["main"])
    assert (found.evaluations, found.exact) == ({"exp": 10}, True)


# Assembly.

ASSEMBLY = """
\t.type\tkernel,@function
kernel:
\tpushq\t%rbx
\tleaq\t.L__tvm_parallel_lambda(%rip), %rdi
\tcallq\t*%rax
\tretq
\t.type\tother,@function
other:
.LBB1_0:
\tvdivps\t%ymm0, %ymm1, %ymm2
\tjne\t.LBB1_0
\tretq
\t.type\t.L__tvm_parallel_lambda,@function
.L__tvm_parallel_lambda:
\txorl\t%eax, %eax
.LBB2_1:
\tvmovups\t(%rsi), %zmm0
\t.p2align\t4
.LBB2_2:
\tvbroadcastss\t(%rdi,%rax), %zmm1  # a comment
\tvfmadd231ps\t(%rdx,%rax){1to16}, %zmm1, %zmm0
\tvmovups\t%zmm2, -64(%rsp)
\taddq\t$4, %rax
\tjne\t.LBB2_2
\tvmaxps\t%zmm0, %zmm3, %zmm0
\tvmovups\t%zmm0, (%rcx)
\tjb\t.LBB2_1
\tretq
"""


def test_a_kernel_has_its_parallel_body():
    assert len(kernel_lines(ASSEMBLY, "kernel")) == 2
    assert len(kernel_lines(ASSEMBLY, "other")) == 1


def test_the_main_loop_is_the_innermost_with_most_multiply_adds():
    loop = main_loop(ASSEMBLY, "kernel")
    assert loop.instructions == {
        "broadcast": 1,
        "multiply-add": 1,
        "store": 1,
        "integer and address": 1,
        "branch": 1,
    }
    assert loop.spills == 1
    assert loop.text.startswith(".LBB2_2:")
    assert main_loop(ASSEMBLY, "none") is None


def test_loops_that_hold_others_are_not_innermost():
    (lines,) = (lines for lines in kernel_lines(ASSEMBLY, "kernel") if ".LBB2_1:" in lines)
    assert len(list(inner_loops(lines))) == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("vmovups\t(%rax), %ymm0", "load"),
        ("vmovaps\t%ymm0, 32(%rsp)", "store"),
        ("movq\t%rax, %rbx", "move"),
        ("vfmadd213ps\t(%rax), %ymm1, %ymm2", "multiply-add"),
        ("vfnmadd231ss\t%xmm0, %xmm1, %xmm2", "multiply-add"),
        ("vmaxps\t%ymm0, %ymm1, %ymm2", "maximum or minimum"),
        ("vpermps\t%ymm0, %ymm1, %ymm2", "shuffle"),
        ("callq\texpf@PLT", "call"),
        ("fmla\tv0.4s, v1.4s, v2.s[0]", "multiply-add"),
        ("ldr\tq0, [x1, #16]", "load"),
        ("stp\tq0, q1, [sp]", "store"),
        ("fmaxnm\tv0.4s, v1.4s, v2.4s", "maximum or minimum"),
        ("b.ne\t.LBB0_1", "branch"),
        ("addq\t$4, %rax", "integer and address"),
    ],
)
def test_kinds_of_instructions(line, expected):
    assert kind(line) == expected


# Sites and the roofline.


def test_kernels_line_up_by_site():
    kernels = {"conv": {"maxima": 0}, "pool": {"maxima": 4}, "dense": {"maxima": 0}}
    kernels["softmax"] = {"maxima": 10}
    calls = ["conv", "pool", "conv", "pool", "dense", "softmax"]
    expected = [("pool 0", [0, 1]), ("pool 1", [2, 3]), ("after the pools", [4, 5])]
    assert by_site(calls, kernels, 2) == expected
    times = [{"name": name, "samples": [1.0, 2.0, 3.0]} for name in calls]
    figures = {"original": {"times": times, "kernels": kernels}, "broken": {"error": "x"}}
    assert site_times({"figures": figures, "sites": 2}) == {
        "pool 0": {"original": 4.0},
        "pool 1": {"original": 4.0},
        "after the pools": {"original": 4.0},
    }
    kernels = site_kernels({"figures": figures, "sites": 2})
    assert kernels["pool 1"] == {"original": [("conv", 2.0), ("pool", 2.0)]}


def test_roofline():
    limits = {"gflops": 100.0, "gbytes": 10.0}
    bound = roofline(flops=2e9, moved=1e9, seconds=0.2, limits=limits)
    assert bound == {"gflops": 10.0, "gbytes": 5.0, "intensity": 2.0, "share": 0.5}
    assert roofline(flops=1e9, moved=1, seconds=0.02, limits=limits)["share"] == 0.5


@needs_tvm
def test_peaks_are_measured(monkeypatch):
    import tvm

    from tvm_passes.bench import peaks
    from tvm_passes.namespaces import host_cpu

    monkeypatch.setattr(peaks, "SECONDS", 1e-6)
    monkeypatch.setattr(peaks, "TRIAD_FLOATS", 1 << 12)
    target = tvm.target.Target({"kind": "llvm", "mcpu": host_cpu()})
    found = peaks.peaks(target, 1)
    assert set(found) == {"gflops", "gbytes"}
    assert np.isfinite(list(found.values())).all()
    assert min(found.values()) > 0
