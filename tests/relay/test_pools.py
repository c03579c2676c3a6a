"""Global and adaptive pools, reductions, pools that share an activation, and PyTorch's tuples."""

import numpy as np
import pytest
from relay_builders import (
    SHAPE,
    assert_becomes,
    assert_sinks,
    assert_untouched,
    const,
    data,
    max_pool,
    module,
    per_channel,
    reasons,
    run_pass,
)
from relay_runs import TARGETS, bits, hard_values, outputs
from tvm import relay

from tvm_passes.decline import Reason
from tvm_passes.relay.reorder import decisions

relu, tanh = relay.nn.relu, relay.tanh


def pooled(x, order, f=relu):
    return max_pool(f(x)) if order == "before" else f(max_pool(x))


def both(build):
    return build("before"), build("after")


def biased(x):
    return relu(relay.nn.bias_add(x, per_channel((8,))))


def along_channels(x):
    return relu(relay.add(x, per_channel((8,))))


# Pools of a layout's axes.

LAYOUT_POOLS = {
    "global": (relay.nn.global_max_pool2d, (1, 8, 16, 15)),
    "adaptive 1d": (lambda x: relay.nn.adaptive_max_pool1d(x, 3), (1, 8, 16)),
    "adaptive 2d": (lambda x: relay.nn.adaptive_max_pool2d(x, (3, 4)), (1, 8, 16, 15)),
    "adaptive 3d": (lambda x: relay.nn.adaptive_max_pool3d(x, (2, 3, 2)), (1, 8, 5, 6, 7)),
}


@pytest.mark.parametrize("name", LAYOUT_POOLS)
def test_a_chain_sinks_below(name):
    pool, shape = LAYOUT_POOLS[name]
    before = module(pool(biased(data(shape))))
    assert_sinks(before, module(biased(pool(data(shape)))))


def adaptive(x, **attrs):
    return relay.nn.adaptive_max_pool2d(x, (3, 4), **attrs)


@pytest.mark.parametrize("pool", [relay.nn.global_max_pool2d, adaptive])
def test_layouts(pool):
    shape = (1, 16, 15, 8)
    before = module(pool(along_channels(data(shape)), layout="NHWC"))
    assert_sinks(before, module(along_channels(pool(data(shape), layout="NHWC"))))
    other = module(pool(along_channels(data((1, 8, 15, 8))), layout="NCHW"))
    assert_untouched_above_relu(other)


def assert_untouched_above_relu(mod):
    (decision,) = decisions(mod)
    assert [op.op for op in decision.sunk] == ["nn.relu"]
    assert decision.decline.reason is Reason.VARIES_IN_WINDOW


@pytest.mark.parametrize(
    ("pool", "shape", "reason"),
    [
        (relay.nn.global_max_pool2d, (1, 8, relay.Any(), 16), Reason.EMPTY_WINDOW),
        (relay.nn.global_max_pool2d, (1, 8, 1, 1), Reason.DOES_NOT_PAY),
        (lambda x: relay.nn.adaptive_max_pool2d(x, (4, 4)), (1, 8, 2, 2), Reason.DOES_NOT_PAY),
        (lambda x: relay.max(x, [2, 3]), (1, 8, relay.Any(), 16), Reason.EMPTY_WINDOW),
        (relay.max, (1, 1), Reason.DOES_NOT_PAY),
        (relay.max, (), Reason.LAYOUT),
    ],
)
def test_pools_that_stay(pool, shape, reason):
    assert_untouched(module(pool(relu(data(shape)))), reason)


# Maximum and minimum over axes.


@pytest.mark.parametrize("reduce", [relay.max, relay.min])
@pytest.mark.parametrize("axis", [[2, 3], [-1, -2], 1, [0, 1, 2, 3], None], ids=str)
@pytest.mark.parametrize("keepdims", [False, True])
def test_an_activation_sinks_below_a_reduction(reduce, axis, keepdims):
    before = module(reduce(relu(data()), axis, keepdims))
    assert_sinks(before, module(relu(reduce(data(), axis, keepdims))))


def test_excluded_axes():
    before = module(relay.max(biased(data()), [0, 1], keepdims=True, exclude=True))
    assert_sinks(before, module(biased(relay.max(data(), [0, 1], keepdims=True, exclude=True))))
    (decision,) = decisions(module(relay.max(biased(data()), [2, 3], exclude=True)))
    assert decision.decline.reason is Reason.VARIES_IN_WINDOW


