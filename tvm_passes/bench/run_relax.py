"""TVM with Relax: this package, TVM's own pipeline, and TVM's own MetaSchedule."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax, s_tir

from tvm_passes.bench.figures import kernel_figures
from tvm_passes.bench.files import inputs_of, named_file
from tvm_passes.bench.peaks import peaks
from tvm_passes.bench.run_gpu import load_version
from tvm_passes.bench.tuned import records_for
from tvm_passes.bench.versions import FUSED, ORIGINAL_VERSION, REORDERED, SCHEDULED, TUNED
from tvm_passes.bench.worker import Prepared
from tvm_passes.describe import WINOGRAD
from tvm_passes.frontends import load_model
from tvm_passes.relax.pipeline import stock_pipeline, tvm_reorder_pipeline
from tvm_passes.relax.reorder import ReorderActivationAfterMaxPool
from tvm_passes.rules import RELAX
from tvm_passes.target import GPUS, parse_target


class Relax:
    """Executables for this machine's CPU, or for a target that is given.

    Parameters
    ----------
    runtime
        A name of `PIPELINES`, or ``relax``, whose variants are such names.
    threads
        For the target's ``num-cores``.
    """

    versions: Mapping[str, str] = {"tvm": tvm.__version__}

    def __init__(self, runtime: str, threads: int) -> None:
        self.runtime = runtime
        self.threads = threads
        if runtime == "tvm_metaschedule":
            from tvm_passes.bench.metaschedule import cost_model

            self.versions = {**self.versions, "cost model": cost_model()}

    def peaks(self) -> dict[str, float]:
        """What this machine can do at most."""
        target = {"num-cores": self.threads, **parse_target("host")}
        return peaks(tvm.target.Target(target), self.threads)

    def prepare(self, folder: Path, variant: str, options: Mapping[str, Any]) -> Prepared:
        """Compile the model, or the block in the order of the variant."""
        config = options.get("target") or parse_target("host")
        if config["kind"] in GPUS:
            return self._on_gpu(folder, variant, config, options)
        target = tvm.target.Target({"num-cores": self.threads, **config})
        name, file = named_file(folder, variant, self.runtime, RELAX)
        built: list[tvm.IRModule] = []
        with target:
            passes = [PIPELINES[name](target, options), _keep(built)]
        with records_for(name, RELAX, config, options):
            pipeline = tvm.transform.Sequential(passes)
            executable = tvm.compile(load_model(file, RELAX), target, relax_pipeline=pipeline)
        return Bound(executable, built[0], inputs_of(folder))

    def _on_gpu(
        self,
        folder: Path,
        variant: str,
        config: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> Prepared:
        name, file = named_file(folder, variant, self.runtime, RELAX)
        with records_for(name, RELAX, config, options):
            return load_version(name, file, config, inputs_of(folder), options.get("allow", ()))


def _keep(built: list[tvm.IRModule]) -> tvm.transform.Pass:
    """A pass that changes nothing and keeps the module it is given."""

    @tvm.transform.module_pass(opt_level=0, name="KeepModule")
    def keep(mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        built.append(mod)
        return mod

    return keep


def _stock(_target: tvm.target.Target, _options: Mapping[str, Any]) -> tvm.transform.Pass:
    return stock_pipeline()


def _reordered(_target: tvm.target.Target, options: Mapping[str, Any]) -> tvm.transform.Pass:
    reorder = ReorderActivationAfterMaxPool(allow=options.get("allow", ()))
    return tvm.transform.Sequential([reorder, stock_pipeline()])


def _scheduled(_target: tvm.target.Target, options: Mapping[str, Any]) -> tvm.transform.Pass:
    return tvm_reorder_pipeline(rules=(), allow=options.get("allow", ()))


def _ours(_target: tvm.target.Target, options: Mapping[str, Any]) -> tvm.transform.Pass:
    return tvm_reorder_pipeline(allow=options.get("allow", ()))


def _winograd(_target: tvm.target.Target, options: Mapping[str, Any]) -> tvm.transform.Pass:
    return tvm_reorder_pipeline(allow={*options.get("allow", ()), WINOGRAD})


def _metaschedule(target: tvm.target.Target, options: Mapping[str, Any]) -> tvm.transform.Pass:
    """Tune with TVM's own search, then go through its own pipeline."""
    from tvm_passes.bench.metaschedule import tuning

    folder = Path(options["records"])
    folder.mkdir(parents=True, exist_ok=True)
    return tvm.transform.Sequential([tuning(target, folder, options["trials"]), stock_pipeline()])


