"""Kernels of another form than the schedules know: the pipeline leaves them to TVM."""

import numpy as np
import pytest
import tvm
from relax_builders import data, module
from relax_runs import BASELINE, bits, hard_values, run
from tvm import relax
from tvm.relax import op
from tvm.relax.backend.cpu_generic import pipeline as cpu
from tvm.script import tirx as T  # noqa: N812 - TVMScript's own name

from tvm_passes.namespaces import tir
from tvm_passes.relax import tvm_reorder_pipeline
from tvm_passes.schedules.gpu_conv2d_rule import TiledConv2d
from tvm_passes.schedules.gpu_pool import MaxPool
from tvm_passes.schedules.gpu_winograd_rule import WinogradKernels
from tvm_passes.schedules.rules import cpu_rules
from tvm_passes.schedules.spatial import Spatial

ROWS = np.random.default_rng(3).integers(0, 8, (8, 12))
SCANS = {
    "cumsum": lambda x, _: op.cumsum(x, 1),
    "sort": lambda x, _: op.sort(x),
    "argsort": lambda x, _: op.argsort(x),
    "topk": lambda x, _: relax.TupleGetItem(op.topk(x, 3), 0),
    "scatter_elements": lambda x, rows: op.scatter_elements(x, rows, x, 0),
    "bucketize": lambda x, _: op.bucketize(x, relax.const(np.float32([-1, 0, 2]))),
}


def assert_as_stock(mod, *inputs):
    """Our pipeline's results are those of TVM's own, bit by bit."""
    ours = tvm.compile(mod, BASELINE, relax_pipeline=tvm_reorder_pipeline())
    pairs = zip(run(tvm.compile(mod, BASELINE), *inputs), run(ours, *inputs), strict=True)
    assert all(np.array_equal(bits(a), bits(b)) for a, b in pairs)


def indexed(body):
    """Of a matrix and as many row numbers."""
    return module(body, data((8, 12)), data((8, 12), "int64", "rows"))


@pytest.mark.parametrize("body", SCANS.values(), ids=SCANS)
def test_functions_without_a_root_block(body):
    assert_as_stock(indexed(body), hard_values((8, 12), "float32"), ROWS)


@pytest.mark.parametrize("target", ["llvm", {"kind": "cuda", "arch": "sm_80"}], ids=str)
def test_no_rule_schedules_a_function_without_a_root_block(target):
    with BASELINE:
        passes = [*cpu.library_dispatch_passes(BASELINE), relax.transform.LegalizeOps()]
        mod = tvm.transform.Sequential(passes)(indexed(SCANS["cumsum"]))
    (func,) = (func for func in mod.functions.values() if isinstance(func, tir.PrimFunc))
    for rule in (*cpu_rules(), TiledConv2d(), WinogradKernels(), MaxPool()):
        assert rule.apply(func, tvm.target.Target(target), False) is None


DATA_DEPENDENT = {
    "take": lambda x, rows: op.take(x, rows, 0),
    "take, along vectors": lambda x, rows: op.take(x, rows, 1),
    "take, elementwise ops around": lambda x, rows: op.nn.relu(op.take(op.negative(x), rows, 0)),
    "take, maxima": lambda x, rows: op.max(op.take(x, rows, 0), [2]),
    "gather_elements": lambda x, rows: op.gather_elements(x, rows, 0),
    "gather_nd": lambda x, rows: op.gather_nd(x, op.strided_slice(rows, [1], [0], [2])),
    "index_tensor": lambda x, rows: op.index_tensor(x, relax.Tuple([rows])),
}


@pytest.mark.parametrize("body", DATA_DEPENDENT.values(), ids=DATA_DEPENDENT)
def test_loads_from_where_data_say(body):
    assert_as_stock(indexed(body), hard_values((8, 12), "float32"), ROWS)


def test_an_embedding():
    table, words = (
        hard_values((40, 24), "float32"),
        np.random.default_rng(4).integers(0, 40, (2, 7)),
    )
    mod = module(lambda x, i: op.take(x, i, 0), data((40, 24)), data((2, 7), "int64", "words"))
    assert_as_stock(mod, table, words)


