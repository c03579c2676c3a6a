"""What compilers make of ops because of what is next to them, beside folding numbers."""

import numpy as np
import pytest
from relax_builders import (
    as_main,
    assert_sinks,
    assert_untouched,
    built,
    const,
    data,
    max_pool,
    module,
    per_channel,
    positive,
    reasons,
    run_pass,
)
from tvm import relax
from tvm.relax import op
from tvm.script import relax as R  # noqa: N812 - TVMScript's own name

from tvm_passes.decline import Reason

FACTOR, SHIFT = positive((8, 1, 1)), per_channel((8, 1, 1))


def average(x):
    return op.nn.avg_pool2d(x, (2, 2), (1, 1))


def biased(x):
    return op.add(x, SHIFT)


def test_a_sum_is_contracted_with_the_product_that_an_average_ends_in():
    assert_untouched(
        module(lambda x: max_pool(biased(average(x)))), Reason.NOT_SELECTING, Reason.ROUNDING
    )


def test_what_is_no_sum_sinks_below_an_average():
    assert_sinks(
        module(lambda x: max_pool(op.nn.relu(average(x)))),
        module(lambda x: op.nn.relu(max_pool(average(x)))),
        declined=Reason.NOT_SELECTING,
    )


def scaled(x):
    return op.multiply(x, FACTOR)


@pytest.mark.parametrize("vanishes", [op.abs, lambda x: op.nn.leakyrelu(x, 1.0)])
def test_a_product_meets_a_sum_past_what_may_vanish(vanishes):
    below = module(lambda x: biased(vanishes(max_pool(scaled(x)))))
    above = module(lambda x: biased(max_pool(vanishes(scaled(x)))))
    assert_untouched(below, Reason.FOLDING)
    _, remarks = run_pass(above, allow={"quasi-convex"})
    assert reasons(remarks) == [Reason.FOLDING.value]


@pytest.mark.parametrize(
    "vanishes",
    [
        lambda _, q: op.maximum(q, q),
        lambda builder, q: op.minimum(builder.emit(op.maximum(q, builder.emit(op.nn.relu(q)))), q),
    ],
    ids=["of one value", "of what is made of it"],
)
def test_a_product_meets_a_sum_past_a_selection_of_one_value(vanishes):
    def body(builder, x):
        pooled = builder.emit(max_pool(builder.emit(scaled(x))))
        return biased(builder.emit(vanishes(builder, pooled)))

    assert_untouched(built(body, data()), Reason.FOLDING)


def test_a_product_meets_a_sum_past_dropout():
    def body(builder, x):
        pooled = builder.emit(max_pool(builder.emit(scaled(x))))
        return biased(kept(builder, pooled))

    assert_untouched(built(body, data()), Reason.FOLDING)


def test_a_sum_is_not_parted_from_a_product_past_what_may_vanish():
    mod = module(lambda x: max_pool(biased(op.abs(scaled(x)))))
    assert_untouched(mod, Reason.ROUNDING)


@pytest.mark.parametrize("stays", [op.nn.relu, lambda x: op.clip(x, 0, 6)])
def test_a_product_meets_a_sum_past_what_does_not(stays):
    mod = module(lambda x: biased(stays(max_pool(scaled(x)))))
    _, remarks = run_pass(mod)
    assert reasons(remarks) == ["sunk", "cost"]


@pytest.mark.parametrize(
    ("bounds", "sinks"), [((-0.3, 0.1), False), ((-0.3, 0.5), False), ((-0.5, 6.0), True)]
)
def test_bounds_that_bfloat16_does_not_hold(bounds, sinks):
    for dtype, passes in (("bfloat16", sinks), ("float32", True)):
        mod = module(lambda x: max_pool(op.clip(x, *bounds)), data(dtype=dtype))
        _, remarks = run_pass(mod)
        assert reasons(remarks)[0] == ("sunk" if passes else Reason.ROUNDING.value)


def test_a_bound_of_bfloat16_that_is_computed():
    def body(bound):
        return built(
            lambda builder, x, b: max_pool(
                builder.emit(op.minimum(x, builder.emit(op.multiply(b, b)) if bound else b))
            ),
            data(dtype="bfloat16"),
            data((1, 8, 1, 1), "bfloat16", name="b"),
        )

    assert reasons(run_pass(body(bound=True))[1]) == [Reason.ROUNDING.value]
    assert reasons(run_pass(body(bound=False))[1]) == ["sunk", "cost"]