PIPELINES: Mapping[str, Callable[[Any, Mapping[str, Any]], tvm.transform.Pass]] = {
    "tvm": _stock,
    "tvm_metaschedule": _metaschedule,
    "tvm_passes": _ours,
    "tvm_passes_untuned": _ours,
    "tvm_passes_winograd": _winograd,
    ORIGINAL_VERSION: _stock,
    REORDERED: _reordered,
    SCHEDULED: _scheduled,
    FUSED: _ours,
    TUNED: _ours,
    WINOGRAD: _winograd,
}


class Bound:
    """``main`` of a virtual machine and its inputs."""

    def __init__(self, executable: Any, built: tvm.IRModule, inputs: list[np.ndarray]) -> None:
        self.executable, self.built = executable, built
        self.machine = relax.VirtualMachine(executable, tvm.cpu())
        self.main = self.machine["main"]
        self.inputs = [tvm.runtime.tensor(array) for array in inputs]
        self.result: Any = None

    def run(self) -> None:
        """Run once."""
        self.result = self.main(*self.inputs)

    def outputs(self) -> list[np.ndarray]:
        """Fetch the outputs."""
        is_tensor = isinstance(self.result, tvm.runtime.Tensor)
        return [tensor.numpy() for tensor in ([self.result] if is_tensor else self.result)]

    def describe(self) -> dict[str, Any]:
        """Figures of the kernels, their calls in order, and the bytes of the memory plan."""
        assembly = "\n".join(
            part.inspect_source("asm")
            for part in self.executable.mod.imports
            if part.kind == "llvm"
        )
        funcs = {var.name_hint: func for var, func in self.built.functions.items()}
        calls = [name for name in self._calls() if name in funcs]
        kernels = {
            name: kernel_figures(name, funcs[name], assembly, kernel_bytes(funcs[name]))
            for name in dict.fromkeys(calls)
        }
        return {
            "calls": calls,
            "kernels": kernels,
            "planned": sum(planned_storage(self.built["main"])),
        }

    def profile(self, rounds: int) -> list[dict[str, Any]]:
        """Seconds of each kernel in the order of execution, a sample a round."""
        names = [name for name in self._calls() if name in self.built]
        clock = _KernelClock(frozenset(names))
        self.machine.set_instrument(clock)
        for _ in range(rounds + 1):
            clock.start_round()
            self.run()
        self.machine.set_instrument(_do_nothing)
        columns = zip(*clock.rounds[1:], strict=True)  # the first warms up
        return [
            {"name": name, "samples": list(found)}
            for name, found in zip(names, columns, strict=True)
        ]

    def _calls(self) -> list[str]:
        """Everything that the virtual machine calls, in order."""
        calls: list[str] = []

        def note(_func: Any, symbol: str, before: bool, *_args: Any) -> int:
            if before:
                calls.append(str(symbol))
            return 0

        self.machine.set_instrument(note)
        self.run()
        self.machine.set_instrument(_do_nothing)
        return calls


class _KernelClock:
    """An instrument that times kernels."""

    def __init__(self, kernels: frozenset[str]) -> None:
        self.kernels = kernels
        self.rounds: list[list[float]] = []
        self.started = 0.0

    def start_round(self) -> None:
        self.rounds.append([])

    def __call__(self, _func: Any, symbol: str, before: bool, *_args: Any) -> int:
        now = time.perf_counter()
        if str(symbol) in self.kernels and not before:
            self.rounds[-1].append(now - self.started)
        self.started = time.perf_counter()
        return 0


def _do_nothing(*_args: Any) -> int:
    return 0


def planned_storage(main: relax.Function) -> list[int]:
    """Bytes of each storage that the memory plan gives to what kernels write."""
    sizes: list[int] = []

    def visit(expr: Any) -> None:
        if isinstance(expr, relax.Call) and str(getattr(expr.op, "name", "")) in ALLOCATIONS:
            sizes.append(int(expr.args[0].values[0]))

    relax.analysis.post_order_visit(main.body, visit)
    return sizes


ALLOCATIONS = ("relax.vm.alloc_storage", "relax.memory.alloc_storage")


def kernel_bytes(func: Any) -> int:
    """Bytes of a kernel's own buffers, each as large as what is used of it at a time."""
    passes = [
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.CompactBufferAllocation(),
        s_tir.transform.LowerOpaqueBlock(),
    ]
    mod = tvm.transform.Sequential(passes)(tvm.IRModule({"main": func}))
    (by_scope,) = s_tir.analysis.calculate_allocated_bytes(mod).values()
    return sum(int(size) for scope, size in by_scope.items() if str(scope) == "global")


def start(runtime: str, threads: int) -> Relax:
    """Serve a way of compiling Relax."""
    return Relax(runtime, threads)
