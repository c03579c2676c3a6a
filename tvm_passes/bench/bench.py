"""``tvm-reorder bench``: the versions of generated kernels side by side, and peers beside them."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tvm_passes.bench.block import Block, read_blocks
from tvm_passes.bench.environment import environment, load
from tvm_passes.bench.files import model_file, write_folder, write_model_folder
from tvm_passes.bench.process import WorkerError
from tvm_passes.bench.results import result
from tvm_passes.bench.runtimes import BENCH_PEERS, Runtime, one_order
from tvm_passes.bench.session import Measured, Session, Settings
from tvm_passes.bench.sites import roofline
from tvm_passes.bench.verdict import compare
from tvm_passes.bench.versions import DEFAULT_VERSIONS, VERSIONS, versions_runtime
from tvm_passes.compile import Step, silent
from tvm_passes.cost import cost
from tvm_passes.dialects import Engine, engine
from tvm_passes.errors import BlockError, ModelError
from tvm_passes.frontends import load_model
from tvm_passes.inputs import DTYPES

BUSY_LOAD = 0.5
"""Others' processes that may run at the start, on average, before a result is called doubtful."""


@dataclass(frozen=True)
class Request:
    """What to measure, and how.

    Parameters
    ----------
    sources
        Model files, and names of blocks.
    blocks
        The file that names blocks.
    threads
        One measurement for each number.
    target
        A target's configuration, None for this machine's CPU.
    dialect
        ``relax`` or ``relay``; by default that of the TVM installed.
    versions
        Those of `VERSIONS` to compare with the first.
    peers
        Names of `BENCH_PEERS`.
    python
        The interpreter of this environment's TVM.
    peers_python
        The interpreter of the environment that has the peers.
    rounds, seconds, allow
        As of `Settings`.
    seed
        Of inputs, and of the weights of blocks.
    tuned
        A folder of tuned records; None for those that ship for the CPU.
    figures
        Whether the kernels are looked at and timed one by one, too.
    peaks
        Whether the machine's peaks are measured, for a roofline.
    """

    sources: Sequence[str]
    blocks: Path
    python: Path
    peers_python: Path
    threads: Sequence[int] = (1,)
    target: Mapping[str, Any] | None = None
    dialect: str | None = None
    versions: Sequence[str] = DEFAULT_VERSIONS
    peers: Sequence[str] = ()
    rounds: int = 31
    seconds: float = 0.02
    seed: int = 0
    allow: Collection[str] = ()
    tuned: Path | None = None
    figures: bool = True
    peaks: bool = True


@dataclass
class Bench:
    """A benchmark under way: entries as they come, and what they were measured on."""

    request: Request
    step: Step = silent
    environment: dict[str, Any] = field(default_factory=environment)

    def entries(self) -> Iterator[dict[str, Any]]:
        """Measure each source on each number of threads.

        Raises
        ------
        TvmPassesError
            If a source is no model and no block, or cannot be read.
        KeyboardInterrupt, SystemExit
            What interrupted the rounds, after the entry with the samples so far.
        """
        request, tvm_engine = self.request, engine(self.request.dialect)
        sources = [find_source(source, request.blocks) for source in request.sources]
        runtimes = self._runtimes(tvm_engine.DIALECT, of_model=False)
        pythons = {tvm_engine.DIALECT: request.python, "peers": request.peers_python}
        versions: dict[str, dict[str, str]] = {}
        with tempfile.TemporaryDirectory() as scratch:
            for threads in request.threads:
                settings = Settings(
                    threads,
                    request.rounds,
                    request.seconds,
                    hopeless=float("inf"),
                    reference=tvm_engine.DIALECT,
                    target=request.target,
                    tuned=request.tuned,
                    allow=request.allow,
                )
                limits: dict[str, float] = {}
                with Session(runtimes, pythons, settings, Path(scratch)) as session:
                    for source in sources:
                        on = "1 thread" if threads == 1 else f"{threads} threads"
                        with self.step(f"{name_of(source)}, {on}"):
                            entry, stopped = self._entry(session, source, tvm_engine, Path(scratch))
                        self.environment["versions"] = versions = versions | session.versions
                        if stopped is not None:
                            yield entry
                            raise stopped
                        if request.figures and request.peaks and not limits:
                            with self.step("measuring this machine's peaks"):
                                limits = _peaks(session, tvm_engine.DIALECT)
                            self.environment.setdefault("peaks", {})[str(threads)] = limits
                        yield _with_roofline(entry, limits)

    def _runtimes(self, dialect: str, *, of_model: bool) -> list[Runtime]:
        """Versions and peers; these in the order that a model has, or in both of a block."""
        ours = versions_runtime(dialect, self.request.versions)
        peers = [peer for peer in BENCH_PEERS if peer.name in self.request.peers]
        return [ours, *(one_order(peer) if of_model else peer for peer in peers)]

    def _entry(
        self, session: Session, source: Block | Path, tvm_engine: Engine, scratch: Path
    ) -> tuple[dict[str, Any], BaseException | None]:
        dialect, name = tvm_engine.DIALECT, name_of(source)
        folder = scratch / "sources" / name
        if isinstance(source, Block):
            write_folder(source, folder, self.request.seed)
        mod = load_model(model_file(folder) if isinstance(source, Block) else source, dialect)
        if isinstance(source, Path):
            write_model_folder(source, _inputs(tvm_engine, mod, source, self.request.seed), folder)
        before = load()
        figures: dict[str, Any] = {}
        session.runtimes = self._runtimes(dialect, of_model=isinstance(source, Path))
        measured = session.measure(folder, _look(figures) if self.request.figures else None)
        allow = self.request.allow
        entry = {
            **result(name, session.settings.threads, session.runtimes, measured),
            "dialect": dialect,
            "target": dict(self.request.target) if self.request.target else None,
            "versions": list(measured.samples.get(dialect, ())),
            "version_ratios": version_ratios(measured, dialect),
            "bitwise": [variant for runtime, variant in measured.bitwise if runtime == dialect],
            "figures": figures,
            "predicted": predicted(tvm_engine, mod, allow),
            "ir": {
                "original": tvm_engine.text(mod),
                "reordered": tvm_engine.text(tvm_engine.reorder(mod, allow)),
            },
            "sites": len(tvm_engine.decisions(mod)),
            "flops": source.flops if isinstance(source, Block) else None,
            "load_before": before,
            "interrupted": measured.stopped is not None,
        }
        return entry, measured.stopped


