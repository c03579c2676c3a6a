"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from tvm_passes.bench.files import bound_input


class OnnxRuntime:
    """Sessions with input and output bound, so that a run copies nothing."""

    versions: Mapping[str, str] = {"onnxruntime": ort.__version__}

    def __init__(self, threads: int) -> None:
        self.options = ort.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1

    def prepare(self, folder: Path, variant: str, _options: Mapping[str, Any]) -> Bound:
        """Load ``VARIANT.onnx``."""
        path = folder / f"{variant}.onnx"
        session = ort.InferenceSession(path, self.options, providers=["CPUExecutionProvider"])
        return Bound(session, bound_input(folder))


class Bound:
    """A session and its binding."""

    def __init__(self, session: ort.InferenceSession, x: np.ndarray) -> None:
        self.session = session
        self.binding = session.io_binding()
        self.x = ort.OrtValue.ortvalue_from_numpy(x)
        self.binding.bind_ortvalue_input(session.get_inputs()[0].name, self.x)
        self.binding.bind_output(session.get_outputs()[0].name)

    def run(self) -> None:
        """Run once."""
        self.session.run_with_iobinding(self.binding)

    def output(self) -> np.ndarray:
        """Fetch the output."""
        return np.asarray(self.binding.copy_outputs_to_cpu()[0])


def start(_runtime: str, threads: int) -> OnnxRuntime:
    """Serve ONNX Runtime."""
    return OnnxRuntime(threads)
