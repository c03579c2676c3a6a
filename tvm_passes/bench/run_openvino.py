"""OpenVINO on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from tvm_passes.bench.files import inputs_of, readable_file

FILES = (".onnx", ".tflite")


class OpenVino:
    """Compiled models in float32: the default is bfloat16 where the CPU has it."""

    versions: Mapping[str, str] = {"openvino": ov.__version__}

    def __init__(self, threads: int) -> None:
        self.core = ov.Core()
        self.config = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }

    def prepare(self, folder: Path, variant: str, _options: Mapping[str, Any]) -> Bound:
        """Compile the model, or the block in the order of the variant."""
        model = self.core.read_model(readable_file(folder, variant, FILES))
        compiled = self.core.compile_model(model, "CPU", self.config)
        return Bound(compiled.create_infer_request(), inputs_of(folder))


class Bound:
    """A request with its inputs shared, not copied."""

    def __init__(self, request: Any, inputs: list[np.ndarray]) -> None:
        self.request = request
        self.inputs = [ov.Tensor(array, shared_memory=True) for array in inputs]
        for n, tensor in enumerate(self.inputs):
            request.set_input_tensor(n, tensor)

    def run(self) -> None:
        """Run once, without the dictionary of outputs that ``infer`` builds."""
        self.request.start_async()
        self.request.wait()

    def outputs(self) -> list[np.ndarray]:
        """Fetch the outputs."""
        return [np.array(tensor.data) for tensor in self.request.output_tensors]


def start(_runtime: str, threads: int) -> OpenVino:
    """Serve OpenVINO."""
    return OpenVino(threads)
