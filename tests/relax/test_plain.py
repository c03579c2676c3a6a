"""Kernels whose result leaves blocks of channels write it as the source program has it."""

import numpy as np
import pytest
import tvm
from blocked_builders import AVX2, NEON, RUNNABLE, compiled, kernel_names, layer, weights
from layer_cases import HALVE, OVERLAP
from relax_builders import built, data, module
from relax_runs import hard_values, run
from tvm import relax
from tvm.relax import op

from tvm_passes.relax.pipeline import passes_before_schedules

LAST = {"data_layout": "NHWC"}
LAYERS = {
    "one tile of columns": lambda: layer(data((1, 3, 10, 10)), pool=HALVE),
    "a partial tile of columns": lambda: layer(data((1, 3, 8, 74)), pool=HALVE),
    "channels of a block that is not full": lambda: layer(data((1, 3, 10, 10)), filters=3),
    "channels of blocks, the last not full": lambda: layer(data((1, 8, 9, 9)), filters=50),
    "windows that overlap, images": lambda: layer(data((2, 3, 23, 21)), filters=32, pool=OVERLAP),
    "channels last": lambda: layer(data((1, 10, 34, 3)), filters=16, pool=HALVE, **LAST),
    "channels last, not full": lambda: layer(data((1, 10, 10, 3)), filters=20, **LAST),
    "one column": lambda: layer(data((1, 3, 6, 3)), pool=HALVE, kernel=(3, 2)),
    "one row of one column": lambda: layer(data((1, 4, 3, 3)), filters=24),
    "depthwise": lambda: layer(data((1, 16, 12, 12)), filters=16, groups=16, pool=HALVE),
    "no bias": lambda: layer(data((1, 3, 10, 10)), bias=False, act=lambda y: y),
    "half": lambda: op.nn.relu(
        op.nn.conv2d(data((1, 3, 10, 36), "float16"), weights(16, 3, 3, 3, dtype="float16"))
    ),
}
FILTERED = {
    "tiles": lambda: layer(data((1, 16, 16, 16)), filters=16, pool=HALVE, padding=1),
    "partial tiles": lambda: layer(data((2, 16, 15, 17)), filters=24, padding=1),
    "windows that cross tiles": lambda: layer(
        data((1, 32, 20, 21)), filters=32, pool=OVERLAP, padding=1
    ),
    "segments of a row": lambda: layer(data((1, 64, 12, 250)), filters=64, pool=HALVE, padding=1),
    "channels last": lambda: layer(
        data((1, 16, 16, 32)), filters=32, pool=HALVE, padding=1, **LAST
    ),
}


def graph(body):
    return module(lambda *_: body, *relax.analysis.free_vars(body))


def input_of(mod):
    type_ = mod["main"].params[0].ty
    return hard_values(tuple(int(n) for n in type_.shape.values), str(type_.dtype))


def kernels(mod, target, allow=()):
    """The names of the PrimFuncs that are called."""
    with target:
        mod = tvm.transform.Sequential(passes_before_schedules(target, allow=allow))(mod)
    return kernel_names(mod)


def in_two(mod, target, allow=()):
    """Compile with a kernel of its own for what takes the result out of blocks."""
    with tvm.transform.PassContext(opt_level=3, disabled_pass=["StorePlain"]):
        return compiled(mod, target, allow=allow)


def assert_bits_of_two(mod, target, allow=()):
    x = input_of(mod)
    together = run(compiled(mod, target, allow=allow), x)
    for one, two in zip(together, run(in_two(mod, target, allow), x), strict=True):
        np.testing.assert_array_equal(one, two, strict=True)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("target", RUNNABLE, ids=lambda target: str(target.attrs.get("mcpu", "")))
def test_one_kernel_gives_the_bits_of_two(name, target):
    mod = graph(LAYERS[name]())
    assert len(kernels(mod, target)) == 1 + (name == "depthwise"), "whose data are packed"
    assert_bits_of_two(mod, target)


@pytest.mark.parametrize("name", FILTERED)
@pytest.mark.parametrize("target", RUNNABLE[-1:], ids=str)
def test_of_winograd_layers_too(name, target):
    mod = graph(FILTERED[name]())
    assert len(kernels(mod, target, {"winograd"})) == 2, "one packs the data"
    assert_bits_of_two(mod, target, {"winograd"})


@pytest.mark.parametrize("other", [False, True], ids=["an output", "an op that reads it, too"])
def test_a_result_that_another_layer_reads_stays_in_blocks(other):
    def both(builder, x):
        y = builder.emit(layer(x))
        return [op.negative(y), layer(y)] if other else [y, layer(y)]

    mod = built(both, data((1, 3, 12, 12)))
    found = kernels(mod, AVX2)
    assert len(found) == 3, "two layers, and what takes the first one's result out of blocks"
    assert_bits_of_two(mod, AVX2)


def test_other_kernels_in_blocks_stay_as_they_are():
    def pooled(x):
        y = layer(x, act=op.nn.relu)
        return op.nn.avg_pool2d(y, (2, 2), (2, 2))

    found = kernels(module(pooled, data((1, 3, 12, 12))), AVX2)
    assert len(found) == 3


def test_it_compiles_for_neon():
    compiled(graph(LAYERS["channels of blocks, the last not full"]()), NEON)
