"""Test and time the GPU kernels on the GPU of this machine: one run, one JSON, in ten minutes.

    .venv/relax/bin/python scripts/bench_gpu.py --output gpu.json [--minutes 9.5]

First ``pytest -m gpu``, on several cores where pytest-xdist is there, then `tvm-reorder verify`,
then `tvm-reorder bench` of the MNIST network, blocks and whole networks, as many as there is time
for: all versions, by the device's own clock, beside cuDNN and Inductor through PyTorch, where
--peers-python names an environment that has it (and, for networks, onnx2torch).  The output is
written after every step, so that a run cut short loses nothing.  Without a GPU, --target opencl
goes the same way on the CPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tvm_passes.bench.bench import Bench, Request
from tvm_passes.bench.networks import NETWORKS, write_network
from tvm_passes.bench.runtimes import GPU_PEERS
from tvm_passes.bench.versions import DEFAULT_VERSIONS
from tvm_passes.cli_bench import ALL_VERSIONS, shipped_blocks
from tvm_passes.describe import DEVICE_MATH, WINOGRAD
from tvm_passes.errors import TvmPassesError
from tvm_passes.target import CUDA, parse_target, require_device

ROOT = Path(__file__).parent.parent
MNIST = ROOT / "tests" / "data" / "mnist.tflite"
SOURCES = (
    "mnist1", "resnet1", "vgg1_2", "sigmoid1", "tinyyolo1", "alexnet1", "vgg3_3", "vgg5_3",
    "squeezenet", "resnet50", "tiny_yolo", "vgg16",
)  # fmt: skip
TEST_SHARE, VERIFY_SHARE = 0.35, 0.15
"""Of the time, at most, for the tests, and for the comparison."""


@dataclass
class Session:
    """What was found so far, and until when there is time."""

    output: Path
    end: float
    document: dict[str, Any] = field(default_factory=dict)

    def left(self) -> float:
        """Seconds that are left."""
        return self.end - time.monotonic()

    def keep(self, key: str, value: Any) -> None:
        """Write a result down."""
        self.document[key] = value
        self.output.write_text(json.dumps(self.document, indent=1) + "\n")
        print(f"{key}: {json.dumps(value)[:200]}", flush=True)


def driver() -> str:
    """The GPU, its driver and clocks, as nvidia-smi tells."""
    query = "--query-gpu=name,driver_version,clocks.max.sm,power.limit"
    try:
        command = ["nvidia-smi", query, "--format=csv,noheader"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    except OSError as err:
        return str(err)
    return done.stdout.strip() or done.stderr.strip()


def run_tests(seconds: float) -> dict[str, Any]:
    """``pytest -m gpu``: its exit code and the end of what it prints."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/cuda"]
    command += ["-p", "xdist", "-n", "8"] if importlib.util.find_spec("xdist") else []
    alone = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # of others' plugins
    try:
        done = subprocess.run(  # noqa: S603
            command,
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=alone,
        )
    except subprocess.TimeoutExpired as err:
        return {"exit": None, "tail": str(err.output or "")[-2000:]}
    return {"exit": done.returncode, "tail": (done.stdout + done.stderr)[-2000:]}


def verify(target: str, seconds: float) -> dict[str, Any]:
    """Both orders of the MNIST network, and the CPU, compared, by a process that may die of it."""
    command = [sys.executable, "-m", "tvm_passes.cli", "verify", str(MNIST), "--json", "-q"]
    command += ["--target", target, "--rounds", "1"]
    try:
        done = subprocess.run(  # noqa: S603
            command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired as err:
        return {"failed": ["out of time"], "tail": str(err.stderr or "")[-2000:]}
    try:
        checks = json.loads(done.stdout)["checks"]
    except (json.JSONDecodeError, KeyError):
        return {"failed": [f"exit code {done.returncode}"], "tail": done.stderr[-2000:]}
    return {
        "failed": [check["name"] for check in checks] if done.returncode else [],
        "checks": {check["name"]: [check["values"], check["equal"]] for check in checks},
    }


def model_files(names: Sequence[str], folder: Path) -> Iterator[str]:
    """The names, networks written down as models."""
    for name in names:
        if name not in NETWORKS:
            yield name
            continue
        path = folder / f"{name}.onnx"
        write_network(name, path)
        yield str(path)


def bench(session: Session, request: Request) -> None:
    """Time each source; one that takes as long as the longest so far has to fit."""
    found, start, longest = Bench(request), time.monotonic(), 0.0
    for entry in found.entries():
        session.keep(entry["block"], {k: v for k, v in entry.items() if k != "ir"})
        session.keep("environment", found.environment)
        longest = max(longest, time.monotonic() - start)
        start = time.monotonic()
        if session.left() < 1.5 * longest:
            return


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise `TimeoutError` when time is up, whatever hangs."""

    def late(_number: int, _frame: object) -> None:
        raise TimeoutError("out of time")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--target", default=CUDA)
    parser.add_argument(
        "--sources", default=",".join(SOURCES), help="blocks of blocks.json, networks, models"
    )
    parser.add_argument(
        "--versions",
        default=",".join((*DEFAULT_VERSIONS, WINOGRAD)),
        help="as for tvm-reorder bench",
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peers-python", type=Path, default=Path(".venv/peers/bin/python"))
    return parser.parse_args()


def request(options: argparse.Namespace, config: dict[str, Any], folder: Path) -> Request:
    """What to time on a device."""
    return Request(
        sources=[str(MNIST), *model_files(list(filter(None, options.sources.split(","))), folder)],
        blocks=shipped_blocks(),
        python=Path(sys.executable),
        peers_python=options.peers_python.absolute(),
        target=config,
        versions=options.versions.split(","),
        peers=GPU_PEERS if config["kind"] == CUDA else (),
        rounds=options.rounds,
        figures=False,
        allow=(DEVICE_MATH,),
    )


def main() -> int:
    """Run it all; the exit code is 1 if a test or a comparison fails, 2 without the device."""
    options = arguments()
    for name in options.versions.split(","):
        if name not in ALL_VERSIONS:
            known = ", ".join(ALL_VERSIONS)
            print(f"bench_gpu: no version {name!r}: expected of {known}", file=sys.stderr)
            return 2
    seconds = 60 * options.minutes
    session = Session(options.output, time.monotonic() + seconds)
    try:
        config = require_device(parse_target(options.target))
    except TvmPassesError as err:
        print(f"bench_gpu: {err}", file=sys.stderr)
        return 2
    session.keep("target", config)
    if config["kind"] == CUDA:
        session.keep("driver", driver())
        session.keep("tests", run_tests(TEST_SHARE * seconds))
    try:
        with at_most(session.left()), tempfile.TemporaryDirectory() as folder:
            session.keep("verify", verify(json.dumps(config), VERIFY_SHARE * seconds))
            bench(session, request(options, config, Path(folder)))
    except (TimeoutError, TvmPassesError) as err:
        session.keep("stopped", str(err))
    return 0 if passed(session.document) else 1


def passed(document: dict[str, Any]) -> bool:
    """Whether all ran, no test or comparison failed, and no outputs differed."""
    results = [value for value in document.values() if isinstance(value, dict)]
    return (
        "stopped" not in document
        and document.get("tests", {"exit": 0})["exit"] == 0
        and document.get("verify", {"failed": ["not run"]})["failed"] == []
        and not any(result.get("differing") for result in results)
    )


if __name__ == "__main__":
    sys.exit(main())
