"""Measure blocks in several runtimes, interleaved, each in a process that is stopped meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tvm_passes.bench.others import Others
from tvm_passes.bench.process import Process, WorkerError, worker_command
from tvm_passes.bench.runtimes import Runtime
from tvm_passes.bench.statistics import Samples
from tvm_passes.target import GPUS

REFERENCE = "onnxruntime"
"""Whose output blocks are compared with."""

TOLERANCE = 1e-4
"""Of the largest output.  Sums of up to c_in * k^2 = 4,608 products, taken in another order or by
Winograd's transform, differ by 1e-5 of it at most on the blocks of scripts/blocks.json."""

Look = Callable[[Callable[..., dict[str, Any]], str, int], None]
"""Asks a worker about a variant, with the number of rounds."""

SURE = 3
"""Rounds after which a variant may be found hopeless."""

PREPARE_SECONDS = 900.0
SECONDS_A_TRIAL = 30.0


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Parameters
    ----------
    threads
        Of every runtime.
    rounds
        Samples of each variant.
    seconds
        How long a sample lasts, at least one call.
    trials
        Of TVM's own MetaSchedule; 0 leaves it out, and says so.
    hopeless
        A variant this many times slower than the fastest after `SURE` rounds is measured no more.
    reference
        The runtime whose first output the others are compared with; where it has none, the first
        that has.
    target
        What TVM compiles for; None for this machine's CPU.
    tuned
        A folder of tuned records of ours; None for those that ship.
    allow
        As for `ReorderActivationAfterMaxPool`.
    """

    threads: int
    rounds: int = 15
    seconds: float = 0.03
    trials: int = 0
    hopeless: float = 4.0
    reference: str = REFERENCE
    target: Mapping[str, Any] | None = None
    tuned: Path | None = None
    allow: Collection[str] = ()


@dataclass
class Measured:
    """What was measured of one block.

    Parameters
    ----------
    samples
        By runtime and variant.
    differences
        Largest absolute difference to the reference's output, by runtime and variant.
    bitwise
        Runtimes and variants whose output has the bits of the reference's.
    differing
        Runtimes and variants whose difference is above the tolerance.
    failed
        Reasons by runtime and variant; the variant is empty where the runtime did not start.
    reference
        The runtime that the outputs were compared with.
    others
        Cores that other processes used during the rounds, on average.
    stopped
        What interrupted the rounds; to be raised again once the samples are kept.
    """

    samples: dict[str, dict[str, Samples]] = field(default_factory=dict)
    differences: dict[str, dict[str, float]] = field(default_factory=dict)
    bitwise: list[tuple[str, str]] = field(default_factory=list)
    differing: list[tuple[str, str]] = field(default_factory=list)
    failed: dict[str, dict[str, str]] = field(default_factory=dict)
    reference: str | None = None
    others: float | None = None
    stopped: BaseException | None = None

    def fail(self, runtime: str, variant: str, err: WorkerError) -> None:
        """Keep why a variant has no result."""
        self.failed.setdefault(runtime, {})[variant] = str(err)


class Session:
    """Worker processes for a number of threads.

    Parameters
    ----------
    runtimes
        What to compare.
    pythons
        The interpreter of each environment.
    settings
        How to measure.
    scratch
        A folder for logs, outputs and tuning records.
    """

    def __init__(
        self,
        runtimes: Sequence[Runtime],
        pythons: Mapping[str, Path],
        settings: Settings,
        scratch: Path,
    ) -> None:
        self.runtimes = runtimes
        self.pythons = pythons
        self.settings = settings
        self.scratch = scratch
        self.processes: dict[str, Process] = {}
        self.versions: dict[str, dict[str, str]] = {}
        self.stopped = False
        self.pool = ThreadPoolExecutor()  # kept, for Linux kills a worker with its parent's thread

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.pool.shutdown(cancel_futures=True)
        for process in self.processes.values():
            process.end()

    def stop(self) -> None:
        """Kill all workers; none is started any more."""
        self.stopped = True
        for process in list(self.processes.values()):
            process.kill()

    def measure(self, folder: Path, look: Look | None = None) -> Measured:
        """Prepare, compare and time what lies in a folder of `tvm_passes.bench.files`.

        Parameters
        ----------
        folder
            The folder.
        look
            Called at the end for each variant of the reference runtime.
        """
        measured = Measured()
        ready = self._compare(self._ready(folder, measured), measured)
        for name, variant in ready:
            measured.samples.setdefault(name, {})[variant] = Samples()
        others = Others(process.child.pid for process in self.processes.values())
        try:
            self._rounds(ready, measured)
        except (KeyboardInterrupt, SystemExit) as stop:
            measured.stopped = stop
        measured.others = others.cores()
        measured.samples = _not_empty(measured.samples)
        if measured.stopped is not None:
            return measured
        if look is not None:
            for variant in measured.samples.get(self.settings.reference, ()):
                look(self.processes[self.settings.reference].ask, variant, self.settings.rounds)
        for process in self.processes.values():
            with contextlib.suppress(WorkerError):
                process.ask("clear")
        return measured

    def _rounds(self, ready: Sequence[tuple[str, str]], measured: Measured) -> None:
        """Sample all in turn, forwards and backwards."""
        for turn in range(self.settings.rounds):
            ready = [pair for pair in ready if not self._hopeless(measured, *pair)]
            for name, variant in ready if turn % 2 == 0 else reversed(ready):
                self._sample(name, variant, measured)

    def _ready(self, folder: Path, measured: Measured) -> list[tuple[str, str]]:
        """Compile the variants of all runtimes; those that work.

        For a GPU each environment compiles beside the others: kernels are timed after all have.
        """
        on_gpu = (self.settings.target or {}).get("kind") in GPUS
        lanes: dict[str, list[Runtime]] = {}
        for runtime in self.runtimes:
            lanes.setdefault(runtime.environment if on_gpu else "", []).append(runtime)

        def compiled(lane: Sequence[Runtime]) -> list[tuple[str, str]]:
            return [(r.name, v) for r in lane for v in self._prepare(r, folder, measured)]

        if len(lanes) == 1:
            return compiled(self.runtimes)
        try:
            return [pair for found in self.pool.map(compiled, lanes.values()) for pair in found]
        except BaseException:
            self.stop()  # what the lanes wait for
            raise

    def _prepare(self, runtime: Runtime, folder: Path, measured: Measured) -> Iterator[str]:
        """Compile the variants of a runtime; yields those that work."""
        if runtime.name == "tvm_metaschedule" and not self.settings.trials:
            measured.fail(runtime.name, "", WorkerError("not asked for: 0 trials"))
            return
        for variant in runtime.variants:
            try:
                process = self._process(runtime)
            except WorkerError as err:
                measured.fail(runtime.name, "", err)
                return
            timeout = PREPARE_SECONDS + SECONDS_A_TRIAL * self.settings.trials
            options = self._options(runtime, folder, variant)
            request = {"folder": str(folder.resolve()), "variant": variant, "options": options}
            try:
                process.ask("prepare", timeout, **request)
            except WorkerError as err:
                measured.fail(runtime.name, variant, err)
            else:
                yield variant

    def _hopeless(self, measured: Measured, name: str, variant: str) -> bool:
        """Whether a variant is so slow that more samples of it change nothing."""
        medians = [
            samples.median
            for by_variant in measured.samples.values()
            for samples in by_variant.values()
            if len(samples.seconds) >= SURE
        ]
        samples = measured.samples[name][variant]
        sure = len(samples.seconds) >= SURE
        return sure and samples.median > self.settings.hopeless * min(medians)

    def _options(self, runtime: Runtime, folder: Path, variant: str) -> dict[str, Any]:
        trials, threads = self.settings.trials, self.settings.threads
        records = self.scratch / f"{runtime.name}-{folder.name}-{variant}-{threads}-{trials}"
        target = dict(self.settings.target) if self.settings.target else None
        tuned = str(self.settings.tuned.resolve()) if self.settings.tuned else None
        found = {"trials": trials, "records": str(records.resolve()), "target": target}
        return found | {"tuned": tuned, "allow": sorted(self.settings.allow)}

    def _process(self, runtime: Runtime) -> Process:
        """The runtime's process, started if it is not there, or no more."""
        if self.stopped:
            raise WorkerError("interrupted")
        process = self.processes.get(runtime.name)
        if process is None or process.ended:
            if process is not None:
                process.end()
            threads = self.settings.threads
            command = worker_command(self.pythons[runtime.environment], runtime.name, threads)
            process = Process(command, threads, self.scratch / f"{runtime.name}-{threads}.log")
            self.processes[runtime.name] = process
            if self.stopped:  # meanwhile, by the thread that waits for this one
                process.kill()
            self.versions[runtime.name] = process.ask("versions")["versions"]
        return process

    def _compare(
        self, ready: Sequence[tuple[str, str]], measured: Measured
    ) -> list[tuple[str, str]]:
        """Run each variant once, compare the outputs; returns those that ran."""
        outputs: dict[tuple[str, str], list[np.ndarray]] = {}
        for name, variant in ready:
            path = self.scratch / "output.npz"
            try:
                self.processes[name].ask("run", variant=variant, output=str(path.resolve()))
            except WorkerError as err:
                measured.fail(name, variant, err)
            else:
                with np.load(path) as archive:
                    outputs[name, variant] = [archive[key] for key in archive.files]
        wanted = [pair for pair in outputs if pair[0] == self.settings.reference]
        references = wanted + list(outputs)
        for pair, arrays in outputs.items():
            reference = outputs[references[0]]
            measured.reference = references[0][0]
            difference, scale = _difference(arrays, reference)
            measured.differences.setdefault(pair[0], {})[pair[1]] = difference
            if same_bits(arrays, reference):
                measured.bitwise.append(pair)
            if not difference <= TOLERANCE * scale:
                measured.differing.append(pair)
        return list(outputs)

    def _sample(self, name: str, variant: str, measured: Measured) -> None:
        if variant in measured.failed.get(name, ()):
            return
        try:
            reply = self.processes[name].ask("time", variant=variant, seconds=self.settings.seconds)
        except WorkerError as err:
            measured.fail(name, variant, err)
            return
        measured.samples[name][variant].add(reply["seconds"], reply["cpu"])


def _not_empty(samples: Mapping[str, Mapping[str, Samples]]) -> dict[str, dict[str, Samples]]:
    """What has samples: a runtime may die at its first."""
    kept = {
        name: {variant: found for variant, found in variants.items() if found.seconds}
        for name, variants in samples.items()
    }
    return {name: variants for name, variants in kept.items() if variants}


def same_bits(arrays: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> bool:
    """Whether all outputs have the same shapes, types and bits."""
    return len(arrays) == len(reference) and all(
        a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
        for a, b in zip(arrays, reference, strict=True)
    )


def _difference(
    arrays: Sequence[np.ndarray], reference: Sequence[np.ndarray]
) -> tuple[float, float]:
    """Largest absolute difference, infinite where shapes differ, and the largest reference."""
    scale = max(float(np.max(np.abs(array), initial=0)) for array in reference)
    if [array.shape for array in arrays] != [array.shape for array in reference]:
        return float("inf"), scale
    differences = [
        float(np.max(np.abs(a.astype("float64") - b), initial=0))
        for a, b in zip(arrays, reference, strict=True)
    ]
    return float(np.max(differences)), scale  # NaN where one is
