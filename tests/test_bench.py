"""``tvm-reorder bench``: verdicts on known distributions, the command, and comparing results."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest

from tvm_passes import dialects
from tvm_passes.bench.bench import Bench
from tvm_passes.bench.block import read_blocks
from tvm_passes.bench.files import write_folder
from tvm_passes.bench.process import Process
from tvm_passes.bench.verdict import FASTER, NOT_SIGNIFICANT, SLOWER, compare
from tvm_passes.bench.versions import DEFAULT_VERSIONS
from tvm_passes.cli import main
from tvm_passes.errors import how_to_install
from tvm_passes.interruption import Asked

ROOT = Path(__file__).parent.parent
DIALECT = dialects.installed()
TINY = {
    "name": "tiny",
    "in": [1, 2, 8, 8],
    "conv": {"out": 16, "kernel": 3, "stride": 1, "pad": 1},
    "activation": "sigmoid",
    "pool": [2, 2, 0],
}

SIGMOIDS = {"original": 1024, "scheduled": 1024, "reordered": 256, "fused": 256, "tuned": 256}
"""Evaluations that each version of the block executes: 16 x 8 x 8, or a quarter."""

EXACT = {"relax": set(SIGMOIDS), "relay": {"original", "reordered"}}
"""Versions with the bits of the original: Relay's own schedules add products in another order."""

needs_tvm = pytest.mark.skipif(DIALECT is None, reason="needs a TVM")


def times(random, rounds, spread=0.02):
    """Samples as a shared machine gives them: skewed, and some of them far out."""
    noise = random.lognormal(0, spread, rounds)
    return noise * np.where(random.random(rounds) < 0.05, 3.0, 1.0)


@pytest.mark.parametrize("rounds", [5, 15, 31])
@pytest.mark.parametrize("paired", [True, False])
def test_no_difference_is_seldom_significant(rounds, paired):
    """At the level of 5%, of 400 no more than 20 and three standard deviations."""
    random = np.random.default_rng(rounds)
    found = [
        compare(times(random, rounds), times(random, rounds), paired=paired) for _ in range(400)
    ]
    assert sum(ratio.verdict != NOT_SIGNIFICANT for ratio in found) <= 33


def test_a_difference_is_found():
    random = np.random.default_rng(1)
    found = [compare(1.05 * times(random, 31), times(random, 31)) for _ in range(100)]
    assert sum(ratio.verdict == FASTER for ratio in found) >= 95
    assert sum(ratio.low <= 1.05 <= ratio.high for ratio in found) >= 88
    assert compare(times(random, 31), 1.05 * times(random, 31)).verdict == SLOWER


def test_what_slows_a_round_slows_both():
    random = np.random.default_rng(2)
    spell = random.lognormal(0, 0.5, 31)
    base, other = 1.03 * spell * times(random, 31, 0.005), spell * times(random, 31, 0.005)
    assert compare(base, other).verdict == FASTER


def test_few_rounds_decide_nothing():
    assert compare([2.0] * 5, [1.0] * 5).verdict == NOT_SIGNIFICANT
    assert compare([2.0] * 6, [1.0] * 6).verdict == FASTER


@pytest.mark.parametrize(
    ("faster", "slower", "p"),
    [(5, 0, 2 / 32), (1, 1, 1), (8, 2, 2 * (45 + 10 + 1) / 1024), (0, 0, 1), (1, 0, 1)],
)
def test_how_likely_a_split_is_by_chance(faster, slower, p):
    base = [2.0] * faster + [1.0] * slower + [1.5]
    other = [1.0] * faster + [2.0] * slower + [1.5]
    assert compare(base, other).p == pytest.approx(p)


def test_one_round_is_its_own_interval():
    found = compare([3.0], [2.0])
    assert (found.low, found.ratio, found.high) == pytest.approx((1.5, 1.5, 1.5))
    assert found.verdict == NOT_SIGNIFICANT


