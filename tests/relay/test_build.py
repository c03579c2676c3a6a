"""`tvm_passes.relay.build` is `relay.build` with the pass in front."""

import inspect
import json

import numpy as np
import pytest
import tvm
from relay_builders import const, data, max_pool, typed
from relay_runs import bits, hard_values, outputs, run
from tvm import relay

from tvm_passes.relay import build
from tvm_passes.relay.blocked import PASS_NAME as BLOCK
from tvm_passes.remarks import PASS_NAME

SHAPE = (1, 8, 13, 11)
RELAY_BUILD = relay.build


def network():
    """conv -> bias -> sigmoid -> pool -> conv -> bias -> leaky_relu -> pool, and its weights."""
    rng = np.random.default_rng(5)
    weights = {
        "w1": rng.standard_normal((8, 8, 3, 3)).astype("float32"),
        "b1": rng.standard_normal(8).astype("float32"),
        "w2": rng.standard_normal((8, 8, 3, 3)).astype("float32"),
        "b2": rng.standard_normal(8).astype("float32"),
    }
    x = data(SHAPE)
    names = {name: relay.var(name, shape=value.shape) for name, value in weights.items()}

    def layer(value, n):
        attrs = {"channels": 8, "kernel_size": (3, 3), "padding": (1, 1)}
        value = relay.nn.conv2d(value, names[f"w{n}"], **attrs)
        return relay.nn.bias_add(value, names[f"b{n}"])

    body = max_pool(relay.sigmoid(layer(x, 1)))
    body = max_pool(relay.nn.leaky_relu(layer(body, 2), alpha=0.1), 3, 2, padding=(1, 1))
    func = relay.Function([x, *names.values()], body)
    return tvm.IRModule.from_expr(func), weights


def parameters(function):
    return [(p.name, p.kind) for p in inspect.signature(function).parameters.values()]


def test_the_signature_is_relay_builds():
    theirs = parameters(relay.build)
    assert parameters(build)[: len(theirs)] == theirs
    assert {kind for _, kind in parameters(build)[len(theirs) :]} == {
        inspect.Parameter.KEYWORD_ONLY
    }


def test_the_defaults_are_relay_builds():
    ours, theirs = (inspect.signature(f).parameters for f in (build, relay.build))
    for name, parameter in theirs.items():
        if isinstance(parameter.default, tvm.Object):
            assert tvm.ir.structural_equal(ours[name].default, parameter.default)
        else:
            assert ours[name].default == parameter.default


@pytest.mark.parametrize("opt_level", [0, 1, 3])
def test_the_outputs_are_relay_builds(opt_level):
    mod, weights = network()
    x = hard_values(SHAPE, "float32")
    a, b = (
        outputs(mod, x, build=f, opt_level=opt_level, disabled=[BLOCK], params=weights)
        for f in (relay.build, build)
    )
    assert np.array_equal(bits(a[0]), bits(b[0]))


def test_parameters_as_tvm_arrays_and_a_typed_module():
    mod, weights = network()
    arrays = {name: tvm.nd.array(value) for name, value in weights.items()}
    x = hard_values(SHAPE, "float32")
    (a,) = outputs(typed(mod), x, build=build, disabled=[BLOCK], params=arrays)
    (b,) = outputs(mod, x, params=weights)
    assert np.array_equal(bits(a), bits(b))


def test_parameters_given_at_run_time():
    mod, weights = network()
    x = hard_values(SHAPE, "float32")
    (a,), (b,) = (outputs(mod, x, *weights.values(), build=f) for f in (relay.build, build))
    assert np.array_equal(bits(a), bits(b))


def test_arguments_are_not_changed():
    mod, weights = network()
    functions, text = dict(mod.functions.items()), str(mod)
    copies = {name: value.copy() for name, value in weights.items()}
    with tvm.transform.PassContext(opt_level=3):
        build(mod, "llvm", params=weights)
    assert list(weights) == list(copies)
    assert all(np.array_equal(weights[name], value) for name, value in copies.items())
    assert all(mod[gvar].same_as(func) for gvar, func in functions.items())
    assert str(mod) == text


def entry(lib):
    """The names of the kernels, in order."""
    return [node["name"] for node in json.loads(lib.get_graph_json())["nodes"]]


def fused_with_pool(lib):
    return [name for name in entry(lib) if "max_pool2d" in name]


def test_the_pass_runs_and_may_be_disabled():
    mod, weights = network()

    def kernels(**context):
        with tvm.transform.PassContext(opt_level=3, **context):
            return fused_with_pool(build(mod, "llvm", params=weights))

    assert any("sigmoid" in name for name in kernels(disabled_pass=[BLOCK]))
    disabled = kernels(disabled_pass=[BLOCK, PASS_NAME])
    assert disabled
    assert not any("sigmoid" in name or "leaky" in name for name in disabled)


def test_level_0_skips_the_pass():
    mod, weights = network()
    with tvm.transform.PassContext(opt_level=0):
        lib = build(mod, "llvm", params=weights)
        stock = relay.build(mod, "llvm", params=weights)
    assert entry(lib) == entry(stock)


