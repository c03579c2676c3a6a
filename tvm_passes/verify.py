"""``tvm-reorder verify``: a model compiled with and without the pass, compared bit by bit."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tvm_passes.compare import (
    Difference,
    Finding,
    Where,
    compare,
    cpu_bound,
    inexact_bound,
    merge,
)
from tvm_passes.compile import Step, export, kernels_for, require_linker, silent
from tvm_passes.cuda.compiler import KernelCompiler
from tvm_passes.decision import Decision
from tvm_passes.describe import WINOGRAD
from tvm_passes.dialects import Engine, Runner, engine
from tvm_passes.errors import ModelError
from tvm_passes.frontends import load_model
from tvm_passes.input_file import read_samples
from tvm_passes.inputs import DRAWS, DTYPES, Draws, Sample, Signature, generated
from tvm_passes.output import LIBRARY
from tvm_passes.site import Operand
from tvm_passes.target import GPUS, HOST, parse_target, require_device

OUTPUT, SITE, CPU = "output", "site", "cpu"


@dataclass(frozen=True)
class Check:
    """One output of the model, or one site by itself, compared.

    Parameters
    ----------
    kind
        ``output``, ``site``, or ``cpu``: an output of a GPU, compared with that of the CPU.
    name
        The output's number, or the site's name.
    runs, values
        How often both orders were run, and how many values that gave.
    findings
        What differs, one a kind.
    note
        What was not compared, and why; empty where all was.
    """

    kind: str
    name: str
    runs: int
    values: int
    findings: tuple[Finding, ...] = ()
    note: str = ""

    def count(self, kind: Difference) -> int:
        """How many values differ in this way."""
        return sum(finding.count for finding in self.findings if finding.kind is kind)

    @property
    def equal(self) -> int:
        """How many values have the same bits in both orders."""
        return self.values - sum(finding.count for finding in self.findings)

    def passes(self, *, strict: bool = False) -> bool:
        """Whether only what the contract leaves open differs, or, if strict, nothing."""
        strict = strict and self.kind != CPU  # whose bits are never promised
        return not any(strict or not finding.kind.allowed for finding in self.findings)


@dataclass(frozen=True)
class Verification:
    """A model's outputs and its passed sites, compared."""

    dialect: str
    target: dict[str, Any]
    checks: tuple[Check, ...]

    def failed(self, *, strict: bool = False) -> tuple[Check, ...]:
        """The checks that differ in more than the contract leaves open, or, if strict, at all."""
        return tuple(check for check in self.checks if not check.passes(strict=strict))


def verify_model(  # noqa: PLR0913 - the options of the command
    model: Path,
    *,
    target: str = "llvm",
    dialect: str | None = None,
    allow: Collection[str] = (),
    draws: Draws = DRAWS,
    inputs: Path | None = None,
    step: Step = silent,
) -> Verification:
    """Compile a model file with and without the pass, and compare what both compute.

    Each output of the model is compared, then each passed site as a module of its own, where
    nothing after it can hide a difference.  Extreme inputs, the largest finite numbers and
    infinities, are for the sites alone: in a model they soon give NaN.

    Parameters
    ----------
    model
        A file or folder that `tvm_passes.frontends.load_model` reads.
    target
        As for `tvm_passes.target.parse_target`; this machine must be able to run it.
    dialect
        ``relax`` or ``relay``; by default that of the TVM installed.
    allow
        As for the pass; what it makes inexact may differ in rounding.
    draws
        How often each generator of `tvm_passes.inputs` is drawn from, and their seed.
    inputs
        A file for `tvm_passes.input_file.read_samples`; the sites get what it leads to.
    step
        Announces the steps.

    Raises
    ------
    TvmPassesError
        If the model, the target, the inputs or the environment is not as expected.
    """
    tvm_engine = engine(dialect)
    config = require_device(parse_target(target))
    require_linker(tvm_engine)
    with step(f"reading {model.name}"):
        mod = load_model(model, tvm_engine.DIALECT)
    signature = tvm_engine.signature(mod)["inputs"]
    _require_arrays(signature, model)
    given = read_samples(inputs, signature) if inputs else ()
    with tempfile.TemporaryDirectory(prefix="tvm-reorder-") as folder:
        kernels = kernels_for(config)
        bench = _Bench(tvm_engine, config, Path(folder), step, frozenset(allow), kernels)
        samples = (*given, *generated(signature, draws))
        exact = all(map(_is_exact, bench.told(tvm_engine.decisions, mod)))
        inexact = not exact or WINOGRAD in allow
        checks = [
            *bench.compare("the model", mod, samples, inexact=inexact),
            *bench.sites(mod, given, draws),
            *(bench.with_cpu(mod, samples) if config["kind"] in GPUS else ()),
        ]
    return Verification(tvm_engine.DIALECT, config, tuple(checks))


