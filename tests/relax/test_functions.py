"""Modules of several functions, local functions, claimed ones, and very long ones."""

import pytest
from relax_builders import (
    as_main,
    assert_becomes,
    assert_sinks,
    assert_untouched,
    both,
    built,
    data,
    max_pool,
    module,
    per_channel,
    pooled,
    reasons,
    run_pass,
)
from tvm import relax
from tvm.relax import op
from tvm.script import relax as R  # noqa: N812 - TVMScript's own name
from tvm.script import tirx as T  # noqa: N812

from tvm_passes.relax import decisions


def test_local_functions():
    @R.function
    def before(x: R.Tensor((1, 8, 16, 16), "float32")) -> R.Tensor((1, 8, 8, 8), "float32"):
        @R.function
        def inner(
            y: R.Tensor((1, 8, 16, 16), "float32"),
        ) -> R.Tensor((1, 8, 8, 8), "float32"):
            with R.dataflow():
                a = R.nn.relu(y)
                b = R.nn.max_pool2d(a, (2, 2), (2, 2))
                R.output(b)
            return b

        return inner(x)

    @R.function
    def expected(x: R.Tensor((1, 8, 16, 16), "float32")) -> R.Tensor((1, 8, 8, 8), "float32"):
        @R.function
        def inner(
            y: R.Tensor((1, 8, 16, 16), "float32"),
        ) -> R.Tensor((1, 8, 8, 8), "float32"):
            with R.dataflow():
                a = R.nn.max_pool2d(y, (2, 2), (2, 2))
                b = R.nn.relu(a)
                R.output(b)
            return b

        return inner(x)

    assert_sinks(as_main(before), as_main(expected))


def test_a_module_of_several_functions_and_a_primfunc():
    def build(order):
        mod = module(lambda x: pooled(x, order))
        other = module(lambda x: pooled(x, order, op.tanh), data((1, 4, 8, 8)))
        mod["other"] = other["main"].with_attr("global_symbol", "other")
        mod["copy"] = copy
        return mod

    @T.prim_func(s_tir=True)
    def copy(a: T.Buffer((8,), "float32"), b: T.Buffer((8,), "float32")):
        for i in range(8):
            with T.sblock("copy"):
                v = T.axis.spatial(8, i)
                b[v] = a[v]

    before, expected = both(build)
    remarks = assert_becomes(before, expected)
    assert {remark.function for remark in remarks} == {"main", "other"}
    assert run_pass(before)[0]["copy"].same_as(before["copy"])


@pytest.mark.parametrize("attr", ["Primitive", "Composite", "Codegen"])
def test_a_function_that_an_earlier_pass_claimed(attr):
    mod = module(lambda x: pooled(x, "before"))
    value = True if attr == "Primitive" else "dnnl"
    mod["main"] = mod["main"].with_attr(attr, value)
    assert_untouched(mod)
    assert decisions(mod) == ()


def test_a_local_function_that_is_claimed_beside_a_site():
    @R.function
    def before(x: R.Tensor((1, 8, 32, 32), "float32")) -> R.Tensor((1, 8, 8, 8), "float32"):
        @R.function
        def inner(
            y: R.Tensor((1, 8, 16, 16), "float32"),
        ) -> R.Tensor((1, 8, 8, 8), "float32"):
            R.func_attr({"Composite": "dnnl.pool"})
            with R.dataflow():
                a = R.nn.relu(y)
                b = R.nn.max_pool2d(a, (2, 2), (2, 2))
                R.output(b)
            return b

        with R.dataflow():
            c = R.tanh(x)
            d = R.nn.max_pool2d(c, (2, 2), (2, 2))
            R.output(d)
        return inner(d)

    @R.function
    def expected(x: R.Tensor((1, 8, 32, 32), "float32")) -> R.Tensor((1, 8, 8, 8), "float32"):
        @R.function
        def inner(
            y: R.Tensor((1, 8, 16, 16), "float32"),
        ) -> R.Tensor((1, 8, 8, 8), "float32"):
            R.func_attr({"Composite": "dnnl.pool"})
            with R.dataflow():
                a = R.nn.relu(y)
                b = R.nn.max_pool2d(a, (2, 2), (2, 2))
                R.output(b)
            return b

        with R.dataflow():
            c = R.nn.max_pool2d(x, (2, 2), (2, 2))
            d = R.tanh(c)
            R.output(d)
        return inner(d)

    assert_sinks(as_main(before), as_main(expected))


def test_fused_functions():
    mod = relax.transform.FuseOpsByPattern(
        [("dnnl.pool", relax.dpl.is_op("relax.nn.max_pool2d")(relax.dpl.wildcard()))],
        annotate_codegen=True,
    )(module(lambda x: max_pool(op.cos(x))))
    assert_untouched(mod)


def test_a_variable_bound_to_the_pool_keeps_its_name():
    before = module(lambda x: pooled(x, "before"))
    last = before["main"].body.blocks[0].bindings[-1].var
    after = run_pass(before)[0]
    assert after["main"].body.blocks[0].bindings[-1].var.same_as(last)


def test_deciding_changes_nothing():
    mod = module(lambda x: pooled(x, "before"))
    func = mod["main"]
    assert [decision.passed for decision in decisions(mod)] == [True]
    assert mod["main"].same_as(func)


@pytest.mark.parametrize("pool_first", [False, True])
def test_twenty_thousand_ops(pool_first):
    def build(order):
        def body(builder, x):
            e = builder.emit(pooled(x, order)) if pool_first else x
            if not pool_first and order == "after":
                e = builder.emit(max_pool(e))
            for _ in range(20_000):
                e = builder.emit(op.nn.relu(e))
            return max_pool(e) if not pool_first and order == "before" else op.cos(e)

        return built(body, data((1, 1, 8, 8)))

    if pool_first:
        assert_sinks(*both(build))
        return
    after, remarks = run_pass(build("before"))
    assert reasons(remarks) == ["sunk", "cost"]
    bindings = after["main"].body.blocks[0].bindings
    assert [b.value.op.name for b in bindings] == ["relax.nn.max_pool2d"] + 20_000 * [
        "relax.nn.relu"
    ]
    relax.analysis.well_formed(after)


def test_many_sites_in_one_function():
    def build(order):
        return module(
            lambda x: [pooled(op.add(x, per_channel((8, 1, 1))), order) for _ in range(100)]
        )

    _, remarks = run_pass(build("before"))
    assert reasons(remarks).count("sunk") == 100
    assert len({remark.site for remark in remarks}) == 100
