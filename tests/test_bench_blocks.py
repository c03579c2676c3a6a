"""The benchmark of blocks: a tiny block with TVM alone, the statistics, and workers that fail."""

import importlib.util
import json
import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from tvm_passes import dialects
from tvm_passes.bench import networks
from tvm_passes.bench.block import ORDERS, from_dict, read_blocks
from tvm_passes.bench.files import write_model_folder
from tvm_passes.bench.process import Process, WorkerError, worker_command
from tvm_passes.bench.results import busy, result, summary, troubles
from tvm_passes.bench.runtimes import OURS, PEERS, Runtime
from tvm_passes.bench.session import Measured, Session, Settings
from tvm_passes.bench.statistics import Samples, geometric_mean
from tvm_passes.bench.worker import BACKENDS, measure
from tvm_passes.errors import BlockError
from tvm_passes.rules import RELAX, RELAY

ROOT = Path(__file__).parent.parent
TINY = {
    "name": "tiny",
    "in": [1, 3, 10, 10],
    "conv": {"out": 8, "kernel": 3, "stride": 1, "pad": 1},
    "activation": "leaky_relu",
    "pool": [3, 2, 1],
}
DIALECT = dialects.installed()


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "blocks.json"
    path.write_text(json.dumps({"blocks": [TINY]}))
    return path


def samples(*seconds, cores=1.0):
    found = Samples()
    for value in seconds:
        found.add(value, value * cores)
    return found


# The whole script, with the TVM at hand.


@pytest.fixture
def environments(tmp_path):
    """A folder of environments that has this one under its dialect's name, and no peers."""
    folder = tmp_path / "environments"
    (folder / str(DIALECT) / "bin").mkdir(parents=True)
    python = folder / str(DIALECT) / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return folder


@pytest.mark.skipif(DIALECT is None, reason="needs a TVM")
def test_a_tiny_block(tiny, environments, tmp_path):
    relax = DIALECT == "relax"
    ours, peer = ("tvm_passes", "tvm") if relax else ("tvm_passes_relay", "tvm_relay")
    output = tmp_path / "out.json"
    arguments = ["--blocks", tiny, "--threads", "1,2", "--rounds", 2, "--seconds", 0.001]
    arguments += ["--ours", ours, "--peers", f"{peer},openvino", "--output", output]
    done = CliRunner().invoke(
        script("bench_blocks").bench_blocks, [*map(str, arguments), "--environments", environments]
    )
    assert done.exit_code == 0, done.output
    document = json.loads(output.read_text())
    entries = document["results"]
    assert [(entry["block"], entry["threads"]) for entry in entries] == [("tiny", 1), ("tiny", 2)]
    for entry in entries:
        assert set(entry["runtimes"]) == {ours, peer}
        assert entry["best_peer"] == peer
        assert entry["max_abs_difference"].keys() == {ours, peer}
        assert max(entry["max_abs_difference"].values()) < 1e-5
        assert entry["failed"].keys() == {"openvino"}
        assert entry["others"] is None or entry["others"] >= 0
        assert [len(entry["samples"][peer][order]["samples"]) for order in ORDERS] == [2, 2]
        ratio = entry["runtimes"][peer] / entry["runtimes"][ours]
        assert entry["ratios"] == {ours: pytest.approx(ratio)}
    assert document["environment"]["versions"][peer].keys() == {"tvm"}
    assert {"cpu", "isa", "caches", "load", "threads"} <= document["environment"].keys()
    assert "openvino: no " in done.output
    assert max(map(len, done.output.split("tiny/1")[0].splitlines()[:8])) <= 80


def test_all_of_ours_must_have_a_result(tiny, tmp_path):
    arguments = ["--blocks", tiny, "--peers", "", "--environments", tmp_path, "--threads", "1"]
    output = tmp_path / "out.json"
    done = CliRunner().invoke(
        script("bench_blocks").bench_blocks, [*map(str, arguments), "--output", str(output)]
    )
    assert done.exit_code == 1
    assert json.loads(output.read_text())["results"][0]["failed"].keys() == {r.name for r in OURS}


