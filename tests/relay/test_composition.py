"""The pass among others: pass contexts, pass managers, instruments, attributes and spans."""

import pytest
import tvm
from relay_builders import (
    assert_sinks,
    data,
    function,
    max_pool,
    module,
    per_channel,
    reasons,
    run_pass,
    typed,
)
from tvm import relay

from tvm_passes.relay import ReorderActivationAfterMaxPool
from tvm_passes.remarks import PASS_NAME


def relu_below(order):
    x = data()
    return module(max_pool(relay.nn.relu(x)) if order == "before" else relay.nn.relu(max_pool(x)))


def sequential(mod, **context):
    remarks = []
    passes = [
        relay.transform.InferType(),
        ReorderActivationAfterMaxPool(on_remark=remarks.append),
        relay.transform.FoldConstant(),
    ]
    with tvm.transform.PassContext(**context):
        after = tvm.transform.Sequential(passes)(mod)
    return after, reasons(remarks)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_in_a_sequence_of_passes(level):
    after, said = sequential(relu_below("before"), opt_level=level)
    tvm.ir.assert_structural_equal(after, relu_below("after"))
    assert said == ["sunk", "cost"]


def test_a_sequence_takes_a_module_that_nobody_typed():
    x = data()
    mod = tvm.IRModule.from_expr(relay.Function([x], max_pool(relay.nn.relu(x))))
    with tvm.transform.PassContext(opt_level=3):
        after = tvm.transform.Sequential([ReorderActivationAfterMaxPool()])(mod)
    tvm.ir.assert_structural_equal(after, relu_below("after"))


@pytest.mark.parametrize(
    "context", [{"opt_level": 0}, {"opt_level": 3, "disabled_pass": [PASS_NAME]}]
)
def test_skipped_by_its_context(context):
    after, said = sequential(relu_below("before"), **context)
    tvm.ir.assert_structural_equal(after, relu_below("before"))
    assert said == []


def test_required_by_its_context():
    after, said = sequential(relu_below("before"), opt_level=0, required_pass=[PASS_NAME])
    tvm.ir.assert_structural_equal(after, relu_below("after"))
    assert said == ["sunk", "cost"]


def test_its_name_and_level():
    info = ReorderActivationAfterMaxPool().info
    assert info.name == PASS_NAME == "ReorderActivationAfterMaxPool"
    assert info.opt_level == 1


def test_instruments_see_it_by_name():
    seen = []

    @tvm.instrument.pass_instrument
    class Names:
        def run_before_pass(self, _mod, info):
            seen.append(info.name)

    sequential(relu_below("before"), opt_level=3, instruments=[Names()])
    assert PASS_NAME in seen


def test_an_instrument_may_skip_it():
    @tvm.instrument.pass_instrument
    class Skip:
        def should_run(self, _mod, info):
            return info.name != PASS_NAME

    after, said = sequential(relu_below("before"), opt_level=3, instruments=[Skip()])
    tvm.ir.assert_structural_equal(after, relu_below("before"))
    assert said == []


def test_one_pass_object_serves_many_modules():
    reorder = ReorderActivationAfterMaxPool()
    for _ in range(2):
        tvm.ir.assert_structural_equal(reorder(relu_below("before")), relu_below("after"))


def test_remarks_observe():
    # A callback that returns something, or none at all: the same module.
    with_remarks = ReorderActivationAfterMaxPool(on_remark=lambda _: "ignored")
    tvm.ir.assert_structural_equal(
        with_remarks(relu_below("before")), ReorderActivationAfterMaxPool()(relu_below("before"))
    )


def test_an_error_in_a_callback_is_not_swallowed():
    def fail(_remark):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        ReorderActivationAfterMaxPool(on_remark=fail)(relu_below("before"))


def test_functions_that_tvm_is_told_to_skip():
    x = data()
    func = function(max_pool(relay.nn.relu(x))).with_attr(
        "SkipOptimization", tvm.tir.IntImm("int32", 1)
    )
    mod = typed(tvm.IRModule.from_expr(func))
    after, remarks = run_pass(mod)
    tvm.ir.assert_structural_equal(after, mod)
    assert remarks == []