def _peaks(session: Session, dialect: str) -> dict[str, float]:
    """What the machine can do at most; empty where that fails."""
    try:
        return session.processes[dialect].ask("peaks")
    except (KeyError, WorkerError):
        return {}


def _with_roofline(entry: dict[str, Any], limits: Mapping[str, float]) -> dict[str, Any]:
    """Add where each version stands under the roofline.

    The work is the same for all: a block's convolution, or what the first version computes.
    """
    found = {name: f for name, f in entry["figures"].items() if "error" not in f}
    if not (found and limits):
        return entry
    flops = entry["flops"] or _total(next(iter(found.values())), "arithmetic")
    samples = entry["samples"][entry["dialect"]]
    places = {
        name: roofline(flops, _total(figures, "bytes"), samples[name]["median"], limits)
        for name, figures in found.items()
    }
    return entry | {"roofline": places}


def _total(figures: Mapping[str, Any], name: str) -> int:
    """Sum of a figure over all calls of kernels."""
    kernels = figures["kernels"]
    return sum(kernels[call][name] for call in figures["calls"] if call in kernels)


def find_source(source: str, blocks: Path) -> Block | Path:
    """The block of that name, or the model file.

    Raises
    ------
    BlockError
        If there is neither.
    """
    if Path(source).exists():
        return Path(source)
    known = {block.name: block for block in read_blocks(blocks)}
    if source not in known:
        raise BlockError(f"no model at {source}, and {blocks} has the blocks {', '.join(known)}")
    return known[source]


def name_of(source: Block | Path) -> str:
    """What tables call a source."""
    return source.name


def _inputs(tvm_engine: Engine, mod: Any, model: Path, seed: int) -> list[np.ndarray]:
    """Seeded normal numbers for floating-point inputs, zeros for the rest."""
    random = np.random.default_rng(seed)
    arrays = []
    for tensor in tvm_engine.signature(mod)["inputs"]:
        shape, dtype = tensor["shape"], tensor["dtype"]
        if shape is None or not all(isinstance(n, int) for n in shape) or dtype not in DTYPES:
            raise ModelError(f"{model}: input {tensor['name']} is {dtype} of shape {shape}")
        normal = random.standard_normal(shape)
        arrays.append((normal if dtype.startswith("float") else np.zeros(shape)).astype(dtype))
    return arrays


def _look(figures: dict[str, Any]) -> Any:
    """What fetches the figures of each version, while it is there."""

    def look(ask: Any, variant: str, rounds: int) -> None:
        try:
            found = ask("describe", variant=variant)
            figures[variant] = found | ask("profile", variant=variant, rounds=rounds)
        except WorkerError as err:
            figures[variant] = {"error": str(err)}

    return look


def version_ratios(measured: Measured, dialect: str) -> dict[str, dict[str, Any]]:
    """How each version compares with the first, where both were measured."""
    samples = measured.samples.get(dialect, {})
    base = next(iter(VERSIONS[dialect]))
    if base not in samples:
        return {}
    return {
        version: compare(samples[base].seconds, found.seconds).as_dict()
        for version, found in samples.items()
        if version != base
    }


def predicted(tvm_engine: Engine, mod: Any, allow: Collection[str] = ()) -> dict[str, Any]:
    """What the cost model says that the rewrite saves, summed over the sites that pass.

    Returns
    -------
    dict
        ``evaluations_before`` and ``_after`` of the ops that sink, ``bytes_before`` and ``_after``
        that they and the pools write; None where an extent is not known.
        ``arithmetic_saved``: the formula's shares of the sites' layers, where it says one.
    """
    decisions = tvm_engine.decisions(mod, allow=allow)
    costs = [cost(decision) for decision in decisions if decision.passed]
    names = ("evaluations_before", "evaluations_after", "bytes_before", "bytes_after")
    columns = {name: [getattr(found, name) for found in costs] for name in names}
    sums = {name: None if None in found else sum(found) for name, found in columns.items()}
    return sums | {"arithmetic_saved": [found.arithmetic_saved for found in costs]}