def test_without_scipy(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert main(["bench", "mnist1"]) == 1
    assert how_to_install("bench") in capsys.readouterr().err


@pytest.fixture
def blocks(tmp_path):
    path = tmp_path / "blocks.json"
    path.write_text(json.dumps({"blocks": [TINY, TINY | {"name": "other"}]}))
    return str(path)


@needs_tvm
def test_versions_of_a_block(blocks, tmp_path, capsys):
    output = tmp_path / "out.json"
    arguments = ["bench", "tiny", "--blocks", blocks, "--rounds", "2", "--output", str(output)]
    arguments += ["--peers", "openvino", "--peers-python", str(tmp_path / "python")]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    found = json.loads(output.read_text())
    assert found["environment"]["versions"][DIALECT].keys() == {"tvm"}
    (entry,) = found["results"]
    assert set(entry["versions"]) | {"tuned"} == set(DEFAULT_VERSIONS)
    assert "original" in entry["versions"]
    exact = [version for version in entry["versions"] if version in EXACT[DIALECT]]
    assert exact == [version for version in entry["bitwise"] if version in EXACT[DIALECT]]
    assert entry["differing"] == []
    assert set(entry["version_ratios"]) == set(entry["versions"]) - {"original"}
    assert entry["predicted"]["evaluations_before"] == 4 * entry["predicted"]["evaluations_after"]
    assert entry["flops"] == 2 * 64 * 16 * 9 * 2
    for version in entry["versions"]:
        figures = entry["figures"][version]
        evaluations = [kernel["evaluations"] for kernel in figures["kernels"].values()]
        assert sum(found.get("sigmoid", 0) for found in evaluations) == SIGMOIDS[version]
        assert [timed["name"] for timed in figures["times"]] == figures["calls"]
        assert figures["planned"] >= 4 * 16 * 4 * 4
    assert f"tiny, {DIALECT}, 1 thread" in out
    assert "1,024" in out
    assert "GB/s" in out
    assert "pool 0" in out
    assert entry["roofline"].keys() == entry["figures"].keys()
    assert "outputs" in out
    assert max(map(len, out.splitlines())) <= 80
    assert f"openvino: no {tmp_path / 'python'}" in err


@needs_tvm
def test_where_no_version_runs(blocks, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert main(["bench", "tiny", "--blocks", blocks]) == 1
    shown = capsys.readouterr()
    assert "no version ran" in shown.out
    assert f"{DIALECT}: no {tmp_path / 'python'}" in shown.err


@needs_tvm
def test_a_model_and_chosen_versions(blocks, tmp_path, capsys):
    """A model has one order, which is what peers are given of it, and both of a block after it."""
    output = tmp_path / "out.json"
    model = str(ROOT / "tests" / "data" / "mnist.tflite")
    arguments = ["bench", model, "tiny", "--blocks", blocks, "--versions", "reordered,winograd"]
    arguments += ["--rounds", "2", "--no-figures", "--peers", "openvino"]
    arguments += ["--peers-python", sys.executable]
    assert main([*arguments, "--output", str(output)]) == 0
    entry, block = json.loads(output.read_text())["results"]
    assert "openvino" in capsys.readouterr().err
    assert set(block["samples"]) == {DIALECT}
    assert entry["versions"] == ["original", "reordered", "winograd"]
    assert (entry["block"], entry["flops"], entry["figures"]) == ("mnist.tflite", None, {})
    assert entry["predicted"]["evaluations_before"] == 2 * (25088 + 14112) // 2
    capsys.readouterr()


@needs_tvm
def test_tuned_records(blocks, tmp_path, capsys):
    folder, records = tmp_path / "tiny", tmp_path / "records"
    write_folder(read_blocks(Path(blocks), ["tiny"])[0], folder)
    model, target = str(folder / "original.onnx"), ["--target", "host"]
    assert main(["tune", model, *target, "--trials", "1", "-o", str(records), "--quiet"]) == 0
    arguments = ["bench", "tiny", "--blocks", blocks, "--rounds", "1", "--no-figures"]
    arguments += ["--versions", "tuned", "--tuned"]
    assert main([*arguments, str(records)]) == 0
    found = capsys.readouterr()
    assert "tuned" in found.out
    assert "no tuned records" not in found.err
    assert main([*arguments, str(tmp_path / "none")]) == 1
    refused = capsys.readouterr()
    assert refused.out == ""
    assert refused.err.startswith("tvm-reorder: error: no tuned records in")


@needs_tvm
@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["nothing.onnx"], 1, "no model at nothing.onnx"),
        (["mnist1", "--threads", "0"], 2, "expected numbers"),
        (["mnist1", "--peers", "tvm"], 2, "no 'tvm': expected of onnxruntime"),
        (["mnist1", "--versions", "best"], 2, "no 'best'"),
        (["mnist1", "--target", "cuda"], 1, "needs a CUDA GPU that TVM can use"),
        ([], 2, "Usage"),
    ],
)
def test_wrong_usage(arguments, code, expected, capsys):
    assert main(["bench", *arguments]) == code
    out, err = capsys.readouterr()
    assert expected in out + err


