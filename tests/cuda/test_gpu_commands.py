"""``verify`` and ``bench`` of GPU kernels, whose code takes the way of a GPU, on PoCL."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import tvm

from tvm_passes.bench.block import read_blocks
from tvm_passes.bench.files import write_folder
from tvm_passes.bench.runtimes import Runtime
from tvm_passes.bench.session import Session, Settings
from tvm_passes.cli import main
from tvm_passes.cli_bench import shipped_blocks
from tvm_passes.errors import TvmPassesError
from tvm_passes.relax import opencl
from tvm_passes.target import parse_target, require_device

ROOT = Path(__file__).parents[2]
MNIST = str(ROOT / "tests" / "data" / "mnist.tflite")
VERSIONS = ["original", "fused"]


def test_one_go_without_a_gpu(tmp_path):
    """What a borrowed GPU is for, rehearsed: verify, then bench, all of it in one file."""
    output = tmp_path / "out.json"
    script = [str(ROOT / "scripts" / "bench_gpu.py"), "--output", str(output), "--sources", ""]
    command = [sys.executable, *script, "--target", "opencl", "--rounds", "1"]
    command += ["--versions", ",".join(VERSIONS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    document = json.loads(output.read_text())
    checks = document["verify"]["checks"]
    assert set(checks) > {"output 0", "output 0, CPU"}
    assert all(values == equal for name, (values, equal) in checks.items() if "CPU" not in name)
    entry = document["mnist.tflite"]
    assert entry["versions"] == VERSIONS
    assert entry["differing"] == []
    assert entry["target"]["kind"] == "opencl"
    assert "stopped" not in document


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["bench", MNIST, "--target", "opencl", "--peers", "openvino"], "openvino runs on the CPU"),
        (["compile", MNIST, "--target", "opencl", "-o", "out"], "for verify, bench and tune"),
    ],
)
def test_refusals_are_one_line(capsys, argv, says):
    assert main(argv) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


def test_without_an_opencl_device_the_line_says_what_to_install(monkeypatch):
    import pyopencl

    monkeypatch.setattr(pyopencl, "get_platforms", list)
    opencl.device.cache_clear()
    with pytest.raises(TvmPassesError, match="pip install"):
        require_device(parse_target("opencl"))


class Gpu:
    """What TVM says of a GPU."""

    exist = True
    compute_version = "8.6"


def test_the_arch_is_that_of_the_gpu_unless_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(tvm, "cuda", Gpu)
    assert require_device(parse_target("cuda"))["arch"] == "sm_86"
    assert require_device(parse_target("sm_75"))["arch"] == "sm_75"
    with pytest.raises(TvmPassesError, match="sm_90 is later than this machine's GPU: give sm_86"):
        require_device(parse_target("sm_90"))


def test_a_difference_to_the_cpu_is_found(capsys, monkeypatch):
    """Kernels that miss by a thousandth are not put down to rounding."""
    run = opencl.run_program

    def off(program, arrays):
        run(program, arrays)
        if arrays[-1].size == 10 and len(arrays) == 2:  # the softmax
            arrays[-1] *= 1.001

    monkeypatch.setattr(opencl, "run_program", off)
    assert main(["verify", MNIST, "--target", "opencl", "--rounds", "1", "--json", "-q"]) == 1
    found = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    kinds = [difference["kind"] for difference in found["output 0, CPU"]["differences"]]
    assert "different" in kinds
    assert found["output 0"]["differences"] == []


ROWS = [
    {"Kernel Name": "b_kernel(float *)", "smsp__inst_executed.sum": "1,024"},
    {"Kernel Name": "a_kernel", "smsp__inst_executed.sum": "n/a"},
]


def test_counters_are_put_beside_what_was_stated(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    counters = importlib.import_module("gpu_counters")
    stated = {"one": [{"name": "b_kernel"}], "two": [{"name": "a_kernel"}]}
    (one,), (two,) = counters.matched(stated, ROWS).values()
    assert (one["stated"]["name"], one["counted"]["all"]) == ("b_kernel", 1024)
    assert two["counted"]["all"] is None
    with pytest.raises(TvmPassesError, match="more kernels"):
        counters.matched({"one": stated["one"]}, ROWS)
    with pytest.raises(TvmPassesError, match="one: expected the kernels a_kernel"):
        counters.matched({"one": stated["two"]}, ROWS)


def test_environments_compile_beside_each_other_and_stop_at_once(tmp_path):
    """What fails in one lane is reported; what is interrupted compiles nothing more."""
    (block,) = read_blocks(shipped_blocks(), ["mnist1"])
    write_folder(block, tmp_path / "mnist1")
    runtimes = [Runtime("relax", "relax", ("original", "fused")), Runtime("torch", "peers")]
    pythons = dict.fromkeys(("relax", "peers"), Path(sys.executable))
    target = parse_target("opencl")
    settings = Settings(1, 1, 0.001, reference="relax", target=target)
    with Session(runtimes, pythons, settings, tmp_path) as session:
        measured = session.measure(tmp_path / "mnist1")
        assert list(measured.samples["relax"]) == ["original", "fused"]
        assert "torch" in measured.failed
        session.stop()
        stopped = session.measure(tmp_path / "mnist1")
        assert {*stopped.failed["relax"].values()} == {"interrupted"}


def test_the_exit_code_of_one_go(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    passed = importlib.import_module("bench_gpu").passed
    found = {"driver": "a GPU, 1.0", "tests": {"exit": 0}, "verify": {"failed": []}}
    assert passed(found | {"mnist1": {"differing": []}})
    assert not passed(found | {"mnist1": {"differing": [["torch", "original"]]}})
    assert not passed(found | {"stopped": "out of time"})
    assert not passed(found | {"tests": {"exit": None}})
    assert not passed(found | {"verify": {"failed": ["output 0"]}})