def two_blocks(second, *, dataflow):
    """A module whose first block ends in a pool below a product, and what reads it after that."""
    builder, x = relax.BlockBuilder(), data()
    with builder.function("main", [x]):
        with builder.dataflow():
            pooled = builder.emit_output(max_pool(builder.emit(scaled(x))))
        if dataflow:
            seen = builder.emit(op.cos(x))  # else the two blocks are made one
            with builder.dataflow():
                result = builder.emit_output(second(pooled))
            builder.emit_func_output(relax.Tuple([result, seen]))
        else:
            builder.emit_func_output(builder.emit(second(pooled)))
    return builder.finalize()


@pytest.mark.parametrize("dataflow", [True, False])
def test_what_another_block_reads_may_meet_it(dataflow):
    assert_untouched(two_blocks(biased, dataflow=dataflow), Reason.FOLDING)


def test_what_no_other_block_reads_sinks():
    mod = module(lambda x: max_pool(scaled(x)))
    assert reasons(run_pass(mod)[1]) == ["sunk", "cost"]


def test_a_branch_may_meet_what_follows_it():
    @R.function
    def before(x: R.Tensor((1, 8, 16, 16), "float32"), c: R.Tensor((), "bool")):
        if c:
            with R.dataflow():
                a = R.multiply(x, R.const(0.3))
                b = R.nn.max_pool2d(a, (2, 2), (2, 2))
                R.output(b)
            r = b
        else:
            with R.dataflow():
                d = R.nn.relu(x)
                e = R.nn.max_pool2d(d, (2, 2), (2, 2))
                R.output(e)
            r = e
        return r

    _, remarks = run_pass(as_main(before))
    assert sorted(reasons(remarks)) == ["cost", Reason.FOLDING.value, "sunk"]


def test_a_local_function_may_be_inlined():
    builder, x, y = relax.BlockBuilder(), data(), data(name="y")
    inner = relax.BlockBuilder()
    with inner.function("inner", [y], private=True):
        with inner.dataflow():
            result = inner.emit_output(max_pool(inner.emit(scaled(inner.emit(op.sigmoid(y))))))
        inner.emit_func_output(result)
    local = inner.get()["inner"]
    with builder.function("main", [x]):
        f = builder.emit(local, "f")
        builder.emit_func_output(builder.emit(biased(builder.emit(relax.Call(f, [x])))))
    assert Reason.FOLDING.value in reasons(run_pass(builder.get())[1])


