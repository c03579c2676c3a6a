"""Tuning measures schedules once, loses none, and its records are applied where they belong."""

import json
import os
import platform
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tvm

from tvm_passes import tune
from tvm_passes.bench.block import Block
from tvm_passes.bench.files import model_file, write_folder
from tvm_passes.cli import main
from tvm_passes.dialects import engine, installed
from tvm_passes.errors import OutputError, RecordsError
from tvm_passes.frontends import load_model
from tvm_passes.measure_trials import Tracker, Trial
from tvm_passes.namespaces import Schedule, host_cpu
from tvm_passes.records import FILES, PAGE, chosen, in_scope, new_records, open_records, processor
from tvm_passes.schedules.conv2d_rule import BlockedConv2d
from tvm_passes.schedules.machine import machine_of
from tvm_passes.schedules.tuned import NAME, Tuned
from tvm_passes.schedules.winograd_rule import winograd_layer_of
from tvm_passes.tune import Order, run_off, tasks_of, tune_model

ROOT = Path(__file__).parent.parent
MNIST = ROOT / "tests" / "data" / "mnist.tflite"
HERE = platform.machine()
HOST = {"kind": "llvm", "mcpu": host_cpu()}
TARGET = json.dumps(HOST)
DIALECT = installed()


@pytest.fixture(scope="module")
def tasks():
    mod = load_model(MNIST, DIALECT)
    return tasks_of(engine().unscheduled(mod, HOST), tvm.target.Target(HOST))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """Records of four trials, and what was said of each."""
    folder, said = tmp_path_factory.mktemp("tuned") / "records", []
    tune_model(MNIST, folder, Order(TARGET, 4), lambda *what: said.append(what))
    return folder, [what for what in said if not what[2].endswith("again")]


def made(tasks, folder, seconds):
    """Records that give the n-th candidate of the first task `seconds[n]`, none of it measured."""
    records = new_records(folder, DIALECT, HOST, "made up")
    target = tvm.target.Target(HOST)
    for make, time in zip(tasks[0].schedules, seconds, strict=False):
        records.add(Trial("", tasks[0].workload, make(), target), time)
    return records


def test_every_convolution_is_a_task(tasks):
    assert len(tasks) >= 2
    assert len(tasks[0].schedules) > 4
    assert all(re.fullmatch(r"[0-9x, ]+", task.name) for task in tasks)


def test_trials_are_counted_and_recorded(tuned):
    folder, said = tuned
    assert [(done, total) for done, total, _ in said] == [(n, 4) for n in range(1, 5)]
    assert all(what.endswith(" ms") for _, _, what in said)
    page = json.loads((folder / PAGE).read_text())
    assert page["trials"] == 4
    assert page["target"] == HOST
    assert page["dialect"] == DIALECT
    assert all(row["tuned_s"] <= row["untuned_s"] < 1 for row in page["kernels"])


def test_nothing_is_measured_twice(tuned):
    folder, _ = tuned
    said = []
    tune_model(MNIST, folder, Order(TARGET, 6), lambda *what: said.append(what[2]))
    said = [what for what in said if not what.endswith("again")]
    assert [what.endswith("measured before") for what in said] == [True] * 4 + [False] * 2
    assert json.loads((folder / PAGE).read_text())["trials"] == 6