def called(func, results=1):
    """A module whose ``main`` calls a PrimFunc of [8, 12] numbers."""
    builder, x = relax.BlockBuilder(), data((8, 12))
    callee = builder.add_func(func, "written")
    types = [relax.TensorType((8, 12), "float32")] * results
    with builder.function("main", [x]):
        with builder.dataflow():
            out = types if results > 1 else types[0]
            result = builder.emit_output(relax.call_tir(callee, [x], out_ty=out))
        builder.emit_func_output(result)
    return builder.finalize()


@T.prim_func(s_tir=True, private=True)
def two_writers(a: T.Buffer((8, 12), "float32"), c: T.Buffer((8, 12), "float32")):
    b = T.sblock_alloc_buffer((8, 12), "float32")
    for i, j in T.grid(4, 12):
        with T.sblock("upper"):
            vi, vj = T.axis.remap("SS", [i, j])
            b[vi, vj] = a[vi, vj] * T.float32(2)
    for i, j in T.grid(4, 12):
        with T.sblock("lower"):
            vi, vj = T.axis.remap("SS", [i, j])
            b[vi + 4, vj] = a[vi, vj] + T.float32(1)
    for i, j in T.grid(8, 12):
        with T.sblock("c"):
            vi, vj = T.axis.remap("SS", [i, j])
            c[vi, vj] = b[vi, vj] - T.float32(3)


@T.prim_func(s_tir=True, private=True)
def in_place(a: T.Buffer((8, 12), "float32"), c: T.Buffer((8, 12), "float32")):
    b = T.sblock_alloc_buffer((8, 12), "float32")
    for i, j in T.grid(8, 12):
        with T.sblock("b"):
            vi, vj = T.axis.remap("SS", [i, j])
            b[vi, vj] = a[vi, vj] * T.float32(2)
    for i, j in T.grid(8, 12):
        with T.sblock("again"):
            vi, vj = T.axis.remap("SS", [i, j])
            b[vi, vj] = b[vi, vj] + T.float32(1)
    for i, j in T.grid(8, 12):
        with T.sblock("c"):
            vi, vj = T.axis.remap("SS", [i, j])
            c[vi, vj] = b[vi, vj] - T.float32(3)


@T.prim_func(s_tir=True, private=True)
def along_a_prefix(a: T.Buffer((8, 12), "float32"), c: T.Buffer((8, 12), "float32")):
    for i, j in T.grid(8, 12):
        with T.sblock("c"):
            vi, vj = T.axis.remap("SS", [i, j])
            c[vi, vj] = a[vi, vj] + T.if_then_else(vj > 0, c[vi, T.max(vj - 1, 0)], T.float32(0))


@T.prim_func(s_tir=True, private=True)
def already_parallel(a: T.Buffer((8, 12), "float32"), c: T.Buffer((8, 12), "float32")):
    for i in T.parallel(8):
        for j in T.vectorized(12):
            with T.sblock("c"):
                vi, vj = T.axis.remap("SS", [i, j])
                c[vi, vj] = a[vi, vj] * T.float32(2)


