"""Where a site may be: blocks, branches, functions, modules of two dialects, and deep graphs."""

from relax_builders import (
    as_main,
    assert_becomes,
    assert_sinks,
    assert_untouched,
    both,
    built,
    conv,
    max_pool,
    module,
    pooled,
    reasons,
    run_pass,
)
from tvm import relax
from tvm.relax import op
from tvm.relax.dpl import is_op, wildcard
from tvm.script import relax as R  # noqa: N812 - TVMScript's own name

from tvm_passes.decline import Reason
from tvm_passes.remarks import Kind


def test_branches():
    @R.function
    def before(x: R.Tensor((1, 8, 16, 16), "float32"), c: R.Tensor((), "bool")):
        if c:
            with R.dataflow():
                a = R.nn.relu(x)
                b = R.nn.max_pool2d(a, (2, 2), (2, 2))
                R.output(b)
            r = b
        else:
            with R.dataflow():
                d = R.tanh(x)
                e = R.nn.max_pool2d(d, (2, 2), (2, 2))
                R.output(e)
            r = e
        return r

    @R.function
    def expected(x: R.Tensor((1, 8, 16, 16), "float32"), c: R.Tensor((), "bool")):
        if c:
            with R.dataflow():
                a = R.nn.max_pool2d(x, (2, 2), (2, 2))
                b = R.nn.relu(a)
                R.output(b)
            r = b
        else:
            with R.dataflow():
                d = R.nn.max_pool2d(x, (2, 2), (2, 2))
                e = R.tanh(d)
                R.output(e)
            r = e
        return r

    remarks = assert_becomes(as_main(before), as_main(expected))
    first, second = (remark for remark in remarks if remark.kind is Kind.PASSED)
    assert first.site == "main/relax.nn.max_pool2d#0"
    assert "relax.nn.relu" in first.message
    assert second.site == "main/relax.nn.max_pool2d#1"
    assert "relax.tanh" in second.message


def test_a_layer_that_a_library_takes_with_its_activation():
    """Partition first, and what is the library's stays whole."""
    pattern = is_op("relax.nn.relu")(is_op("relax.nn.conv2d")(wildcard(), wildcard()))
    mod = module(lambda x: max_pool(op.nn.relu(conv(x))))
    taken = [("lib.conv2d_relu", pattern)]
    mod = relax.transform.FuseOpsByPattern(taken, annotate_codegen=True)(mod)
    assert_untouched(mod, Reason.NO_ACTIVATION)


def test_several_dataflow_blocks_and_code_between_them():
    @R.function
    def before(x: R.Tensor((1, 8, 32, 32), "float32")):
        with R.dataflow():
            a = R.nn.relu(x)
            b = R.nn.max_pool2d(a, (2, 2), (2, 2))
            R.output(b)
        c = R.cos(b)
        with R.dataflow():
            d = R.tanh(c)
            e = R.nn.max_pool2d(d, (2, 2), (2, 2))
            R.output(e)
        return e

    @R.function
    def expected(x: R.Tensor((1, 8, 32, 32), "float32")):
        with R.dataflow():
            a = R.nn.max_pool2d(x, (2, 2), (2, 2))
            b = R.nn.relu(a)
            R.output(b)
        c = R.cos(b)
        with R.dataflow():
            d = R.nn.max_pool2d(c, (2, 2), (2, 2))
            e = R.tanh(d)
            R.output(e)
        return e

    assert_sinks(as_main(before), as_main(expected))


def test_code_outside_dataflow_blocks():
    @R.function
    def before(x: R.Tensor((1, 8, 16, 16), "float32")):
        a = R.nn.relu(x)
        return R.nn.max_pool2d(a, (2, 2), (2, 2))

    assert_untouched(as_main(before), Reason.NOT_DATAFLOW)
    _, remarks = run_pass(relax.transform.ConvertToDataflow()(as_main(before)))
    assert reasons(remarks) == ["sunk", "cost"]


def test_an_activation_of_an_earlier_block():
    @R.function
    def before(x: R.Tensor((1, 8, 16, 16), "float32")):
        with R.dataflow():
            a = R.nn.relu(x)
            R.output(a)
        c = R.cos(x)  # else the two blocks are made one
        with R.dataflow():
            b = R.nn.max_pool2d(a, (2, 2), (2, 2))
            R.output(b)
        return (b, c)

    assert_untouched(as_main(before), Reason.NO_ACTIVATION)


def test_an_activation_that_a_later_block_reads():
    @R.function
    def before(x: R.Tensor((1, 8, 16, 16), "float32")):
        with R.dataflow():
            a = R.nn.relu(x)
            b = R.nn.max_pool2d(a, (2, 2), (2, 2))
            R.output(a, b)
        c = R.cos(a)
        with R.dataflow():
            d = R.add(c, a)
            R.output(d)
        return (b, d)

    assert_untouched(as_main(before), Reason.OUTPUT)


def test_an_addition_of_another_block_s_value_may_meet_its_product_again():
    # Nothing says that the value of the other block is rounded, though there is no fusion now.
    @R.function
    def before(x: R.Tensor((1, 8, 16, 16), "float32")):
        a = R.multiply(x, R.const(0.3))
        with R.dataflow():
            b = R.add(a, R.const(0.7))
            c = R.nn.max_pool2d(b, (2, 2), (2, 2))
            R.output(c)
        return c

    assert_untouched(as_main(before), Reason.ROUNDING)


def test_a_pool_whose_value_is_matched():
    def build(order):
        def body(builder, x):
            result = builder.emit(pooled(x, order))
            return builder.match_cast(result, relax.TensorType((1, 8, 8, 8), "float32"))

        return built(body)

    assert_sinks(*both(build))


def test_tuples():
    def build(order):
        def body(builder, x):
            pair = builder.emit(
                relax.Tuple([builder.emit(pooled(x, order)), builder.emit(op.cos(x))])
            )
            return [builder.emit(relax.TupleGetItem(pair, 0)), pair]

        return built(body)

    assert_sinks(*both(build))


def test_an_activation_that_goes_through_a_tuple():
    def body(builder, x):
        pair = builder.emit(relax.Tuple([builder.emit(op.nn.relu(x)), x]))
        return max_pool(builder.emit(relax.TupleGetItem(pair, 0)))

    assert_untouched(built(body), Reason.NO_RULE)
