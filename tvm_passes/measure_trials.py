"""Build candidate schedules, and time them by MetaSchedule's own runners."""

from __future__ import annotations

import importlib.util
import socket
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvm_passes.errors import MissingExtraError, RecordsError, last_line

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
    """

    name: str
    workload: Any
    schedule: Any
    target: Any


@dataclass(frozen=True)
class Fleet:
    """Where trials run: TVM's runner, and how often one is tried."""

    runner: Any
    tries: int


def local_fleet() -> Fleet:
    """One trial at a time, on this machine."""
    return Fleet(_meta_schedule().runner.LocalRunner(TIMEOUT_S, _evaluator()), 1)


@dataclass(frozen=True)
class Tracker:
    """Address of a TVM RPC tracker, and the key of the servers to take."""

    host: str
    port: int
    key: str


def remote_fleet(tracker: Tracker) -> Fleet:
    """The servers of a tracker that have its key.

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
            f"python -m tvm.exec.rpc_tracker --host {host} --port {port}"
        ) from err
    runner = _meta_schedule().runner
    config = runner.RPCConfig(host, port, key, session_timeout_sec=TIMEOUT_S)
    count = config.count_num_servers(allow_missing=True)
    if not count:
        raise RecordsError(
            f"the tracker at {host}:{port} has no server with the key {key!r}: start one with "
            f"python -m tvm.exec.rpc_server --tracker {host}:{port} --key {key}"
        )
    return Fleet(runner.RPCRunner(config, _evaluator(), max_workers=count), TRIES)


def measure(trials: Sequence[Trial], fleet: Fleet) -> Iterator[tuple[Trial, float | None, str]]:
    """Build all, run them, and yield each with its median seconds, or None and an error."""
    # Not by MetaSchedule's LocalBuilder: each of its processes imports all of TVM's tensor
    # intrinsics first, which takes half a minute.
    with tempfile.TemporaryDirectory() as folder:
        built = []
        for number, trial in enumerate(trials):
            path = str(Path(folder) / f"{number}.tar")
            try:
                _export_tar(trial.schedule.mod, trial.target, path)
            except (RuntimeError, ValueError) as err:
                yield trial, None, last_line(str(err))
            else:
                built.append((trial, path))
        yield from _run(built, fleet)


def _run(
    running: Sequence[tuple[Trial, str]], fleet: Fleet
) -> Iterator[tuple[Trial, float | None, str]]:
    remote = fleet.tries > 1
    waiting = list(running)
    for attempt in range(fleet.tries):
        last = attempt == fleet.tries - 1
        again = []
        groups = [waiting] if remote else [[item] for item in waiting]
        for group in groups:
            futures = fleet.runner.run([_runner_input(*item) for item in group])
            for item, future in zip(group, futures, strict=True):
                found = future.result()
                if found.error_msg is None:
                    yield item[0], statistics.median(map(float, found.run_secs)), ""
                elif last:
                    yield item[0], None, last_line(str(found.error_msg))
                else:
                    again.append(item)
        waiting = again
        if not waiting:
            return


def _runner_input(trial: Trial, path: str) -> Any:
    meta_schedule = _meta_schedule()
    (func,) = trial.workload.functions.values()
    args = meta_schedule.arg_info.ArgInfo.from_prim_func(func)
    return meta_schedule.runner.RunnerInput(path, "cpu", args)


def _evaluator() -> Any:
    return _meta_schedule().runner.EvaluatorConfig(number=1, repeat=7, min_repeat_ms=20)


def _export_tar(mod: Any, target: Any, path: str) -> None:
    """Build a module and pack it, for a runner to link and load."""
    from tvm_passes.namespaces import build_module, tar

    build_module(mod, target).export_library(path, fcompile=tar)


def _meta_schedule() -> Any:
    for module in ("cloudpickle", "psutil", "tornado"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError("tune", module, "tune")
    from tvm_passes.namespaces import meta_schedule

    return meta_schedule