@T.prim_func(s_tir=True, private=True)
def one_loop(a: T.Buffer((8, 12), "float32"), c: T.Buffer((8, 12), "float32")):
    for i in range(96):
        with T.sblock("c"):
            vi = T.axis.spatial(8, i // 12)
            vj = T.axis.spatial(12, i % 12)
            c[vi, vj] = a[vi, vj] * T.float32(2)


@T.prim_func(s_tir=True, private=True)
def one_nest(a: T.Buffer((8, 12), "float32"), c: T.Buffer((8, 12), "float32")):
    b = T.sblock_alloc_buffer((8, 12), "float32")
    for i, j in T.grid(8, 12):
        with T.sblock("b"):
            vi, vj = T.axis.remap("SS", [i, j])
            b[vi, vj] = T.max(a[vi, vj], T.float32(0))
        with T.sblock("c"):
            vi, vj = T.axis.remap("SS", [i, j])
            c[vi, vj] = b[vi, vj] - T.float32(3)


@T.prim_func(s_tir=True, private=True)
def maxima_in_one_nest(a: T.Buffer((8, 12), "float32"), c: T.Buffer((8, 12), "float32")):
    b = T.sblock_alloc_buffer((8,), "float32")
    for i in range(8):
        for j in range(12):
            with T.sblock("b"):
                vi, vj = T.axis.remap("SR", [i, j])
                with T.init():
                    b[vi] = T.float32(-1)
                b[vi] = T.max(b[vi], a[vi, vj])
        for j in range(12):
            with T.sblock("c"):
                vi, vj = T.axis.remap("SS", [i, j])
                c[vi, vj] = b[vi] - a[vi, vj]


@T.prim_func(s_tir=True, private=True)
def where(a: T.Buffer((8, 12), "float32"), c: T.Buffer((8, 12), "float32")):
    for i, j in T.grid(8, 16):
        with T.sblock("c"):
            T.where(j < 12)
            vi, vj = T.axis.remap("SS", [i, j])
            c[vi, vj] = a[vi, vj] * T.float32(2)


@T.prim_func(s_tir=True, private=True)
def in_halves(a: T.Buffer((8, 12), "float32"), c: T.Buffer((8, 12), "float32")):
    for i, j in T.grid(4, 12):
        with T.sblock("upper"):
            vi, vj = T.axis.remap("SS", [i, j])
            c[vi, vj] = a[vi, vj] * T.float32(2)
    for i, j in T.grid(4, 12):
        with T.sblock("lower"):
            vi, vj = T.axis.remap("SS", [i, j])
            c[vi + 4, vj] = a[vi + 4, vj] + T.float32(1)


@T.prim_func(s_tir=True, private=True)
def from_two(a: T.Buffer((8, 12), "float32"), c: T.Buffer((8, 12), "float32")):
    for i in range(8):
        for j in range(2, 14):
            with T.sblock("c"):
                vi = T.axis.spatial(8, i)
                vj = T.axis.spatial(12, j - 2)
                c[vi, vj] = a[vi, vj] * T.float32(2)


@T.prim_func(s_tir=True, private=True)
def a_triangle(a: T.Buffer((8, 12), "float32"), c: T.Buffer((8, 12), "float32")):
    for i, j in T.grid(8, 12):
        with T.sblock("all"):
            vi, vj = T.axis.remap("SS", [i, j])
            c[vi, vj] = a[vi, vj]
    for i in range(8):
        for j in range(i + 1):
            with T.sblock("below"):
                vi = T.axis.spatial(8, i)
                vj = T.axis.spatial(12, j)
                c[vi, vj] = a[vj, vi] * T.float32(2)


@T.prim_func(s_tir=True, private=True)
def without_init(a: T.Buffer((8, 12), "float32"), c: T.Buffer((8, 12), "float32")):
    b = T.sblock_alloc_buffer((8,), "float32")
    for i in range(8):
        with T.sblock("zero"):
            vi = T.axis.spatial(8, i)
            b[vi] = T.float32(0)
    for i, j in T.grid(8, 12):
        with T.sblock("sum"):
            vi, vj = T.axis.remap("SR", [i, j])
            b[vi] = b[vi] + a[vi, vj]
    for i, j in T.grid(8, 12):
        with T.sblock("c"):
            vi, vj = T.axis.remap("SS", [i, j])
            c[vi, vj] = b[vi] - a[vi, vj]


WRITTEN = [
    two_writers,
    in_place,
    along_a_prefix,
    already_parallel,
    one_loop,
    one_nest,
    maxima_in_one_nest,
    where,
    in_halves,
    from_two,
    a_triangle,
    without_init,
]


@pytest.mark.parametrize("func", WRITTEN, ids=lambda func: func.__name__)
def test_functions_that_a_user_wrote(func):
    assert Spatial().apply(func, BASELINE, False) is None
    assert_as_stock(called(func), hard_values((8, 12), "float32"))


@T.prim_func(s_tir=True, private=True)
def two_results(
    a: T.Buffer((8, 12), "float32"),
    b: T.Buffer((8, 12), "float32"),
    c: T.Buffer((8, 12), "float32"),
):
    for i, j in T.grid(8, 12):
        with T.sblock("b"):
            vi, vj = T.axis.remap("SS", [i, j])
            b[vi, vj] = T.max(a[vi, vj], T.float32(0))
    for i, j in T.grid(8, 12):
        with T.sblock("c"):
            vi, vj = T.axis.remap("SS", [i, j])
            c[vi, vj] = b[vi, vj] - T.float32(3)


def test_a_result_that_another_is_computed_of():
    assert_as_stock(called(two_results, 2), hard_values((8, 12), "float32"))
