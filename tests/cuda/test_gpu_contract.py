"""The contract, cell by cell, on a GPU's kernels: OpenCL, which a CPU runs."""

from pathlib import Path

import numpy as np
import pytest
from contract_cells import CELLS, LOWEST, SHAPE
from tvm import relax
from tvm.relax import op

from tvm_passes.relax import engine
from tvm_passes.target import parse_target

FUNCTIONS = {
    "bounded": [op.nn.relu, lambda x: op.clip(x, -1.5, 6.0), op.sigmoid, op.tanh],
    "unbounded": [
        lambda x: op.nn.leakyrelu(x, 0.1),
        lambda x: op.add(x, relax.const(0.25, "float32")),
    ],
    "falling": [lambda x: op.negative(op.tanh(x))],
}
PRINTED = np.float32(-3.402823e38)
"""The lowest number, as TVM writes it into OpenCL code: with seven digits."""


def module(functions):
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(SHAPE, "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            outputs = [
                builder.emit_output(op.nn.max_pool2d(builder.emit(f(x)), (2, 2), (2, 2)))
                for f in functions
            ]
        builder.emit_func_output(relax.Tuple(outputs))
    return builder.finalize()


@pytest.fixture(scope="module", params=FUNCTIONS)
def orders(request, tmp_path_factory):
    """The column of the table, and both orders of its functions in front of a pool."""
    folder = tmp_path_factory.mktemp("contract")

    def loaded(reorder):
        target = parse_target("opencl")
        mod = module(FUNCTIONS[request.param])
        built = engine.build(mod, target, reorder=reorder, allow={"device-math"})
        path = Path(folder) / f"{reorder}.so"
        engine.export(built, path)
        return engine.load(path, (), "opencl")

    return request.param, loaded(False), loaded(True)


@pytest.mark.parametrize("cell", CELLS)
def test_cell(cell, orders):
    column, original, reordered = orders
    x, *columns = CELLS[cell]
    holds = columns[list(FUNCTIONS).index(column)]
    for before, after in zip(original(x), reordered(x), strict=True):
        holds(np.where(before == PRINTED, LOWEST, before), after, x)
