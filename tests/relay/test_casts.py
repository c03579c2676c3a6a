"""Casts keep order, and sink, where their data are proved to be among the numbers of the type."""

import numpy as np
import pytest
from relay_builders import (
    SHAPE,
    assert_sinks,
    assert_untouched,
    const,
    data,
    max_pool,
    module,
    run_pass,
)
from relay_runs import TARGETS, bits, hard_values, outputs
from tvm import relay

from tvm_passes.decline import Reason

CASTS = {
    "to half": ("float32", lambda x: relay.cast(relay.nn.relu(x), "float16")),
    "to float": ("float16", lambda x: relay.cast(relay.tanh(x), "float32")),
    "to bytes": ("float32", lambda x: relay.cast(relay.clip(relay.round(x), -128, 127), "int8")),
    "towards 0": ("float32", lambda x: relay.cast(relay.clip(x, -0.9, 200.5), "uint8")),
    "of bytes": ("uint8", lambda x: relay.multiply(relay.cast(x, "float32"), const(0.1))),
    "to wider integers": ("int8", lambda x: relay.cast(relay.nn.relu(x), "int32")),
    "to narrower ones": ("int32", lambda x: relay.cast(relay.clip(x, 0, 255), "uint8")),
    "there and back": (
        "float32",
        lambda x: relay.cast(relay.cast(relay.clip(x, -4.0, 4.0), "int32"), "float32"),
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
    before = module(max_pool(f(data(SHAPE, dtype))))
    assert_sinks(before, module(f(max_pool(data(SHAPE, dtype)))))


@pytest.mark.parametrize("name", DECLINED)
def test_a_cast_of_other_numbers_stays(name):
    dtype, to, reason = DECLINED[name]
    assert_untouched(module(max_pool(relay.cast(data(SHAPE, dtype), to))), reason)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: relay.cast(relay.cast(x, "int8"), "uint8"),
        lambda x: relay.cast(relay.subtract(relay.clip(x, 0, 100), const(100, "uint8")), "int8"),
    ],
)
def test_what_wraps_around_proves_nothing(f):
    before = module(max_pool(f(data(SHAPE, "uint8"))))
    after, remarks = run_pass(before)
    assert Reason.DOMAIN.value in [remark.reason for remark in remarks]
    x = hard_values(SHAPE, "uint8")
    (a,), (b,) = (outputs(mod, x) for mod in (before, after))
    np.testing.assert_array_equal(a, b)


def test_a_sum_is_not_parted_from_a_product_past_a_wider_type():
    product = data(SHAPE, "float16") * data(SHAPE, "float16", "y")
    assert_untouched(module(max_pool(relay.cast(product, "float32") + const(0.5))), Reason.ROUNDING)


def test_a_cast_is_not_parted_from_a_product():
    """LLVM narrows both together."""
    product = data(SHAPE, "float64") * data(SHAPE, "float64", "y")
    assert_untouched(module(max_pool(relay.cast(product, "float32"))), Reason.ROUNDING)
    below = max_pool(relay.cast(data(SHAPE, "float64"), "float32")) + const(0.5)
    assert_untouched(module(below), Reason.FOLDING)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CASTS)
def test_the_bits_are_the_same(name, target):
    dtype, f = CASTS[name]
    before = module(max_pool(f(data(SHAPE, dtype))))
    after, _ = run_pass(before)
    x = hard_values(SHAPE, dtype)
    (a,), (b,) = (outputs(mod, x, target=target) for mod in (before, after))
    zero = np.zeros((), a.dtype)  # a window that holds both zeros yields either
    assert np.array_equal(bits(a + zero), bits(b + zero))


def test_the_type_changes_past_a_second_pool():
    def chain(x):
        return relay.nn.relu(relay.cast(x, "int32"))

    x = data(SHAPE, "int8")
    mod = module(max_pool(max_pool(chain(x))))
    assert_sinks(mod, module(chain(max_pool(max_pool(x)))))
    after, _ = run_pass(mod)
    x = hard_values(SHAPE, "int8")
    (a,), (b,) = (outputs(each, x) for each in (mod, after))
    assert np.array_equal(a, b)


def test_a_cast_does_not_get_next_to_another():
    """Relay's SimplifyExpr takes clip(x) for float32(int8(clip(x)))."""
    pooled = max_pool(relay.cast(relay.clip(data(), 0.0, 100.0), "int8"))
    before = module(relay.cast(pooled, "float32"))
    assert_untouched(before, Reason.FOLDING)
    x = np.linspace(-3, 120, 8 * 16 * 16, dtype="float32").reshape(SHAPE)
    (found,) = outputs(run_pass(before)[0], x)
    assert np.array_equal(found, np.trunc(found))


def test_a_cast_is_not_parted_from_another():
    chain = relay.cast(relay.cast(data(), "int8"), "float32")
    assert_untouched(module(max_pool(chain)), Reason.ROUNDING)
