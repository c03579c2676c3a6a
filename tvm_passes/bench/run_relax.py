"""TVM with Relax: this package, TVM's own pipeline, and TVM's own MetaSchedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvm_passes.bench.files import inputs_of, model_file
from tvm_passes.bench.versions import FUSED, ORIGINAL_VERSION, REORDERED, SCHEDULED, TUNED
from tvm_passes.frontends import load_model
from tvm_passes.namespaces import host_cpu
from tvm_passes.relax.pipeline import stock_pipeline, tvm_reorder_pipeline
from tvm_passes.relax.reorder import ReorderActivationAfterMaxPool
from tvm_passes.rules import RELAX


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

    def prepare(self, folder: Path, variant: str, options: Mapping[str, Any]) -> Bound:
        """Compile the model, or the block in the order of the variant."""
        config = options.get("target") or {"kind": "llvm", "mcpu": host_cpu()}
        target = tvm.target.Target({"num-cores": self.threads, **config})
        if self.runtime == RELAX:
            mod, pipeline = load_model(model_file(folder), RELAX), PIPELINES[variant]
        else:
            mod = load_model(model_file(folder, variant), RELAX)
            pipeline = PIPELINES[self.runtime]
        built: list[tvm.IRModule] = []
        with target:
            passes = [pipeline(target, options), _keep(built)]
        executable = tvm.compile(mod, target, relax_pipeline=tvm.transform.Sequential(passes))
        return Bound(executable, built[0], inputs_of(folder))


def _keep(built: list[tvm.IRModule]) -> tvm.transform.Pass:
    """A pass that changes nothing and keeps the module it is given."""

    @tvm.transform.module_pass(opt_level=0, name="KeepModule")
    def keep(mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        built.append(mod)
        return mod

    return keep


def _stock(_target: tvm.target.Target, _options: Mapping[str, Any]) -> tvm.transform.Pass:
    return stock_pipeline()


def _reordered(_target: tvm.target.Target, _options: Mapping[str, Any]) -> tvm.transform.Pass:
    return tvm.transform.Sequential([ReorderActivationAfterMaxPool(), stock_pipeline()])


def _scheduled(_target: tvm.target.Target, _options: Mapping[str, Any]) -> tvm.transform.Pass:
    return tvm_reorder_pipeline(rules=())


def _ours(_target: tvm.target.Target, _options: Mapping[str, Any]) -> tvm.transform.Pass:
    return tvm_reorder_pipeline()


def _tuned(_target: tvm.target.Target, _options: Mapping[str, Any]) -> tvm.transform.Pass:
    raise ValueError("no tuned records for this CPU")


def _metaschedule(target: tvm.target.Target, options: Mapping[str, Any]) -> tvm.transform.Pass:
    """Tune with TVM's own search, then go through its own pipeline."""
    work = Path(options["records"])
    work.mkdir(parents=True, exist_ok=True)
    tune = relax.get_pipeline(
        "static_shape_tuning", total_trials=options["trials"], target=target, work_dir=str(work)
    )
    return tvm.transform.Sequential([tune, stock_pipeline()])


PIPELINES: Mapping[str, Callable[[Any, Mapping[str, Any]], tvm.transform.Pass]] = {
    "tvm": _stock,
    "tvm_metaschedule": _metaschedule,
    "tvm_passes": _ours,
    "tvm_passes_untuned": _ours,
    ORIGINAL_VERSION: _stock,
    REORDERED: _reordered,
    SCHEDULED: _scheduled,
    FUSED: _ours,
    TUNED: _tuned,
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


def start(runtime: str, threads: int) -> Relax:
    """Serve a way of compiling Relax."""
    return Relax(runtime, threads)
