"""Build candidate schedules, and time them by MetaSchedule's own runners."""

from __future__ import annotations

import importlib.util
import socket
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvm_passes.errors import DeviceCompilerError, MissingExtraError, RecordsError, last_line
from tvm_passes.target import CUDA, LLVM, OPENCL

TRIES = 3
"""Times that a trial is given to a fleet: a server may die under it."""

TIMEOUT_S = 60


@dataclass(frozen=True)
class Trial:
    """A schedule to measure.

    Parameters
    ----------
    name
        The kernel's.
    workload
        The kernel.
    schedule
        The candidate.
    target
        What it is built for.
    kernel
        From a candidate for a GPU to its scheduled function; None where it is that itself.
    """

    name: str
    workload: Any
    schedule: Any
    target: Any
    kernel: Callable[[Any], Any] | None = None

    @property
    def kind(self) -> str:
        """The kind of its target."""
        return str(self.target.kind.name)


@dataclass(frozen=True)
class Built:
    """A trial that is compiled: its function, and where it lies."""

    trial: Trial
    func: Any
    path: Path


@dataclass(frozen=True)
class Fleet:
    """Where trials run: TVM's runner, and how often one is tried."""

    runner: Any
    tries: int


def local_fleet(kind: str = LLVM) -> Fleet:
    """One trial at a time, on this machine."""
    start: Callable[[], None] | None = None
    if kind == OPENCL:
        from tvm_passes.relax.opencl import register

        start = register
    runner = _meta_schedule().runner.LocalRunner(TIMEOUT_S, _evaluator(kind), initializer=start)
    return Fleet(runner, 1)


@dataclass(frozen=True)
class Tracker:
    """Address of a TVM RPC tracker, and the key of the servers to take."""

    host: str
    port: int
    key: str


def remote_fleet(tracker: Tracker, kind: str = LLVM) -> Fleet:
    """The servers of a tracker that have its key.

    Those for opencl were started with `tvm_passes.relax.opencl.register`.

    Raises
    ------
    RecordsError
        If there is no tracker, or it knows no such server.
    """
    host, port, key = tracker.host, tracker.port, tracker.key
    try:
        socket.create_connection((host, port), TIMEOUT_S).close()
    except OSError as err:
        raise RecordsError(
            f"no RPC tracker answers at {host}:{port}: start one with "
            f"python -m tvm.exec.rpc_tracker --host {host} --port {port} --port-end {port + 1}"
        ) from err
    runner = _meta_schedule().runner
    config = runner.RPCConfig(host, port, key, session_timeout_sec=TIMEOUT_S)
    count = config.count_num_servers(allow_missing=True)
    if not count:
        raise RecordsError(
            f"the tracker at {host}:{port} has no server with the key {key!r}: start one with "
            f"python -m tvm.exec.rpc_server --tracker {host}:{port} --key {key}"
        )
    return Fleet(runner.RPCRunner(config, _evaluator(kind), max_workers=count), TRIES)


def measure(trials: Sequence[Trial], fleet: Fleet) -> Iterator[tuple[Trial, float | None, str]]:
    """Build all, run them, and yield each with its median seconds, or None and an error."""
    # Not by MetaSchedule's LocalBuilder: each of its processes imports all of TVM's tensor
    # intrinsics first, which takes half a minute.
    with tempfile.TemporaryDirectory() as folder:
        built = []
        for number, trial in enumerate(trials):
            # Device code is marked as compiled in a library, which a compressed tar would hide.
            path = Path(folder) / f"{number}.{'tar' if trial.kernel is None else 'so'}"
            try:
                func = _export(trial, path)
            except (RuntimeError, ValueError, DeviceCompilerError) as err:
                yield trial, None, last_line(str(err))
            else:
                built.append(Built(trial, func, path))
        yield from _run(built, fleet)


def _run(running: Sequence[Built], fleet: Fleet) -> Iterator[tuple[Trial, float | None, str]]:
    remote = fleet.tries > 1
    waiting = list(running)
    for attempt in range(fleet.tries):
        last = attempt == fleet.tries - 1
        again = []
        groups = [waiting] if remote else [[item] for item in waiting]
        for group in groups:
            futures = fleet.runner.run([_runner_input(item) for item in group])
            for item, future in zip(group, futures, strict=True):
                found = future.result()
                if found.error_msg is None:
                    yield item.trial, statistics.median(map(float, found.run_secs)), ""
                elif last:
                    yield item.trial, None, last_line(str(found.error_msg))
                else:
                    again.append(item)
        waiting = again
        if not waiting:
            return


def _runner_input(built: Built) -> Any:
    meta_schedule = _meta_schedule()
    args = meta_schedule.arg_info.ArgInfo.from_prim_func(built.func)
    device = "cuda" if built.trial.kind == CUDA else "cpu"
    return meta_schedule.runner.RunnerInput(str(built.path), device, args)


def _evaluator(kind: str) -> Any:
    """A CPU's and a GPU's samples last 20 ms; those of PoCL are for their results alone."""
    enough = 0 if kind == OPENCL else 20
    repeat = 1 if kind == OPENCL else 7
    return _meta_schedule().runner.EvaluatorConfig(number=1, repeat=repeat, min_repeat_ms=enough)


def _export(trial: Trial, path: Path) -> Any:
    """Build a trial and pack it, for a runner to link and load; the function that is measured."""
    if trial.kernel is not None:
        from tvm_passes.relax.gpu_trials import export

        func = trial.kernel(trial.schedule)
        export(func, trial.target, path)
        return func
    from tvm_passes.namespaces import build_module, tar

    build_module(trial.schedule.mod, trial.target).export_library(str(path), fcompile=tar)
    (func,) = trial.workload.functions.values()
    return func


def _meta_schedule() -> Any:
    for module in ("cloudpickle", "psutil", "tornado"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError("tune", module, "tune")
    from tvm_passes.namespaces import meta_schedule

    return meta_schedule
