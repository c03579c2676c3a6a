"""Versions of a model on a GPU: what ``tvm-reorder compile`` writes, loaded and timed there."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tvm_passes.bench.versions import FUSED, ORIGINAL_VERSION, REORDERED, SCHEDULED, TUNED
from tvm_passes.compile import kernels_for
from tvm_passes.describe import WINOGRAD
from tvm_passes.frontends import load_model
from tvm_passes.output import LIBRARY
from tvm_passes.relax import engine

PASSES = {
    ORIGINAL_VERSION: (False, False),
    REORDERED: (True, False),
    SCHEDULED: (False, True),
    FUSED: (True, True),
    TUNED: (True, True),
    WINOGRAD: (True, True),
}
"""Whether a version is reordered, and has this package's kernels."""

TIMEABLE = 1e-4
"""Seconds that calls between two events last at least: events tell 0.5 us apart (CUDA's manual,
cudaEventElapsedTime)."""


class Bound:
    """A model on the device, with its inputs."""

    def __init__(self, runner: engine.Runner, inputs: Sequence[np.ndarray]) -> None:
        self.runner, self.inputs = runner, inputs
        self.timer = runner.timer(*inputs)
        self.result: list[np.ndarray] = []

    def run(self) -> None:
        """Run once, and fetch the outputs."""
        self.result = self.runner(*self.inputs)

    def outputs(self) -> list[np.ndarray]:
        """The outputs."""
        return self.result

    def measure(self, seconds: float) -> dict[str, Any]:
        """Call for about a time, timed by the device; as `tvm_passes.bench.worker.measure`."""
        once = max(self.timer(1), 1e-9)
        calls = max(1, round(max(seconds, TIMEABLE) / once))
        cpu = time.process_time()
        mean = self.timer(calls)
        return {"seconds": mean, "cpu": (time.process_time() - cpu) / calls, "calls": calls}


def load_version(
    version: str,
    file: Path,
    config: Mapping[str, Any],
    inputs: Sequence[np.ndarray],
    allow: Collection[str] = (),
) -> Bound:
    """Compile a version of a model file, and load it.

    Parameters
    ----------
    version
        Of `PASSES`.
    file
        The model.
    config
        A target whose kernels are on threads, and which this machine runs.
    inputs
        In their order.
    allow
        As for `tvm_passes.compile.compile_model`.
    """
    mod = load_model(file, engine.DIALECT)
    return bind(mod, version, config, inputs, allow)


def bind(
    mod: Any,
    version: str,
    config: Mapping[str, Any],
    inputs: Sequence[np.ndarray],
    allow: Collection[str] = (),
) -> Bound:
    """Compile a version of a module, and load it."""
    built = build(mod, version, config, allow)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / LIBRARY
        engine.export(built, path)
        return Bound(engine.load(path, (), config["kind"]), inputs)


def build(mod: Any, version: str, config: Mapping[str, Any], allow: Collection[str] = ()) -> Any:
    """Compile a version of a module."""
    reorder, ours = PASSES[version]
    return engine.build(
        mod,
        config,
        reorder=reorder,
        kernels=ours,
        allow={*allow, WINOGRAD} if version == WINOGRAD else allow,
        compile_kernels=kernels_for(config),
    )
