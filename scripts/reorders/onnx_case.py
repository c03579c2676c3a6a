"""A case as an ONNX model whose nodes are called conv, add, activation, pool."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from cases import LEAKY_SLOPE, SHAPE, Case, arrays
from onnx import TensorProto, helper, numpy_helper

OPS = {
    "relu": "Relu",
    "leaky_relu": "LeakyRelu",
    "relu6": "Clip",
    "elu": "Elu",
    "softplus": "Softplus",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "silu": "Sigmoid",
    "gelu": "Erf",
}
"""The operator that each activation is, or consists of."""


SCALARS = {
    name: np.array(value, np.float32)
    for name, value in {
        "low": 0.0,
        "high": 6.0,
        "root": math.sqrt(0.5),
        "one": 1.0,
        "half": 0.5,
    }.items()
}


def _activation(add: Any, name: str, x: str) -> str:
    """Add the nodes of an activation, all of whose names begin with ``activation``."""
    if name == "gelu":
        inner = add("Erf", "activation_erf", add("Mul", "activation_scaled", x, "root"))
        outer = add("Mul", "activation_half", add("Add", "activation_one", inner, "one"), "half")
        return add("Mul", "activation", x, outer)
    if name == "silu":
        return add("Mul", "activation", x, add("Sigmoid", "activation_sigmoid", x))
    bounds = ("low", "high") if name == "relu6" else ()
    slope = {"alpha": LEAKY_SLOPE} if name == "leaky_relu" else {}
    return add(OPS[name], "activation", x, *bounds, **slope)


def model(case: Case) -> onnx.ModelProto:
    """The case, opset 17."""
    constants = arrays(case)
    nodes: list[Any] = []

    def add(op: str, name: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    value = "x"
    if case.producer != "none":
        bias = ("b",) if case.producer == "conv, bias" else ()
        value = add("Conv", "conv", value, "w", *bias, kernel_shape=[3, 3], pads=[1] * 4)
    if case.producer == "conv, add":
        constants["b"] = constants["b"].reshape(1, -1, 1, 1)
        value = add("Add", "add", value, "b")
    if case.producer == "conv, batch norm":
        names = ("scale", "b", "mean", "variance")
        value = add("BatchNormalization", "norm", value, *names)
    constants |= SCALARS
    value = activated = _activation(add, case.activation, value)
    kernel, stride, pad = case.window
    window = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
    value = add("AveragePool" if case.averages else "MaxPool", "pool", value, **window)
    outputs = [value, activated][: case.consumers]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "case",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(a, name) for name, a in constants.items() if name in used - {"x"}],
    )
    opsets = [helper.make_opsetid("", 17)]
    found = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return onnx.shape_inference.infer_shapes(found, strict_mode=True)
