"""TVM, Relax or Relay: the compiled kernels, by how often they evaluate the activation.

Run with ``ours`` to go through this package's pass first.
"""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from cases import AFTER, BEFORE, CHANNELS, SHAPE, Case, arrays, serve
from onnx_case import model

from tvm_passes.bench.files import write_model_folder
from tvm_passes.dialects import installed

KINDS = {
    "relu": "maximum with a constant",
    "leaky_relu": "selection by value",
    "relu6": "maximum with a constant",
    "elu": "exp",
    "softplus": "log",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "silu": "sigmoid",
    "gelu": "erf",
}


def backend() -> Any:
    """What compiles, of the TVM installed."""
    if installed() == "relax":
        from tvm_passes.bench.run_relax import Relax

        return Relax("relax", 1)
    from tvm_passes.bench.run_relay import Relay

    return Relay("relay", 1)


BACKEND = backend()
VERSION = "reordered" if "ours" in sys.argv else "original"


def inspect(case: Case) -> tuple[str, str]:
    """Decide on evaluations: one for each element before the pool, or behind it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        onnx.save(model(case), folder / "case.onnx")
        write_model_folder(folder / "case.onnx", [arrays(case)["x"]], folder)
        figures = BACKEND.prepare(folder, VERSION, {}).describe()
    kernels = [figures["kernels"][name] for name in dict.fromkeys(figures["calls"])]
    evaluations = sum(kernel["evaluations"].get(KINDS[case.activation], 0) for kernel in kernels)
    channels = CHANNELS if case.producer != "none" else SHAPE[1]
    before = channels * math.prod(SHAPE[2:])
    kernel, stride, pad = case.window
    after = channels * ((SHAPE[2] + 2 * pad - kernel) // stride + 1) ** 2
    sources = "\n\n".join(kernel["source"] for kernel in kernels)
    if evaluations not in (before, after):
        raise ValueError(f"{evaluations} evaluations, expected {before} or {after}\n{sources}")
    return (BEFORE if evaluations == before else AFTER), f"{evaluations} evaluations\n\n{sources}"


np.seterr(all="raise")
serve(inspect)
