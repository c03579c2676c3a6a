"""Both orders of a model compared: what is found equal, what is not, and what the command says."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tvm_passes import RULES, Direction, Form, Rule, dialects
from tvm_passes.cli import main
from tvm_passes.compare import Difference
from tvm_passes.dialects import RELAX, RELAY, engine
from tvm_passes.errors import TvmPassesError
from tvm_passes.frontends import load_model
from tvm_passes.inputs import Draws
from tvm_passes.verify import OUTPUT, SITE, verify_model

DATA = Path(__file__).parent / "data"
MNIST = DATA / "mnist.tflite"
DIALECT = dialects.installed()

pytestmark = pytest.mark.skipif(DIALECT is None, reason="needs a TVM")


@pytest.fixture(autouse=True)
def no_tophub(monkeypatch):
    monkeypatch.setenv("TOPHUB_LOCATION", "NONE")


@pytest.fixture
def run(capsys):
    """Run the command; returns its exit code and what it printed."""

    def call(*argv):
        code = main(["verify", *map(str, argv)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def site(number=0):
    return f"main/{'relax.' if DIALECT == RELAX else ''}nn.max_pool2d#{number}"


POOLS = {
    "2x2/2": {"kernel_shape": [2, 2], "strides": [2, 2]},
    "3x3/2 pad 1": {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4},
}


def node(op, source, target, *weights, **attrs):
    return helper.make_node(op, [source, *weights], [target], **attrs)


def saved(path, *nodes, weights=None, x="x", y=None, outputs=("out",)):
    """Write an ONNX model of float32 inputs: x, of [1, 4, 12, 12], and y if it has a shape."""

    def info(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    constants = [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    inputs = [info(x, (1, 4, 12, 12)), *([info("y", y)] if y else [])]
    results = [info(name, (None,) * 4) for name in outputs]
    graph = helper.make_graph(nodes, "graph", inputs, results, constants)
    opset = helper.make_opsetid("", 13)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


def activation_and_pool(path, op="Relu", pool="2x2/2", **attrs):
    nodes = [node(op, "x", "f", **attrs), node("MaxPool", "f", "out", **POOLS[pool])]
    return saved(path, *nodes)


@pytest.fixture
def leaky(tmp_path):
    """Nothing but a leaky ReLU and a pool that pads."""
    return activation_and_pool(tmp_path / "leaky.onnx", "LeakyRelu", "3x3/2 pad 1", alpha=0.1)


CONVOLUTION = {
    "w": np.random.default_rng(3).standard_normal((4, 4, 3, 3)).astype("float32"),
    "b": np.array([1.5, -0.25, 0.125, -3], "float32"),
}


@pytest.fixture
def convolution(tmp_path):
    return saved(
        tmp_path / "conv.onnx",
        node("Conv", "x", "conv", "w", "b", kernel_shape=[3, 3], pads=[1] * 4),
        node("Relu", "conv", "relu"),
        node("MaxPool", "relu", "out", **POOLS["2x2/2"]),
        weights=CONVOLUTION,
    )


ABS = Rule(
    name="abs, which falls below 0",
    direction=Direction.NON_DECREASING,
    forms={RELAY: (Form("abs"),), RELAX: (Form("relax.abs"),)},
)


@pytest.fixture
def wrong_rule(monkeypatch):
    """Make the command work with a table that takes |x| for a function that never falls."""
    tvm_engine = engine()
    passes = {RELAX: "tvm_reorder_pipeline", RELAY: "passes"}
    modules = ("site_module", "windows_module", "feeding_module")
    for name in ("decisions", *modules, passes[DIALECT]):
        wrong = partial(getattr(tvm_engine, name), rules=(*RULES, ABS))
        monkeypatch.setattr(tvm_engine, name, wrong)


ONCE = Draws(rounds=1, seed=0)


def checks(path, **options):
    found = verify_model(path, **({"draws": ONCE} | options))
    return {check.name: check for check in found.checks}


def kinds(check):
    return {finding.kind for finding in check.findings}


class TestEqual:
    def test_every_output_and_site_of_the_mnist_network(self, run):
        code, out, _ = run(MNIST)
        assert code == 0
        assert "bits of both orders" in out
        assert out.splitlines()[-1] == "equal: all bits of 103050 values"
        rows = [line.strip("│ ").split() for line in out.splitlines() if line.startswith("│")]
        counts = [row[-7::2] for row in rows]
        assert counts == [
            [*runs, "0", "0"] for runs in (("15", "150"), ("21", "65856"), ("21", "37044"))
        ]
        assert [row[-9] for row in rows[1:]] == [site(0), site(1)]

    def test_real_images_and_json(self, run, tmp_path):
        images = np.load(DATA / "mnist_test.npz")["images"][:6].reshape(-1, 28, 28, 1)
        file = tmp_path / "images.npz"
        np.savez(file, **{"serving_default_image:0": images / np.float32(255)})
        code, out, err = run(MNIST, "--json", "--rounds", 1, "--seed", 7, "--input", file)
        assert (code, err) == (0, "")
        document = json.loads(out)
        assert document["equal"] is True
        assert document["model"] == str(MNIST)
        assert document["input"] == str(file)
        assert (document["rounds"], document["seed"], document["strict"]) == (1, 7, False)
        assert (document["dialect"], document["target"]) == (DIALECT, {"kind": "llvm"})
        assert [(c["kind"], c["name"], c["runs"]) for c in document["checks"]] == [
            ("output", "output 0", 6 + 5),
            ("site", site(0), 6 + 7),
            ("site", site(1), 6 + 7),
        ]
        assert all(c["equal"] == c["values"] > 0 for c in document["checks"])
        assert all(c["differences"] == [] and c["note"] == "" for c in document["checks"])

    def test_quiet_prints_nothing(self, run, convolution):
        assert run(convolution, "--quiet", "--rounds", 1) == (0, "", "")

    def test_a_model_without_a_passed_site(self, run, tmp_path):
        model = saved(tmp_path / "relu.onnx", node("Relu", "x", "out"))
        code, out, _ = run(model, "--rounds", 1)
        assert code == 0
        assert "no site passed: both orders are the same module" in out
        assert "equal: all bits of 2880 values" in out

    def test_every_output_has_a_check(self, tmp_path):
        nodes = [node("Relu", "x", "relu"), node("MaxPool", "relu", "out", **POOLS["2x2/2"])]
        nodes.append(node("Neg", "x", "other"))
        found = checks(saved(tmp_path / "two.onnx", *nodes, outputs=("out", "other")))
        assert [(check.kind, check.name) for check in found.values()] == [
            (OUTPUT, "output 0"),
            (OUTPUT, "output 1"),
            (SITE, site()),
        ]
        assert found["output 1"].values == 4 * found["output 0"].values

    def test_an_activation_that_sinks_below_two_pools(self, tmp_path):
        nodes = [
            node("Relu", "x", "relu"),
            node("MaxPool", "relu", "pool", **POOLS["2x2/2"]),
            node("MaxPool", "pool", "out", **POOLS["2x2/2"]),
        ]
        found = checks(saved(tmp_path / "two.onnx", *nodes))
        assert all(check.equal == check.values > 0 for check in found.values())


class TestAllowed:
    @pytest.fixture
    def falling(self, tmp_path):
        return activation_and_pool(tmp_path / "leaky.onnx", "LeakyRelu", alpha=-0.3)

    def test_what_is_not_allowed_is_no_site(self, run, falling):
        code, out, _ = run(falling, "--rounds", 1)
        assert code == 0
        assert "no site passed" in out

    def test_what_is_allowed_is_compared(self, run, falling):
        code, out, _ = run(falling, "--allow", "quasi-convex", "--rounds", 1, "--json")
        assert code == 0
        document = json.loads(out)
        assert document["allowed"] == ["quasi-convex"]
        assert [check["name"] for check in document["checks"]] == ["output 0", site()]
        differences = [d for check in document["checks"] for d in check["differences"]]
        assert {d["kind"] for d in differences} <= {"zero-sign", "infinity"}

    def test_what_is_compared_is_rewritten(self, falling):
        tvm_engine, remarks = engine(), []
        mod = load_model(falling, DIALECT)
        tvm_engine.build(mod, {"kind": "llvm"}, allow=("quasi-convex",), on_remark=remarks.append)
        assert "sunk" in [remark.reason for remark in remarks]

    def test_rounding_is_counted_apart(self, run, tmp_path):
        nodes = [
            node("Sigmoid", "x", "gate"),
            node("Mul", "x", "silu", "gate"),
            node("MaxPool", "silu", "out", **POOLS["3x3/2 pad 1"]),
        ]
        model = saved(tmp_path / "silu.onnx", *nodes)
        found = checks(model, allow=["quasi-convex"], draws=Draws(rounds=4, seed=0))[site()]
        assert found.passes()
        assert Difference.DIFFERENT not in kinds(found)
        code, out, _ = run(model, "--allow", "quasi-convex", "--rounds", 4)
        assert code == 0
        assert ("but for the rounding that was allowed" in out) is (
            Difference.ROUNDING in kinds(found)
        )

    def test_anything_else_is_wrong_usage(self, run, falling):
        code, _, err = run(falling, "--allow", "gelu")
        assert code == 2
        assert "quasi-convex" in err


class TestDifferent:
    @pytest.fixture
    def absolute(self, tmp_path, wrong_rule):  # noqa: ARG002 - it is in force
        return activation_and_pool(tmp_path / "abs.onnx", "Abs")

    def test_exit_code_and_what_is_said(self, run, absolute):
        code, out, _ = run(absolute)
        assert code == 1
        assert f"different: output 0, {site()}; please report this model" in out
        line = next(line for line in out.splitlines() if line.startswith(f"{site()}: different"))
        assert "of random #0: " in line
        assert " in the original order, " in line

    def test_json(self, run, absolute):
        code, out, _ = run(absolute, "--json", "--rounds", 1)
        assert code == 1
        document = json.loads(out)
        assert document["equal"] is False
        for check in document["checks"]:
            difference = check["differences"][-1]
            assert (difference["kind"], difference["allowed"]) == ("different", False)
            assert difference["count"] > 10
            assert difference["worst_ulp"] > 2**20
            first = difference["first"]
            assert first["input"] == "random #0"
            assert len(first["index"]) == 4
            bits = int(first["original_bits"], 16) ^ int(first["reordered_bits"], 16)
            assert bits != 0
            assert float(first["original"]) > float(first["reordered"]) >= 0

    def test_without_the_wrong_rule_the_same_model_is_equal(self, run, tmp_path):
        model = activation_and_pool(tmp_path / "abs.onnx", "Abs")
        assert run(model, "--quiet", "--rounds", 1)[0] == 0

    def test_quiet_still_tells_by_the_exit_code(self, run, absolute):
        assert run(absolute, "--quiet", "--rounds", 1) == (1, "", "")

    def test_what_the_model_hides_is_seen_at_the_site(self, tmp_path, wrong_rule):  # noqa: ARG002
        nodes = [
            node("Abs", "x", "abs"),
            node("MaxPool", "abs", "pool", **POOLS["2x2/2"]),
            node("Mul", "pool", "out", "nothing"),
        ]
        model = saved(tmp_path / "abs.onnx", *nodes, weights={"nothing": np.zeros(1, "float32")})
        found = checks(model)
        assert found["output 0"].passes()
        assert not found[site()].passes()


class TestContract:
    def test_signs_of_zero_and_infinities_are_told_apart_and_allowed(self, run, leaky):
        code, out, _ = run(leaky)
        assert code == 0
        assert "equal: all 5184 values, except where the contract leaves the bits open" in out
        assert "±0" in out
        assert "±∞" in out
        lines = [line for line in out.splitlines() if line.startswith(f"{site()}: ")]
        assert [line.split(": ")[1] for line in lines] == ["zero-sign", "infinity"]
        assert "up to 0 ulp; first at " in lines[0]
        assert " of denormals #" in lines[0]
        assert " of infinities #0: -3.4028235e+38 in the original order, " in lines[1]

    def test_strict_fails_on_them(self, run, leaky):
        code, out, _ = run(leaky, "--strict", "--rounds", 1)
        assert code == 1
        assert out.splitlines()[-1].startswith("different: ")
        assert "report" not in out
        code, out, _ = run(leaky, "--strict", "--rounds", 1, "--json")
        assert code == 1
        assert json.loads(out)["equal"] is False

    def test_strict_passes_where_all_bits_are_equal(self, run, convolution):
        assert run(convolution, "--strict", "--quiet", "--rounds", 1)[0] == 0

    def test_by_kind(self, leaky):
        found = checks(leaky)
        assert kinds(found["output 0"]) == {Difference.ZERO_SIGN}
        assert kinds(found[site()]) == {Difference.ZERO_SIGN, Difference.INFINITY}
        zero = found[site()].findings[0]
        assert zero.worst_ulp == 0
        assert zero.first.original == zero.first.reordered == 0

    def test_an_overflow_to_infinity_is_the_contracts_too(self, tmp_path):
        model = activation_and_pool(tmp_path / "leaky.onnx", "LeakyRelu", alpha=2.0)
        infinity = checks(model)[site()].findings[-1]
        assert infinity.kind is Difference.INFINITY
        assert infinity.first.sample == "large #0"
        lowest = np.finfo("float32").min
        assert (infinity.first.original, infinity.first.reordered) == (lowest, -np.inf)
        assert infinity.worst_ulp >= 1

    def test_an_infinity_excuses_only_the_windows_that_hold_it(self, tmp_path, wrong_rule):  # noqa: ARG002
        nodes = [node("Neg", "x", "minus"), node("Abs", "minus", "abs")]
        nodes.append(node("MaxPool", "abs", "out", **POOLS["2x2/2"]))
        model = saved(tmp_path / "abs.onnx", *nodes)
        x = np.tile(np.array([3, -1], "float32"), (1, 4, 12, 6))
        x[:, :, 6:, 0] = np.inf
        np.save(tmp_path / "in.npy", x)
        found = checks(model, inputs=tmp_path / "in.npy")[site()]
        assert not found.passes()
        first = next(f.first for f in found.findings if f.kind is Difference.DIFFERENT)
        assert (first.sample, first.original, first.reordered) == ("in.npy #0", 3, 1)

    @pytest.mark.parametrize("reduction", ["ReduceMax", "ReduceMin"])
    def test_windows_that_something_infinite_goes_into(self, tmp_path, reduction):
        scale = np.array([2, 1, 1, 0.5], "float32").reshape(4, 1, 1)
        nodes = [node("Mul", "x", "scaled", "scale"), node("Transpose", "scaled", "t")]
        nodes[1].attribute.append(helper.make_attribute("perm", [0, 2, 3, 1]))
        nodes.append(node(reduction, "t", "out", axes=[1, 2]))
        mod = load_model(saved(tmp_path / "m.onnx", *nodes, weights={"scale": scale}), DIALECT)
        (decision,) = engine().decisions(mod)
        windows = engine().windows_module(mod, decision.site.name)
        x = np.ones((1, 4, 12, 12), "float32")
        x[0, :, 5, 5] = [np.finfo("float32").max, np.nan, -7, -np.inf]
        inputs = [x, scale][: len(engine().signature(windows)["inputs"])]
        (marks,) = run_module(windows, tmp_path / "lib.so", *inputs)
        assert np.isinf(marks).ravel().tolist() == [True, True, False, True]

    def test_nan_given_is_put_down_to_nan(self, run, tmp_path):
        model = activation_and_pool(tmp_path / "relu.onnx")
        x = np.random.default_rng(0).standard_normal((1, 4, 12, 12)).astype("float32")
        np.save(tmp_path / "in.npy", np.where(x > 1, np.float32(np.nan), x))
        code, out, _ = run(model, "--input", tmp_path / "in.npy", "--rounds", 1, "--json")
        assert code == 0
        for check in json.loads(out)["checks"]:
            (difference,) = check["differences"]
            assert (difference["kind"], difference["allowed"]) == ("nan", True)
            assert difference["first"]["input"] == "in.npy #0"


class TestGivenInputs:
    def test_reach_the_sites(self, tmp_path, wrong_rule):  # noqa: ARG002 - it is in force
        nodes = [node("Neg", "x", "minus"), node("Abs", "minus", "abs")]
        nodes.append(node("MaxPool", "abs", "out", **POOLS["2x2/2"]))
        x = np.random.default_rng(0).standard_normal((2, 4, 12, 12)).astype("float32")
        np.save(tmp_path / "in.npy", x)
        found = checks(saved(tmp_path / "m.onnx", *nodes), inputs=tmp_path / "in.npy")[site()]
        assert found.runs == 2 + 7
        first = found.findings[-1].first
        assert first.sample == "in.npy #0"
        n, c, h, w = first.index
        window = -x[n, c, 2 * h : 2 * h + 2, 2 * w : 2 * w + 2]
        assert (first.original, first.reordered) == (np.abs(window).max(), abs(window.max()))

    def test_what_the_sites_read(self, convolution, tmp_path):
        tvm_engine = engine()
        mod = load_model(convolution, DIALECT)
        names, feeding = tvm_engine.feeding_module(mod, [site()])
        assert names == (site(),)
        x = np.random.default_rng(1).standard_normal((1, 4, 12, 12)).astype("float32")
        got = run_module(feeding, tmp_path / "lib.so", x)
        alone = tvm_engine.signature(tvm_engine.site_module(mod, site()))["inputs"]
        assert [list(array.shape) for array in got] == [tensor["shape"] for tensor in alone]
        reference = onnx.load(convolution)
        reference.graph.node[0].input.pop()  # the bias
        (expected,) = ReferenceEvaluator(cut_off(reference, "conv")).run(None, {"x": x})
        # Sums of 36 products of magnitude 1 in another order: 36 * 2**-23 * 5.
        np.testing.assert_allclose(got[0], expected, rtol=0, atol=3e-5)
        for operand in got[1:]:
            assert np.array_equal(operand.ravel(), CONVOLUTION["b"])

    def test_that_do_not_lead_to_a_site(self, run, convolution, tmp_path, monkeypatch):
        monkeypatch.setattr(engine(), "feeding_module", lambda *_, **__: ((), None))
        np.save(tmp_path / "in.npy", np.ones((2, 4, 12, 12), "float32"))
        code, out, _ = run(convolution, "--input", tmp_path / "in.npy", "--rounds", 1)
        assert code == 0
        assert f"{site()}: not compared on them: the inputs given do not lead to it" in out

    def test_what_a_site_with_an_operand_reads(self, tmp_path):
        nodes = [
            node("Add", "x", "sum", "y"),
            node("Relu", "sum", "relu"),
            node("MaxPool", "relu", "out", **POOLS["2x2/2"]),
        ]
        model = saved(tmp_path / "operand.onnx", *nodes, y=(1, 4, 1, 1))
        mod = load_model(model, DIALECT)
        _, feeding = engine().feeding_module(mod, [site()])
        x = np.random.default_rng(1).standard_normal((2, 4, 12, 12)).astype("float32")
        y = np.arange(8, dtype="float32").reshape(2, 4, 1, 1)
        data, operand = run_module(feeding, tmp_path / "lib.so", x[:1], y[:1])
        assert np.array_equal(data, x[:1])
        assert np.array_equal(operand, y[:1])
        np.savez(tmp_path / "in.npz", x=x, y=y)
        found = checks(model, inputs=tmp_path / "in.npz")[site()]
        assert found.runs == 2 + 7
        assert found.passes()

    @pytest.mark.parametrize(
        ("arrays", "expected"),
        [
            ({}, "expected arrays named 'x', found none"),
            ({"images": np.zeros((1, 4, 12, 12), "float32")}, "named 'x', found 'images'"),
            ({"x": np.zeros((1, 4, 12, 12), "uint8")}, "input 'x' is float32, found uint8"),
            ({"x": np.zeros((1, 12, 12, 4), "float32")}, "has shape (1, 4, 12, 12), found (1, 12"),
        ],
    )
    def test_refusals(self, run, tmp_path, leaky, arrays, expected):
        np.savez(tmp_path / "in.npz", **arrays)
        assert expected in refusal(run(leaky, "--input", tmp_path / "in.npz"))

    def test_no_file(self, run, tmp_path, leaky):
        assert "cannot read" in refusal(run(leaky, "--input", tmp_path / "no.npz"))

    def test_two_inputs(self, run, tmp_path):
        nodes = [
            helper.make_node("Mul", ["x", "y"], ["xy"]),
            node("Relu", "xy", "relu"),
            node("MaxPool", "relu", "out", **POOLS["2x2/2"]),
        ]
        model = saved(tmp_path / "two.onnx", *nodes, y=(1, 4, 12, 12))
        x = np.ones((3, 4, 12, 12), "float32")
        np.save(tmp_path / "in.npy", x)
        line = refusal(run(model, "--input", tmp_path / "in.npy"))
        assert "the model has 2 inputs: give an .npz file with 'x', 'y'" in line
        np.savez(tmp_path / "in.npz", y=x, x=-x)
        found = checks(model, inputs=tmp_path / "in.npz")
        assert {check.runs for check in found.values()} == {3 + 5, 3 + 7}


def cut_off(model, name):
    """The model whose first node yields its only output."""
    del model.graph.node[1:]
    model.graph.output[0].name = name
    return model


def run_module(mod, path, *inputs):
    """Compile a module with stock TVM and run it."""
    tvm_engine = engine()
    names = [tensor["name"] for tensor in tvm_engine.signature(mod)["inputs"]]
    tvm_engine.export(tvm_engine.build(mod, {"kind": "llvm"}, reorder=False), path)
    return tvm_engine.load(path, names)(*inputs)


def refusal(result):
    """The one line of a refusal, after checking that it is one, and on stderr alone."""
    code, out, err = result
    assert code == 1
    assert out == ""
    (line,) = [line for line in err.splitlines() if "tvm-reorder: error:" in line]
    assert "Traceback" not in err
    return line


class TestSiteModule:
    def test_holds_the_site_in_its_original_order(self, convolution):
        tvm_engine = engine()
        mod = load_model(convolution, DIALECT)
        alone = tvm_engine.site_module(mod, site())
        (whole,), (part,) = tvm_engine.decisions(mod), tvm_engine.decisions(alone)
        assert part.decline is None
        assert [op.op for op in part.sunk] == [op.op for op in whole.sunk]
        assert (part.site.name, part.site.pool) == (whole.site.name, whole.site.pool)
        assert tvm_engine.text(tvm_engine.reorder(alone)) != tvm_engine.text(alone)
        inputs, outputs = tvm_engine.signature(alone).values()
        reshaped_bias = [[1, 4, 1, 1]] if DIALECT == RELAX else []  # Relay's is a constant
        assert [tensor["shape"] for tensor in inputs] == [[1, 4, 12, 12], *reshaped_bias]
        assert [tensor["shape"] for tensor in outputs] == [[1, 4, 6, 6]]

    def test_of_a_site_where_nothing_sinks(self, tmp_path):
        model = saved(tmp_path / "pool.onnx", node("MaxPool", "x", "out", **POOLS["2x2/2"]))
        mod = load_model(model, DIALECT)
        with pytest.raises(KeyError, match="max_pool2d#0"):
            engine().site_module(mod, site())

    def test_the_module_it_is_taken_from_is_left_alone(self, convolution):
        tvm_engine = engine()
        mod = load_model(convolution, DIALECT)
        text = tvm_engine.text(mod)
        tvm_engine.site_module(mod, site())
        tvm_engine.feeding_module(mod, [site()])
        assert tvm_engine.text(mod) == text

    def test_a_site_that_is_decided_otherwise_by_itself_is_a_bug(self, convolution, monkeypatch):
        tvm_engine = engine()
        other = tvm_engine.reorder(tvm_engine.site_module(load_model(convolution, DIALECT), site()))
        monkeypatch.setattr(tvm_engine, "site_module", lambda *_, **__: other)
        with pytest.raises(RuntimeError, match="max_pool2d#0 by itself"):
            checks(convolution)


@pytest.mark.skipif(DIALECT != RELAX, reason="a Relax module")
def test_relax_branches_are_not_fed():
    from tvm.script import ir as I  # noqa: N812 - TVMScript's names
    from tvm.script import relax as R  # noqa: N812

    @I.ir_module
    class Module:
        @R.function
        def main(
            x: R.Tensor((1, 16, 12, 12), "float32"),  # noqa: N805 - a function, no method
            c: R.Tensor((), "bool"),
        ) -> R.Tensor((1, 16, 6, 6), "float32"):
            with R.dataflow():
                first = R.nn.max_pool2d(R.nn.relu(x), (2, 2), (2, 2))
                R.output(first)
            if c:
                with R.dataflow():
                    gv = R.nn.max_pool2d(R.tanh(x), (2, 2), (2, 2))
                    R.output(gv)
                out = gv
            else:
                out = first
            return out

    tvm_engine = engine()
    passed = [decision.site.name for decision in tvm_engine.decisions(Module)]
    assert passed == [site(0), site(1)]
    assert tvm_engine.feeding_module(Module, passed)[0] == (site(0),)
    assert "tanh" in tvm_engine.text(tvm_engine.site_module(Module, site(1)))


@pytest.mark.skipif(DIALECT != RELAY, reason="a Relay module")
def test_relay_lets_are_not_fed():
    import tvm
    from tvm import relay

    x = relay.var("x", shape=(1, 4, 12, 12))
    bound = relay.var("bound", shape=(1, 4, 12, 12))

    def pooled(value):
        return relay.nn.max_pool2d(value, (2, 2), (2, 2))

    pools = relay.Tuple([pooled(relay.nn.relu(x)), pooled(relay.tanh(bound))])
    body = relay.Let(bound, relay.negative(x), pools)
    mod = relay.transform.InferType()(tvm.IRModule.from_expr(relay.Function([x], body)))
    tvm_engine = engine()
    passed = [decision.site.name for decision in tvm_engine.decisions(mod)]
    assert passed == [site(0), site(1)]
    assert tvm_engine.feeding_module(mod, passed)[0] == (site(0),)
    assert "tanh" in tvm_engine.text(tvm_engine.site_module(mod, site(1)))


class TestNotCompared:
    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"in_shape": (1, None, 12, 12)}, "its extents are known only when the model runs"),
            ({"dtype": "bfloat16"}, "NumPy does not have bfloat16"),
        ],
    )
    def test_sites_say_why(self, run, convolution, monkeypatch, change, reason):
        """Frontends fix every extent; a model may compute one, or an element type of its own."""
        tvm_engine = engine()
        (decision,) = tvm_engine.decisions(load_model(convolution, DIALECT))
        pool = replace(decision.site.pool, **change)
        odd = replace(decision, site=replace(decision.site, pool=pool))
        monkeypatch.setattr(tvm_engine, "decisions", lambda *_, **__: (odd,))
        code, out, _ = run(convolution, "--rounds", 1)
        assert code == 0
        assert "skipped" in out
        assert f"{site()}: not compared: {reason}" in out
        assert "; 1 sites were not compared by themselves" in out.splitlines()[-1]


class TestNamesOfInputs:
    @pytest.fixture
    def model(self, tmp_path):
        """Make a model of a constant, and of an input of a name."""

        def named(name):
            nodes = [
                node("Relu", name, "f"),
                node("MaxPool", "f", "pool", **POOLS["2x2/2"]),
                node("Add", "pool", "out", "c"),
            ]
            weights = {"c": np.full((1, 4, 1, 1), 3, "float32")}
            return saved(tmp_path / "named.onnx", *nodes, weights=weights, x=name)

        return named

    @pytest.mark.parametrize("name", ["p0", "p1", "p10"])
    def test_that_relay_gives_constants(self, run, model, name):
        if DIALECT == RELAX:
            assert run(model(name), "--rounds", 1)[0] == 0
            return
        line = refusal(run(model(name)))
        assert f"main has an input named {name!r}, as Relay's graph executor names" in line
        assert "rename the input" in line

    @pytest.mark.parametrize("name", ["p", "p00", "P0", "p0:0", "xp0", "p\u0661"])
    def test_that_only_look_so(self, run, model, name):
        assert run(model(name), "--rounds", 1)[0] == 0


class TestRefusals:
    @pytest.mark.parametrize(
        ("target", "expected"),
        [
            # A feature that no CPU has had since 2017.
            ('{"kind": "llvm", "mattr": ["+fma4"]}', "this machine lacks fma4"),
            ("nonsense", "no target 'nonsense'"),
        ],
    )
    def test_target(self, run, target, expected):
        assert expected in refusal(run(MNIST, "--target", target))

    def test_a_gpu_that_is_not_there(self, run):
        import tvm

        if tvm.cuda().exist:
            pytest.skip("pytest -m gpu verifies on the GPU")
        line = refusal(run(MNIST, "--target", "cuda"))
        assert "the target cuda needs a CUDA GPU that TVM can use" in line
        assert "--static" in line

    def test_no_model(self, run, tmp_path):
        assert "no model at" in refusal(run(tmp_path / "no.onnx"))

    def test_no_linker(self, run, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.delenv("CC", raising=False)
        assert "needs a C compiler" in refusal(run(MNIST))

    def test_a_linker_that_fails(self, run, leaky, monkeypatch):
        monkeypatch.setenv("CXX", "/bin/false")
        assert "/bin/false could not link lib.so" in refusal(run(leaky))

    @pytest.mark.parametrize("option", [("--rounds", "0"), ("--seed", "-1"), ("--nonsense",)])
    def test_wrong_usage_is_exit_code_2(self, run, option):
        code, out, err = run(MNIST, *option)
        assert (code, out) == (2, "")
        assert "error: " in err

    def test_help_shows_an_example(self, run):
        code, out, _ = run("--help")
        assert code == 0
        assert "tvm-reorder verify " in out.split("Example:")[1]

    def test_an_input_type_that_numpy_lacks(self, monkeypatch, leaky):
        tvm_engine = engine()
        signature = tvm_engine.signature

        def odd(mod):
            found = signature(mod)
            return {**found, "inputs": [{**found["inputs"][0], "dtype": "bfloat16"}]}

        monkeypatch.setattr(tvm_engine, "signature", odd)
        with pytest.raises(TvmPassesError, match="input 'x' is bfloat16, which NumPy does not"):
            checks(leaky)
