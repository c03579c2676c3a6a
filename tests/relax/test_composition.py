"""The pass among others: pass contexts, pass managers, instruments, attributes and spans."""

import pytest
import tvm
from relax_builders import (
    assert_sinks,
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
from tvm.relax.ir.instrument import WellFormedInstrument

from tvm_passes.relax import ReorderActivationAfterMaxPool
from tvm_passes.remarks import PASS_NAME


def relu_below(order):
    return module(lambda x: pooled(x, order))


def sequential(mod, **context):
    remarks = []
    passes = [
        relax.transform.CanonicalizeBindings(),
        ReorderActivationAfterMaxPool(on_remark=remarks.append),
        relax.transform.FoldConstant(),
    ]
    with tvm.transform.PassContext(**context):
        after = tvm.transform.Sequential(passes)(mod)
    return after, reasons(remarks)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_in_a_sequence_of_passes(level):
    after, said = sequential(relu_below("before"), opt_level=level)
    tvm.ir.assert_structural_equal(after, relu_below("after"))
    assert said == ["sunk", "cost"]


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


def test_the_well_formed_instrument_is_content():
    instruments = [WellFormedInstrument()]
    sequential(relu_below("before"), opt_level=3, instruments=instruments)


def test_one_pass_object_serves_many_modules():
    reorder = ReorderActivationAfterMaxPool()
    for _ in range(2):
        tvm.ir.assert_structural_equal(reorder(relu_below("before")), relu_below("after"))


def test_remarks_observe():
    with_remarks = ReorderActivationAfterMaxPool(on_remark=lambda _: "ignored")
    tvm.ir.assert_structural_equal(
        with_remarks(relu_below("before")), ReorderActivationAfterMaxPool()(relu_below("before"))
    )


def test_an_error_in_a_callback_is_not_swallowed():
    def fail(_remark):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        ReorderActivationAfterMaxPool(on_remark=fail)(relu_below("before"))


def test_attributes_of_function_module_and_ops_are_kept():
    def build(order):
        attrs = {"padding": (1, 0, 1, 1), "kernel": 3}

        def chain(x):
            return op.clip(op.nn.leakyrelu(x, 0.25), -2.5, 7.5)

        mod = module(
            lambda x: (
                max_pool(chain(x), **attrs) if order == "before" else chain(max_pool(x, **attrs))
            )
        )
        mod["main"] = mod["main"].with_attr("mine", "kept")
        return mod.with_attr("of_the_module", "kept")

    before, expected = both(build)
    assert_sinks(before, expected)
    after = run_pass(before)[0]
    assert after.attrs["of_the_module"] == "kept"
    assert after["main"].attrs["mine"] == "kept"


@pytest.mark.parametrize("pure", [True, False])
def test_the_purity_of_a_function_is_kept(pure):
    mod = relu_below("before")
    func = mod["main"]
    mod["main"] = relax.Function(func.params, func.body, func.ret_ty, pure, func.attrs, func.span)
    assert bool(run_pass(mod)[0]["main"].is_pure) is pure


def span(name, line):
    return tvm.ir.Span(tvm.ir.SourceName(name), line, line, 0, 9)


def with_span(call, name, line):
    return relax.Call(call.op, call.args, call.attrs, call.ty_args, span(name, line))


def test_spans_follow_their_ops():
    def body(builder, x):
        relu = builder.emit(with_span(op.nn.relu(x), "relu.py", 1))
        tanh = builder.emit(with_span(op.tanh(relu), "tanh.py", 2))
        pool = builder.emit(with_span(max_pool(tanh), "pool.py", 3))
        return with_span(op.cos(pool), "cos.py", 4)

    before = built(body)
    assert all(binding.value.span for binding in before["main"].body.blocks[0].bindings)
    after, remarks = run_pass(before)
    found = [
        (b.value.op.name, str(b.value.span.source_name.name), b.value.span.line)
        for b in after["main"].body.blocks[0].bindings
    ]
    assert found == [
        ("relax.nn.max_pool2d", "pool.py", 3),
        ("relax.nn.relu", "relu.py", 1),
        ("relax.tanh", "tanh.py", 2),
        ("relax.cos", "cos.py", 4),
    ]
    assert all(remark.location.startswith("pool.py") for remark in remarks)


def test_names_and_spans_of_variables_and_bindings_are_kept():
    x = data()
    wide, narrow = (relax.TensorType(shape, "float32") for shape in ((1, 8, 16, 16), (1, 8, 8, 8)))
    active = relax.DataflowVar("active", wide, span("active.py", 1))
    result = relax.Var("result", narrow, span("result.py", 2))
    normalize = relax.BlockBuilder().normalize
    bindings = [
        relax.VarBinding(active, normalize(op.nn.relu(x)), span("a.py", 3)),
        relax.VarBinding(result, normalize(max_pool(active)), span("r.py", 4)),
    ]
    block = relax.DataflowBlock(bindings, span("block.py", 5))
    func = relax.Function([x], relax.SeqExpr([block], result), narrow, span=span("main.py", 6))
    mod = tvm.IRModule({"main": func.with_attr("global_symbol", "main")})
    after, remarks = run_pass(mod)
    assert reasons(remarks) == ["sunk", "cost"]
    (new,) = after["main"].body.blocks
    found = [(b.var.name, source(b.var), source(b)) for b in new.bindings]
    assert found == [("active", "active.py", "a.py"), ("result", "result.py", "r.py")]
    assert source(new) == "block.py"
    assert source(after["main"]) == "main.py"


def source(node):
    return str(node.span.source_name.name)


def test_a_pool_without_a_span_has_no_location():
    _, remarks = run_pass(relu_below("before"))
    assert {remark.location for remark in remarks} == {""}


def test_names_of_sites_count_in_program_order():
    def body(x):
        first = max_pool(op.cos(x))
        second = op.nn.avg_pool2d(max_pool(op.cos(first)), (2, 2), (2, 2))
        return max_pool(second)

    _, remarks = run_pass(module(body, data((1, 8, 64, 64))))
    assert [remark.site for remark in remarks] == [
        "main/relax.nn.max_pool2d#0",
        "main/relax.nn.max_pool2d#1",
        "main/relax.nn.avg_pool2d#2",
        "main/relax.nn.max_pool2d#3",
    ]


def test_sites_keep_their_names_in_later_rounds():
    # The first pool becomes two, one of each end, and why the logarithm stays is seen later.
    def build(builder, x, y):
        log = builder.emit(op.log(x))
        pooled = [op.sigmoid(log) * per_channel((1, 8, 1, 1)), log, y]
        return [op.max(value, [2, 3]) for value in pooled]

    _, remarks = run_pass(built(build, data(), data(name="y")))
    said = [(remark.site, remark.op, remark.reason) for remark in remarks]
    assert said == [
        ("main/relax.max#0", "relax.max", "sunk"),
        ("main/relax.max#0", "relax.max", "cost"),
        ("main/relax.max#0", "relax.max", "domain"),
        ("main/relax.max#1", "relax.max", "domain"),
        ("main/relax.max#2", "relax.max", "no-activation"),
    ]


def test_a_site_where_all_sinks_in_the_end_has_no_reason_to_stay():
    # The second pool reads another, until a relu sinks below that one, and below the second, too.
    def build(builder, x):
        y = builder.emit(op.nn.relu(x))
        first = builder.emit(max_pool(y))
        return [max_pool(first), max_pool(builder.emit(op.sigmoid(y)))]

    _, remarks = run_pass(built(build))
    of_second = [remark.reason for remark in remarks if remark.site == "main/relax.nn.max_pool2d#1"]
    assert of_second == ["sunk", "cost"]
