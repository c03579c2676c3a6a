"""A chain as front ends bring it, conv -> bias -> batch norm -> clip -> max-pool, sinks whole."""

import numpy as np
import onnx
import pytest

from tvm_passes import dialects
from tvm_passes.cli import main
from tvm_passes.frontends import load_model

pytestmark = pytest.mark.skipif(dialects.installed() is None, reason="needs a TVM")


@pytest.fixture
def model(tmp_path):
    """Scales of both signs; of a clip, as PyTorch exports relu6."""
    rng = np.random.default_rng(0)
    arrays = {"w": rng.standard_normal((6, 3, 3, 3)), "b": rng.standard_normal(6)}
    arrays |= {name: rng.standard_normal(6) for name in ("shift", "mean")}
    arrays["scale"] = np.linspace(-1.5, 2, 6)
    arrays |= {"var": rng.uniform(0.5, 2, 6), "low": np.array(0.0), "high": np.array(6.0)}
    node = onnx.helper.make_node
    nodes = [
        node("Conv", ["x", "w", "b"], ["conv"]),
        node("BatchNormalization", ["conv", "scale", "shift", "mean", "var"], ["norm"]),
        node("Clip", ["norm", "low", "high"], ["clip"]),
        node("MaxPool", ["clip"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "chain",
        [tensor("x", onnx.TensorProto.FLOAT, [1, 3, 12, 10])],
        [tensor("y", onnx.TensorProto.FLOAT, [1, 6, 5, 4])],
        [onnx.numpy_helper.from_array(a.astype("float32"), n) for n, a in arrays.items()],
    )
    path = tmp_path / "chain.onnx"
    opset = onnx.helper.make_opsetid("", 13)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


def test_it_sinks_whole(model, capsys):
    (decision,) = dialects.engine().decisions(load_model(model, dialects.require()))
    assert decision.decline is None
    assert "conv2d" in decision.site.producer.op
    # The weights take the scale; Relay keeps two sums apart, which its build makes one.
    sunk = {
        "relay": ["clip", "bias_add", "bias_add"],
        "relax": ["minimum", "maximum", "bias_add"],
    }
    assert [op.rule.name for op in decision.sunk] == sunk[dialects.require()]
    assert main(["verify", str(model), "--rounds", "1"]) == 0, capsys.readouterr().out


@pytest.fixture
def older_model(tmp_path):
    """Clip with bounds, and Pad with widths, that are attributes."""
    node, tensor = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        node("Clip", ["x"], ["clip"], min=0.0, max=6.0),
        node("Pad", ["clip"], ["pad"], pads=[0, 0, 1, 0, 0, 0, 0, 1], value=0.0),
        node("MaxPool", ["pad"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    x = tensor("x", onnx.TensorProto.FLOAT, [1, 3, 11, 9])
    y = tensor("y", onnx.TensorProto.FLOAT, [1, 3, 6, 5])
    graph = onnx.helper.make_graph(nodes, "older", [x], [y])
    path = tmp_path / "older.onnx"
    opset = onnx.helper.make_opsetid("", 10)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


def test_a_clip_of_an_older_opset_sinks_past_padding(older_model, capsys):
    (decision,) = dialects.engine().decisions(load_model(older_model, dialects.require()))
    assert decision.decline is None
    assert {op.rule.name for op in decision.sunk} <= {"clip", "minimum", "maximum"}
    assert main(["verify", str(older_model), "--rounds", "1"]) == 0, capsys.readouterr().out
