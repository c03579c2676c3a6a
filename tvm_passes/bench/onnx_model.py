"""A block as an ONNX model, in either order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tvm_passes.bench.block import LEAKY_SLOPE, ORIGINAL, Block

if TYPE_CHECKING:
    import onnx

OPSET = 17
"""Read by every runtime here, TVM 0.19 included."""


class Graph:
    """Nodes and constants in the order in which they are added."""

    def __init__(self, constants: Mapping[str, np.ndarray]) -> None:
        self.nodes: list[Any] = []
        self.constants = dict(constants)

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; returns the name of its output."""
        from onnx import helper

        output = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(self, value: float) -> str:
        """Add a scalar; returns its name."""
        name = f"constant{len(self.constants)}"
        self.constants[name] = np.array(value, np.float32)
        return name


def _gelu(graph: Graph, x: str) -> str:
    """By its definition, x / 2 * (1 + erf(x / sqrt 2)): the operator Gelu came with opset 20."""
    inner = graph.add("Erf", graph.add("Mul", x, graph.constant(math.sqrt(0.5))))
    outer = graph.add("Add", inner, graph.constant(1.0))
    return graph.add("Mul", graph.add("Mul", x, outer), graph.constant(0.5))


ACTIVATIONS: Mapping[str, Callable[[Graph, str], str]] = {
    "none": lambda _graph, x: x,
    "relu": lambda graph, x: graph.add("Relu", x),
    "leaky_relu": lambda graph, x: graph.add("LeakyRelu", x, alpha=LEAKY_SLOPE),
    "sigmoid": lambda graph, x: graph.add("Sigmoid", x),
    "tanh": lambda graph, x: graph.add("Tanh", x),
    "softplus": lambda graph, x: graph.add("Softplus", x),
    "elu": lambda graph, x: graph.add("Elu", x, alpha=1.0),
    "silu": lambda graph, x: graph.add("Mul", x, graph.add("Sigmoid", x)),
    "gelu": _gelu,
}


def onnx_model(block: Block, order: str, arrays: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The block as a model with the input ``x`` and the output ``y``; pads and strides are given.

    Parameters
    ----------
    block
        What to write.
    order
        One of `tvm_passes.bench.block.ORDERS`.
    arrays
        Weights ``w`` and bias ``b``, as of `Block.arrays`.
    """
    weights = ["w", "b"] if block.bias else ["w"]
    graph = Graph({name: arrays[name] for name in weights})
    value = graph.add("Conv", "x", *weights, **window(block.kernel, block.stride, block.pad))
    steps = [
        lambda x: ACTIVATIONS[block.activation](graph, x),
        lambda x: graph.add("MaxPool", x, **window(*block.pool)),
    ]
    for step in steps if order == ORIGINAL else reversed(steps):
        value = step(value)
    return write_model(graph, block.name, block.shape, block.out_shape)


def write_model(
    graph: Graph, name: str, shape: Sequence[int], out_shape: Sequence[int] | None
) -> onnx.ModelProto:
    """A graph as a model whose last node gives the output ``y``.

    Parameters
    ----------
    graph
        Its nodes read the input ``x``.
    name
        Of the model.
    shape, out_shape
        Of input and output, float32; the latter is inferred if None.
    """
    from onnx import TensorProto, checker, helper, numpy_helper, shape_inference

    graph.nodes[-1].output[0] = "y"
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, out_shape)],
            [numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
    )
    if out_shape is None:
        model = shape_inference.infer_shapes(model)
    checker.check_model(model)
    return model


def window(kernel: int, stride: int, pad: int) -> dict[str, list[int]]:
    """Attributes of a square window, the same along both axes."""
    return {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