def test_what_seems_the_fastest_is_measured_again(tasks, tmp_path, monkeypatch):
    """The luckiest of the candidates is not taken for the fastest."""
    records = made(tasks, tmp_path / "records", [1.0, 0.5, 0.9, 1.2])
    other = Trial("", tasks[1].workload, tasks[1].schedules[0](), tvm.target.Target(HOST))
    records.add(other, 3.0)
    traces = [str(make().trace) for make in tasks[0].schedules[:4]]
    true = dict(zip(traces, [1.0, 1.1, 0.8, 1.2], strict=True))
    asked = []

    def measure(trials, _fleet):
        asked.append([traces.index(str(trial.schedule.trace)) for trial in trials])
        yield from ((trial, true[str(trial.schedule.trace)], "") for trial in trials)

    monkeypatch.setattr(tune, "measure", measure)
    run_off(tasks[0], tvm.target.Target(HOST), records, None)
    assert asked == [[0, 1, 1, 0, 0, 1], [0, 2, 2, 0, 0, 2]]
    again = open_records(tmp_path / "records")
    for found in (records, again):
        assert found.samples(tasks[0].workload) == {
            traces[0]: [1.0] * 6, traces[1]: [1.1] * 3, traces[2]: [0.8] * 3, traces[3]: [1.2],
        }  # fmt: skip
        assert found.measured(tasks[1].workload) == {str(other.schedule.trace): 3.0}
    gain = again.gain("", tasks[0].workload, tasks[0].schedules[0]())
    assert gain.gain == pytest.approx(1.25)
    run_off(tasks[0], tvm.target.Target(HOST), again, None)
    assert len(asked) == 2


def test_records_that_are_no_candidates_any_more_are_left_alone(tasks, tmp_path):
    records = made(tasks, tmp_path / "records", [1.0, 0.5])
    fewer = replace(tasks[0], schedules=tasks[0].schedules[:1])
    run_off(fewer, tvm.target.Target(HOST), records, None)
    assert sorted(records.measured(tasks[0].workload).values()) == [0.5, 1.0]


def test_a_fastest_candidate_that_no_longer_runs_is_not_the_fastest(tasks, tmp_path, monkeypatch):
    records = made(tasks, tmp_path / "records", [1.0, 0.5])
    first = tasks[0].schedules[0]()
    fails = str(tasks[0].schedules[1]().trace)

    def measure(trials, _fleet):
        for trial in trials:
            failed = str(trial.schedule.trace) == fails
            yield trial, None if failed else 1.0, "the server is gone" if failed else ""

    monkeypatch.setattr(tune, "measure", measure)
    said = []
    run_off(tasks[0], tvm.target.Target(HOST), records, None, said.append)
    assert sum("the server is gone" in what for what in said) == 3
    assert records.gain("", tasks[0].workload, first).gain == 1.0
    with in_scope(records):
        found = Tuned().apply(tasks[0].workload[NAME], tvm.target.Target(HOST), False)
    tvm.ir.assert_structural_equal(found.mod[NAME], first.mod[NAME])


KILLED = """
import os, signal, sys
from pathlib import Path
from tvm_passes.schedules.winograd_rule import winograd_layer_of
from tvm_passes.tune import Order, tune_model
model, folder, target = sys.argv[1:]
def on_trial(done, total, what):
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)
tune_model(Path(model), Path(folder), Order(target, 4), on_trial)
"""