def test_data_of_unknown_rank():
    anything = relax.Var("x", relax.TensorType(dtype="float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [anything]):
        with builder.dataflow():
            added = builder.emit(op.add(anything, const(np.ones(4))))
            image = builder.emit(op.reshape(added, (1, 4, 8, 8)))
            result = builder.emit_output(max_pool(image))
        builder.emit_func_output(result)
    _, remarks = run_pass(builder.get())
    assert [remark.kind.value for remark in remarks] == ["Missed"]


@pytest.mark.parametrize("f", [op.multiply, op.add, op.maximum])
def test_operands_of_no_elements(f):
    empty = const(np.zeros((1, 0, 1, 1)))
    mod = module(lambda x: max_pool(f(x, empty)), data((1, 0, 8, 8)))
    _, remarks = run_pass(mod)
    assert [remark.kind.value for remark in remarks] == ["Missed"]


BATCH = 64
"""So many images that no result is small enough for registers."""


def leaky(x):
    return op.nn.leakyrelu(x, 0.1)


def most(x):
    return op.max(x, [2, 3])


def rotated(x):
    return op.reshape(x, (2 * BATCH, 4, 16, 16))


def kept(builder, x):
    """Dropout of data, which is nothing at inference."""
    return builder.emit(relax.TupleGetItem(builder.emit(op.nn.dropout(x, 0.5)), 0))


MEET = {
    "a selection and its data": lambda _, x: op.subtract(max_pool(leaky(x)), max_pool(x)),
    "two selections": lambda _, x: op.add(max_pool(leaky(x)), max_pool(op.nn.leakyrelu(x, 0.2))),
    "ops alike": lambda _, x: [op.nn.relu(max_pool(x)), max_pool(op.nn.relu(x))],
    "ops alike past dropout": lambda builder, x: [
        op.nn.relu(max_pool(x)),
        max_pool(op.nn.relu(kept(builder, x))),
    ],
    "ops alike past a reshape": lambda _, x: [
        op.reshape(op.nn.relu(most(x)), (BATCH, 8)),
        op.reshape(most(rotated(op.nn.relu(x))), (BATCH, 8)),
    ],
    "ops alike past a reshape below": lambda _, x: [
        op.nn.relu(op.reshape(most(x), (BATCH, 8))),
        most(op.nn.relu(x)),
    ],
    "ops alike past reshapes of both": lambda _, x: [
        op.nn.relu(most(rotated(x))),
        most(rotated(op.nn.relu(x))),
    ],
    "at the other end": lambda _, x: [
        op.min(op.tanh(op.subtract(const(1.0), x)), [2, 3]),
        op.subtract(const(1.0), most(x)),
    ],
    "an op of several": lambda _, x: [
        max_pool(op.where(op.greater(x, const(0.0)), x, op.multiply(x, const(0.1)))),
        op.multiply(max_pool(x), const(0.1)),
    ],
    "at the other end, by hand": lambda _, x: [
        max_pool(op.multiply(op.sigmoid(x), const(-0.7))),
        op.multiply(op.sigmoid(op.negative(max_pool(op.negative(x)))), const(-0.7)),
    ],
    "pools of pools": lambda _, x: [
        max_pool(max_pool(scaled(x))),
        biased(scaled(max_pool(max_pool(x)))),
    ],
    "past dropout below": lambda builder, x: [
        max_pool(scaled(x)),
        scaled(kept(builder, builder.emit(max_pool(x)))),
    ],
}


def assert_one_stays_apart(mod):
    _, remarks = run_pass(mod)
    declined = [remark for remark in remarks if remark.reason == Reason.FOLDING.value]
    assert any("would read what another reads" in remark.message for remark in declined)


@pytest.mark.parametrize("body", MEET.values(), ids=MEET)
def test_two_pools_do_not_become_one(body):
    assert_one_stays_apart(built(body, data((BATCH, 8, 16, 16))))


APART = {
    "what reads them is unlike": lambda x: [max_pool(op.nn.relu(x)), op.tanh(max_pool(x))],
    "of other bounds": lambda x: [max_pool(op.clip(x, 0.0, 1.0)), op.clip(max_pool(x), 0.0, 6.0)],
    "of other numbers": lambda x: [
        max_pool(op.maximum(x, const(1.0))),
        op.maximum(max_pool(x), const(2.0)),
    ],
    "of other windows": lambda x: [max_pool(op.nn.relu(x)), op.nn.relu(max_pool(x, 4, 2))],
    "of the other end": lambda x: [max_pool(op.nn.relu(x)), op.nn.relu(max_pool(op.negative(x)))],
    "a selection without a sum": lambda x: [max_pool(leaky(x)), max_pool(x)],
    "a selection and a sum without another pool": lambda x: [
        op.add(max_pool(leaky(x)), const(0.3))
    ],
}


@pytest.mark.parametrize("known", ["neither", "first", "second"])
def test_operands_that_are_not_known_may_be_one(known):
    def body(_, x, b, c):
        first = const(1.0) if known == "first" else b
        second = const(1.0) if known == "second" else c
        return [max_pool(op.maximum(x, first)), op.maximum(max_pool(x), second)]

    params = data((BATCH, 8, 16, 16)), data((), name="b"), data((), name="c")
    assert_one_stays_apart(built(body, *params))


def test_a_maximum_of_negations_is_no_minimum():
    def body(_, x):
        falls = op.min(op.tanh(op.subtract(const(1.0), x)), [2, 3])
        return [falls, op.subtract(const(1.0), op.negative(most(op.negative(x))))]

    _, remarks = run_pass(built(body, data((BATCH, 8, 16, 16))))
    assert reasons(remarks).count("sunk") == 2


def test_items_of_a_tuple_are_no_one_value():
    def body(builder, x):
        halves = builder.emit(op.split(x, 2))
        first, second = (builder.emit(relax.TupleGetItem(halves, n)) for n in (0, 1))
        return [max_pool(op.nn.relu(first)), op.nn.relu(max_pool(second))]

    _, remarks = run_pass(built(body, data((BATCH, 8, 16, 16))))
    assert reasons(remarks).count("sunk") == 1


@pytest.mark.parametrize("bodies", APART.values(), ids=APART)
def test_pools_that_may_become_one(bodies):
    def body(builder, x):
        return [builder.emit(value) for value in bodies(x)]

    _, remarks = run_pass(built(body, data((BATCH, 8, 16, 16))))
    assert reasons(remarks).count("sunk") == 1


def test_ops_alike_that_both_sink_are_one_before():
    def body(builder, x):
        both = [max_pool(op.nn.relu(x)), max_pool(op.nn.relu(kept(builder, x)))]
        return op.concat(both)

    assert reasons(run_pass(built(body, data()))[1]).count("sunk") == 2
