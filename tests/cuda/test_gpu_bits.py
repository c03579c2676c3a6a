"""What a swap may not change on a GPU alone: OpenCL, which a CPU runs."""

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

from tvm_passes.relax import engine
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
