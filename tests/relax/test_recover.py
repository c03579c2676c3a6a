"""Kernels that ONNX's importer calls, and the ops that they are."""

import pytest
import tvm
from tvm import relax, topi

from tvm_passes.decline import Reason
from tvm_passes.relax import decisions
from tvm_passes.relax.recover import RecoverOps

SHAPE = (1, 4, 8, 8)
SIDES = [0, 0, 1, 0], [0, 0, 1, 2]


def calls(f, *args):
    """A relu, the kernel of a tensor expression, and a max-pool."""
    x = relax.Var("x", relax.TensorType(SHAPE, "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            value = builder.emit(relax.op.nn.relu(x))
            value = builder.emit_te(f, value, *args)
            out = builder.emit_output(relax.op.nn.max_pool2d(value, (2, 2), (2, 2)))
        builder.emit_func_output(out)
    return builder.get()


def op_names(mod):
    block = mod["main"].body.blocks[0]
    return [binding.value.op.name for binding in block.bindings if hasattr(binding.value, "op")]


@pytest.mark.parametrize(
    ("kernel", "op"),
    [
        ((topi.maximum, 0.5), "relax.maximum"),
        ((topi.minimum, 6.0), "relax.minimum"),
        ((topi.nn.pad, *SIDES, 0.0), "relax.nn.pad"),
    ],
    ids=["maximum", "minimum", "pad"],
)
def test_a_kernel_of_an_op_is_that_op(kernel, op):
    before = calls(*kernel)
    assert op_names(before)[1] == "relax.call_tir"
    after = RecoverOps()(before)
    assert op_names(after)[1] == op
    (decision,) = decisions(after)
    assert "relax.nn.relu" in [op.op for op in decision.sunk]
    made = relax.transform.LegalizeOps()(after)
    assert kernels(before) <= kernels(made)


def kernels(mod):
    """The bodies of a module's kernels."""
    found = (f for f in mod.functions.values() if isinstance(f, tvm.tirx.PrimFunc))
    return {f.without_attr("global_symbol").script() for f in found}


def tripled(x):
    return tvm.te.compute(x.shape, lambda *i: tvm.te.max(x(*i), 0.5) * 3.0)


@pytest.mark.parametrize(
    "kernel",
    [
        (topi.nn.mirror_pad, *SIDES, "REFLECT"),
        (topi.nn.replicate_pad, *SIDES),
        (tripled,),
        (topi.tanh,),
    ],
    ids=["reflect", "edge", "more", "tanh"],
)
def test_other_kernels_stay_and_the_pool_says_so(kernel):
    after = RecoverOps()(calls(*kernel))
    (decision,) = decisions(after)
    assert not decision.passed
    assert decision.decline.reason is Reason.NO_RULE
    assert "relax.call_tir" in decision.decline.detail
    assert kernels(after)
