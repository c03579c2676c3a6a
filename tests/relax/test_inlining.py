"""Private functions, which TVM may inline later: a caller's arithmetic may meet what has sunk."""

import pytest
from relax_builders import assert_becomes, assert_untouched, data, max_pool, per_channel, positive
from tvm import relax
from tvm.relax import op

from tvm_passes.decline import Reason

FACTOR, SHIFT = positive((8, 1, 1)), per_channel((8, 1, 1))


def called(*functions, private=True):
    """A module whose ``main`` calls a function that is a chain of others, topmost first."""
    builder = relax.BlockBuilder()
    y, x = data(name="y"), data()
    with builder.function("callee", [y], private=private):
        with builder.dataflow():
            value = y
            for f in functions[:-1]:
                value = builder.emit(f(value))
            result = builder.emit_output(functions[-1](value))
        builder.emit_func_output(result)
    callee = builder.get().get_global_var("callee")
    with builder.function("main", [x]):
        with builder.dataflow():
            pooled = builder.emit(relax.Call(callee, [builder.emit(op.multiply(x, FACTOR))]))
            result = builder.emit_output(op.add(pooled, SHIFT))
        builder.emit_func_output(result)
    return builder.finalize()


def add(x):
    return op.add(x, SHIFT)


def scale(x):
    return op.multiply(x, FACTOR)


@pytest.mark.parametrize(
    ("functions", "reason"),
    [
        ((add, max_pool), Reason.FOLDING),
        ((add, max_pool, op.tanh), Reason.ROUNDING),
        ((op.tanh, scale, max_pool), Reason.FOLDING),
    ],
    ids=["both", "argument", "result"],
)
def test_arithmetic_next_to_the_caller_s_stays(functions, reason):
    assert_untouched(called(*functions), reason)


@pytest.mark.parametrize(
    ("functions", "expected"),
    [
        ((op.nn.relu, max_pool), (max_pool, op.nn.relu)),
        ((op.tanh, scale, op.tanh, max_pool), (max_pool, op.tanh, scale, op.tanh)),
    ],
    ids=["no arithmetic", "arithmetic inside"],
)
def test_what_the_caller_cannot_meet_sinks(functions, expected):
    assert_becomes(called(*functions), called(*expected))


def test_a_public_function_stores_its_arguments():
    assert_becomes(called(add, max_pool, private=False), called(max_pool, add, private=False))
