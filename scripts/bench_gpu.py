"""Test and time the GPU kernels on the GPU of this machine: one run, one JSON, in ten minutes.

    .venv/relax/bin/python scripts/bench_gpu.py --output gpu.json [--minutes 9.5]

First ``pytest -m gpu``, then each block of scripts/static_table.py in the four versions of
``bench --static``, by the device's own clock; peers are cuDNN and Inductor through PyTorch, where
that is installed.  The output is written after every step, so that a run cut short loses nothing.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import tvm
from static_table import ACTIVATIONS, BLOCKS, Block

from tvm_passes.cuda.compiler import kernel_compiler
from tvm_passes.relax import engine

ROOT = Path(__file__).parent.parent
VERSIONS = {
    "original": {"reorder": False, "kernels": False},
    "reordered": {"reorder": True, "kernels": False},
    "scheduled": {"reorder": False, "kernels": True},
    "fused": {"reorder": True, "kernels": True},
}
NUMBER, REPEAT = 20, 15
TEST_SHARE = 0.5
"""Of the time, at most, for the tests."""


@dataclass
class Session:
    """What was measured so far, and until when there is time."""

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
        print(f"{key}: {json.dumps(value)[:160]}", flush=True)


def environment(arch: str) -> dict[str, Any]:
    """The machine and its software."""
    query = "--query-gpu=name,driver_version,clocks.max.sm,power.limit"
    try:
        command = ["nvidia-smi", query, "--format=csv,noheader"]
        gpu = subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()  # noqa: S603
    except OSError as err:
        gpu = str(err)
    return {
        "gpu": gpu,
        "device": str(tvm.cuda().device_name),
        "arch": arch,
        "python": platform.python_version(),
        "tvm": tvm.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


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


def time_tvm(mod: Any, arch: str, data: np.ndarray, version: str, folder: Path) -> dict[str, Any]:
    """One version of a block: seconds by the device's clock, and its output."""
    built = engine.build(
        mod,
        {"kind": "cuda", "arch": arch},
        compile_kernels=kernel_compiler(arch),
        **VERSIONS[version],
    )
    library = folder / f"{version}.so"
    engine.export(built, library)
    runner = engine.load(library, (), gpu=True)
    (output,) = runner(data)
    samples = runner.events(data, number=NUMBER, repeat=REPEAT)
    return {"median": median(samples), "samples": samples, "output": output}


def time_torch(block: Block, activation: str, data: np.ndarray) -> Iterator[tuple[str, Any]]:
    """The same block in PyTorch: cuDNN, and Inductor; by CUDA's events."""
    import torch

    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    size, step, padding = block.pool
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(
            block.channels, block.filters, block.kernel, block.stride, block.kernel // 2
        ),
        {"relu": torch.nn.ReLU(), "sigmoid": torch.nn.Sigmoid()}[activation],
        torch.nn.MaxPool2d(size, step, padding),
    ).cuda()
    x = torch.from_numpy(data).cuda()
    with torch.inference_mode():
        for name, model in (("cudnn", layers), ("inductor", torch.compile(layers))):
            samples = events(lambda model=model: model(x))
            yield name, {"median": median(samples), "samples": samples}


def events(run: Callable[[], object]) -> list[float]:
    """Seconds a call, by CUDA's events."""
    import torch

    for _ in range(NUMBER):
        run()
    samples = []
    for _ in range(REPEAT):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(NUMBER):
            run()
        stop.record()
        torch.cuda.synchronize()
        samples.append(start.elapsed_time(stop) / 1e3 / NUMBER)
    return samples


def measure(session: Session, arch: str, name: str, activation: str) -> None:
    """All versions of one block, and its peers."""
    block = BLOCKS[name]
    mod = block.module(ACTIVATIONS[activation])
    shape = (1, block.channels, block.extent, block.extent)
    data = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    found: dict[str, Any] = {}
    outputs: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        for version in VERSIONS:
            found[version] = time_tvm(mod, arch, data, version, Path(folder))
            outputs[version] = found[version].pop("output")
    pairs = (("original", "reordered"), ("scheduled", "fused"))
    found["bitwise"] = {
        f"{first}, {second}": bool(np.array_equal(outputs[first], outputs[second]))
        for first, second in pairs
    }
    difference = np.abs(outputs["original"] - outputs["fused"]).max()
    found["largest difference of original and fused"] = float(difference)
    session.keep(f"{name}, {activation}", found)
    try:
        found.update(time_torch(block, activation, data))
    except (ImportError, RuntimeError, AssertionError) as err:
        found["peers"] = f"not measured: {type(err).__name__}: {str(err)[:200]}"
    session.keep(f"{name}, {activation}", found)


def main() -> int:
    """Run it all; the exit code is 1 if a test fails, 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9.5)
    options = parser.parse_args()
    if not tvm.cuda().exist:
        print("bench_gpu: this machine has no CUDA GPU that TVM sees", file=sys.stderr)
        return 2
    seconds = 60 * options.minutes
    session = Session(options.output, time.monotonic() + seconds)
    arch = f"sm_{tvm.cuda().compute_version.replace('.', '')}"
    session.keep("environment", environment(arch))
    session.keep("tests", run_tests(TEST_SHARE * seconds))
    slowest = 0.0
    for name in BLOCKS:
        for activation in ACTIVATIONS:
            if session.left() < 1.5 * slowest:
                session.keep(f"{name}, {activation}", "not measured: out of time")
                continue
            start = time.monotonic()
            measure(session, arch, name, activation)
            slowest = max(slowest, time.monotonic() - start)
    return 0 if session.document["tests"]["exit"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
