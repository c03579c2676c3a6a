"""Which layers Winograd's filtering may compute: measured on data that a model is given."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tvm_passes.dialects import Engine
from tvm_passes.errors import InputError
from tvm_passes.inputs import Sample
from tvm_passes.remarks import Kind, Remark
from tvm_passes.schedules.families import FAMILIES, Barred, Convolution, digest, takes
from tvm_passes.target import LLVM
from tvm_passes.winograd import Winograd, convolved, filtered

MAX_ERROR = 1e-4
"""Of the largest output of a layer: what an output may be off by."""


def calibrate(
    tvm_engine: Engine,
    mod: Any,
    config: Mapping[str, Any],
    samples: Sequence[Sample],
    max_error: float = MAX_ERROR,
    on_remark: Callable[[Remark], object] | None = None,
) -> Barred:
    """Find the layers that Winograd's filtering computes less well than is asked for.

    Each convolution of ``main`` is computed, on what the samples lead to, in float32 by Winograd's
    filtering and in float64 as it is written, on this machine's CPU.

    Parameters
    ----------
    tvm_engine, mod, config
        The dialect, the model, and what it will be compiled for.
    samples
        Inputs of the model.
    max_error
        What an output may be off by, relative to the largest output of its layer.
    on_remark
        Called with a Missed remark for each layer and family that is off by more.

    Raises
    ------
    InputError
        If there are no samples.
    """
    config = config if config["kind"] == LLVM else {"kind": LLVM}
    if not samples:
        raise InputError("expected samples to calibrate with, found none")
    layers, feeding = tvm_engine.convolutions(mod, config)
    if not layers:
        return Barred()
    worst: dict[tuple[int, Winograd], float] = {}
    for values in _fed(tvm_engine, mod, feeding, config, samples):
        for at, (layer, value) in enumerate(zip(layers, values, strict=True)):
            for family, error in _errors(layer, value):
                worst[at, family] = max(worst.get((at, family), 0.0), error)
    barred = {pair: error for pair, error in worst.items() if not error <= max_error}
    for (at, family), error in barred.items():
        if on_remark is not None:
            on_remark(_remark(layers[at], family, error, max_error))
    return Barred(frozenset((digest(layers[at].weight), str(family)) for at, family in barred))


def _fed(
    tvm_engine: Engine,
    mod: Any,
    feeding: Any,
    config: Mapping[str, Any],
    samples: Sequence[Sample],
) -> Iterator[list[np.ndarray]]:
    """What the convolutions read, sample by sample."""
    order = [tensor["name"] for tensor in tvm_engine.signature(mod)["inputs"]]
    inputs = [tensor["name"] for tensor in tvm_engine.signature(feeding)["inputs"]]
    built = tvm_engine.build(feeding, config, kernels=True)
    with tempfile.TemporaryDirectory(prefix="tvm-reorder-") as folder:
        library = Path(folder) / "lib.so"
        tvm_engine.export(built, library)
        run = tvm_engine.load(library, inputs)
        for sample in samples:
            arrays = dict(zip(order, sample.arrays, strict=True))
            yield run(*(arrays[name] for name in inputs))


def _errors(layer: Convolution, value: np.ndarray) -> Iterator[tuple[Winograd, float]]:
    """The largest error of each family, relative to the largest output."""
    conv = layer.conv
    families = [family for family in FAMILIES if takes(conv, family)]
    if not families:
        return
    data = value.transpose(0, 3, 1, 2) if conv.channels_last else value
    exact = convolved(data.astype("float64"), layer.weight, conv.padding)
    largest = float(np.abs(exact).max(initial=0)) or 1.0
    for family in families:
        found = filtered(data, layer.weight, conv.padding, family)
        error = float(np.abs(found - exact).max(initial=0)) / largest
        yield family, error if np.isfinite(error) else float("inf")  # sums that overflow


def _remark(layer: Convolution, family: Winograd, error: float, limit: float) -> Remark:
    return Remark(
        kind=Kind.MISSED,
        function="main",
        site=layer.site,
        op=layer.op,
        location="",
        reason="winograd-error",
        message=f"{family} is off by more than is allowed of the largest output; allow more",
        numbers=(("error", error), ("max_error", limit)),
    )