def test_a_kill_loses_no_measured_trial(tmp_path):
    folder = tmp_path / "records"
    command = [sys.executable, "-c", KILLED, str(MNIST), str(folder), TARGET]
    done = subprocess.run(command, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    records = chosen(folder, DIALECT, HOST).records
    assert len(records.database) == 2


@pytest.mark.parametrize("best", [0, 2, 3])
def test_the_best_record_is_the_schedule(tasks, tmp_path, best):
    seconds = [1.0] * 4
    seconds[best] = 0.5
    records = made(tasks, tmp_path / "records", seconds)
    func = tasks[0].workload[NAME]
    with in_scope(records):
        found = Tuned().apply(func, tvm.target.Target(HOST), False)
    expected = tasks[0].schedules[best]().mod[NAME]
    tvm.ir.assert_structural_equal(found.mod[NAME], expected)


def test_packed_records_ship(tasks, tmp_path):
    records = made(tasks, tmp_path / "records", [1.0, 1.0, 0.5])
    first, _, third = (make() for make in tasks[0].schedules[:3])
    records.correct(tasks[0].workload, {str(third.trace): [0.5, 0.5]})
    records.summarise([records.gain(tasks[0].name, tasks[0].workload, first)])
    shipped = tmp_path / "shipped"
    for folders in ([tmp_path / "records"], [shipped, tmp_path / "records"]):
        command = [sys.executable, ROOT / "scripts" / "ship_records.py", *folders]
        done = subprocess.run(
            [*map(str, command), "--output", str(shipped)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "1 kernels, geometric mean of the gains 2.0\n"
    page = json.loads((shipped / PAGE).read_text())
    assert len(page["commands"]) == 2
    assert page["commands"][0] == page["commands"][1] == records.page["command"]
    assert {path.name for path in shipped.iterdir()} == {PAGE, *(f"{f}.xz" for f in FILES)}
    found = chosen(shipped, DIALECT, HOST)
    assert found.note.startswith(f"tuned records applied: {shipped}, of ")
    assert len(found.records.database) == 1
    with in_scope(found.records):
        best = Tuned().apply(tasks[0].workload[NAME], tvm.target.Target(HOST), False)
    tvm.ir.assert_structural_equal(best.mod[NAME], third.mod[NAME])
    (shipped / f"{FILES[0]}.xz").write_bytes(b"no archive")
    with pytest.raises(RecordsError, match="cannot unpack"):
        chosen(shipped, DIALECT, HOST)


def test_attributes_of_the_kernel_are_kept(tasks, tmp_path):
    records = made(tasks, tmp_path / "records", [1.0])
    func = tasks[0].workload[NAME].with_attr("global_symbol", "fused_conv2d_3")
    with in_scope(records):
        found = Tuned().apply(func, tvm.target.Target(HOST), False)
    assert found.mod[NAME].attrs["global_symbol"] == "fused_conv2d_3"


def test_without_records_the_rule_declines(tasks, tmp_path):
    func, target = tasks[0].workload[NAME], tvm.target.Target(HOST)
    assert Tuned().apply(func, target, False) is None
    with in_scope(made(tasks, tmp_path / "records", [])):
        assert Tuned().apply(func, target, False) is None


def test_the_search_space_is_a_list_of_schedules(tasks):
    space = BlockedConv2d().apply(tasks[0].workload[NAME], tvm.target.Target(HOST), True)
    assert len(space) == len(tasks[0].schedules)
    assert all(isinstance(candidate, Schedule) for candidate in space)


@pytest.mark.parametrize("name", FILES)
def test_a_line_that_a_kill_has_cut_is_dropped(tasks, tmp_path, name):
    folder = tmp_path / "records"
    made(tasks, folder, [1.0, 2.0])
    data = (folder / name).read_bytes()
    kept = 1 if name == FILES[1] else 2
    (folder / name).write_bytes(data[:-9] if kept == 1 else data + data[:99])
    found = new_records(folder, DIALECT, HOST, "made up")
    assert len(found.database) == kept
    trial = Trial("", tasks[0].workload, tasks[0].schedules[3](), tvm.target.Target(HOST))
    found.add(trial, 3.0)
    assert len(new_records(folder, DIALECT, HOST, "made up").database) == kept + 1


@pytest.mark.skipif(
    machine_of(tvm.target.Target(HOST)).lanes < 8, reason="written sums are faster with SSE"
)
def test_kernels_by_winograd_are_tuned_and_compiled_so(tmp_path):
    layer = Block("layer", (1, 32, 16, 16), 32, 3, 1, 1, "relu", (3, 2, 1))
    write_folder(layer, tmp_path / "layer")
    model, folder = model_file(tmp_path / "layer"), tmp_path / "records"
    tune_model(model, folder, Order(TARGET, 1, allow={"winograd"}), lambda *_: None)
    (kernel,) = {
        winograd_layer_of(Schedule(func)) is not None
        for record in open_records(folder).database.get_all_tuning_records()
        for func in record.workload.mod.functions.values()
    }
    assert kernel
    options = ["compile", str(model), "--target", TARGET, "--allow", "winograd", "--quiet"]
    assert main([*options, "--tuned", str(folder), "-o", str(tmp_path / "tuned")]) == 0
    assert main([*options, "-o", str(tmp_path / "plain")]) == 0
    manifest = json.loads((tmp_path / "tuned" / "manifest.json").read_text())
    (data,) = manifest["inputs"]
    x = np.random.default_rng(0).random(data["shape"], "float32")
    one, other = (
        engine().load(tmp_path / name / "lib.so", [data["name"]])(x)[0]
        for name in ("tuned", "plain")
    )
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_compile_applies_records_and_results_are_the_same(tasks, tmp_path):
    folder = tmp_path / "records"
    made(tasks, folder, [1.0, 1.0, 1.0, 0.5])
    options = ["compile", str(MNIST), "--target", TARGET, "--quiet"]
    assert main([*options, "--tuned", str(folder), "-o", str(tmp_path / "tuned")]) == 0
    assert main([*options, "-o", str(tmp_path / "plain")]) == 0
    manifest = json.loads((tmp_path / "tuned" / "manifest.json").read_text())
    assert manifest["tuned"]["command"] == "made up"
    x = np.random.default_rng(0).random(manifest["inputs"][0]["shape"], "float32")
    names = [manifest["inputs"][0]["name"]]
    one, other = (
        engine().load(tmp_path / name / "lib.so", names)(x)[0] for name in ("tuned", "plain")
    )
    np.testing.assert_array_equal(one, other)


def test_a_triple_names_the_architecture_that_is_meant_without_one():
    bare = {"kind": "llvm", "mcpu": "znver4"}
    assert processor(bare | {"mtriple": f"{HERE}-unknown-linux-gnu"}) == processor(bare)
    assert processor(bare | {"mtriple": "riscv64-linux-gnu"}) != processor(bare)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"target": {"kind": "llvm", "mcpu": "core2"}},
            f"for the processor {HERE} core2, not {HERE} {host_cpu()}",
        ),
        (
            {"target": {**HOST, "mattr": ["+x"]}},
            f"for the processor {HERE} {host_cpu()} +x, not {HERE} {host_cpu()}",
        ),
        (
            {"target": {**HOST, "mtriple": "aarch64-linux-gnu"}},
            f"for the processor aarch64 {host_cpu()}, not {HERE} {host_cpu()}",
        ),
        ({"target": {**HOST, "num-cores": 1}}, "for one core, with loops on one thread"),
        ({"tvm": "0.1"}, "for the TVM 0.1, not "),
        ({"dialect": "other"}, "for the dialect other, not "),
    ],
    ids=["cpu", "features", "architecture", "one core", "tvm", "dialect"],
)
def test_records_for_something_else_are_not_applied(tasks, tmp_path, capsys, change, says):
    folder = tmp_path / "records"
    made(tasks, folder, [1.0])
    page = json.loads((folder / PAGE).read_text())
    (folder / PAGE).write_text(json.dumps(page | change))
    options = ["--target", TARGET, "--tuned", str(folder), "-o", str(tmp_path / "out")]
    assert main(["compile", str(MNIST), "--remarks", "none", *options]) == 0
    assert f"tuned records not applied: {folder} holds those {says}" in capsys.readouterr().out
    assert main(["tune", str(MNIST), "--target", TARGET, "-o", str(folder)]) == 1
    assert f"{folder} holds records {says}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("page", "says"),
    [
        (None, f"{PAGE}: No such file or directory: make some with tvm-reorder tune"),
        ("{", "is no tuned.json of tvm-reorder tune"),
        ("[]", "is no tuned.json of tvm-reorder tune"),
        (
            '{"dialect": "relax", "tvm": "1", "target": {}, "records": "x"}',
            "is no tuned.json of tvm-reorder tune",
        ),
        ('{"dialect": "relax", "tvm": "1", "target": 3}', "expected a target's JSON object"),
    ],
)
def test_a_folder_without_records(tmp_path, page, says):
    if page is not None:
        (tmp_path / PAGE).write_text(page)
    with pytest.raises(RecordsError, match=re.escape(says)):
        chosen(tmp_path, DIALECT, HOST)


