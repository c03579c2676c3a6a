"""Ops that change the element type below several pools: variables in between change it, too."""

import numpy as np
import pytest
import tvm
import tvm_ffi
from relax_builders import SHAPE, assert_sinks, built, const, data, max_pool, module, run_pass
from relax_runs import bits, hard_values, outputs
from tvm import relax
from tvm.relax import op
from tvm.script import relax as R  # noqa: N812 - TVMScript's own name
from tvm.script import tirx as T  # noqa: N812


def assert_same(before, after, *inputs):
    for a, b in zip(outputs(before, *inputs), outputs(after, *inputs), strict=True):
        assert np.array_equal(bits(a), bits(b))


@pytest.mark.parametrize("f", [lambda x: op.astype(x, "float16"), lambda x: op.astype(x, "int32")])
@pytest.mark.parametrize("between", [lambda x: x, lambda x: op.permute_dims(x, [0, 1, 3, 2])])
def test_the_type_changes_past_a_second_pool(f, between):
    def chain(x):
        return max_pool(between(max_pool(op.nn.relu(f(x)))))

    mod = module(chain, data(SHAPE, "int8"))
    sunk = module(lambda x: op.nn.relu(f(max_pool(between(max_pool(x))))), data(SHAPE, "int8"))
    assert_sinks(mod, sunk)
    after, _ = run_pass(mod)
    relax.analysis.well_formed(after)
    assert_same(mod, after, hard_values(SHAPE, "int8"))


def test_the_type_changes_past_the_values_of_a_tuple():
    """As PyTorch's importer writes a pool that may give indices."""

    def chain(b, x):
        pooled = b.emit(max_pool(b.emit(op.astype(b.emit(op.nn.relu(x)), "int32"))))
        both = b.emit(relax.Tuple([pooled, b.emit(op.zeros_like(pooled, "int64"))]))
        return max_pool(b.emit(op.nn.relu(b.emit(both[0]))))

    mod = built(chain, data(SHAPE, "int8"))
    after, remarks = run_pass(mod)
    relax.analysis.well_formed(after)
    tvm.ir.assert_structural_equal(run_pass(after)[0], after)
    assert [remark.reason for remark in remarks].count("sunk") == 2
    assert_same(mod, after, hard_values(SHAPE, "int8"))


def test_the_type_changes_past_a_reduction_that_drops_axes():
    """The maximum with a number a channel stays between both: the first keeps axes for it."""
    least = const(np.arange(-4, 4).reshape(1, 8, 1, 1), "int8")

    def chain(x):
        return op.max(op.max(op.astype(op.maximum(x, least), "float32"), [2, 3]), [1])

    mod = module(chain, data(SHAPE, "int8"))
    after, remarks = run_pass(mod)
    relax.analysis.well_formed(after)
    assert [remark.reason for remark in remarks].count("sunk") == 2
    assert after["main"].body.blocks[0].bindings[-1].value.op.name == "relax.astype"
    assert_same(mod, after, hard_values(SHAPE, "int8"))


# One item of the tuple leaves, one is an operand of what sinks, one has its extents matched.
@R.function
def main(
    x: R.Tensor((1, 8, 16, 16), "float16"),
    y: R.Tensor((1, 8, 1, 1), "float32"),
    z: R.Tensor(("n", 8), "float32"),
):
    m = T.int64()
    with R.dataflow():
        wide = R.astype(x, "float32")
        first = R.nn.max_pool2d(wide, (2, 2), (2, 2))
        fields = (first, R.exp(y), R.exp(z))
        values = fields[0]
        second = R.nn.max_pool2d(values, (2, 2), (2, 2))
        leaves = fields[2]
        operand = fields[1]
        larger = R.maximum(R.astype(x, "float32"), operand)
        third = R.nn.max_pool2d(larger, (2, 2), (2, 2))
        item = fields[2]
        matched = R.match_cast(item, R.Tensor((m, 8), "float32"))
        sums = R.add(matched, R.ones((m, 8), "float32"))
        R.output(second, leaves, third, sums)
    return (second, leaves, third, sums)


def test_what_else_is_in_the_tuple_stays_what_it_is():
    mod = tvm.IRModule({"main": main})
    after, _ = run_pass(mod)
    relax.analysis.well_formed(after)
    assert not tvm_ffi.structural_equal(after, mod)
    shapes = {SHAPE: "float16", (1, 8, 1, 1): "float32", (4, 8): "float32"}
    assert_same(mod, after, *(hard_values(shape, dtype) for shape, dtype in shapes.items()))


def test_tensors_of_which_the_rank_alone_is_known():
    x = relax.Var("x", relax.TensorType(None, "float16", ndim=4))
    mod = built(lambda _, x: max_pool(max_pool(op.nn.relu(op.astype(x, "float32")))), x)
    after, remarks = run_pass(mod)
    relax.analysis.well_formed(after)
    assert [remark.reason for remark in remarks].count("sunk") == 2
    tvm.ir.assert_structural_equal(run_pass(after)[0], after)
