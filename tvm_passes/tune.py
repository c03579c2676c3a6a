"""``tvm-reorder tune``: measure schedules of a model's kernels, and keep the records."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, zip_longest
from pathlib import Path
from statistics import fmean
from typing import Any

from tvm_passes.compile import kernels_for
from tvm_passes.dialects import engine
from tvm_passes.errors import ModelError, RecordsError, TargetError
from tvm_passes.frontends import load_model
from tvm_passes.measure_trials import Fleet, Tracker, Trial, local_fleet, measure, remote_fleet
from tvm_passes.records import Records, new_records
from tvm_passes.rules import RELAX
from tvm_passes.target import GPUS, parse_target, require_device

RUN_OFFS = 8
"""How many candidates of a kernel are measured again, at most."""

FAILED_S = 1e10
"""MetaSchedule's seconds of a candidate that did not run."""

BATCH = 8
"""Trials that are built together; each is recorded as soon as it has run."""


@dataclass(frozen=True)
class Task:
    """A kernel to tune.

    Parameters
    ----------
    name
        Its operands' shapes.
    workload
        The kernel as records name it.
    schedules
        Each makes a candidate, the most promising first.
    kernel
        As of `tvm_passes.measure_trials.Trial`.
    """

    name: str
    workload: Any
    schedules: Sequence[Callable[[], Any]]
    kernel: Callable[[Any], Any] | None = None


OnTrial = Callable[[int, int, str], object]
"""Called with trials done, trials in all, and what was measured."""


@dataclass(frozen=True)
class Order:
    """What to tune for, and how long.

    Parameters
    ----------
    target, dialect
        As for `tvm_passes.compile.compile_model`.
    trials
        Schedules to measure, all kernels together.
    tracker
        Where to measure; on this machine without one.
    command
        What the user called, for the records.
    allow
        As for `tvm_passes.compile.compile_model`.
    """

    target: str
    trials: int
    dialect: str | None = None
    tracker: Tracker | None = None
    command: str = ""
    allow: Collection[str] = ()


def tune_model(
    model: Path, folder: Path, order: Order, on_trial: OnTrial = lambda *_: None
) -> Records:
    """Measure schedules of a model's kernels.

    Trials that `folder` holds already count, and are not measured again.

    Parameters
    ----------
    model
        A file or folder that `tvm_passes.frontends.load_model` reads.
    folder
        Where the records are, or will be.
    order
        What for, and how long.
    on_trial
        Called after each trial.

    Raises
    ------
    TvmPassesError
        If the model, the target, the folder or the tracker is not as expected.
    """
    import tvm

    tvm_engine = engine(order.dialect)
    config = parse_target(order.target)
    kind = config["kind"]
    if kind in GPUS and tvm_engine.DIALECT != RELAX:
        raise TargetError(f"kernels for {kind} are tuned from Relax: this is {tvm_engine.DIALECT}")
    if order.tracker is None:
        config = require_device(config)
    kernels_for(config)
    mod = load_model(model, tvm_engine.DIALECT)
    target = tvm.target.Target({**config, "host": "llvm"} if kind in GPUS else config)
    fleet = local_fleet(kind) if order.tracker is None else remote_fleet(order.tracker, kind)
    tasks = tasks_of(tvm_engine.unscheduled(mod, config, order.allow), target)
    if not tasks:
        raise ModelError(f"{model} has no kernel to tune: expected a convolution or a product")
    records = new_records(folder, tvm_engine.DIALECT, config, order.command)
    total = run(tasks, target, records, fleet, order.trials, on_trial)
    for task in tasks:
        run_off(task, target, records, fleet, lambda what: on_trial(total, total, what))
    gains = (records.gain(task.name, task.workload, task.schedules[0]()) for task in tasks)
    records.summarise([gain for gain in gains if gain is not None])
    return records


def operands_of(kernel: Any) -> str:
    """A kernel's name: the shapes of its operands."""
    from tvm_passes.namespaces import buffers

    shapes = ("x".join(str(int(extent)) for extent in item.shape) for item in buffers(kernel))
    return ", ".join(shapes)


def tasks_of(kernels: Sequence[Any], target: Any) -> list[Task]:
    """The kernels that have schedules to choose from, each once."""
    if str(target.kind.name) in GPUS:
        return list(_gpu_tasks(kernels, target))
    from tvm_passes.schedules.rules import schedules
    from tvm_passes.schedules.tuned import NAME, workload_of

    tasks: dict[str, Task] = {}
    for func in kernels:
        workload = workload_of(func)
        kernel = workload[NAME]
        ways = schedules(kernel, target)
        if ways:
            tasks.setdefault(workload.script(), Task(operands_of(kernel), workload, ways))
    return list(tasks.values())


