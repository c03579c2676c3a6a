"""The experiments in scripts/, each on its smallest size."""

import importlib.util
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

from tvm_passes import dialects
from tvm_passes.rules import RELAX

ROOT = Path(__file__).parent.parent
DIALECT = dialects.installed()

pytestmark = pytest.mark.skipif(DIALECT is None, reason="needs a TVM")


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where its dataclasses look up their annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def environments(tmp_path):
    """A folder of environments that has this one under its dialect's name, and no peers."""
    python = tmp_path / "environments" / DIALECT / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return tmp_path / "environments"


def run(command, *arguments):
    done = CliRunner().invoke(command, [*map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.output


def test_who_reorders(environments, tmp_path):
    output, plot = tmp_path / "who.json", tmp_path / "who.png"
    name = DIALECT.capitalize()
    compilers = f"TVM {name},ours; {name},XLA"
    arguments = ["--compilers", compilers, "--limit", 2, "--environments", environments]
    arguments += ["--evidence", tmp_path / "evidence", "--plot", plot, "--output", output]
    printed = run(script("who_reorders").who_reorders, *arguments)
    found = json.loads(output.read_text())
    assert set(found["found"][f"TVM {name}"].values()) == {"before"}
    assert set(found["found"][f"ours, {name}"].values()) == {"after"}
    assert set(found["found"]["XLA"].values()) == {"failed"}
    assert all(reason.startswith("no ") for reason in found["reasons"]["XLA"].values())
    assert "2 of 2" in printed
    evidence = (tmp_path / "evidence" / f"TVM-{name}" / "000.txt").read_text()
    assert evidence.startswith("conv, bias | relu | 2x2/2: before")
    assert plot.stat().st_size > 0


@pytest.fixture
def cases():
    script("who_reorders")
    return importlib.import_module("cases")


def graph(cases, **nodes):
    return {
        name: cases.Node(frozenset(does.split()), list(reads))
        for name, (does, reads) in nodes.items()
    }


def test_edges_decide_where_the_activation_is(cases):
    before = graph(cases, conv=("", ()), f=("activation", ["conv"]), p=("pool", ["f"]))
    assert cases.decide(before) == "before"
    after = graph(cases, p=("pool", ["conv"]), f=("activation", ["p"]), conv=("", ()))
    assert cases.decide(after) == "after"
    fused = graph(cases, conv=("activation", ()), move=("", ["conv"]), p=("pool", ["move"]))
    assert cases.decide(fused) == "before"
    with pytest.raises(ValueError, match="no pool"):
        cases.decide(graph(cases, f=("activation", ())))
    with pytest.raises(ValueError, match="no activation"):
        cases.decide(graph(cases, f=("activation", ()), p=("pool", ["x"])))


def test_every_activation_is_known_to_onnx(cases):
    assert tuple(importlib.import_module("onnx_case").OPS) == cases.ACTIVATIONS


def test_there_is_a_case_for_each_value_of_each_axis(cases):
    everything, some = cases.cases(everything=True), cases.cases(everything=False)
    assert len(everything) == 5 * 9 * 4 * 2
    for axis in ("producer", "activation", "pool", "consumers"):
        values = {getattr(case, axis) for case in everything}
        assert {getattr(case, axis) for case in some} == values
    assert len({case.name for case in everything}) == len(everything)


def test_must_not(tmp_path):
    output, plot = tmp_path / "out.json", tmp_path / "out.png"
    run(script("must_not").must_not, "--output", output, "--plot", plot)
    results = json.loads(output.read_text())["results"]
    assert all(found["declined"] for found in results)
    assert all(found["share_of_results_wrong"] > 0 for found in results)
    reasons = {found["case"]: found["reasons"][0].partition(":")[0] for found in results}
    assert reasons["average pooling"] == "not-a-max-pool"
    assert reasons["U-Net: a skip reads the activation"] == "shared"
    assert reasons["SegNet: indices for unpooling"] == "shared"
    assert reasons["a window wholly in padding"] == "window-in-padding"


def test_savings(tmp_path):
    """Evaluations are those of bias and activation; an axis of an earlier run is kept."""
    output, plot = tmp_path / "out.json", tmp_path / "out.png"
    earlier = [{"axis": name} | ENTRY for name in ("activation", "kernel")]
    output.write_text(json.dumps({"environments": {"kernel": {}}, "results": earlier}))
    arguments = ["--small", "--rounds", 2, "--output", output, "--plot", plot]
    printed = run(script("savings").savings, *arguments)
    document = json.loads(output.read_text())
    kept, relu, silu = document["results"]
    assert (kept["axis"], relu["axis"], silu["axis"]) == ("kernel", "activation", "activation")
    assert relu["share_counted"] == pytest.approx(2 * 0.75 / (27 + 2))
    assert relu["formula"] == pytest.approx(0.75 / 27)
    assert relu["counted"]["arithmetic_saved"] == [relu["formula"]]
    assert silu["evaluations"]["original"] == 2 * silu["evaluations"]["reordered"]
    assert set(silu["ratios"]) == set(silu["priced"]) == {"TVM's schedules", "our kernels"}
    assert silu["priced"]["our kernels"] > relu["priced"]["our kernels"] > 0
    assert document["environments"]["activation"]["seed"] == 0
    assert any("share saved = " in line for line in document["statement"])
    assert "an evaluation saved is worth" in printed
    assert plot.stat().st_size > 0


def test_a_price_list(tmp_path):
    output = tmp_path / "times.json"
    run(script("time_functions").main, "--only", "sigmoid", "--runs", 1, "--output", output)
    found = json.loads(output.read_text())["nanoseconds"]
    assert any(name.endswith("sigmoid") for name in found)
    assert min(found.values()) > 0


@pytest.mark.no_tvm
def test_the_readme_says_what_the_records_hold():
    readme = (ROOT / "README.md").read_text()
    for lines in script("experiment_tables").tables():
        assert "\n".join(lines) in readme


ENTRY = {
    "block": "tiny",
    "activation": "tanh",
    "sunk": True,
    "formula": 0.01,
    "priced": {"our kernels": 0.1},
    "ratios": {"our kernels": {"ratio": 1.25, "low": 1.2, "high": 1.3, "verdict": "faster"}},
    "evaluations": {"scheduled": 400, "fused": 100},
    "samples": {"scheduled": [2.8e-6], "fused": [1e-6]},
}


def test_what_an_evaluation_is_worth():
    fit = script("savings_fit")
    twice = ENTRY | {
        "evaluations": {"scheduled": 800, "fused": 200},
        "samples": {"scheduled": [4.6e-6], "fused": [1e-6]},
    }
    found = fit.evaluation_times([ENTRY, twice])
    assert found == {"our kernels": {"tanh": pytest.approx(6.0)}}


def test_a_line_and_a_threshold():
    """Exact on exact points; the threshold is the one with the fewest errors."""
    verdicts = ["slower", "not significant", "faster", "not significant", "faster", "faster"]
    points = [(n / 100, 2 * n / 100 - 0.03, v) for n, v in enumerate(verdicts)]
    found = script("savings_fit").fit_line(points)
    assert (found.slope, found.intercept) == (pytest.approx(2), pytest.approx(-0.03))
    assert (found.r2, found.threshold) == (pytest.approx(1), 0.02)
    assert (found.above, found.below) == ((3, 0, 1), (0, 1, 1))
    never = script("savings_fit").fit_line([(0.1, 0.0, "slower"), (0.2, 0.0, "not significant")])
    assert (never.threshold, never.below) == (None, (0, 1, 1))


def test_every_activation_has_a_price():
    listed = script("savings_fit").prices()
    assert {*script("savings").ACTIVATIONS, "bias"} == set(listed)
    assert listed["tanh"] > listed["sigmoid"] > listed["relu"] > 0


@pytest.mark.skipif(find_spec("tensorflow") is None, reason="needs tensorflow")
@pytest.mark.skipif(DIALECT != RELAX, reason="as test_savings, which runs in both dialects")
def test_expensive(tmp_path):
    output, plot = tmp_path / "out.json", tmp_path / "out.png"
    arguments = ["--small", "--layers", "int8", "--rounds", 2, "--output", output]
    printed = run(script("expensive").expensive, *arguments, "--plot", plot)
    (int8,) = json.loads(output.read_text())["results"]
    assert int8["sunk"]
    assert int8["counted"]["evaluations_before"] > int8["counted"]["evaluations_after"]
    assert {"original", "reordered"} <= set(int8["bitwise"])
    assert "int8: small" in printed
    assert plot.stat().st_size > 0


def test_mnist_orders_through_this_package(tmp_path):
    options = {"threads": 1, "rounds": 2, "seconds": 0.001, "seed": 0}
    found = list(script("mnist_orders").ours(options))
    assert len(found) == 2
    assert all(len(entry["samples"]["swapped"]) == 2 for entry in found)
    script("mnist_orders").draw(found, tmp_path / "plot.png")


@pytest.mark.skipif(DIALECT != RELAX, reason="needs Relax, which derives gradients")
def test_a_training_step(tmp_path):
    output = tmp_path / "out.json"
    arguments = ["--parts", "training", "--train-batch", 1, "--rounds", 1, "--seconds", 0.001]
    printed = run(script("mnist_orders").mnist_orders, *arguments, "--output", output)
    (found,) = json.loads(output.read_text())["results"]
    assert [len(samples) for samples in found["samples"].values()] == [1, 1]
    assert found["max_abs_difference"] < 1e-6
    assert "training" in printed


@pytest.mark.no_tvm
@pytest.mark.skipif(find_spec("tensorflow") is None, reason="needs tensorflow")
def test_mnist_in_tensorflow(tmp_path, monkeypatch):
    """What was measured before TensorFlow fails is in the output."""
    orders, program = script("mnist_orders"), tmp_path / "scripts" / "mnist_tensorflow.py"
    program.parent.mkdir()
    text = (ROOT / "scripts" / program.name).read_text()
    text = text.replace(
        '(("inference", 1), ("inference", 64), ("training", 64))', '(("training", 2),)'
    )
    text = text.replace("STEPS = 20", "STEPS = 2")
    text = text.replace(
        '    if mode != "eager"', '    assert mode != "xla"\n    if mode != "eager"'
    )
    program.write_text(text)
    (tmp_path / "tvm_passes").symlink_to(ROOT / "tvm_passes")
    monkeypatch.setattr(orders, "ROOT", tmp_path)
    python = tmp_path / "peers" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    output = tmp_path / "out.json"
    arguments = ["--parts", "tensorflow", "--rounds", 2, "--seconds", 0.001, "--output", output]
    done = CliRunner().invoke(
        orders.mnist_orders, [*map(str, arguments), "--environments", tmp_path]
    )
    found = json.loads(output.read_text())["results"]
    assert [entry["mode"] for entry in found] == ["eager", "graph"]
    assert all(len(entry["samples"]["swapped"]) == 2 for entry in found)
    assert all(entry["max_abs_difference"] < 1e-4 for entry in found)
    assert done.exit_code == 1
    assert "TensorFlow ended with code" in done.output


def test_mnist_orders_needs_the_peers(tmp_path):
    arguments = ["--environments", str(tmp_path), "--output", str(tmp_path / "out.json")]
    done = CliRunner().invoke(script("mnist_orders").mnist_orders, arguments)
    assert done.exit_code == 1
    assert "run make env-peers" in done.output


@pytest.mark.skipif(DIALECT != "relax", reason="Relax's memory plan")
def test_no_plan_has_an_unpooled_tensor(tmp_path):
    output = tmp_path / "plan.json"
    run(script("memory_plan").memory_plan, "--only", "mnist1,mnist", "--output", output)
    block, network = json.loads(output.read_text())["results"]
    assert block["unpooled"] == [4 * 16 * 28 * 28]
    assert block["planned_before"] - block["planned_after"] == block["unpooled"][0]
    assert len(network["unpooled"]) == 2
    assert (block["left"], network["left"]) == (0, 0)


@pytest.mark.skipif(DIALECT != RELAX, reason="times kernels of either dialect, which are the same")
def test_winograd_choice(tmp_path):
    output = tmp_path / "choice.json"
    run(script("winograd_choice").winograd_choice, "--layers", 1, "--rounds", 1, "--output", output)
    found = json.loads(output.read_text())
    (entry,) = found["results"]
    assert set(entry["seconds"]) == {"as written", "F(4x4, 3x3)", "F(2x2, 3x3)"}
    assert entry["chosen"] in entry["seconds"]
    assert found["summary"]["worst chosen / fastest"] >= 1


@pytest.mark.skipif(DIALECT != RELAX, reason="the runtimes that it compares are Relax's")
def test_winograd_error(environments, tmp_path):
    output = tmp_path / "error.json"
    arguments = ["--only", "mnist2", "--runtimes", "tvm_passes,tvm_passes_winograd"]
    arguments += ["--environments", environments, "--output", output]
    run(script("winograd_error").winograd_error, *arguments)
    found = json.loads(output.read_text())
    errors = [error for entry in found["results"] for error in entry["error"].values()]
    assert len(errors) == 8
    assert 0 < max(errors) < 1e-5


@pytest.mark.skipif(DIALECT != RELAX, reason="compiles what Relax's importer reads")
def test_winograd_networks(tmp_path):
    output = tmp_path / "networks.json"
    run(script("winograd_networks").winograd_networks, "--only", "MNIST", "--output", output)
    (found,) = json.loads(output.read_text())["results"]
    assert found["agreement"] == 1
    assert min(found["accuracy"]) > 0.95
    assert len(found["layers"]) == 1


@pytest.mark.skipif(DIALECT != RELAX, reason="loads what Relax compiled")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory(environments, tmp_path):
    output = tmp_path / "memory.json"
    arguments = ["--only", "mnist", "--environments", environments, "--output", output]
    printed = run(script("peak_memory").peak_memory, *arguments)
    (entry,) = json.loads(output.read_text())["results"]
    for allowed in ("written", "winograd"):
        found = entry["runtimes"][allowed]
        assert entry["weights"] < found["after"] <= found["peak"]
    assert entry["runtimes"]["onnxruntime"]["error"] in printed


def test_fuzz_winograd(tmp_path):
    output = tmp_path / "fuzz.json"
    run(script("fuzz_winograd").fuzz_winograd, "--kernels", 2, "--output", output)
    found = json.loads(output.read_text())
    assert found["kernels"] > 0
    assert 0 < found["worst_of_bound"] < 1


@pytest.mark.skipif(DIALECT != RELAX, reason="looks at Relax's kernels")
def test_winograd_stages(tmp_path):
    output = tmp_path / "stages.json"
    arguments = ["--only", "mnist1,mnist2", "--rounds", 1, "--output", output]
    run(script("winograd_stages").winograd_stages, *arguments)
    (found,) = json.loads(output.read_text())["results"]
    assert found["block"] == "mnist2"
    assert found["loop"]["spills"] == 0
    assert 0 < found["layer"] < found["direct"]