@pytest.mark.parametrize("f", [lambda x: relay.add(x, const(0.5)), lambda x: relay.clip(x, 0, 6)])
def test_a_scalar_needs_no_axes(f):
    assert_sinks(module(relay.max(f(data()), [2, 3])), module(f(relay.max(data(), [2, 3]))))


@pytest.mark.parametrize("reduce", [relay.max, relay.min])
@pytest.mark.parametrize("axis", [{"axis": [2, -1]}, {"axis": [0, 1], "exclude": True}], ids=str)
def test_axes_are_kept_for_a_bias_and_dropped_after_it(reduce, axis):
    before = module(reduce(biased(data()), **axis))
    after = module(relay.reshape(biased(reduce(data(), keepdims=True, **axis)), (1, 8)))
    assert_sinks(before, after)


def test_a_channel_axis_of_one_is_dropped_below_a_convolution():
    # relay.build changes the convolution's layout, and fails where that axis is squeezed.
    x, weight = data((1, 1, 16, 16)), const(np.ones((1, 1, 1, 1)))
    convolved = relay.nn.conv2d(x, weight, channels=1, kernel_size=(1, 1))
    before = module(relay.max(relay.nn.bias_add(convolved, const(np.ones(1))), [0, 1, 2]))
    after, _ = run_pass(before)
    x = hard_values((1, 1, 16, 16), "float32")
    (a,), (b,) = (outputs(each, x) for each in (before, after))
    assert np.array_equal(bits(a), bits(b))


def test_a_symbolic_batch():
    shape = (relay.Any(), 8, 16, 16)
    before = module(relay.max(biased(data(shape)), [2, 3]))
    after = module(relay.squeeze(biased(relay.max(data(shape), [2, 3], keepdims=True)), [2, 3]))
    assert_sinks(before, after)


def test_what_sank_below_a_reduction_sinks_on_below_the_next():
    before = module(relay.max(relay.max(relu(data()), [3]), [2]))
    assert_becomes(before, module(relu(relay.max(relay.max(data(), [3]), [2]))))


@pytest.mark.parametrize("target", TARGETS)
def test_bits(target):
    shape = (2, 8, 13, 11)
    x = data(shape)

    def chain(x):
        return tanh(relay.nn.bias_add(x, per_channel((8,))))

    bodies = [
        reduce(f(x), axis, keepdims)
        for reduce in (relay.max, relay.min)
        for axis, keepdims in (([2, 3], False), ([3], True))
        for f in (relu, chain)
    ]
    bodies += [
        pool(f(x)) for pool, s in LAYOUT_POOLS.values() if len(s) == 4 for f in (relu, chain)
    ]
    before = module(relay.Tuple(bodies))
    after, remarks = run_pass(before)
    assert sum(remark.reason == "sunk" for remark in remarks) == len(bodies)
    value = hard_values(shape, "float32")
    pairs = zip(
        outputs(before, value, target=target), outputs(after, value, target=target), strict=True
    )
    assert [np.array_equal(bits(a), bits(b)) for a, b in pairs] == [True] * len(bodies)


# Several pools that read one activation.


def test_an_activation_of_several_pools_sinks_below_each():
    bias = per_channel((8,))

    def f(x):
        return relu(relay.nn.bias_add(x, bias))

    def pools(x, y, z):
        return [max_pool(x), max_pool(y, 3, 3), relay.max(z, [2, 3], keepdims=True)]

    before = module(relay.Tuple(pools(*[f(data())] * 3)))
    x = data()
    assert_sinks(before, module(relay.Tuple([f(pooled) for pooled in pools(x, x, x)])))


@pytest.mark.parametrize(
    ("pools", "reasons"),
    [
        # As in spatial pyramid pooling: together they write more than they read.
        ([lambda x: max_pool(x, 3, 1), lambda x: max_pool(x, 5, 1)], [Reason.SHARED] * 2),
        ([max_pool, lambda x: max_pool(x, padding=(2, 2))], [Reason.SHARED, Reason.EMPTY_WINDOW]),
        (
            [max_pool, lambda x: relay.nn.avg_pool2d(x, (2, 2), (2, 2))],
            [Reason.SHARED, Reason.NOT_SELECTING],
        ),
    ],
)
def test_an_activation_of_several_readers_stays(pools, reasons):
    shared = relu(data())
    assert_untouched(module(relay.Tuple([pool(shared) for pool in pools])), *reasons)


