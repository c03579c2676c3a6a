"""OpenVINO on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from tvm_passes.bench.files import bound_input


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
        """Compile ``VARIANT.onnx``."""
        model = self.core.read_model(folder / f"{variant}.onnx")
        compiled = self.core.compile_model(model, "CPU", self.config)
        return Bound(compiled.create_infer_request(), bound_input(folder))


class Bound:
    """A request with its input shared, not copied."""

    def __init__(self, request: Any, x: np.ndarray) -> None:
        self.request = request
        self.x = ov.Tensor(x, shared_memory=True)
        request.set_input_tensor(self.x)

    def run(self) -> None:
        """Run once, without the dictionary of outputs that ``infer`` builds."""
        self.request.start_async()
        self.request.wait()

    def output(self) -> np.ndarray:
        """Fetch the output."""
        return np.array(self.request.get_output_tensor().data)


def start(_runtime: str, threads: int) -> OpenVino:
    """Serve OpenVINO."""
    return OpenVino(threads)