@pytest.mark.skipif(DIALECT != "relax", reason="compares Relax with itself")
def test_a_network_of_ones_own(environments, tmp_path):
    net = networks.Network((1, 3, 10, 10))
    y = net.pool(net.relu(net.conv("x", 8, 3, norm=True)), 2, 2)
    net.add("Softmax", net.dense(net.flat(y, 16), 5), axis=1)
    path, output = tmp_path / "mine.onnx", tmp_path / "out.json"
    onnx.save(networks.model_of(net, "mine"), path)
    arguments = ["--networks", path, "--threads", "2", "--rounds", 1, "--seconds", 0.001]
    arguments += ["--ours", "tvm_passes", "--peers", "tvm", "--output", output]
    done = CliRunner().invoke(
        script("bench_networks").bench_networks,
        [*map(str, arguments), "--environments", str(environments)],
    )
    assert done.exit_code == 0, done.output
    (entry,) = json.loads(output.read_text())["results"]
    assert (entry["block"], entry["threads"]) == ("mine", 2)
    assert entry["max_abs_difference"]["tvm_passes"] < 1e-5
    assert entry["fastest_variant"] == {"tvm_passes": "original", "tvm": "original"}


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("mnist", 242_062),
        ("squeezenet", 1_235_496),  # torchvision's squeezenet1_1
        ("tiny_yolo", 15_867_885),  # yolov2-tiny-voc.weights: 63,471,556 bytes, 16 of them a header
        ("resnet50", 25_557_032 + 53_120),  # torchvision's, and the statistics
    ],
)
def test_sizes_of_networks(name, weights):
    constants = networks.NETWORKS[name]().graph.constants
    assert sum(array.size for array in constants.values()) == weights


@pytest.mark.parametrize("option", ["--peers=nobody", "--threads=0", "--threads=two"])
def test_wrong_usage(tmp_path, option):
    done = CliRunner().invoke(
        script("bench_blocks").bench_blocks, [option, "--output", str(tmp_path / "out.json")]
    )
    assert done.exit_code == 2


# Blocks.


def test_shipped_blocks():
    blocks = {block.name: block for block in read_blocks(ROOT / "scripts" / "blocks.json")}
    assert len(blocks) == 12
    assert blocks["resnet1"].conv_shape == (1, 64, 112, 112)
    assert blocks["resnet1"].out_shape == (1, 64, 56, 56)
    assert blocks["alexnet1"].out_shape == (1, 64, 27, 27)
    assert blocks["mnist1"].flops == 2 * 28 * 28 * 16 * 25
    assert from_dict(json.loads(json.dumps(blocks["mnist1"].as_dict()))) == blocks["mnist1"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"activation": "sine"}, "activation 'sine'"),
        ({"pool": [20, 2, 0]}, "below 1"),
        ({"pool": [2, 2]}, "not enough values"),
        ({"conv": {"out": 8}}, "lacks 'kernel'"),
    ],
)
def test_malformed_blocks(tmp_path, change, expected):
    path = tmp_path / "blocks.json"
    path.write_text(json.dumps({"blocks": [TINY | change]}))
    with pytest.raises(BlockError, match=expected):
        read_blocks(path)


def test_missing_blocks(tiny, tmp_path):
    twins = tmp_path / "twins.json"
    twins.write_text(json.dumps({"blocks": [TINY, TINY]}))
    with pytest.raises(BlockError, match="same name"):
        read_blocks(twins)
    with pytest.raises(BlockError, match="cannot read"):
        read_blocks(tmp_path / "none.json")
    with pytest.raises(BlockError, match="no block 'huge': expected of tiny"):
        read_blocks(tiny, ["huge"])


# Statistics.


def test_spread_and_cores():
    found = samples(3.0, 1.0, 2.0, 100.0, 2.0, cores=1.5)
    assert (found.median, found.mad, found.cores) == (2.0, 1.0, 1.5)


def test_geometric_mean():
    assert geometric_mean([0.5, 8.0]) == pytest.approx(2.0)
    assert geometric_mean([]) is None


