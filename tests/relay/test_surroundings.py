"""What relay.build makes of ops because of what is next to them, beside folding numbers."""

import numpy as np
import pytest
import tvm
from relay_builders import (
    assert_sinks,
    assert_untouched,
    const,
    data,
    max_pool,
    module,
    per_channel,
    positive,
    reasons,
    run_pass,
    typed,
)
from relay_runs import TARGETS, bits, hard_values, outputs
from tvm import relay

from tvm_passes.decline import Reason
from tvm_passes.relay import build
from tvm_passes.relay.reorder import decisions

FACTOR, SHIFT = positive((8, 1, 1)), per_channel((8, 1, 1))
SHAPE = (1, 8, 16, 16)


def convolved(x):
    return relay.nn.conv2d(x, per_channel((8, 8, 3, 3)), padding=(1, 1))


def average(x):
    return relay.nn.avg_pool2d(x, (3, 3), strides=(1, 1))


def scaled(x):
    """A factor that FoldScaleAxis finds through the relu, from a layer below."""
    return relay.nn.relu(relay.multiply(relay.nn.relu(x), FACTOR))


@pytest.mark.parametrize("target", TARGETS)
def test_a_sum_is_contracted_with_the_product_that_an_average_ends_in(target):
    before = module(max_pool(average(data()) + SHIFT))
    after, remarks = run_pass(before)
    assert Reason.ROUNDING.value in reasons(remarks)
    x = hard_values(SHAPE, "float32")
    (a,), (b,) = outputs(before, x, target=target), outputs(after, x, target=target)
    assert np.array_equal(bits(a), bits(b))


def test_what_is_no_sum_sinks_below_an_average():
    assert_sinks(
        module(max_pool(relay.nn.relu(average(data())))),
        module(relay.nn.relu(max_pool(average(data())))),
        declined=Reason.NOT_SELECTING,
    )


@pytest.mark.parametrize(
    "between",
    [relay.nn.dropout, relay.nn.relu, lambda x: relay.nn.relu(relay.nn.dropout(x))],
    ids=["dropout", "relu", "both"],
)
def test_a_factor_is_not_folded_into_the_layer_below(between):
    _, remarks = run_pass(module(convolved(between(max_pool(scaled(data()))))))
    assert Reason.FOLDING.value in reasons(remarks)


def test_a_slope_of_1_is_no_activation():
    leaky = relay.nn.leaky_relu(data() * const(0.7), 1.0)
    assert_untouched(module(max_pool(leaky) + const(0.3)), Reason.FOLDING)
    assert decisions(module(max_pool(relay.nn.leaky_relu(data() * const(0.7), 0.9))))[0].passed


def leaky(x):
    return relay.nn.leaky_relu(x, 0.1)


def spatial_most(x, axes=(2, 3)):
    return relay.max(x, axes)


def items_of(pair):
    return [max_pool(relay.nn.relu(pair[0])), relay.nn.relu(max_pool(pair[1]))]


def bounded(x, first, second):
    return relay.Tuple([max_pool(relay.maximum(x, first)), relay.maximum(max_pool(x), second)])


MEET = {
    "a selection and its data": lambda x: max_pool(leaky(x)) - max_pool(x),
    "two selections": lambda x: max_pool(leaky(x)) + max_pool(relay.nn.leaky_relu(x, 0.2)),
    "a selection past a sign": lambda x: relay.negative(max_pool(leaky(x))) + max_pool(x),
    "ops alike": lambda x: relay.Tuple(
        [relay.nn.relu(max_pool(x)) * FACTOR, max_pool(relay.nn.relu(x)) * FACTOR + SHIFT]
    ),
    "ops alike past dropout": lambda x: relay.Tuple(
        [max_pool(relay.nn.relu(relay.nn.dropout(x))), relay.nn.relu(max_pool(x))]
    ),
    "ops alike past a reshape": lambda x: relay.Tuple(
        [
            spatial_most(relay.reshape(relay.nn.relu(x), (2, 4, 16, 16))),
            relay.nn.relu(spatial_most(x)),
        ]
    ),
    "ops alike past reshapes of both": lambda x: relay.Tuple(
        [
            relay.nn.relu(spatial_most(relay.reshape(x, (2, 4, 16, 16)))),
            spatial_most(relay.reshape(relay.nn.relu(x), (2, 4, 16, 16))),
        ]
    ),
    "ops alike past a reshape below": lambda x: relay.Tuple(
        [relay.nn.relu(relay.reshape(spatial_most(x), (1, 8))), spatial_most(relay.nn.relu(x))]
    ),
    "at the other end": lambda x: relay.Tuple(
        [
            relay.min(relay.tanh(const(1.0) - x), (2, 3)),
            const(1.0) - spatial_most(x),
        ]
    ),
    "an op of several": lambda x: relay.Tuple(
        [
            max_pool(relay.where(relay.greater(x, const(0.0)), x, x * const(0.1))),
            max_pool(x) * const(0.1) + const(0.3),
        ]
    ),
    "at the other end, by hand": lambda x: relay.Tuple(
        [
            max_pool(relay.sigmoid(x) * const(-0.7)),
            relay.sigmoid(relay.negative(max_pool(relay.negative(x)))) * const(-0.7) + const(0.3),
        ]
    ),
    "pools of pools": lambda x: relay.Tuple(
        [max_pool(max_pool(x * FACTOR)), max_pool(max_pool(x)) * FACTOR + SHIFT]
    ),
    "past dropout below": lambda x: relay.Tuple(
        [max_pool(x * FACTOR), relay.nn.dropout(max_pool(x)) * FACTOR + SHIFT]
    ),
    "with operands that are not known": lambda x: bounded(
        x, relay.var("b", shape=()), relay.var("c", shape=())
    ),
    "with an operand that is not known": lambda x: bounded(x, const(1.0), relay.var("c", shape=())),
    "of an operand that is not known": lambda x: bounded(x, relay.var("b", shape=()), const(1.0)),
}


