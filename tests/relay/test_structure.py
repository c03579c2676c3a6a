"""Where a site may be: branches, bindings, functions, tuples, references and deep graphs."""

import sys

import pytest
import tvm
from relay_builders import (
    assert_becomes,
    assert_sinks,
    assert_untouched,
    conv,
    data,
    max_pool,
    module,
    per_channel,
    reasons,
    run_pass,
    typed,
)
from tvm import relay
from tvm.relay.dataflow_pattern import is_op, wildcard
from tvm.relay.prelude import Prelude

from tvm_passes.decline import Reason
from tvm_passes.relay import decisions
from tvm_passes.remarks import Kind


def pooled(x, order, f=relay.nn.relu):
    return max_pool(f(x)) if order == "before" else f(max_pool(x))


def both(build):
    """The module that `build` makes of sites before the pass, and of the same sites after it."""
    return build("before"), build("after")


def test_branches():
    def build(order):
        x, c = data(), relay.var("c", shape=(), dtype="bool")
        return module(relay.If(c, pooled(x, order), pooled(x, order, relay.tanh)), x, c)

    assert_sinks(*both(build))


def test_an_activation_read_by_both_branches():
    x, c = data(), relay.var("c", shape=(), dtype="bool")
    shared = relay.nn.relu(x)
    body = relay.If(c, max_pool(shared), relay.cos(max_pool(shared)))
    first, second = (relay.nn.relu(max_pool(x)) for _ in range(2))
    assert_sinks(module(body, x, c), module(relay.If(c, first, relay.cos(second)), x, c))


def test_an_activation_that_one_branch_does_not_pool():
    x, c = data(), relay.var("c", shape=(), dtype="bool")
    shared = relay.nn.relu(x)
    body = relay.If(c, max_pool(shared), max_pool(relay.cos(shared)))
    assert_untouched(module(body, x, c), Reason.SHARED, Reason.NO_RULE)


def test_an_activation_that_a_branch_returns():
    x, c = data(), relay.var("c", shape=(), dtype="bool")
    shared = relay.nn.relu(x)
    p = relay.var("p")
    body = relay.Let(p, max_pool(shared), relay.If(c, shared, relay.cos(x)))
    assert_untouched(module(body, x, c), Reason.SHARED)


def test_let_bindings():
    def build(order):
        x, v, w = data(), relay.var("v"), relay.var("w")
        rest = relay.Let(w, relay.cos(v), relay.Tuple([v, w, pooled(v, order, relay.tanh)]))
        return module(relay.Let(v, pooled(x, order), rest), x)

    assert_sinks(*both(build))


def test_a_let_bound_activation_is_another_consumer_s_too():
    # a-normal form hides the chain from the pass; it must not sink half of it.
    before = relay.transform.ToANormalForm()(module(max_pool(relay.nn.relu(data()))))
    assert_untouched(typed(before), Reason.NO_ACTIVATION)


def test_let_bound_values_may_be_products():
    x, v, b = data(), relay.var("v"), relay.var("b", shape=(8, 1, 1))
    product = relay.Let(v, relay.multiply(x, per_channel((8, 1, 1))), max_pool(relay.add(v, b)))
    assert_untouched(module(product, x, b), Reason.ROUNDING)
    addend = relay.Let(v, relay.multiply(b, b), max_pool(relay.add(x, v)))
    assert_untouched(module(addend, x, b), Reason.ROUNDING)


def test_local_functions():
    def build(order):
        x, p = data((1, 8, 32, 32)), data(name="p")
        inner = relay.Function([p], pooled(p, order))
        return module(relay.Call(inner, [pooled(x, order, relay.tanh)]), x)

    assert_sinks(*both(build))


def test_a_closure_over_the_activation():
    x = data()
    shared = relay.nn.relu(x)
    inner = relay.Function([], relay.cos(shared))
    body = relay.Tuple([max_pool(shared), relay.Call(inner, [])])
    assert_untouched(module(body, x), Reason.SHARED)


def test_tuples():
    def build(order):
        x = data()
        pair = relay.Tuple([pooled(x, order), pooled(x, order, relay.tanh)])
        inner = relay.TupleGetItem(pair, 0)
        return module(relay.Tuple([relay.cos(inner), relay.TupleGetItem(pair, 1), pair]), x)

    assert_sinks(*both(build))


def test_an_activation_that_goes_through_a_tuple():
    item = relay.TupleGetItem(relay.Tuple([relay.nn.relu(data())]), 0)
    assert_untouched(module(max_pool(item)), Reason.NO_RULE)


def test_references():
    def build(order):
        x, ref = data(), relay.var("ref")
        written = relay.RefWrite(ref, pooled(x, order, relay.tanh))
        body = relay.Let(relay.var("_"), written, relay.RefRead(ref))
        return module(relay.Let(ref, relay.RefCreate(pooled(x, order)), body), x)

    assert_sinks(*both(build))


def test_a_reference_that_is_read_at_once():
    def build(order):
        x = data()
        return module(relay.RefRead(relay.RefCreate(pooled(x, order))), x)

    assert_sinks(*both(build))


@pytest.mark.parametrize("infer", [True, False])
def test_matches_and_a_module_full_of_library_functions(infer):
    def build(order):
        mod = tvm.IRModule()
        _, cons, nil = Prelude(mod).mod.get_type("List")
        x, head, tail = data(), relay.var("h"), relay.var("t")
        pattern = relay.PatternConstructor(cons, [relay.PatternVar(head), relay.PatternVar(tail)])
        clauses = [
            relay.Clause(pattern, pooled(head, order, relay.tanh)),
            relay.Clause(relay.PatternConstructor(nil, []), max_pool(relay.cos(max_pool(x)))),
        ]
        start = cons(pooled(x, order), nil())
        mod["main"] = relay.Function([x], relay.Match(start, clauses))
        return typed(mod) if infer else mod

    after, remarks = run_pass(build("before"))
    # As text: each Prelude has constructors of its own, and structural equality tells them apart.
    assert str(after["main"]) == str(typed(build("after"))["main"])
    assert reasons(remarks).count("sunk") == 2


