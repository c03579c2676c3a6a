"""TVM multiplies by the reciprocal of a number in a kernel's code, and divides by an argument.

A constant without axes is a number where one op reads it, an argument where several kernels do, or
several ops of one that begins with a convolution or a pool.
"""

import numpy as np
import pytest
from relay_builders import assert_untouched, const, data, max_pool, module, reasons, run_pass
from relay_runs import TARGETS, bits, outputs
from tvm import relay

from tvm_passes.decline import Reason

SHAPE = (1, 8, 32, 32)
ZERO_POINT = const(3, "int32")


def divided(x):
    return x / const(0.3)


def quantized(x):
    return relay.qnn.op.quantize(x, const(0.37), ZERO_POINT, out_dtype="int8")


def two_pools(x):
    return relay.Tuple([max_pool(x), max_pool(x, 4, 4)])


DUPLICATED = {
    "two pools": lambda x: two_pools(relay.nn.relu(divided(x))),
    "two pools of bytes": lambda x: two_pools(quantized(x)),
    "both ends": lambda x: max_pool(relay.abs(divided(x))),
}
SHARED = {
    "divide": lambda x, c: relay.clip(x + c, 0, 6) / c,
    "quantize": lambda x, c: relay.qnn.op.quantize(relay.nn.relu(x + c), c, ZERO_POINT),
    "maximum of a quotient that stays": lambda x, c: relay.maximum(relay.cos(x) / c, c),
    "maximum of a power that stays": lambda x, c: relay.maximum(relay.power(relay.cos(x), c), c),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", DUPLICATED)
def test_what_sinks_twice_divides_as_before(name, target):
    before = module(DUPLICATED[name](data(SHAPE)))
    after, remarks = run_pass(before, allow={"quasi-convex"})
    assert "sunk" in reasons(remarks)
    x = (np.random.default_rng(0).integers(-80, 80, SHAPE) + 0.5).astype("float32") * 0.37
    pairs = zip(outputs(before, x, target=target), outputs(after, x, target=target), strict=True)
    assert all(np.array_equal(bits(a), bits(b)) for a, b in pairs)


@pytest.mark.parametrize("name", SHARED)
def test_a_number_that_an_op_divides_by_and_another_reads(name):
    assert_untouched(module(max_pool(SHARED[name](data(SHAPE), const(0.37)))), Reason.ROUNDING)


def test_an_argument_that_may_be_bound_to_a_number():
    x, c = data(SHAPE), data((), name="c")
    mod = module(max_pool(relay.maximum(relay.cos(x) / c, c)), x, c)
    assert_untouched(mod, Reason.ROUNDING)


def test_an_elu_that_shares_its_number():
    alpha, x = const(-0.7), data(SHAPE)
    elu = alpha * relay.nn.relu(const(1) - relay.exp(x)) + relay.nn.relu(x)
    both = relay.Tuple([max_pool(elu), relay.cos(x) / alpha])
    assert_untouched(module(both), Reason.ROUNDING)


def test_a_number_of_a_reshape_is_shared_by_all_that_it_becomes():
    x = data(SHAPE)
    divisor = relay.reshape(const([0.3]), ())
    assert_untouched(module(max_pool(x / divisor)), Reason.ROUNDING)


@pytest.mark.parametrize("shared", [const([0.3]), const(0.3, "float16")], ids=["axis", "half"])
def test_what_is_always_an_argument_may_be_shared(shared):
    x = data(SHAPE, shared.data.dtype)
    _, remarks = run_pass(module(max_pool(relay.clip(x + shared, 0, 6) / shared)))
    assert reasons(remarks) == ["sunk", "cost"]


def test_each_copy_has_a_number_of_its_own():
    after, _ = run_pass(module(two_pools(relay.nn.relu(divided(data(SHAPE))))))
    found = []
    relay.analysis.post_order_visit(
        after["main"], lambda node: found.append(node) if isinstance(node, relay.Constant) else None
    )
    assert len(found) == 2
