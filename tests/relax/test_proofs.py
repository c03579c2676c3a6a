"""What LLVM proves of data decides what it contracts: a swap adds no such proof, and takes none."""

import numpy as np
import pytest
from relax_builders import as_main, built, const, data, max_pool, run_pass
from relax_runs import TARGETS, bits, cpu, run
from tvm import relax, topi
from tvm.relax import op
from tvm.script import ir as I  # noqa: N812
from tvm.script import relax as R  # noqa: N812
from tvm.script import tirx as T  # noqa: N812

from tvm_passes import RULES, Apply, Data, Direction, Number, Rule
from tvm_passes.decline import Reason
from tvm_passes.relax import decisions, engine

SHAPE = (2, 64, 8, 8)
SLOPES = const(np.linspace(0.1, 0.9, 64))
SHIFT = const(np.random.default_rng(1).standard_normal((1, 64, 1, 1)))


def prelu(x):
    return op.nn.prelu(x, SLOPES, 1)


def bounded(x):
    return op.clip(x, -3.0, 3.0)


def sum_of(x):
    return op.add(x, SHIFT)


def scaled(x):
    return op.multiply(x, const(2.3))


BODIES = {
    "a bound above a slope": lambda x: sum_of(op.max(prelu(bounded(x)), [3], True)),
    "a bound, above a slope below": lambda x: sum_of(prelu(op.max(bounded(x), [3], True))),
    "a slope and a sum below two bounds": lambda x: max_pool(
        sum_of(prelu(op.where(op.greater(x, const(0.3)), bounded(x), op.clip(x, -2.0, -1.0))))
    ),
    "relu above a magnitude": lambda x: sum_of(op.abs(scaled(max_pool(op.nn.relu(x))))),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_products_are_contracted_as_before(body):
    before = built(lambda _, x: body(x), data(SHAPE))
    x = 3 * np.random.default_rng(0).standard_normal(SHAPE, "float32") - 1
    config = {"kind": "llvm", "mcpu": cpu(TARGETS[-1])}
    orders = [
        engine.build(mod, config, reorder=False, kernels=True)
        for mod in (before, run_pass(before)[0])
    ]
    (expected,), (found,) = (run(executable, x) for executable in orders)
    np.testing.assert_array_equal(bits(found), bits(expected))


@pytest.mark.parametrize(
    "below",
    [
        op.abs,
        lambda x: op.concat([x, x], 1),
        lambda x: sum_of(op.nn.relu(x)),
        lambda x: op.cos(op.abs(x)),
        lambda x: op.abs(scaled(x)),
        lambda x: op.divide(op.abs(x), const(2.3)),
        lambda x: op.abs(op.nn.pad(x, [0, 0, 0, 0, 1, 1, 1, 1])),
        lambda x: op.abs(relax.TupleGetItem(op.nn.dropout(x), 0)),
        lambda x: op.abs(op.concat([x, x], 1)),
        lambda x: sum_of(op.abs(op.nn.conv2d(x, const(np.ones((64, 64, 1, 1)))))),
    ],
)
def test_without_both_a_choice_and_a_sum_nothing_is_contracted(below):
    (decision,) = decisions(built(lambda _, x: below(max_pool(op.nn.relu(x))), data(SHAPE)))
    assert decision.passed


def test_ops_that_are_not_known_may_add():
    body = built(lambda _, x: op.abs(op.cumsum(max_pool(op.nn.relu(x)), 1)), data(SHAPE))
    (decision,) = decisions(body)
    assert decision.decline.reason is Reason.FOLDING
    assert "relax.abs" in decision.decline.detail


def test_slopes_count_as_what_may_add():
    (decision,) = decisions(built(lambda _, x: prelu(op.abs(max_pool(op.nn.relu(x)))), data(SHAPE)))
    assert decision.decline.reason is Reason.FOLDING


def test_kernels_of_others_may_compute_anything():
    def body(builder, x):
        pooled = builder.emit(max_pool(builder.emit(op.nn.relu(x))))
        return builder.call_te(topi.abs, pooled)

    (decision,) = decisions(built(body, data(SHAPE)))
    assert decision.decline.reason is Reason.FOLDING
    assert "relax.call_tir" in decision.decline.detail


def test_an_operand_that_others_read_is_computed_as_before():
    # Below the pool, maximum would be in one kernel with what else reads the product.
    def body(builder, x):
        product = builder.emit(op.exp(SHIFT))
        pooled = max_pool(builder.emit(op.maximum(x, product)))
        return op.maximum(op.add(product, SHIFT), pooled)

    (decision,) = decisions(built(body, data(SHAPE)))
    assert decision.decline.reason is Reason.ROUNDING


@I.ir_module
class InPlace:
    @T.prim_func(private=True, s_tir=True)
    def doubled(a: T.Buffer((1, 4, 8, 8), "float32")):  # noqa: N805
        for i, j, k, m in T.grid(1, 4, 8, 8):
            with T.sblock("doubled"):
                n, c, h, w = T.axis.remap("SSSS", [i, j, k, m])
                a[n, c, h, w] = a[n, c, h, w] * T.float32(2)

    @R.function
    def main(x: R.Tensor((1, 4, 8, 8), "float32")):  # noqa: N805
        cls = InPlace
        with R.dataflow():
            y = R.negative(x)
            r = R.nn.relu(y)
            z = R.call_tir_inplace(
                cls.doubled, (y,), inplace_indices=[0], out_ty=R.Tensor((1, 4, 8, 8), "float32")
            )
            p = R.nn.max_pool2d(r, (2, 2), (2, 2))
            o = (p, z)
            R.output(o)
        return o


def test_what_is_written_over_is_read_before():
    (decision,) = decisions(InPlace)
    assert decision.decline.reason is Reason.NOT_DATAFLOW
    after, _ = run_pass(InPlace)
    x = np.random.default_rng(0).standard_normal((1, 4, 8, 8), "float32")
    expected = np.maximum(-x, 0).reshape(1, 4, 4, 2, 4, 2).max((3, 5))
    found, _ = run(engine.build(after, {"kind": "llvm"}, reorder=False, kernels=False), x)
    np.testing.assert_array_equal(found, expected)


def test_a_packed_function_may_write_over_what_it_reads():
    @R.function
    def main(x: R.Tensor((1, 4, 8, 8), "float32")):
        with R.dataflow():
            y = R.negative(x)
            r = R.nn.relu(y)
            z = R.call_inplace_packed(
                "any", y, inplace_indices=[0], ty_args=[R.Tensor((1, 4, 8, 8), "float32")]
            )
            p = R.nn.max_pool2d(r, (2, 2), (2, 2))
            o = (p, z)
            R.output(o)
        return o

    (decision,) = decisions(as_main(main))
    assert decision.decline.reason is Reason.NOT_DATAFLOW


def test_a_row_of_one_s_own_may_end_in_a_product():
    inner = Apply("tanh", (Apply("multiply", (Data(), Number(2 / 3))),))
    pattern = Apply("multiply", (inner, Number(1.7159)))
    rule = Rule("scaled_tanh", Direction.NON_DECREASING, {}, patterns=(pattern,))

    def pooled(x):
        return max_pool(op.multiply(op.tanh(op.multiply(x, const(2 / 3))), const(1.7159)))

    above, alone = (built(lambda _, x, f=f: f(pooled(x)), data(SHAPE)) for f in (sum_of, op.abs))
    (decision,) = decisions(above, (*RULES, rule))
    assert decision.decline.reason is Reason.FOLDING
    assert decisions(alone, (*RULES, rule))[0].passed