@pytest.mark.parametrize("body", MEET.values(), ids=MEET)
def test_two_pools_do_not_become_one(body):
    before = module(body(data()))
    made = decisions(before)
    declines = [decision.decline for decision in made if decision.decline is not None]
    assert any("would read what another reads" in decline.detail for decline in declines)
    x = np.random.default_rng(4).standard_normal(SHAPE).astype("float32")
    if len(before["main"].params) == 1:
        after, _ = run_pass(before)
        pairs = zip(*(outputs(mod, x, target=TARGETS[-1]) for mod in (before, after)), strict=True)
        assert all(np.array_equal(bits(a), bits(b)) for a, b in pairs)


APART = {
    "what reads them is unlike": lambda x: [max_pool(relay.nn.relu(x)), relay.tanh(max_pool(x))],
    "of other bounds": lambda x: [
        max_pool(relay.clip(x, 0.0, 1.0)),
        relay.clip(max_pool(x), 0.0, 6.0),
    ],
    "of other numbers": lambda x: [
        max_pool(relay.maximum(x, const(1.0))),
        relay.maximum(max_pool(x), const(2.0)),
    ],
    "of other windows": lambda x: [max_pool(relay.nn.relu(x)), relay.nn.relu(max_pool(x, 3, 2))],
    "of other kinds": lambda x: [max_pool(relay.nn.relu(x)), relay.nn.relu(spatial_most(x))],
    "a selection without a sum": lambda x: [max_pool(leaky(x)), max_pool(x)],
    "a selection and a sum without another pool": lambda x: [max_pool(leaky(x)) + const(0.3)],
    "of the other end": lambda x: [
        max_pool(relay.nn.relu(x)),
        relay.nn.relu(max_pool(relay.negative(x))),
    ],
    "other items of a tuple": lambda x: items_of(relay.split(x, 2, axis=1)),
    "a sum without a selection": lambda x: [
        max_pool(relay.clip(x, 0.0, 6.0)) + const(0.3),
        max_pool(x),
    ],
}


@pytest.mark.parametrize("bodies", APART.values(), ids=APART)
def test_pools_that_may_become_one(bodies):
    made = decisions(module(relay.Tuple(bodies(data()))))
    assert [decision.passed for decision in made].count(True) == 1


def test_a_maximum_of_negations_is_no_minimum():
    x = data()
    falls = relay.min(relay.tanh(const(1.0) - x), (2, 3))
    other = const(1.0) - relay.negative(spatial_most(relay.negative(x)))
    assert [decision.passed for decision in decisions(module(relay.Tuple([falls, other])))] == [
        True,
        True,
    ]


def test_ops_alike_that_both_sink_are_one_before():
    x = data()
    both = [max_pool(relay.nn.relu(x)), max_pool(relay.nn.relu(relay.nn.dropout(x)))]
    made = decisions(module(relay.Tuple(both)))
    assert [decision.passed for decision in made] == [True, True]


def test_pools_of_one_activation_stay_what_they_are():
    x = relay.nn.relu(data())
    both = module(relay.Tuple([max_pool(x, 4, 4), max_pool(x, 3, 3)]))
    assert [decision.passed for decision in decisions(both)] == [True, True]


def inlined(body, param, main):
    """A module whose ``main`` calls a function that `relay.transform.Inline` may inline."""
    callee, x = relay.GlobalVar("callee"), data()
    func = relay.Function([param], body).with_attr("Inline", tvm.tir.IntImm("int32", 1))
    mod = typed(tvm.IRModule({callee: func}))
    mod["main"] = relay.Function([x], main(callee, x))
    return typed(mod)