@dataclass(frozen=True)
class _Bench:
    """Where both orders of a module are compiled, run and compared."""

    engine: Engine
    config: dict[str, Any]
    folder: Path
    step: Step
    allow: frozenset[str]
    kernels: KernelCompiler | None

    def told(self, ask: Callable[..., Any], *arguments: Any) -> Any:
        """What the engine tells of a module, as it decides for the target."""
        from tvm_passes.namespaces import scope  # which imports TVM

        with scope(self.config):
            return ask(*arguments, allow=self.allow)

    def sites(self, mod: Any, given: Sequence[Sample], draws: Draws) -> Iterator[Check]:
        """Compare each passed site as a module of its own."""
        found = self.told(self.engine.decisions, mod)
        passed = [decision for decision in found if decision.passed]
        reasons = {decision.site.name: _not_comparable(decision) for decision in passed}
        alone = {
            name: self.told(self.engine.site_module, mod, name)
            for name, why in reasons.items()
            if not why
        }
        carried = self._carry(mod, given, alone) if given and alone else {}
        for decision in passed:
            name = decision.site.name
            if reasons[name]:
                yield Check(SITE, name, runs=0, values=0, note=reasons[name])
                continue
            self._require_same(decision, alone[name])
            samples = carried.get(name, [])
            samples += generated(self._inputs(alone[name]), draws, extreme=True)
            inexact = not _is_exact(decision) or WINOGRAD in self.allow
            touched = self._touched(mod, name)
            (check,) = self.compare(name, alone[name], samples, inexact=inexact, touched=touched)
            lost = "" if name in carried or not given else "the inputs given do not lead to it"
            yield replace(check, kind=SITE, name=name, note=lost)

    def _require_same(self, decision: Decision, alone: Any) -> None:
        """Make sure that comparing the site by itself is not comparing two equal modules."""
        (again,) = self.told(self.engine.decisions, alone)
        if [op.op for op in again.sunk] != [op.op for op in decision.sunk]:
            raise RuntimeError(f"{decision.site.name} by itself: {again.decline}")

    def compare(
        self,
        name: str,
        mod: Any,
        samples: Iterable[Sample],
        *,
        inexact: bool = False,
        touched: Touched | None = None,
    ) -> list[Check]:
        """Compare each output of a module."""
        with self.step(f"compiling {name} in both orders"):
            original, reordered = self._load(mod, reorder=False), self._load(mod, reorder=True)
        with self.step(f"comparing {name}"):
            bound = inexact_bound if inexact else None
            runs = [
                _compare_once(original, reordered, sample, bound, touched or _anywhere)
                for sample in samples
            ]
        return _checks(OUTPUT, "output {}", runs)

    def with_cpu(self, mod: Any, samples: Iterable[Sample]) -> list[Check]:
        """Compare each output of the reordered module with that of the CPU's original one."""
        with self.step("compiling for the CPU, too"):
            cpu = self._load(mod, reorder=False, config=parse_target(HOST))
            gpu = self._load(mod, reorder=True)
        with self.step("comparing with the CPU"):
            runs = [_compare_once(cpu, gpu, sample, cpu_bound, _anywhere) for sample in samples]
        return _checks(CPU, "output {}, CPU", runs)

    def _touched(self, mod: Any, site: str) -> Touched:
        """Tells what an infinity or a NaN goes into; compiled when it is first asked."""

        @cache
        def run() -> Runner:
            windows = self.told(self.engine.windows_module, mod, site)
            return self._load(windows, reorder=False)

        return lambda sample: np.isinf(run()(*sample.arrays)[0])

    def _carry(
        self, mod: Any, given: Sequence[Sample], alone: Mapping[str, Any]
    ) -> dict[str, list[Sample]]:
        """What each site reads when the model reads the samples given."""
        order = [tensor["name"] for tensor in self._inputs(mod)]
        names, feeding = self.told(self.engine.feeding_module, mod, list(alone))
        if not names:
            return {}
        with self.step("computing what the sites read"):
            run = self._load(feeding, reorder=False)
            carried: dict[str, list[Sample]] = {name: [] for name in names}
            for sample in given:
                arrays = dict(zip(order, sample.arrays, strict=True))
                values = iter(run(*(arrays[tensor["name"]] for tensor in self._inputs(feeding))))
                for name in names:
                    read = tuple(islice(values, len(self._inputs(alone[name]))))
                    carried[name].append(Sample(sample.name, read))
        return carried

    def _load(self, mod: Any, *, reorder: bool, config: Mapping[str, Any] | None = None) -> Runner:
        """Compile, link and load: what is compared is what ``tvm-reorder compile`` writes."""
        # In a folder of its own: a library that is loaded must not be written over.
        allow = self.allow if reorder else self.allow - {WINOGRAD}
        built = self.engine.build(
            mod,
            config or self.config,
            reorder=reorder,
            kernels=True,
            allow=allow,
            compile_kernels=None if config else self.kernels,
        )
        path = Path(tempfile.mkdtemp(dir=self.folder)) / LIBRARY
        export(self.engine, built, path)
        names = [tensor["name"] for tensor in self._inputs(mod)]
        return self.engine.load(path, names, (config or self.config)["kind"])

    def _inputs(self, mod: Any) -> Signature:
        return self.engine.signature(mod)["inputs"]