def test_a_corrupt_database(tasks, tmp_path):
    made(tasks, tmp_path / "records", [1.0])
    (tmp_path / "records" / "database_workload.json").write_text("nonsense\n")
    with pytest.raises(RecordsError, match="no MetaSchedule database"):
        chosen(tmp_path / "records", DIALECT, HOST)


@pytest.mark.parametrize("cut", ["gone", "half"])
def test_records_that_are_not_whole(tasks, tmp_path, cut):
    folder = tmp_path / "records"
    made(tasks, folder, [1.0, 2.0]).summarise([])
    file = folder / FILES[1]
    file.unlink() if cut == "gone" else file.write_bytes(file.read_bytes()[:-9])
    held = 0 if cut == "gone" else 1
    with pytest.raises(RecordsError, match=f"holds {held} records of the 2 that its {PAGE} tells"):
        chosen(folder, DIALECT, HOST)


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another place"):
        new_records(tmp_path / "file" / "records", DIALECT, HOST, "")


def test_other_files_are_not_written_over(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(RecordsError, match="holds other files"):
        new_records(tmp_path, DIALECT, HOST, "")


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--rpc-tracker", "localhost:1"], 2, "--rpc-tracker and --rpc-key go together"),
        (["--rpc-tracker", "nowhere", "--rpc-key", "k"], 2, "expected HOST:PORT"),
        (
            ["--rpc-tracker", "localhost:1", "--rpc-key", "k"],
            1,
            "tracker --host localhost --port 1 --port-end 2",
        ),
        (["--trials", "0"], 2, "--trials"),
    ],
)
def test_wrong_usage(tmp_path, capsys, options, code, says):
    folder = tmp_path / "records"
    assert main(["tune", str(MNIST), "--target", TARGET, "-o", str(folder), *options]) == code
    assert says in capsys.readouterr().err
    assert not folder.exists()