def test_pools_that_share_once_other_ops_have_sunk():
    # First the tanh sinks; then two pools are all that reads the relu.
    shared, x = relu(data()), data()
    before = module(relay.Tuple([max_pool(shared), max_pool(tanh(shared))]))
    after = module(relay.Tuple([relu(max_pool(x)), tanh(relu(max_pool(x)))]))
    remarks = assert_becomes(before, after)
    assert [r.site[-2:] for r in remarks if r.reason == "sunk"] == ["#1", "#0", "#1"]
    assert not [remark for remark in remarks if remark.reason == "shared"]


def test_what_stays_shared_is_said_once():
    shared = relu(data())
    outputs = [max_pool(shared), max_pool(tanh(shared)), relay.exp(shared)]
    _, remarks = run_pass(module(relay.Tuple(outputs)))
    assert reasons(remarks) == ["sunk", "cost", "shared", "shared"]


def test_bits_of_pools_that_share():
    shared = tanh(relay.nn.bias_add(data(), per_channel((8,))))
    pools = [max_pool(shared), max_pool(shared, 3, 3, padding=(1, 1)), relay.min(shared, [2, 3])]
    before = module(relay.Tuple(pools))
    after, remarks = run_pass(before)
    assert sum(remark.reason == "sunk" for remark in remarks) == 3
    x = hard_values((1, 8, 16, 16), "float32")
    for a, b in zip(outputs(before, x), outputs(after, x), strict=True):
        assert np.array_equal(bits(a), bits(b))


# Tuples of values and indices, as PyTorch's importer makes them.


def torch_pool(x, order, f=relu):
    """The pool's values, out of the tuple."""
    values = pooled(x, order, f)
    return relay.TupleGetItem(relay.Tuple([values, relay.zeros_like(values)]), 0)


def test_an_activation_sinks_below_a_pool_in_a_tuple():
    def build(order):
        return module(tanh(torch_pool(data(), order)))

    assert_sinks(*both(build))


def test_an_addition_does_not_meet_arithmetic_through_a_tuple():
    def add(x):
        return relay.nn.bias_add(x, per_channel((8,)))

    values = torch_pool(data(), "before", add)
    assert_untouched(module(relay.multiply(values, const(0.3))), Reason.FOLDING)
    assert_sinks(
        module(tanh(torch_pool(data(), "before", add))),
        module(tanh(torch_pool(data(), "after", add))),
    )


def test_what_sank_below_a_pool_in_a_tuple_sinks_on():
    before = module(max_pool(tanh(torch_pool(data(), "before"))))
    values = torch_pool(data(), "after", lambda x: x)
    assert_becomes(before, module(tanh(relu(max_pool(values)))))


@pytest.mark.parametrize("where", ["output", "tuple", "sum", "concatenation"])
def test_zeros_of_a_pool_that_go_somewhere_count_as_a_reader(where):
    values = max_pool(relay.nn.bias_add(data(), per_channel((8,))))
    pair = relay.Tuple([values, relay.zeros_like(values)])
    taken, zeros = relay.TupleGetItem(pair, 1), relay.zeros_like(values)
    results = {
        "output": zeros,
        "tuple": pair,
        "sum": data((1, 8, 8, 8), name="y") + taken,
        "concatenation": relay.concatenate([data((1, 8, 8, 8), name="y"), zeros], 1),
    }
    assert_untouched(module(results[where]), Reason.FOLDING)


def test_a_tuple_that_leaves_keeps_what_sank():
    pair = relay.Tuple([max_pool(relu(data())), data(name="y")])
    both = relay.Tuple([max_pool(relay.TupleGetItem(pair, 0)), pair])
    first, second = decisions(module(both))
    assert first.passed
    assert second.decline.reason is Reason.OUTPUT


@pytest.mark.parametrize("dead", [max_pool, relay.exp, lambda x: relay.add(x, const(1.0))])
def test_what_a_tuple_holds_in_vain_is_read(dead):
    """A pool or arithmetic that nothing takes out of the tuple reads the pool all the same."""
    values = pooled(relay.cast(data(SHAPE, "int8"), "float32"), "before")
    mod = module(max_pool(relay.TupleGetItem(relay.Tuple([values, dead(values)]), 0)))
    after, remarks = run_pass(mod)
    assert reasons(remarks)[0] == "sunk"
    x = hard_values(SHAPE, "int8")
    (a,), (b,) = (outputs(each, x) for each in (mod, after))
    assert np.array_equal(bits(a), bits(b))
