"""Test and time the GPU kernels on the GPU of this machine: one run, one JSON, in ten minutes.

    .venv/relax/bin/python scripts/bench_gpu.py --output gpu.json [--minutes 9.5]

First ``pytest -m gpu``, then `tvm-reorder verify`, then `tvm-reorder bench` of the MNIST network
and of blocks, as many as there is time for: all versions, by the device's own clock, beside cuDNN
and Inductor through PyTorch, where --peers-python names an environment that has it.  The output is
written after every step, so that a run cut short loses nothing.  Without a GPU, --target opencl
goes the same way on the CPU.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tvm_passes.bench.bench import Bench, Request
from tvm_passes.bench.runtimes import GPU_PEERS
from tvm_passes.cli_bench import shipped_blocks
from tvm_passes.errors import TvmPassesError
from tvm_passes.target import CUDA, parse_target, require_device

ROOT = Path(__file__).parent.parent
MNIST = ROOT / "tests" / "data" / "mnist.tflite"
BLOCKS = ("mnist1", "resnet1", "vgg1_2", "sigmoid1", "tinyyolo1", "alexnet1", "vgg3_3", "vgg5_3")
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
    try:
        done = subprocess.run(  # noqa: S603
            command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=seconds
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


def bench(session: Session, request: Request) -> None:
    """Time each source; one that takes as long as the longest so far has to fit."""
    found, start, longest = Bench(request), time.monotonic(), 0.0
    for entry in found.entries():
        session.keep(entry["block"], entry)
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
    parser.add_argument("--blocks", default=",".join(BLOCKS), help="of scripts/blocks.json")
    parser.add_argument("--versions", default="", help="as for tvm-reorder bench")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peers-python", type=Path, default=Path(".venv/peers/bin/python"))
    return parser.parse_args()


def main() -> int:
    """Run it all; the exit code is 1 if a test or a comparison fails, 2 without the device."""
    options = arguments()
    seconds = 60 * options.minutes
    session = Session(options.output, time.monotonic() + seconds)
    try:
        config = require_device(parse_target(options.target))
    except TvmPassesError as err:
        print(f"bench_gpu: {err}", file=sys.stderr)
        return 2
    session.keep("target", config)
    on_gpu = config["kind"] == CUDA
    if on_gpu:
        session.keep("driver", driver())
        session.keep("tests", run_tests(TEST_SHARE * seconds))
    request = Request(
        sources=[str(MNIST), *filter(None, options.blocks.split(","))],
        blocks=shipped_blocks(),
        python=Path(sys.executable),
        peers_python=options.peers_python.absolute(),
        target=config,
        versions=[*filter(None, options.versions.split(","))],
        peers=GPU_PEERS if on_gpu else (),
        rounds=options.rounds,
        figures=False,
    )
    try:
        with at_most(session.left()):
            session.keep("verify", verify(json.dumps(config), VERIFY_SHARE * seconds))
            bench(session, request)
    except (TimeoutError, TvmPassesError) as err:
        session.keep("stopped", str(err))
    tests = session.document.get("tests", {"exit": 0})
    failed = session.document.get("verify", {"failed": ["not run"]})["failed"]
    return 0 if tests["exit"] == 0 and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
