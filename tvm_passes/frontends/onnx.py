"""ONNX -> IRModule, by TVM's own importers."""

from __future__ import annotations

import contextlib
import io
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_passes.errors import ModelError
from tvm_passes.frontends.importer import refusals_of, require

if TYPE_CHECKING:
    import onnx
    import tvm


def load(path: Path, dialect: str) -> tvm.IRModule:
    """Read an ``.onnx`` file; batch normalization is folded into the convolutions before it.

    Raises
    ------
    ModelError
        If it is unreadable, corrupt or unsupported.
    MissingExtraError
        If the package onnx is not installed.
    """
    require("onnx", dialect, path)
    model = _read(path)
    shapes = _input_shapes(model.graph, path)
    to_dialect = _to_relay if dialect == "relay" else _to_relax
    with refusals_of(path):
        return to_dialect(model, shapes)


def float_inputs(path: Path) -> list[list[int]]:
    """Shapes of the inputs of a model that has float32 ones alone.

    Raises
    ------
    ModelError
        If it has others, or cannot be read.
    """
    import onnx

    graph = _read(path).graph
    shapes = _input_shapes(graph, path)
    for value in graph.input:
        dtype = value.type.tensor_type.elem_type
        if value.name in shapes and dtype != onnx.TensorProto.FLOAT:
            found = onnx.TensorProto.DataType.Name(dtype)
            raise ModelError(f"{path}: expected float32 inputs, found {value.name!r} of {found}")
    return list(shapes.values())


def _read(path: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except OSError as err:
        raise ModelError(f"cannot read {err.filename or path}: {err.strerror}") from err
    except DecodeError as err:
        raise ModelError(f"{path} is no ONNX model, or a corrupt or truncated one") from err
    except (onnx.checker.ValidationError, ValueError) as err:
        found = textwrap.shorten(str(err), width=300, placeholder=" ...")
        raise ModelError(f"{path} is no valid ONNX model: {found}") from err
    return model


def _input_shapes(graph: onnx.GraphProto, path: Path) -> dict[str, list[int]]:
    """Return each input's shape, with a dynamic batch fixed to 1."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    return {value.name: _shape(value, path) for value in inputs}


def _shape(value: onnx.ValueInfoProto, path: Path) -> list[int]:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        raise ModelError(
            f"{path}: input {value.name!r} is no tensor with a known number of dimensions; "
            "export the model again with a fixed input shape"
        )
    return [_extent(value.name, axis, dim, path) for axis, dim in enumerate(tensor.shape.dim)]


def _extent(name: str, axis: int, dim: Any, path: Path) -> int:
    if dim.dim_value > 0:
        return dim.dim_value
    if axis == 0:
        return 1
    called = f" ({dim.dim_param})" if dim.dim_param else ""
    raise ModelError(
        f"{path}: input {name!r} is dynamic in dimension {axis}{called}; TVM needs it fixed: "
        "export the model again with a fixed input shape"
    )


def _to_relax(model: onnx.ModelProto, shapes: dict[str, list[int]]) -> tvm.IRModule:
    import tvm
    from tvm.relax.frontend.onnx import from_onnx

    from tvm_passes.relax.batch_norm import FoldBatchNorm
    from tvm_passes.relax.recover import RecoverOps

    # It prints the operator and all its inputs, weights included, before it raises.
    with contextlib.redirect_stdout(io.StringIO()):
        mod = from_onnx(model, shape_dict=shapes, sanitize_input_names=False)
    kernels = any(node.op_type in ("Clip", "Pad") for node in model.graph.node)
    return tvm.transform.Sequential([*([RecoverOps()] if kernels else []), FoldBatchNorm()])(mod)


def _to_relay(model: onnx.ModelProto, shapes: dict[str, list[int]]) -> tvm.IRModule:
    import tvm
    from tvm import relay

    from tvm_passes.relay.batch_norm import FoldBatchNorm
    from tvm_passes.relay.prelu import RecoverPReLU

    mod, params = relay.frontend.from_onnx(model, shape=shapes, freeze_params=True)
    mod["main"] = relay.build_module.bind_params_by_name(mod["main"], params)
    passes = [relay.transform.InferType(), FoldBatchNorm()]
    if any(node.op_type == "PRelu" for node in model.graph.node):
        passes.append(RecoverPReLU())
    with tvm.transform.PassContext(opt_level=3):
        return tvm.transform.Sequential(passes)(mod)
