"""TVM with Relax: this package, TVM's own pipeline, and TVM's own MetaSchedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvm_passes.bench.files import bound_input
from tvm_passes.frontends import load_model
from tvm_passes.namespaces import host_cpu
from tvm_passes.relax.pipeline import stock_pipeline, tvm_reorder_pipeline
from tvm_passes.rules import RELAX


class Relax:
    """Executables for this machine's CPU."""

    versions: Mapping[str, str] = {"tvm": tvm.__version__}

    def __init__(self, runtime: str, threads: int) -> None:
        self.runtime = runtime
        cpu = {"kind": "llvm", "mcpu": host_cpu(), "num-cores": threads}
        self.target = tvm.target.Target(cpu)

    def prepare(self, folder: Path, variant: str, options: Mapping[str, Any]) -> Bound:
        """Compile ``VARIANT.onnx``."""
        mod = load_model(folder / f"{variant}.onnx", RELAX)
        executable = PIPELINES[self.runtime](self, mod, options)
        machine = relax.VirtualMachine(executable, tvm.cpu())
        return Bound(machine, tvm.runtime.tensor(bound_input(folder)))

    def ours(self, mod: tvm.IRModule, _options: Mapping[str, Any]) -> Any:
        """Compile with the pipeline ``tvm_reorder``."""
        return tvm.compile(mod, self.target, relax_pipeline=tvm_reorder_pipeline())

    def stock(self, mod: tvm.IRModule, _options: Mapping[str, Any]) -> Any:
        """Compile with TVM's own pipeline."""
        with self.target:
            pipeline = stock_pipeline()
        return tvm.compile(mod, self.target, relax_pipeline=pipeline)

    def metaschedule(self, mod: tvm.IRModule, options: Mapping[str, Any]) -> Any:
        """Tune with TVM's own search, then compile with its own pipeline."""
        work = Path(options["records"])
        work.mkdir(parents=True, exist_ok=True)
        with self.target:
            tune = relax.get_pipeline(
                "static_shape_tuning",
                total_trials=options["trials"],
                target=self.target,
                work_dir=str(work),
            )
            return self.stock(tune(mod), options)


PIPELINES: Mapping[str, Callable[[Relax, tvm.IRModule, Mapping[str, Any]], Any]] = {
    "tvm": Relax.stock,
    "tvm_metaschedule": Relax.metaschedule,
    "tvm_passes": Relax.ours,
    "tvm_passes_untuned": Relax.ours,
}


class Bound:
    """``main`` of a virtual machine and its input."""

    def __init__(self, machine: relax.VirtualMachine, x: Any) -> None:
        self.machine, self.main, self.x = machine, machine["main"], x
        self.y = self.main(x)

    def run(self) -> None:
        """Run once."""
        self.y = self.main(self.x)

    def output(self) -> np.ndarray:
        """Fetch the output."""
        return np.asarray(self.y.numpy())


def start(runtime: str, threads: int) -> Relax:
    """Serve a way of compiling Relax."""
    return Relax(runtime, threads)