def test_instruments_of_the_context_see_the_pass():
    mod, weights = network()
    seen = []

    @tvm.instrument.pass_instrument
    class Names:
        def run_before_pass(self, _mod, info):
            seen.append(info.name)

    with tvm.transform.PassContext(opt_level=3, instruments=[Names()]):
        build(mod, "llvm", params=weights)
    assert PASS_NAME in seen


def test_the_pass_sees_parameters_as_constants():
    # A bias that is infinite may not sink; as a variable nobody would know.
    x, b = data(SHAPE), relay.var("b", shape=(8,))
    mod = tvm.IRModule.from_expr(relay.Function([x, b], max_pool(relay.nn.bias_add(x, b))))
    value = np.zeros(8, "float32")

    def kernels(bias):
        with tvm.transform.PassContext(opt_level=3):
            return fused_with_pool(build(mod, "llvm", params={"b": bias}))

    assert any("add" in name for name in kernels(value))
    value[3] = -np.inf
    assert not any("add" in name for name in kernels(value))


def test_several_functions():
    shared = relay.GlobalVar("shared")
    p, x = data(SHAPE, name="p"), data(SHAPE)
    of_pooled = relay.TensorType((1, 8, 6, 5), "float32")
    mod = tvm.IRModule(
        {
            shared: relay.Function([p], max_pool(relay.tanh(p)), of_pooled).with_attr(
                "Inline", tvm.tir.IntImm("int32", 1)
            ),
            relay.GlobalVar("main"): relay.Function(
                [x], relay.nn.relu(relay.Call(shared, [relay.add(x, const(0.5))]))
            ),
        }
    )
    value = hard_values(SHAPE, "float32")
    (a,), (b,) = (outputs(mod, value, build=f) for f in (relay.build, build))
    assert np.array_equal(bits(a), bits(b))


def test_targets_executors_and_names_are_handed_on():
    mod, weights = network()
    executor = relay.backend.Executor("graph", {"link-params": True})
    with tvm.transform.PassContext(opt_level=3):
        lib = build(
            mod, tvm.target.Target("llvm"), executor=executor, params=weights, mod_name="mine"
        )
        with pytest.warns(UserWarning, match="target_host"):  # TVM's own, of the third argument
            lib_by_host = build(mod, "llvm", "llvm", params=weights)
    assert lib.libmod_name == "mine"
    x = hard_values(SHAPE, "float32")
    assert np.array_equal(run(lib_by_host, x)[0], outputs(mod, x, build=build, params=weights)[0])


def test_every_argument_is_handed_on(monkeypatch):
    taken = []
    monkeypatch.setattr(relay, "build", lambda *args, **named: taken.append((args, named)))
    mod, weights = network()
    host, pools = object(), object()
    executor = relay.backend.Executor("aot")
    runtime = relay.backend.Runtime("crt")
    build(mod, "llvm", host, executor, runtime, pools, pools, weights, "mine")
    ((args, named),) = taken
    bound = inspect.signature(RELAY_BUILD).bind(*args, **named).arguments
    assert bound["target"] == "llvm"
    assert bound["target_host"] is host
    assert bound["executor"] is executor
    assert bound["runtime"] is runtime
    assert bound["workspace_memory_pools"] is bound["constant_memory_pools"] is pools
    assert bound["mod_name"] == "mine"
    assert [str(p.name_hint) for p in bound["ir_mod"]["main"].params] == ["x"]


def test_parameters_are_those_of_main(monkeypatch):
    taken = []
    monkeypatch.setattr(relay, "build", lambda *args, **_: taken.append(args[0]))
    other = relay.GlobalVar("other")
    x, b, p = data(SHAPE), data((8,), name="b"), data((8,), name="b")
    mod = tvm.IRModule(
        {
            other: relay.Function([p], relay.nn.relu(p), relay.TensorType((8,))),
            relay.GlobalVar("main"): relay.Function(
                [x, b], max_pool(relay.nn.bias_add(x, relay.Call(other, [b])))
            ),
        }
    )
    build(mod, "llvm", params={"b": np.ones(8, "float32")})
    (given,) = taken
    assert [len(given[name].params) for name in ("main", "other")] == [1, 1]


@pytest.mark.parametrize("wrong", [None, "module", 3])
def test_anything_but_a_module_is_a_type_error(wrong):
    with pytest.raises(TypeError, match=f"^expected an IRModule .*found {type(wrong).__name__}$"):
        build(wrong, "llvm")


def test_a_function_is_taken_as_relay_build_takes_it():
    mod, weights = network()
    x = hard_values(SHAPE, "float32")
    with tvm.transform.PassContext(opt_level=3):
        lib = build(mod["main"], "llvm", params=weights)
    (b,) = outputs(mod, x, build=build, params=weights)
    assert np.array_equal(bits(run(lib, x)[0]), bits(b))
