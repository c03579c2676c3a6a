"""Casts keep order, and sink, where their data are proved to be among the numbers of the type."""

import numpy as np
import pytest
import tvm
from relax_builders import (
    SHAPE,
    assert_sinks,
    assert_untouched,
    built,
    const,
    data,
    max_pool,
    module,
    run_pass,
)
from relax_runs import TARGETS, bits, cpu, hard_values, outputs
from tvm import relax
from tvm.relax import op

from tvm_passes.decline import Reason

CASTS = {
    "to half": ("float32", lambda x: op.astype(op.nn.relu(x), "float16")),
    "to float": ("float16", lambda x: op.astype(op.tanh(x), "float32")),
    "to bytes": ("float32", lambda x: op.astype(op.clip(op.round(x), -128, 127), "int8")),
    "towards 0": ("float32", lambda x: op.astype(op.clip(x, -0.9, 200.5), "uint8")),
    "of bytes": ("uint8", lambda x: op.multiply(op.astype(x, "float32"), const(0.1))),
    "to wider integers": ("int8", lambda x: op.astype(op.nn.relu(x), "int32")),
    "to narrower ones": ("int32", lambda x: op.astype(op.clip(x, 0, 255), "uint8")),
    "there and back": (
        "float32",
        lambda x: op.astype(op.astype(op.clip(x, -4.0, 4.0), "int32"), "float32"),
    ),
}
DECLINED = {
    "out of range": ("float32", "int8", Reason.DOMAIN),
    "to what wraps around": ("int32", "int8", Reason.DOMAIN),
    "of a sign": ("int8", "uint8", Reason.DOMAIN),
    "to what is stored otherwise": ("float32", "bfloat16", Reason.DTYPE),
    "to truth values": ("float32", "bool", Reason.DTYPE),
    "to half of double": ("float64", "float16", Reason.NOT_MONOTONE),
}


@pytest.mark.parametrize("name", CASTS)
def test_a_cast_sinks(name):
    dtype, f = CASTS[name]
    before = module(lambda x: max_pool(f(x)), data(SHAPE, dtype))
    assert_sinks(before, module(lambda x: f(max_pool(x)), data(SHAPE, dtype)))


@pytest.mark.parametrize("name", DECLINED)
def test_a_cast_of_other_numbers_stays(name):
    dtype, to, reason = DECLINED[name]
    assert_untouched(module(lambda x: max_pool(op.astype(x, to)), data(SHAPE, dtype)), reason)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: op.astype(op.astype(x, "int8"), "uint8"),
        lambda x: op.astype(op.subtract(op.clip(x, 0, 100), const(100, "uint8")), "int8"),
    ],
)
def test_what_wraps_around_proves_nothing(f):
    before = module(lambda x: max_pool(f(x)), data(SHAPE, "uint8"))
    after, remarks = run_pass(before)
    assert Reason.DOMAIN.value in [remark.reason for remark in remarks]
    x = hard_values(SHAPE, "uint8")
    (a,), (b,) = (outputs(mod, x) for mod in (before, after))
    np.testing.assert_array_equal(a, b)


def test_a_sum_is_not_parted_from_a_product_past_a_wider_type():
    def chain(x, y):
        wide = op.astype(op.multiply(x, y), "float32")
        return max_pool(op.add(wide, const(0.5)))

    parameters = (data(SHAPE, "float16"), data(SHAPE, "float16", "y"))
    assert_untouched(module(chain, *parameters), Reason.ROUNDING)


def test_a_cast_is_not_parted_from_a_product():
    """LLVM narrows both together."""

    def chain(x, y):
        return max_pool(op.astype(op.multiply(x, y), "float32"))

    parameters = (data(SHAPE, "float64"), data(SHAPE, "float64", "y"))
    assert_untouched(module(chain, *parameters), Reason.ROUNDING)
    below = module(lambda x: op.add(max_pool(op.astype(x, "float32")), const(0.5)), parameters[0])
    assert_untouched(below, Reason.FOLDING)


@pytest.mark.parametrize("target", TARGETS, ids=cpu)
@pytest.mark.parametrize("name", CASTS)
def test_the_bits_are_the_same(name, target):
    dtype, f = CASTS[name]
    before = module(lambda x: max_pool(f(x)), data(SHAPE, dtype))
    after, _ = run_pass(before)
    x = hard_values(SHAPE, dtype)
    (a,), (b,) = (outputs(mod, x, target=target) for mod in (before, after))
    zero = np.zeros((), a.dtype)  # a window that holds both zeros yields either
    assert np.array_equal(bits(a + zero), bits(b + zero))


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
    x = hard_values(SHAPE, "int8")
    (a,), (b,) = (outputs(each, x) for each in (mod, after))
    assert np.array_equal(a, b)


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
    x = hard_values(SHAPE, "int8")
    (a,), (b,) = (outputs(each, x) for each in (mod, after))
    assert np.array_equal(a, b)


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
    x = hard_values(SHAPE, "int8")
    (a,), (b,) = (outputs(each, x) for each in (mod, after))
    assert np.array_equal(a, b)
