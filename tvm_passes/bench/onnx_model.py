"""A block as an ONNX model, in either order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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
    from onnx import TensorProto, checker, helper, numpy_helper

    weights = ["w", "b"] if block.bias else ["w"]
    graph = Graph({name: arrays[name] for name in weights})
    value = graph.add("Conv", "x", *weights, **_window(block.kernel, block.stride, block.pad))
    steps = [
        lambda x: ACTIVATIONS[block.activation](graph, x),
        lambda x: graph.add("MaxPool", x, **_window(*block.pool)),
    ]
    for step in steps if order == ORIGINAL else reversed(steps):
        value = step(value)
    graph.nodes[-1].output[0] = "y"
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            block.name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, block.shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, block.out_shape)],
            [numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
    )
    checker.check_model(model)
    return model


def _window(kernel: int, stride: int, pad: int) -> dict[str, list[int]]:
    return {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