@pytest.fixture
def fleet():
    """A tracker and two servers on loopback: the address, the key and the servers."""
    processes = []

    def start(module, *args, until):
        command = [sys.executable, "-u", "-m", f"tvm.exec.{module}", *args]
        process = subprocess.Popen(
            command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True, process_group=0
        )
        processes.append(process)
        for line in process.stdout:
            if found := re.search(until, line):
                return process, found
        raise AssertionError(f"{module} has ended")

    port = ["--port", "9190", "--port-end", "9999"]
    _, found = start("rpc_tracker", "--host", "127.0.0.1", *port, until=r"bind to .*?:(\d+)")
    address = f"127.0.0.1:{found[1]}"
    where = ["--host", "127.0.0.1", "--tracker", address, "--key", "test"]
    servers = [start("rpc_server", *where, until=r"bind to")[0] for _ in range(2)]
    yield Tracker("127.0.0.1", int(found[1]), "test"), servers
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def test_a_fleet_that_loses_a_server_loses_no_trial(fleet, tmp_path):
    tracker, servers = fleet
    said = []

    def on_trial(done, _total, what):
        said.append(what)
        if done == 1:
            os.killpg(servers[0].pid, signal.SIGKILL)

    folder = tmp_path / "records"
    records = tune_model(MNIST, folder, Order(TARGET, 12, tracker=tracker), on_trial)
    said = [what for what in said if not what.endswith("again")]
    assert all(what.endswith(" ms") for what in said), said
    assert len(said) == len(records.database) == 12


@pytest.mark.parametrize("page", sorted(ROOT.glob(f"targets/*/{DIALECT}/{PAGE}")), ids=str)
def test_shipped_records_apply(page):
    config = json.loads(page.read_text())["target"]
    found = chosen(None, DIALECT, config)
    assert found.note.startswith(f"tuned records applied: shipped for {config['mcpu']}, of 20")
    records = found.records.database.get_all_tuning_records()
    assert len(records) == len(found.records.page["kernels"])
    with in_scope(found.records):
        for record in records:
            func = record.workload.mod[NAME]
            assert Tuned().apply(func, tvm.target.Target(config), False) is not None