@needs_tvm
def test_a_busy_machine_and_too_few_rounds_are_said_to_be(blocks, monkeypatch, capsys):
    monkeypatch.setattr("os.getloadavg", lambda: (7.5, 0.0, 0.0))
    main(["bench", "tiny", "--blocks", blocks, "--rounds", "1", "--no-figures"])
    err = capsys.readouterr().err
    assert "the machine is busy (load 7.5)" in err
    assert "of fewer than 6 rounds every verdict is 'not significant'" in err


@needs_tvm
def test_an_interruption_keeps_what_was_measured(blocks, tmp_path):
    """There are more blocks than anybody waits for."""
    output = tmp_path / "out.json"
    code = "import sys; from tvm_passes.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "bench", "tiny", *["other"] * 50, "--blocks", blocks]
    command += ["--no-figures", "--quiet", "--rounds", "5", "--versions", "reordered"]
    command += ["--output", str(output)]
    done = subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
    )
    while not (output.exists() and output.read_text()):
        assert done.poll() is None
    done.send_signal(signal.SIGTERM)
    said = done.communicate()[1]
    assert done.returncode == 128 + signal.SIGTERM
    assert f"interrupted; what was measured is in {output}" in said
    entries = json.loads(output.read_text())["results"]
    assert entries[0]["block"] == "tiny"
    assert len(entries) < 51


@needs_tvm
def test_an_interruption_that_tvm_makes_an_error_of(blocks, monkeypatch, capsys):
    def entries(_bench):
        yield from ()
        click.get_current_context().find_object(Asked).code = 128 + signal.SIGTERM
        raise RuntimeError("SystemExit")

    monkeypatch.setattr(Bench, "entries", entries)
    assert main(["bench", "tiny", "--blocks", blocks]) == 128 + signal.SIGTERM
    assert "interrupted" in capsys.readouterr().err


@needs_tvm
def test_an_interrupted_round_keeps_its_samples(blocks, tmp_path, monkeypatch, capsys):
    output, calls, ask = tmp_path / "out.json", [], Process.ask

    def stopped(process, do, *args, **request):
        calls.append(do)
        if calls.count("time") > 5:
            raise KeyboardInterrupt
        return ask(process, do, *args, **request)

    monkeypatch.setattr(Process, "ask", stopped)
    arguments = ["bench", "tiny", "other", "--blocks", blocks, "--versions", "reordered"]
    assert main([*arguments, "--output", str(output)]) == 128 + signal.SIGINT
    (entry,) = json.loads(output.read_text())["results"]
    counts = {name: len(s["samples"]) for name, s in entry["samples"][DIALECT].items()}
    assert (counts, entry["interrupted"]) == ({"original": 3, "reordered": 2}, True)
    shown = capsys.readouterr()
    assert "tiny, " in shown.out
    assert f"what was measured is in {output}" in shown.err


def document(path, seconds, block="tiny"):
    samples = {"relax": {"fused": {"samples": seconds}}}
    entry = {"block": block, "threads": 1, "samples": samples}
    path.write_text(json.dumps({"results": [entry]}))
    return str(path)


def test_comparing_results(tmp_path, capsys):
    before = document(tmp_path / "before.json", [2.0, 2.1, 2.2] * 5)
    after = document(tmp_path / "after.json", [1.0, 1.1, 1.2] * 5)
    assert main(["bench", "compare", before, after]) == 0
    out = capsys.readouterr().out
    assert "relax fused" in out
    assert "faster" in out
    assert main(["bench", "compare", after, after]) == 0
    assert "not significant" in capsys.readouterr().out


def test_a_result_compared_with_itself_fits_a_terminal(tmp_path, capsys):
    times = list(np.random.default_rng(4).lognormal(0, 0.3, 31))
    path = document(tmp_path / "result.json", times, "a_block_of_rather_a_long_name")
    assert main(["bench", "compare", path, path]) == 0
    out = capsys.readouterr().out
    assert re.search(r" 1\.00 \[0\.\d{3}, 1\.\d\d\]", out)
    assert "not significant" in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{}", "is no output of bench"), ("not JSON", "is no output"), ('{"results": []}', "common")],
)
def test_comparing_what_cannot_be(tmp_path, capsys, text, expected):
    good, bad = document(tmp_path / "good.json", [1.0]), tmp_path / "bad.json"
    bad.write_text(text)
    assert main(["bench", "compare", good, str(bad)]) == 1
    assert expected in capsys.readouterr().err
    assert main(["bench", "compare", good, str(tmp_path / "none.json")]) == 1
    assert "cannot read" in capsys.readouterr().err
