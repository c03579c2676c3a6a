"""`relax_pipeline="tvm_reorder"` is TVM's own pipeline with the pass in front."""

import subprocess
import sys

import numpy as np
import pytest
import tvm
from relax_builders import const, data, max_pool, module
from relax_runs import TARGETS, bits, cpu, hard_values, run
from tvm import relax
from tvm.relax import op

from tvm_passes.relax import PIPELINE_NAME, register_pipeline, tvm_reorder_pipeline
from tvm_passes.remarks import PASS_NAME

SHAPE = (1, 8, 13, 11)


@pytest.fixture
def registered():
    """The pipeline, registered for one test."""
    register_pipeline()
    yield
    relax.pipeline.PIPELINE_MAP.pop(PIPELINE_NAME)


def network():
    rng = np.random.default_rng(5)

    def layer(x):
        weight = const(rng.standard_normal((8, 8, 3, 3)))
        return op.add(
            op.nn.conv2d(x, weight, padding=(1, 1)), const(rng.standard_normal((1, 8, 1, 1)))
        )

    def body(x):
        x = max_pool(op.sigmoid(layer(x)))
        return max_pool(op.nn.leakyrelu(layer(x), 0.1), 3, 2, padding=(1, 1))

    return module(body, data(SHAPE))


def result(mod, target, **options):
    return run(tvm.compile(mod, target, **options), hard_values(SHAPE, "float32"))[0]


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("target", TARGETS, ids=cpu)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("f", [op.sinh, op.cosh], ids=["sinh", "cosh"])
def test_functions_that_tvm_knows_of_no_vectors(f, dtype, target):
    mod = module(lambda x: [f(x), max_pool(f(x))], data(SHAPE, dtype))
    x = np.random.default_rng(6).uniform(-8, 8, SHAPE).astype(dtype)
    ours = tvm.compile(mod, target, relax_pipeline=PIPELINE_NAME)
    pairs = zip(run(tvm.compile(mod, target), x), run(ours, x), strict=True)
    assert all(np.array_equal(bits(a), bits(b)) for a, b in pairs)


def test_importing_registers_nothing():
    code = (
        "from tvm import relax; names = set(relax.pipeline.PIPELINE_MAP);"
        "import tvm_passes.relax; assert set(relax.pipeline.PIPELINE_MAP) == names"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("registered")
def test_registering_twice_is_fine():
    first = relax.pipeline.PIPELINE_MAP[PIPELINE_NAME]
    register_pipeline()
    assert relax.pipeline.PIPELINE_MAP[PIPELINE_NAME] is first
    assert PIPELINE_NAME == "tvm_reorder"


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("target", TARGETS, ids=cpu)
def test_the_outputs_are_the_default_pipelines(target):
    stock = result(network(), target)
    assert np.array_equal(
        bits(stock), bits(result(network(), target, relax_pipeline=PIPELINE_NAME))
    )


@pytest.mark.usefixtures("registered")
def test_by_name_through_relax_get_pipeline():
    with tvm.target.Target("llvm"):
        after = relax.get_pipeline(PIPELINE_NAME)(network())
    relax.analysis.well_formed(after)


def test_as_an_object_and_with_options():
    remarks = []
    target = tvm.target.Target("llvm")
    pipeline = tvm_reorder_pipeline(on_remark=remarks.append)
    stock = result(network(), target)
    assert np.array_equal(bits(stock), bits(result(network(), target, relax_pipeline=pipeline)))
    assert [remark.reason for remark in remarks] == ["sunk", "cost"] * 2


def test_with_a_table_of_the_callers_own():
    remarks = []
    with tvm.target.Target("llvm"):
        tvm_reorder_pipeline(rules=(), on_remark=remarks.append)(network())
    assert [remark.reason for remark in remarks] == ["no-rule"] * 2


@pytest.mark.parametrize("context", [{"opt_level": 0}, {"disabled_pass": [PASS_NAME]}], ids=str)
def test_the_pass_obeys_its_context(context):
    remarks = []
    with tvm.target.Target("llvm"), tvm.transform.PassContext(**context):
        tvm_reorder_pipeline(on_remark=remarks.append)(network())
    assert remarks == []


def test_without_a_target_it_is_the_generic_pipeline():
    mod = network()
    expected = relax.get_pipeline("default")(network())
    with tvm.transform.PassContext(disabled_pass=[PASS_NAME]):
        tvm.ir.assert_structural_equal(tvm_reorder_pipeline()(mod), expected)


def test_the_input_is_not_changed():
    mod = network()
    text, func = mod.script(show_meta=True), mod["main"]
    tvm.compile(mod, tvm.target.Target("llvm"), relax_pipeline=tvm_reorder_pipeline())
    assert mod["main"].same_as(func)
    assert mod.script(show_meta=True) == text


def test_integers_of_64_bits():
    """Whose kernels' indices are not narrowed."""
    mod = module(lambda x: max_pool(op.nn.relu(x)), data((1, 8, 16, 16), "int64"))
    value = np.arange(-1024, 1024).reshape(1, 8, 16, 16)
    pipeline = tvm_reorder_pipeline()
    (found,) = run(tvm.compile(mod, tvm.target.Target("llvm"), relax_pipeline=pipeline), value)
    expected = np.maximum(value, 0).reshape(1, 8, 8, 2, 8, 2).max((3, 5))
    np.testing.assert_array_equal(found, expected)
