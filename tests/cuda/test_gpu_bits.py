"""What a swap may not change on a GPU alone: OpenCL, which a CPU runs."""

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.relax import op

from tvm_passes.decline import Reason
from tvm_passes.describe import DEVICE_MATH
from tvm_passes.relax import ReorderActivationAfterMaxPool, decisions, engine
from tvm_passes.target import parse_target

SHAPE = (1, 4, 6, 6)


def module(dtype, arithmetic, function):
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(SHAPE, dtype))
    with builder.function("main", [x]):
        with builder.dataflow():
            total = builder.emit(arithmetic(x, relax.const(np.full((4, 1, 1), 3, dtype))))
            value = builder.emit(function(total))
            pooled = builder.emit_output(op.nn.max_pool2d(value, (2, 2), (2, 2)))
        builder.emit_func_output(pooled)
    return builder.finalize()


@pytest.fixture
def run(tmp_path):
    def outputs(mod, x, reorder):
        path = tmp_path / f"{reorder}.so"
        built = engine.build(mod, parse_target("opencl"), reorder=reorder, kernels=True)
        engine.export(built, path)
        return engine.load(path, (), "opencl")(x)[0]

    return outputs


@pytest.mark.parametrize(
    "function", [lambda x: op.clip(x, 0, 100), lambda x: op.astype(x, "int32")]
)
@pytest.mark.parametrize("arithmetic", [op.add, op.subtract, op.multiply])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_narrow_integers_that_wrap_around(dtype, arithmetic, function, run):
    info = np.iinfo(dtype)
    mod = module(dtype, arithmetic, function)
    x = np.random.default_rng(0).integers(info.min, info.max, SHAPE, dtype, endpoint=True)
    np.testing.assert_array_equal(run(mod, x, True), run(mod, x, False))


def activated(function):
    """Pools of a function of data."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(SHAPE, "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            value = builder.emit(function(x))
            pooled = builder.emit_output(op.nn.max_pool2d(value, (2, 2), (2, 2)))
        builder.emit_func_output(pooled)
    return builder.finalize()


@pytest.mark.parametrize("kind", ["cuda", "opencl"])
def test_functions_of_the_math_library_stay_unless_allowed(kind):
    # PoCL's tanh falls between two neighbours in a million.
    tanh, relu = activated(op.tanh), activated(op.nn.relu)
    with tvm.target.Target({"kind": kind, "host": "llvm"}):
        (decision,) = decisions(tanh)
        assert decision.decline.reason is Reason.NOT_MONOTONE
        assert "device-math" in decision.decline.suggestion
        assert decisions(tanh, allow={DEVICE_MATH})[0].passed
        assert decisions(relu)[0].passed
        tvm.ir.assert_structural_equal(ReorderActivationAfterMaxPool()(tanh), tanh)
    with tvm.target.Target("llvm"):
        assert decisions(tanh)[0].passed


def test_a_tanh_that_falls(run):
    x = np.full(SHAPE, 0.5, np.float32)
    x[0, 0, 0, 0] = np.float32(0.7987306)
    x[0, 0, 0, 1] = np.nextafter(np.float32(0.7987306), np.float32(1))
    np.testing.assert_array_equal(
        run(activated(op.tanh), x, True), run(activated(op.tanh), x, False)
    )