def test_the_functions_of_a_module_are_named_in_its_remarks():
    before, expected = both(two_functions)
    remarks = assert_becomes(before, expected)
    assert {remark.site for remark in remarks} == {
        "main/nn.max_pool2d#0",
        "main/nn.max_pool2d#1",
        "other/nn.max_pool2d#0",
    }


def test_a_module_that_nobody_typed():
    before = two_functions("before", infer=False)
    after, remarks = run_pass(before)
    tvm.ir.assert_structural_equal(after, two_functions("after"))
    assert {remark.function for remark in remarks} == {"main", "other"}


def test_deciding_changes_nothing():
    before = two_functions("before", infer=False)
    functions = dict(before.functions.items())
    assert sum(decision.passed for decision in decisions(before)) == 3
    assert all(before[gvar].same_as(func) for gvar, func in functions.items())


def two_functions(order, *, infer=True):
    other = relay.GlobalVar("other")
    x, p = data((1, 8, 32, 32)), data(name="p")
    of_pooled = relay.TensorType((1, 8, 8, 8), "float32")
    called = relay.Call(other, [pooled(x, order, relay.tanh)])
    mod = tvm.IRModule(
        {
            other: relay.Function([p], pooled(p, order), of_pooled),
            relay.GlobalVar("main"): relay.Function(
                [x], pooled(relay.nn.pad(called, [(0, 0), (0, 0), (0, 8), (0, 8)]), order)
            ),
        }
    )
    return typed(mod) if infer else mod


@pytest.mark.parametrize("attr", ["Primitive", "Composite", "Compiler"])
def test_a_function_that_an_earlier_pass_claimed(attr):
    value = tvm.tir.IntImm("int32", 1) if attr == "Primitive" else "dnnl"
    p, x = data(name="p"), data()
    claimed = relay.Function([p], pooled(p, "before")).with_attr(attr, value)
    local = module(relay.Call(claimed, [relay.cos(x)]), x)
    assert_untouched(local)
    called = relay.GlobalVar("claimed")
    main = relay.Function([x], relay.Call(called, [x]))
    claimed = relay.Function([p], claimed.body, relay.TensorType((1, 8, 8, 8))).with_attr(
        attr, value
    )
    mod = typed(tvm.IRModule({called: claimed, relay.GlobalVar("main"): main}))
    assert_untouched(mod)
    assert decisions(mod) == ()


def test_a_claimed_function_beside_a_site():
    def build(order):
        x, p = data(), data((1, 8, 8, 8), name="p")
        claimed = relay.Function([p], pooled(p, "before")).with_attr("Composite", "dnnl.pool")
        return module(relay.Call(claimed, [pooled(x, order)]), x)

    assert_sinks(*both(build))


def test_a_layer_that_a_library_takes_with_its_activation():
    """Partition first, and what is the library's stays whole."""
    pattern = is_op("nn.relu")(is_op("nn.conv2d")(wildcard(), wildcard()))
    mod = module(max_pool(relay.nn.relu(conv(data()))))
    for step in (
        relay.transform.MergeComposite([("lib.conv2d_relu", pattern)]),
        relay.transform.AnnotateTarget("lib"),
        relay.transform.PartitionGraph(),
    ):
        mod = step(mod)
    assert_untouched(mod, Reason.NO_ACTIVATION)


def test_fused_functions():
    fused = relay.transform.FuseOps(2)(module(max_pool(relay.nn.relu(data()))))
    assert_untouched(fused)


@pytest.mark.parametrize("pool_first", [False, True])
def test_twelve_thousand_ops(pool_first):
    def build(order):
        e = x = data((1, 1, 8, 8))
        if pool_first:
            e = pooled(e, order)
        elif order == "after":
            e = max_pool(e)
        for _ in range(12_000):
            e = relay.nn.relu(e)
        if not pool_first and order == "before":
            e = max_pool(e)
        return module(e, x)

    before, expected = both(build)
    after, remarks = run_pass(before)
    assert remarks[0].kind is Kind.PASSED
    tvm.ir.assert_structural_equal(after, expected)


def test_more_bindings_than_python_recurses():
    def build(order):
        x = data()
        body = pooled(x, order)
        for _ in range(5000):
            body = relay.Let(relay.var("v"), x, body)
        return module(body, x)

    before, expected = both(build)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)  # TVM raises it
    try:
        after = run_pass(before)[0]
    finally:
        sys.setrecursionlimit(limit)
    tvm.ir.assert_structural_equal(after, expected)


def test_many_sites_in_one_function():
    def build(order):
        x = data()
        sites = [pooled(relay.nn.bias_add(x, per_channel((8,))), order) for _ in range(100)]
        return module(relay.Tuple(sites), x)

    before = build("before")
    _, remarks = run_pass(before)
    assert reasons(remarks).count("sunk") == 100
    assert len({remark.site for remark in remarks}) == 100


def test_a_shared_graph_is_walked_once():
    # 2**60 paths lead to the pool.
    def build(order):
        x = data()
        e = pooled(x, order)
        for _ in range(60):
            e = relay.add(e, e)
        return module(e, x)

    assert_sinks(*both(build))