def _gpu_tasks(kernels: Sequence[Any], target: Any) -> Iterator[Task]:
    from tvm_passes.relax.gpu_trials import kernel_of, layers_of, points

    for layer in layers_of(kernels):
        workload, schedules = points(layer, target)
        conv = layer.conv
        weight = (conv.filters, conv.channels // conv.groups, *conv.kernel)
        shapes = [layer.shape, weight, *(() if layer.pool is None else (layer.pool.kernel,))]
        name = ", ".join("x".join(map(str, shape)) for shape in shapes)
        yield Task(name, workload, schedules, partial(kernel_of, layer=layer))


@dataclass
class _Run:
    """The trials of one call, done and in all."""

    records: Records
    fleet: Fleet
    total: int
    on_trial: OnTrial
    done: int = 0
    failed: int = 0
    error: str = ""

    def measure(self, batch: Sequence[Trial]) -> None:
        """Measure trials, and record each as soon as it has run."""
        for trial, seconds, error in measure(batch, self.fleet):
            if seconds is None:
                self.failed, self.error = self.failed + 1, error
                self.count(f"{trial.name}: {error}")
            else:
                self.records.add(trial, seconds)
                self.count(f"{trial.name}: {seconds * 1e3:.3f} ms")

    def count(self, what: str) -> None:
        """Note that one more is done."""
        self.done += 1
        self.on_trial(self.done, self.total, what)


def run(
    tasks: Sequence[Task],
    target: Any,
    records: Records,
    fleet: Fleet,
    trials: int,
    on_trial: OnTrial,
) -> int:
    """Measure the first `trials` schedules: the best guess for each kernel, then the second, ...

    Returns
    -------
    int
        How many there are, those of an earlier run included.

    Raises
    ------
    RecordsError
        If none of those to measure has run.
    """
    total = min(trials, sum(len(task.schedules) for task in tasks))
    this = _Run(records, fleet, total, on_trial)
    before = {id(task): records.measured(task.workload) for task in tasks}
    batch: list[Trial] = []
    measured = 0
    for task, make in islice(_in_turn(tasks), total):
        candidate = make()
        if str(candidate.trace) in before[id(task)]:
            this.count(f"{task.name}: measured before")
            continue
        batch.append(Trial(task.name, task.workload, candidate, target, task.kernel))
        measured += 1
        if len(batch) == BATCH:
            this.measure(batch)
            batch = []
    this.measure(batch)
    if measured and this.failed == measured:
        raise RecordsError(f"none of {measured} trials has run; the last error: {this.error}")
    return total


def run_off(
    task: Task,
    target: Any,
    records: Records,
    fleet: Fleet,
    say: Callable[[str], object] = lambda _: None,
) -> None:
    """Measure the fastest candidate again beside the first, in turn, until the fastest has been.

    Of many candidates, that which seems to be the fastest has also been lucky.
    """
    first = str(task.schedules[0]().trace)
    for _ in range(RUN_OFFS):
        samples = records.samples(task.workload)
        known = _made(task, samples)
        found = {trace: fmean(samples[trace]) for trace in known}
        best = min(found, key=lambda trace: found[trace], default=first)
        if first not in found or best == first or len(samples[best]) > 1:
            return
        again = {trace: _again(samples[trace]) for trace in (first, best)}
        trials = [
            Trial(task.name, task.workload, known[trace], target, task.kernel)
            for trace in (first, best, best, first, first, best)  # each by each of two servers
        ]
        for trial, seconds, error in measure(trials, fleet):
            trace = str(trial.schedule.trace)
            again[trace] += [] if seconds is None else [seconds]
            say(f"{task.name}: {error if seconds is None else f'{seconds * 1e3:.3f} ms'}, again")
        if not again[best]:  # it does not run any more
            again[best] = [FAILED_S] * 2
        records.correct(task.workload, {trace: times for trace, times in again.items() if times})


def _made(task: Task, traces: Collection[str]) -> dict[str, Any]:
    """The candidates of those traces, no more than it takes to find them."""
    found: dict[str, Any] = {}
    for make in task.schedules:
        if len(found) == len(traces):
            break
        candidate = make()
        if str(candidate.trace) in traces:
            found[str(candidate.trace)] = candidate
    return found


def _again(times: Sequence[float]) -> list[float]:
    """What a candidate that is measured again has: its samples, but a first one alone."""
    return list(times) if len(times) > 1 else []


def _in_turn(tasks: Sequence[Task]) -> Iterator[tuple[Task, Callable[[], Any]]]:
    for turn in zip_longest(*(task.schedules for task in tasks)):
        yield from ((task, make) for task, make in zip(tasks, turn, strict=True) if make)