def test_attributes_of_function_module_and_ops_are_kept():
    def build(order):
        x = data((1, 16, 16, 16))
        attrs = {"layout": "NCHW", "padding": (1, 0, 1, 1), "kernel": 3}

        def chain(value):
            value = relay.nn.bias_add(value, per_channel((16,)), axis=-3)
            return relay.clip(relay.nn.leaky_relu(value, alpha=0.25), -2.5, 7.5)

        body = max_pool(chain(x), **attrs) if order == "before" else chain(max_pool(x, **attrs))
        func = function(body).with_attr("mine", "kept").with_attr("global_symbol", "main")
        mod = typed(tvm.IRModule.from_expr(func))
        return mod.with_attr("of_the_module", "kept")

    before, expected = build("before"), build("after")
    assert_sinks(before, expected)
    after = run_pass(before)[0]
    assert after.attrs["of_the_module"] == "kept"
    assert after["main"].attrs["mine"] == "kept"


def span(name, line):
    return relay.Span(relay.SourceName(name), line, line, 0, 9)


def with_span(call, name, line):
    return relay.Call(call.op, call.args, call.attrs, call.type_args, span(name, line))


def test_spans_follow_their_ops():
    x = data()
    relu = with_span(relay.nn.relu(x), "relu.py", 1)
    tanh = with_span(relay.tanh(relu), "tanh.py", 2)
    pool = with_span(max_pool(tanh), "pool.py", 3)
    reader = with_span(relay.cos(pool), "cos.py", 4)
    func = relay.Function([x], reader, span=span("main.py", 5))
    after, remarks = run_pass(typed(tvm.IRModule.from_expr(func)))
    found = []
    call = after["main"].body
    while isinstance(call, relay.Call):
        found.append((call.op.name, str(call.span.source_name.name), call.span.line))
        call = call.args[0]
    assert found == [
        ("cos", "cos.py", 4),
        ("tanh", "tanh.py", 2),
        ("nn.relu", "relu.py", 1),
        ("nn.max_pool2d", "pool.py", 3),
    ]
    assert after["main"].span.source_name.name == "main.py"
    assert all(remark.location.startswith("pool.py") for remark in remarks)
    assert "at pool.py" in str(remarks[0])


def test_a_pool_without_a_span_has_no_location():
    _, remarks = run_pass(relu_below("before"))
    assert {remark.location for remark in remarks} == {""}


def test_constants_are_shared_with_the_input():
    bias = per_channel((8,))
    mod = module(max_pool(relay.nn.bias_add(data(), bias)))
    assert run_pass(mod)[0]["main"].body.args[1].data.same_as(bias.data)


def test_names_of_sites_count_in_program_order():
    x = data((1, 8, 64, 64))
    first = max_pool(relay.cos(x))
    body = max_pool(relay.nn.avg_pool2d(max_pool(relay.cos(first)), (2, 2), (2, 2)))
    _, remarks = run_pass(module(body))
    assert [remark.site for remark in remarks] == [
        "main/nn.max_pool2d#0",
        "main/nn.max_pool2d#1",
        "main/nn.avg_pool2d#2",
        "main/nn.max_pool2d#3",
    ]
    assert all(remark.function == "main" for remark in remarks)


def test_sites_keep_their_names_in_later_rounds():
    # The first pool becomes two, one of each end, and why the logarithm stays is seen later.
    x, y = data(name="x"), data(name="y")
    log = relay.log(x)
    pooled = [relay.sigmoid(log) * per_channel((1, 8, 1, 1)), log, y]
    mod = module(relay.Tuple([relay.max(value, [2, 3]) for value in pooled]), x, y)
    _, remarks = run_pass(mod)
    said = [(remark.site, remark.op, remark.reason) for remark in remarks]
    assert said == [
        ("main/max#0", "max", "sunk"),
        ("main/max#0", "max", "cost"),
        ("main/max#0", "max", "domain"),
        ("main/max#1", "max", "domain"),
        ("main/max#2", "max", "no-activation"),
    ]


def test_a_site_where_all_sinks_in_the_end_has_no_reason_to_stay():
    # The second pool reads another, until a relu sinks below that one, and below the second, too.
    x = data()
    y = relay.nn.relu(x)
    first = max_pool(y)
    pools = [first, max_pool(first), max_pool(relay.sigmoid(y))]
    _, remarks = run_pass(module(relay.Tuple(pools[1:]), x))
    of_second = [remark.reason for remark in remarks if remark.site == "main/nn.max_pool2d#1"]
    assert of_second == ["sunk", "cost"]
