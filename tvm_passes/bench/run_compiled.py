"""What ``tvm-reorder compile`` wrote: loading it needs TVM alone, and compiles nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tvm_passes.bench.files import inputs_of
from tvm_passes.dialects import Runner, engine
from tvm_passes.output import LIBRARY, MANIFEST


class Compiled:
    """Folders of `tvm_passes.compile.compile_model`, of this environment's dialect."""

    versions: Mapping[str, str] = {}

    def __init__(self) -> None:
        self.engine = engine()

    def prepare(self, folder: Path, variant: str, _options: Mapping[str, Any]) -> Bound:
        """Load what lies in the subfolder that is named like the variant."""
        compiled = folder / variant
        manifest = json.loads((compiled / MANIFEST).read_text())
        names = [each["name"] for each in manifest["inputs"]]
        runner = self.engine.load(compiled / LIBRARY, names)
        return Bound(runner, inputs_of(folder))


class Bound:
    """A loaded model and its inputs."""

    def __init__(self, runner: Runner, inputs: list[np.ndarray]) -> None:
        self.runner, self.inputs = runner, inputs
        self.run: Callable[[], object] = runner.prepared(*inputs)

    def outputs(self) -> list[np.ndarray]:
        """Run once more, and fetch the outputs."""
        return self.runner(*self.inputs)


def start(_runtime: str, _threads: int) -> Compiled:
    """Serve compiled models."""
    return Compiled()