Run = list[tuple[int, tuple[Finding, ...]]]
"""How many values each output has, and what differs."""

Bound = Callable[[np.dtype[Any]], float]
"""What counts as rounding, for a dtype."""


Touched = Callable[[Sample], Where]
"""What of a result an infinity or a NaN of the inputs goes into, or what overflows to one."""


def _anywhere(sample: Sample) -> bool:
    """Of a whole model: anything, if there is one."""
    return sample.has_infinity or sample.has_nan


def _compare_once(
    original: Runner, reordered: Runner, sample: Sample, bound: Bound | None, touched: Touched
) -> Run:
    pairs = zip(original(*sample.arrays), reordered(*sample.arrays), strict=True)
    return [
        (a.size, _findings(a, b, sample, bound(a.dtype) if bound else 0.0, touched))
        for a, b in pairs
    ]


def _findings(
    a: np.ndarray, b: np.ndarray, sample: Sample, bound: float, touched: Touched
) -> tuple[Finding, ...]:
    found = compare(a, b, sample.name, bound=bound)
    if all(finding.kind.allowed for finding in found):
        return found
    where = touched(sample)
    nan = where if sample.has_nan else False
    return compare(a, b, sample.name, bound=bound, infinity=where, nan=nan)


def _checks(kind: str, name: str, runs: Sequence[Run]) -> list[Check]:
    """One check for each output, of all runs."""
    return [
        Check(
            kind,
            name.format(n),
            runs=len(runs),
            values=sum(values for values, _ in results),
            findings=merge(finding for _, findings in results for finding in findings),
        )
        for n, results in enumerate(zip(*runs, strict=True))
    ]


def _is_exact(decision: Decision) -> bool:
    return all(op.rule.is_exact for op in decision.sunk)


def _require_arrays(inputs: Signature, model: Path) -> None:
    for tensor in inputs:
        if tensor["dtype"] not in DTYPES:
            raise ModelError(
                f"{model}: input {tensor['name']!r} is {tensor['dtype']}, which NumPy does not "
                "have: export the model with an input of another type"
            )


def _not_comparable(decision: Decision) -> str:
    """Why a site cannot be run by itself, or an empty string."""
    pool = decision.site.pool
    params = [param for op in decision.sunk for param in op.params.values()]
    shapes = [pool.in_shape, *(param.shape for param in params if isinstance(param, Operand))]
    if any(None in shape for shape in shapes):
        return "its extents are known only when the model runs"
    return "" if pool.dtype in DTYPES else f"NumPy does not have {pool.dtype}"
