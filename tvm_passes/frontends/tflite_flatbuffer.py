"""Bytes -> TFLite model, with the offsets that an importer follows checked once.

Flatbuffers' Python has no verifier: a truncated file fails wherever it happens to be read,
or is read past its end without an error (strings, empty vectors).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tflite

from tvm_passes.errors import ModelError

IDENTIFIER = b"TFL3"  # bytes 4 to 8, TensorFlow's schema.fbs: file_identifier
# What reading a corrupt flatbuffer raises: numbers outside it struct.error, a negative position
# TypeError, numpy's views and names that are not UTF-8 ValueError, a missing table
# AttributeError.
CORRUPTION = (AttributeError, struct.error, TypeError, ValueError)

ITEM_BYTES = {
    tflite.TensorType.BOOL: 1,
    tflite.TensorType.INT8: 1,
    tflite.TensorType.UINT8: 1,
    tflite.TensorType.INT16: 2,
    tflite.TensorType.FLOAT16: 2,
    tflite.TensorType.INT32: 4,
    tflite.TensorType.FLOAT32: 4,
    tflite.TensorType.INT64: 8,
    tflite.TensorType.FLOAT64: 8,
}


def parse(data: bytes, path: Path) -> tflite.Model:
    """Read a flatbuffer that came from the model at `path`.

    Raises
    ------
    ModelError
        If it is no TFLite flatbuffer, or one that is corrupt or cut off.
    """
    if data[4:8] != IDENTIFIER:
        raise ModelError(f"{path} is no TFLite model: bytes 4 to 8 are not {IDENTIFIER.decode()}")
    with corruption_of(path, CORRUPTION):
        model = tflite.Model.GetRootAs(data)
        _check_model(model, len(data))
    return model


@contextmanager
def corruption_of(
    path: Path, kinds: tuple[type[Exception], ...] = (struct.error,)
) -> Iterator[None]:
    """Turn what reading a flatbuffer raises into one line about the model at `path`.

    Raises
    ------
    ModelError
    """
    try:
        yield
    except kinds as err:
        raise ModelError(f"{path} is corrupt or cut off: convert or copy it again") from err


def _check_model(model: tflite.Model, size: int) -> None:
    _check(0 < model.SubgraphsLength() <= size, "number of graphs")
    for index in range(model.OperatorCodesLength()):
        model.OperatorCodes(index).BuiltinCode()
    for index in range(model.SubgraphsLength()):
        _check_graph(model, model.Subgraphs(index))


def _check_graph(model: tflite.Model, graph: tflite.SubGraph) -> None:
    for index in range(graph.TensorsLength()):
        _check_tensor(model, graph.Tensors(index))
    for index in range(graph.OperatorsLength()):
        _check_operator(model, graph, graph.Operators(index))
    _check_indices(graph.InputsAsNumpy(), graph.TensorsLength())
    _check_indices(graph.OutputsAsNumpy(), graph.TensorsLength())


def _check_tensor(model: tflite.Model, tensor: tflite.Tensor) -> None:
    tensor.Name().decode()
    tensor.ShapeSignatureAsNumpy()
    shape = tensor.ShapeAsNumpy() if tensor.ShapeLength() else np.zeros(0, np.int32)
    _check(np.all(shape >= 0), "shape")
    _check(tensor.Buffer() < model.BuffersLength(), "buffer")
    _check_quantization(tensor.Quantization())
    buffer = model.Buffers(tensor.Buffer())
    if buffer.DataLength():
        _check_constant(tensor, buffer.DataAsNumpy().size, math.prod(shape.tolist()))


def _check_quantization(quantization: tflite.QuantizationParameters | None) -> None:
    if quantization is not None:
        quantization.ScaleAsNumpy()
        quantization.ZeroPointAsNumpy()
        quantization.QuantizedDimension()


def _check_constant(tensor: tflite.Tensor, found: int, elements: int) -> None:
    """Compare a constant's bytes with what its shape and type need, where that is fixed."""
    item = ITEM_BYTES.get(tensor.Type())
    if item and tensor.Sparsity() is None:
        _check(found == elements * item, "constant")


def _check_operator(model: tflite.Model, graph: tflite.SubGraph, op: tflite.Operator) -> None:
    _check(op.OpcodeIndex() < model.OperatorCodesLength(), "operator code")
    _check_indices(op.InputsAsNumpy(), graph.TensorsLength())
    _check_indices(op.OutputsAsNumpy(), graph.TensorsLength())
    options = op.BuiltinOptions()
    if options is not None:
        options.Offset(4)  # reads the options' vtable


def _check_indices(indices: Any, count: int) -> None:
    """Check tensor indices; -1 is an optional input, and no vector reads as the number 0."""
    indices = np.asarray(indices)
    _check(np.all((indices >= -1) & (indices < max(count, 1))), "tensor index")


def _check(holds: Any, what: str) -> None:
    if not holds:
        raise ValueError(what)
