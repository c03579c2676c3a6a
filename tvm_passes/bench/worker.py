"""A worker process: one runtime, one number of threads, driven by JSON lines on its pipes.

A request and its reply are one line each.  ``prepare`` compiles a variant of what lies in a folder,
``run`` writes its output, ``time`` calls it.  What the runtime itself prints goes to stderr.

    python -m tvm_passes.bench.worker onnxruntime 2
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

from tvm_passes.errors import TvmPassesError, last_line

BACKENDS = {
    "compiled": "run_compiled",
    "relax": "run_relax",
    "relay": "run_relay",
    "onnxruntime": "run_onnxruntime",
    "openvino": "run_openvino",
    "torch": "run_torch",
    "inductor": "run_torch",
    "tensorflow": "run_tensorflow",
    "xla": "run_tensorflow",
    "tvm": "run_relax",
    "tvm_metaschedule": "run_relax",
    "tvm_passes": "run_relax",
    "tvm_passes_untuned": "run_relax",
    "tvm_passes_winograd": "run_relax",
    "tvm_relay": "run_relay",
    "tvm_passes_relay": "run_relay",
}
"""The module of this package that drives a runtime."""


class Prepared(Protocol):
    """A compiled variant with its input bound."""

    def run(self) -> object:
        """Compute the output, and wait until it is there."""

    def outputs(self) -> list[np.ndarray]:
        """The outputs of the last run, in NumPy's arrays; of blocks one, ``[n, c, h, w]``."""


class Timed(Prepared, Protocol):
    """What is not timed by this process's clock, but by its device's."""

    def measure(self, seconds: float) -> Mapping[str, Any]:
        """As `measure`, of its own runs."""


class Described(Prepared, Protocol):
    """What TVM compiled, whose kernels can be looked at."""

    def describe(self) -> Mapping[str, Any]:
        """Kernels and their figures, see `tvm_passes.bench.figures`."""

    def profile(self, rounds: int) -> list[dict[str, Any]]:
        """Name and samples, in seconds, of each kernel in the order of execution."""


class Backend(Protocol):
    """One runtime in this process."""

    versions: Mapping[str, str]

    def prepare(self, folder: Path, variant: str, options: Mapping[str, Any]) -> Prepared:
        """Compile a variant of the block or model in a folder, see `tvm_passes.bench.session`."""


class Measurable(Backend, Protocol):
    """TVM, which can measure the machine, too."""

    def peaks(self) -> Mapping[str, float]:
        """See `tvm_passes.bench.peaks.peaks`."""


class Worker:
    """What is prepared, and the answers to requests."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.prepared: dict[str, Any] = {}

    def answer(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Carry out one request."""
        match request["do"]:
            case "versions":
                return {"versions": dict(self.backend.versions)}
            case "peaks":
                return self.backend.peaks()
            case "memory":
                return memory()
            case "clear":
                self.prepared.clear()
                return {}
            case "prepare":
                folder, options = Path(request["folder"]), request["options"]
                prepared = self.backend.prepare(folder, request["variant"], options)
                self.prepared[request["variant"]] = prepared
                return {}
        return self._ask(self.prepared[request["variant"]], request)

    def _ask(self, prepared: Any, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Carry out a request about one variant."""
        match request["do"]:
            case "run":
                prepared.run()
                np.savez(request["output"], *prepared.outputs())
                return {}
            case "describe":
                return dict(prepared.describe())
            case "profile":
                return {"times": prepared.profile(request["rounds"])}
        own = getattr(prepared, "measure", None)
        return own(request["seconds"]) if own else measure(prepared.run, request["seconds"])


def measure(run: Callable[[], object], seconds: float) -> dict[str, Any]:
    """Call for about a time; seconds and CPU seconds of a call, the mean of those calls.

    A call before the first, and as many as fit a quarter of the time, warm up caches and threads.

    Returns
    -------
    dict
        ``seconds`` a call, ``cpu`` seconds of all threads a call, ``calls``.
    """
    run()
    start = time.perf_counter()
    run()
    once = max(time.perf_counter() - start, 1e-9)
    calls = max(1, round(seconds / once))
    for _ in range(calls // 4):
        run()
    cpu, start = time.process_time(), time.perf_counter()
    for _ in range(calls):
        run()
    stop, cpu_stop = time.perf_counter(), time.process_time()
    return {"seconds": (stop - start) / calls, "cpu": (cpu_stop - cpu) / calls, "calls": calls}


def memory() -> dict[str, int]:
    """Bytes of this process that are in memory, and the most since the last call (Linux)."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    found = {words[0]: int(words[1]) for words in lines if words[-1] == "kB"}
    Path("/proc/self/clear_refs").write_text("5")
    return {"resident": found["VmRSS:"] * 1024, "peak": found["VmHWM:"] * 1024}


def serve(backend: Backend, requests: TextIO, replies: TextIO) -> None:
    """Answer requests until there are no more; what fails is a reply, too."""
    worker = Worker(backend)
    for line in requests:
        try:
            reply = worker.answer(json.loads(line))
        except Exception as err:  # noqa: BLE001 - others' runtimes fail in any way: it is reported
            traceback.print_exc()
            kind = "" if isinstance(err, TvmPassesError) else f"{type(err).__name__}: "
            reply = {"error": f"{kind}{last_line(str(err))}"}
        print(json.dumps(reply), file=replies, flush=True)


def main(runtime: str, threads: int) -> None:
    """Serve a runtime on the pipes that this process was started with."""
    die_with_parent()
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module = importlib.import_module(f"tvm_passes.bench.{BACKENDS[runtime]}")
    serve(module.start(runtime, threads), sys.stdin, replies)


def die_with_parent() -> None:
    """Let Linux kill this process, stopped or not, when its parent dies."""
    import ctypes

    pr_set_pdeathsig, sigkill = 1, 9
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, sigkill)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
