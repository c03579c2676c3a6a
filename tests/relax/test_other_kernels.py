"""Kernels of another form than the schedules know: the pipeline leaves them to TVM."""

import numpy as np
import pytest
import tvm
from relax_builders import data, module
from relax_runs import BASELINE, bits, hard_values, run
from tvm import relax
from tvm.relax import op
from tvm.relax.backend.cpu_generic import pipeline as cpu

from tvm_passes.namespaces import tir
from tvm_passes.relax import tvm_reorder_pipeline
from tvm_passes.schedules.gpu_conv2d_rule import TiledConv2d
from tvm_passes.schedules.gpu_pool import MaxPool
from tvm_passes.schedules.gpu_winograd_rule import WinogradKernels
from tvm_passes.schedules.rules import cpu_rules

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