def test_a_sample_is_the_mean_of_calls_that_fill_the_time(monkeypatch):
    calls = []
    clock = iter([0.0, 2.0, 10.0, 18.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    monkeypatch.setattr("time.process_time", iter([1.0, 5.0]).__next__)
    found = measure(lambda: calls.append(0), seconds=8.0)
    assert found == {"seconds": 2.0, "cpu": 1.0, "calls": 4}
    assert len(calls) == 2 + 1 + 4


FAST, SLOW = Runtime("fast", "peers"), Runtime("slow", "peers")
MINE = Runtime("tvm_passes", "relax", ("original",), ours=True)


def test_the_fastest_variant_and_the_best_peer_count():
    measured = Measured(
        samples={
            "fast": {"original": samples(3.0, 3.0), "swapped": samples(1.0, 3.0)},
            "slow": {"original": samples(9.0)},
            "tvm_passes": {"original": samples(0.5, 0.5)},
        },
        differences={"fast": {"original": 0.0, "swapped": 0.5}},
        reference="slow",
    )
    entry = result("block", 1, [MINE, FAST, SLOW], measured)
    assert entry["runtimes"] == {"fast": 2.0, "slow": 9.0, "tvm_passes": 0.5}
    assert entry["fastest_variant"]["fast"] == "swapped"
    assert (entry["best_peer"], entry["ratio_to_best_peer"]) == ("fast", 4.0)
    assert entry["mad"]["fast"] == 1.0
    assert entry["max_abs_difference"] == {"fast": 0.5}
    means = summary([entry, entry | {"ratios": {"tvm_passes": 1.0}}])
    assert means == {"tvm_passes, 1 threads": {"geometric_mean": pytest.approx(2.0), "least": 1.0}}


def test_without_peers_there_is_no_ratio():
    measured = Measured(samples={"tvm_passes": {"original": samples(0.5)}})
    entry = result("block", 1, [MINE], measured)
    assert (entry["ratio_to_best_peer"], entry["best_peer"]) == (None, None)


def test_a_run_that_waited_for_its_core_is_a_warning():
    measured = Measured(samples={"tvm_passes": {"original": samples(0.5, cores=0.7)}})
    assert list(busy([result("block", 1, [MINE], measured)])) == [
        "busy machine at block: tvm_passes had to wait for a core"
    ]
    assert not list(busy([result("block", 2, [MINE], measured)]))


def test_others_on_the_machine_are_a_warning():
    measured = Measured(samples={"tvm_passes": {"original": samples(0.5)}}, others=1.23)
    assert list(busy([result("block", 2, [MINE], measured)])) == [
        "busy machine at block: other processes used 1.2 cores"
    ]
    measured.others = 0.02
    assert not list(busy([result("block", 2, [MINE], measured)]))


def test_troubles_name_each_reason_once():
    measured = Measured(
        differences={"fast": {"swapped": 0.5}},
        differing=[("fast", "swapped")],
        failed={"slow": {"": "no such file"}},
        reference="tvm",
    )
    entries = [result(name, 1, [FAST, SLOW], measured) for name in "abcd"]
    assert list(troubles(entries)) == [
        "slow: no such file (4 of 4 blocks)",
        "fast swapped: differs from tvm by 0.5 (4 of 4 blocks)",
    ]


# Workers.

ECHO = "import sys\nfor line in sys.stdin: print(line.strip(), flush=True)"


@pytest.fixture
def start(tmp_path):
    """Start Python code as a worker; it is ended after the test."""
    started = []

    def run(code):
        started.append(Process([sys.executable, "-c", code], 2, tmp_path / "log"))
        return started[-1]

    yield run
    for process in started:
        process.end()


def state(process):
    """The letter that Linux gives a process's state: T is stopped."""
    return Path(f"/proc/{process.child.pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_worker_is_stopped_between_requests(start):
    process = start(ECHO)
    assert process.ask("hello", number=1) == {"do": "hello", "number": 1}
    os.waitid(os.P_PID, process.child.pid, os.WSTOPPED)
    assert state(process) == "T"
    assert process.ask("again") == {"do": "again"}


def test_a_worker_has_its_threads_before_it_imports(start):
    code = (
        "import json, os, sys\nsys.stdin.readline()\n"
        "print(json.dumps({n: os.environ[n] for n in ('TVM_NUM_THREADS', 'OMP_NUM_THREADS')}))"
    )
    assert set(start(code).ask("threads").values()) == {"2"}


def test_a_reply_with_an_error(start):
    code = 'import sys\nsys.stdin.readline()\nprint(\'{"error": "no memory"}\', flush=True)'
    with pytest.raises(WorkerError, match="no memory"):
        start(code).ask("prepare")


def test_a_worker_that_dies(start):
    process = start("import sys\nsys.stdin.readline()\nraise ValueError('bad model')")
    with pytest.raises(WorkerError, match="ended with code 1: ValueError: bad model"):
        process.ask("prepare")
    assert process.ended
    with pytest.raises(WorkerError, match="bad model"):
        process.ask("prepare")


def test_a_worker_that_is_killed(start):
    process = start("import os, sys\nsys.stdin.readline()\nos.kill(os.getpid(), 9)")
    with pytest.raises(WorkerError, match=f"died of signal {signal.SIGKILL:d}"):
        process.ask("prepare")


def test_a_worker_that_never_answers(start):
    process = start("import sys\nsys.stdin.read()")
    with pytest.raises(WorkerError, match="no answer in 0 s"):
        process.ask("prepare", timeout=0.01)
    assert process.ended


BACKEND = """
import sys
import numpy as np
from tvm_passes.bench.worker import serve

class Backend:
    versions = {"fake": "1"}
    def prepare(self, folder, variant, options):
        return Prepared(variant)

class Prepared:
    def __init__(self, variant):
        if variant == "broken":
            raise ValueError("first line\\nno such operator")
        self.variant = variant
        self.runs = 0
    def run(self):
        self.runs += 1
        if self.variant == "dies" and self.runs > 1:
            sys.exit(3)
    def outputs(self):
        return [np.full(4, 2.0 if self.variant == "differs" else 1.0, "float32")]

serve(Backend(), sys.stdin, sys.stdout)
"""


def measured_with(variants, monkeypatch, tmp_path):
    """What a session makes of the fake backend's variants."""
    monkeypatch.setattr(
        "tvm_passes.bench.session.worker_command",
        lambda _python, _runtime, _threads: [sys.executable, "-c", BACKEND],
    )
    runtime = Runtime("fake", "peers", variants)
    settings = Settings(threads=1, rounds=3, seconds=1e-6)
    with Session([runtime], {"peers": Path(sys.executable)}, settings, tmp_path) as session:
        return session.measure(tmp_path)


def test_a_session_keeps_what_works(monkeypatch, tmp_path):
    measured = measured_with(("good", "broken", "differs"), monkeypatch, tmp_path)
    assert measured.failed == {"fake": {"broken": "ValueError: no such operator"}}
    assert measured.differing == [("fake", "differs")]
    assert measured.bitwise == [("fake", "good")]
    assert measured.differences["fake"] == {"good": 0.0, "differs": 1.0}
    assert len(measured.samples["fake"]["good"].seconds) == 3


def test_a_session_survives_a_worker(monkeypatch, tmp_path):
    measured = measured_with(("dies",), monkeypatch, tmp_path)
    assert measured.failed == {"fake": {"dies": "ended with code 3"}}
    assert measured.samples == {}


def test_an_output_of_nan_differs(monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules[__name__], "BACKEND", BACKEND.replace("2.0 if", "np.nan if"))
    measured = measured_with(("good", "differs"), monkeypatch, tmp_path)
    assert measured.differing == [("fake", "differs")]


def test_every_runtime_has_a_backend():
    compared = {runtime.name for runtime in (*OURS, *PEERS)}
    assert compared == set(BACKENDS) - {RELAX, RELAY, "compiled"}
    package = ROOT / "tvm_passes" / "bench"
    assert {f"{name}.py" for name in BACKENDS.values()} <= {p.name for p in package.iterdir()}


@pytest.mark.skipif(DIALECT != RELAX, reason="TVM takes no part")
@pytest.mark.skipif(find_spec("tensorflow") is None, reason="needs the extra tensorflow")
def test_tensorflow_runs_models_of_its_own(tmp_path):
    tests = np.load(ROOT / "tests" / "data" / "mnist_test.npz")
    x, label = tests["images"][:1].astype("float32") / 255, tests["labels"][0]
    process = Process(worker_command(Path(sys.executable), "xla", 1), 1, tmp_path / "log")
    try:
        for name, reads in (("mnist.keras", True), ("mnist.tflite", False)):
            write_model_folder(ROOT / "tests" / "data" / name, [x], tmp_path)
            ask = {"folder": str(tmp_path), "variant": "original xla", "options": {}}
            if reads:
                process.ask("prepare", **ask)
                process.ask("run", variant="original xla", output=str(tmp_path / "out.npz"))
                (scores,) = np.load(tmp_path / "out.npz").values()
                assert scores.argmax() == label
            else:
                with pytest.raises(WorkerError, match=r"reads .keras files .* not .tflite"):
                    process.ask("prepare", **ask)
    finally:
        process.end()
