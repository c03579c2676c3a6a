"""Casts keep order, and sink, where their data are proved to be among the numbers of the type."""

import numpy as np
import pytest
from relax_builders import (
    SHAPE,
    assert_sinks,
    assert_untouched,
    const,
    data,
    max_pool,
    module,
    run_pass,
)
from relax_runs import TARGETS, bits, cpu, hard_values, outputs
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


def test_a_cast_does_not_get_next_to_another():
    """Relay's SimplifyExpr takes x for float32(int8(x))."""

    def chain(x):
        return op.astype(max_pool(op.astype(op.clip(x, 0.0, 100.0), "int8")), "float32")

    assert_untouched(module(chain, data()), Reason.FOLDING)


def test_a_cast_is_not_parted_from_another():
    chain = module(lambda x: max_pool(op.astype(op.astype(x, "int8"), "float32")), data())
    assert_untouched(chain, Reason.ROUNDING)
