"""TensorFlow Lite -> IRModule, by TVM's own importers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_passes.errors import ModelError
from tvm_passes.frontends.importer import read_bytes, refusals_of, require

if TYPE_CHECKING:
    import tvm


def load(path: Path, dialect: str) -> tvm.IRModule:
    """Read a ``.tflite`` file.

    Raises
    ------
    ModelError
        If it is unreadable, corrupt or unsupported.
    MissingExtraError
        If the package tflite is not installed.
    """
    return from_flatbuffer(read_bytes(path), path, dialect)


def from_flatbuffer(data: bytes, path: Path, dialect: str) -> tvm.IRModule:
    """Import a TFLite flatbuffer that came from the model at `path`.

    Raises
    ------
    ModelError
        If it is corrupt or unsupported.
    MissingExtraError
        If the package tflite is not installed.
    """
    require("tflite", dialect, path)
    from tvm_passes.frontends.tflite_flatbuffer import corruption_of, parse

    model = parse(data, path)
    _refuse_dynamic_inputs(model, path)
    to_dialect = _to_relay if dialect == "relay" else _to_relax
    with corruption_of(path), refusals_of(path):
        return to_dialect(model)


def _refuse_dynamic_inputs(model: Any, path: Path) -> None:
    """Accept a dynamic batch, which is stored as 1; any other dynamic axis is, too."""
    graph = model.Subgraphs(0)
    for index in graph.InputsAsNumpy():
        tensor = graph.Tensors(index)
        for axis, extent in enumerate(_signature(tensor)):
            if axis > 0 and extent < 0:
                raise ModelError(
                    f"{path}: input {tensor.Name().decode()!r} is dynamic in dimension {axis}; "
                    "TVM needs it fixed: convert the model again with a fixed input shape"
                )


def _signature(tensor: Any) -> list[int]:
    """Return the shape with -1 where it is dynamic, which the shape itself stores as 1."""
    if tensor.ShapeSignatureLength():
        return tensor.ShapeSignatureAsNumpy().tolist()
    return tensor.ShapeAsNumpy().tolist() if tensor.ShapeLength() else []


def _with_static_reshape(converter_class: Any, reshape: Any) -> Any:
    """Extend an operator converter of TVM by reshapes whose target is computed in the graph.

    Keras' Flatten with a dynamic batch becomes SHAPE, STRIDED_SLICE, PACK, RESHAPE. Relax's
    converter refuses that, and Relay's compiles and runs the first three to learn the target;
    the file has it as the output's shape, where one dynamic extent can be inferred.
    """

    def build(*args: Any) -> Any:
        converter = converter_class(*args)
        converter.convert_map["RESHAPE"] = partial(_convert_reshape, converter, reshape)
        return converter

    return build


def _convert_reshape(converter: Any, reshape: Any, op: Any) -> Any:
    data, *target = converter.get_input_tensors(op)
    shape = _signature(converter.get_output_tensors(op)[0].tensor)
    is_computed = any(converter.has_expr(tensor.tensor_idx) for tensor in target)
    if not is_computed or data.qnn_params or shape.count(-1) > 1:
        return converter.convert_reshape(op)
    return reshape(converter.get_expr(data.tensor_idx), shape)


def _to_relax(model: Any) -> tvm.IRModule:
    from tvm import relax
    from tvm.relax.frontend.tflite import tflite_frontend

    converter = _with_static_reshape(tflite_frontend.OperatorConverter, relax.op.reshape)
    # Before any block is open: one left open by an error makes TVM's C++ write a warning.
    table, builder = tflite_frontend.ExprTable(), relax.BlockBuilder()
    converter(model, model.Subgraphs(0), table, builder).check_unsupported_ops()

    mod = tflite_frontend.from_tflite(model, op_converter=converter)
    # The weights are constants of the body already; the attribute repeats them.
    mod["main"] = mod["main"].without_attr("params")
    return relax.transform.DeadCodeElimination()(mod)


def _to_relay(model: Any) -> tvm.IRModule:
    import tvm
    from tvm import relay
    from tvm.relay.frontend import tflite as tflite_frontend

    from tvm_passes.relay.prelu import RecoverPReLU

    converter = _with_static_reshape(tflite_frontend.OperatorConverter, relay.reshape)
    mod, params = tflite_frontend.from_tflite(model, op_converter=converter)
    mod["main"] = relay.build_module.bind_params_by_name(mod["main"], params)
    passes = [relay.transform.InferType(), RecoverPReLU()]
    return tvm.transform.Sequential(passes)(mod)
