"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from tvm_passes.bench.files import inputs_of, readable_file


class OnnxRuntime:
    """Sessions with input and output bound, so that a run copies nothing."""

    versions: Mapping[str, str] = {"onnxruntime": ort.__version__}

    def __init__(self, threads: int) -> None:
        self.options = ort.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1

    def prepare(self, folder: Path, variant: str, _options: Mapping[str, Any]) -> Bound:
        """Load the model, or the block in the order of the variant."""
        path = readable_file(folder, variant)
        session = ort.InferenceSession(path, self.options, providers=["CPUExecutionProvider"])
        return Bound(session, inputs_of(folder))


class Bound:
    """A session and its binding."""

    def __init__(self, session: ort.InferenceSession, inputs: list[np.ndarray]) -> None:
        self.session = session
        self.binding = session.io_binding()
        self.inputs = [ort.OrtValue.ortvalue_from_numpy(array) for array in inputs]
        for node, value in zip(session.get_inputs(), self.inputs, strict=True):
            self.binding.bind_ortvalue_input(node.name, value)
        for node in session.get_outputs():
            self.binding.bind_output(node.name)

    def run(self) -> None:
        """Run once."""
        self.session.run_with_iobinding(self.binding)

    def outputs(self) -> list[np.ndarray]:
        """Fetch the outputs."""
        return list(self.binding.copy_outputs_to_cpu())


def start(_runtime: str, threads: int) -> OnnxRuntime:
    """Serve ONNX Runtime."""
    return OnnxRuntime(threads)