PART = data((1, 8, 8, 8), name="y")
WHOLE = data(name="y")
POOLED = max_pool(scaled(WHOLE))
TRUNCATED = relay.cast(relay.cast(PART, "uint8"), "float32")
FUNCTIONS = {
    "a clip above a call": (TRUNCATED, PART, lambda f, x: f(max_pool(relay.clip(x, 0.0, 6.0)))),
    "a root above a call": (
        relay.divide(const(2.7), PART),
        PART,
        lambda f, x: f(max_pool(relay.sqrt(relay.exp(x)))),
    ),
    "a factor above a call": (convolved(PART), PART, lambda f, x: f(max_pool(scaled(x)))),
    "a factor below a caller's layer": (
        max_pool(scaled(WHOLE)),
        WHOLE,
        lambda f, x: f(convolved(x)),
    ),
    "a factor above a caller's layer": (
        max_pool(scaled(WHOLE)),
        WHOLE,
        lambda f, x: convolved(f(x)),
    ),
}


@pytest.mark.parametrize("parts", FUNCTIONS.values(), ids=FUNCTIONS)
def test_what_is_inlined_may_meet(parts):
    _, remarks = run_pass(inlined(*parts))
    assert Reason.FOLDING.value in reasons(remarks)


LETS = {
    "a clip": (
        max_pool(relay.clip(data(), 0.0, 6.0)),
        lambda v: relay.cast(relay.cast(v, "uint8"), "float32"),
    ),
    "a factor above a layer": (max_pool(scaled(data())), convolved),
    "a factor below one": (convolved(data()), lambda v: max_pool(scaled(v))),
}


@pytest.mark.parametrize("parts", LETS.values(), ids=LETS)
def test_what_is_bound_may_meet(parts):
    value, body = parts
    (x,) = relay.analysis.free_vars(value)
    var = relay.Var("v")
    _, remarks = run_pass(module(relay.Let(var, value, body(var)), x))
    assert Reason.FOLDING.value in reasons(remarks)


@pytest.mark.parametrize(
    ("bounds", "sinks"),
    [((-0.3, 0.1), False), ((-0.5, 0.1), False), ((-0.3, 0.5), False), ((-0.5, 6.0), True)],
)
def test_bounds_that_bfloat16_does_not_hold(bounds, sinks):
    body = max_pool(relay.clip(data(dtype="bfloat16"), *bounds))
    (decision,) = decisions(module(body))
    assert decision.passed == sinks
    assert sinks or decision.decline.reason is Reason.ROUNDING
    (decision,) = decisions(module(max_pool(relay.clip(data(), *bounds))))
    assert decision.passed


def test_a_bound_of_bfloat16_that_is_computed():
    bound = data((1, 8, 1, 1), "bfloat16", name="b")
    x = data(dtype="bfloat16")
    (stored,) = decisions(module(max_pool(relay.maximum(x, bound))))
    (made,) = decisions(module(max_pool(relay.maximum(x, bound * bound))))
    assert stored.passed
    assert made.decline.reason is Reason.ROUNDING


@pytest.mark.parametrize(
    ("options", "sinks"),
    [
        ({"opt_level": 3}, True),
        ({"opt_level": 4}, False),
        ({"opt_level": 4, "disabled_pass": ["FastMath"]}, True),
        ({"opt_level": 3, "required_pass": ["FastMath"]}, False),
    ],
)
def test_what_fast_math_replaces_stays(options, sinks):
    for f in (relay.tanh, relay.exp, relay.erf, lambda x: x * relay.sigmoid(x)):
        mod = module(max_pool(f(data())))
        with tvm.transform.PassContext(**options):
            found = decisions(mod, allow={"quasi-convex"})
            _, remarks = run_pass(mod, allow={"quasi-convex"})
        is_replaced = f in (relay.tanh, relay.exp, relay.erf)
        assert found[0].passed == (sinks or not is_replaced)
        said = Reason.NOT_MONOTONE.value if is_replaced and not sinks else "sunk"
        assert reasons(remarks)[0] == said


def test_functions_of_a_gpu_s_math_library_stay_unless_allowed():
    mod = module(max_pool(relay.tanh(data())))
    with tvm.target.Target("cuda", host="llvm"):
        (decision,) = decisions(mod)
        assert decision.decline.reason is Reason.NOT_MONOTONE
        assert decisions(mod, allow={"device-math"})[0].passed
        assert decisions(module(max_pool(relay.nn.relu(data()))))[0].passed
        assert reasons(run_pass(mod)[1]) == [Reason.NOT_MONOTONE.value]
    assert decisions(mod)[0].passed


@pytest.mark.parametrize("allow", [(), ("device-math",)])
def test_build_tells_the_pass_of_its_target(allow, monkeypatch):
    monkeypatch.setattr(relay, "build", lambda *_: None)  # TVM's wheel has no CUDA
    remarks = []
    mod = module(max_pool(relay.tanh(data())))
    build(mod, "cuda", on_remark=remarks.append, allow=allow)
    assert (Reason.NOT_MONOTONE.value in reasons(remarks)) == (not allow)
