"""Model files become modules that compute what their framework computes, or one-line errors."""

import gc
import json
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import flatbuffers
import numpy as np
import onnx
import pytest
import tflite
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tvm_passes import dialects
from tvm_passes.cli import main
from tvm_passes.errors import (
    DialectError,
    MissingExtraError,
    ModelError,
    TvmPassesError,
    how_to_install,
    last_line,
)
from tvm_passes.frontends import importer, load_model
from tvm_passes.frontends import tensorflow as tensorflow_frontend

DATA = Path(__file__).parent / "data"
MNIST = DATA / "mnist.tflite"
DIALECT = dialects.installed()

pytestmark = pytest.mark.skipif(DIALECT is None, reason="needs a TVM")
needs_tensorflow = pytest.mark.skipif(find_spec("tensorflow") is None, reason="needs tensorflow")


@pytest.fixture(autouse=True)
def no_tophub(monkeypatch):
    """Keep Relay's build, here stock TVM, from downloading schedules."""
    monkeypatch.setenv("TOPHUB_LOCATION", "NONE")


def compile_for_cpu(mod):
    """Build a module with stock TVM: a function from one array to one array."""
    import tvm

    if DIALECT == "relax":
        machine = tvm.relax.VirtualMachine(tvm.compile(mod, "llvm"), tvm.cpu())
        return lambda data: machine["main"](tvm.runtime.tensor(data)).numpy()
    from tvm.contrib.graph_executor import GraphModule

    graph = GraphModule(tvm.relay.build(mod, "llvm")["default"](tvm.cpu()))

    def run(data):
        graph.set_input(0, data)
        graph.run()
        return graph.get_output(0).numpy()

    return run


def input_names(mod):
    attribute = "name" if DIALECT == "relax" else "name_hint"
    return [getattr(param, attribute) for param in mod["main"].params]


def refusal(path, kind=ModelError):
    """Load a model that must be refused, and return the error's only line."""
    with pytest.raises(kind) as raised:
        load_model(path, DIALECT)
    line = str(raised.value)
    assert line
    assert "\n" not in line
    return line


def written(path, data):
    path.write_bytes(data)
    return path


# --- the MNIST network -------------------------------------------------------------------------


def mnist_images():
    with np.load(DATA / "mnist_test.npz") as arrays:
        images, labels = arrays["images"], arrays["labels"]
    return images.astype("float32")[:, np.newaxis] / np.float32(255), labels


def test_mnist_reaches_its_recorded_accuracy():
    images, labels = mnist_images()
    run = compile_for_cpu(load_model(MNIST, DIALECT))
    digits = np.array([run(image).argmax() for image in images])
    recorded = json.loads((DATA / "mnist.json").read_text())["accuracy"]
    assert recorded > 0.95
    assert np.mean(digits == labels) == recorded


def test_weights_are_constants_and_the_input_keeps_its_name():
    mod = load_model(str(MNIST), DIALECT)
    assert input_names(mod) == ["serving_default_image:0"]
    assert "params" not in mod["main"].attrs


@needs_tensorflow
def test_keras_file_gives_what_its_tflite_gives():
    images, _ = mnist_images()
    expected = compile_for_cpu(load_model(MNIST, DIALECT))(images[0])
    actual = compile_for_cpu(load_model(DATA / "mnist.keras", DIALECT))(images[0])
    # The same float32 operations; the dense layers may be summed in another order.
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)


EXPORT = """
import sys, keras
keras.models.load_model(sys.argv[1], compile=False).export(sys.argv[2], verbose=False)
"""
EXPORT_UNSUPPORTED = """
import sys, tensorflow as tf
module = tf.Module()
module.call = tf.function(tf.math.erfinv, input_signature=[tf.TensorSpec((1, 4))])
tf.saved_model.save(module, sys.argv[1], signatures=module.call)
"""


def run_python(script, *args):
    environment = tensorflow_frontend.child_environment()
    command = [sys.executable, "-c", script, *map(str, args)]
    subprocess.run(command, check=True, capture_output=True, env=environment)


@needs_tensorflow
def test_saved_model_keeps_its_weights(tmp_path):
    run_python(EXPORT, DATA / "mnist.keras", tmp_path / "mnist")
    images, _ = mnist_images()
    expected = compile_for_cpu(load_model(MNIST, DIALECT))(images[0])
    actual = compile_for_cpu(load_model(tmp_path / "mnist", DIALECT))(images[0])
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)  # as for the Keras file


@pytest.mark.no_tvm
@needs_tensorflow
def test_saved_model_with_an_operator_that_tflite_lacks(tmp_path):
    run_python(EXPORT_UNSUPPORTED, tmp_path / "erfinv")
    assert refusal(tmp_path / "erfinv").endswith("TFLite has no operator for tf.Erfinv")


@pytest.mark.no_tvm
@needs_tensorflow
def test_saved_model_that_is_corrupt(tmp_path):
    written(tmp_path / "saved_model.pb", b"garbage")
    start = f"TensorFlow cannot convert {tmp_path} (exit 1): Cannot parse file "
    assert refusal(tmp_path).startswith(start)


@pytest.mark.no_tvm
@needs_tensorflow
def test_keras_file_without_a_model(tmp_path):
    with zipfile.ZipFile(tmp_path / "empty.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    start = f"TensorFlow cannot convert {tmp_path / 'empty.keras'} (exit 1): Expected a model"
    assert refusal(tmp_path / "empty.keras").startswith(start)


def test_keras_file_cut_off(tmp_path):
    data = (DATA / "mnist.keras").read_bytes()
    path = written(tmp_path / "half.keras", data[: len(data) // 2])
    assert refusal(path) == f"{path} is corrupt or cut off: a .keras file is a zip archive"


def test_converter_that_dies_is_reported_by_its_last_line(monkeypatch):
    monkeypatch.setattr(tensorflow_frontend, "CONVERTER", "tvm_passes.no_such_converter")
    monkeypatch.setattr(importer, "find_spec", lambda _: True)
    assert "No module named tvm_passes.no_such_converter" in refusal(DATA / "mnist.keras")


# --- what every format refuses -----------------------------------------------------------------


def test_importing_the_front_ends_imports_no_tvm():
    script = "import sys, tvm_passes.frontends; sys.exit('tvm' in sys.modules)"
    run_python(script)


def test_missing_file(tmp_path):
    path = tmp_path / "no.tflite"
    expected = "expected a .keras, .tflite or .onnx file or a SavedModel folder"
    assert refusal(path) == f"no model at {path} (No such file or directory): {expected}"


def test_unknown_extension(tmp_path):
    assert "has the extension '.h5': expected a .keras" in refusal(written(tmp_path / "a.h5", b""))


def test_folder_without_a_saved_model(tmp_path):
    assert "is a folder without saved_model.pb" in refusal(tmp_path)


@pytest.mark.parametrize("suffix", ["tflite", "onnx"])
def test_file_that_cannot_be_read(tmp_path, monkeypatch, suffix):
    path = written(tmp_path / f"model.{suffix}", b"")

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    monkeypatch.setattr(onnx, "load", denied)
    assert refusal(path) == f"cannot read {path}: Permission denied"


@pytest.mark.parametrize(
    ("suffix", "package", "extra"),
    [
        ("keras", "tensorflow", "tensorflow"),
        ("tflite", "tflite", DIALECT),
        ("onnx", "onnx", DIALECT),
    ],
)
def test_missing_package_names_the_extra(tmp_path, monkeypatch, suffix, package, extra):
    path = tmp_path / f"model.{suffix}"
    with zipfile.ZipFile(path, "w"):
        monkeypatch.setattr(importer, "find_spec", lambda _: None)
    line = refusal(path, MissingExtraError)
    assert line == f"{path} needs {package}: {how_to_install(extra)}"


def test_missing_dialect_names_the_extra():
    other = {"relax": "relay", "relay": "relax"}[DIALECT]
    with pytest.raises(MissingExtraError) as raised:
        load_model(MNIST, other)
    assert str(raised.value).endswith(how_to_install(other))


def test_a_dialect_that_there_is_none_of():
    with pytest.raises(DialectError, match="no dialect 'relaxx': expected relax or relay"):
        load_model(MNIST, "relaxx")


def test_errors_are_one_line():
    assert str(TvmPassesError("a\n  b\tc")) == "a b c"
    assert last_line("stack\n message\n\n") == "message"
    assert last_line("") == ""


# --- TFLite ------------------------------------------------------------------------------------


class TFLiteBuilder(flatbuffers.Builder):
    """Write the TFLite models that no converter is asked to write."""

    def vector(self, items, prepend="PrependUOffsetTRelative", size=4):
        self.StartVector(size, len(items), size)
        for item in reversed(items):
            getattr(self, prepend)(item)
        return self.EndVector()

    def ints(self, items):
        return self.vector(items, "PrependInt32")

    def table(self, name, **fields):
        getattr(tflite, f"{name}Start")(self)
        for field, value in fields.items():
            getattr(tflite, f"{name}Add{field}")(self, value)
        return getattr(tflite, f"{name}End")(self)

    def tensor(self, name, shape, signature=(), dtype=tflite.TensorType.INT32, buffer=0):
        fields = {"Name": self.CreateString(name), "Shape": self.ints(shape)}
        if signature:
            fields["ShapeSignature"] = self.ints(signature)
        return self.table("Tensor", Type=dtype, Buffer=buffer, **fields)

    def operator(self, index, inputs, outputs, options="", **fields):
        ends = {"Inputs": self.ints(inputs), "Outputs": self.ints(outputs)}
        if options:
            ends["BuiltinOptions"] = self.table(options, **fields)
            ends["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, options)
        return self.table("Operator", OpcodeIndex=index, **ends)

    def model(self, codes, tensors, operators, outputs, constants=()):
        """Finish; the first tensor is the input, constants fill the buffers from 1 on."""
        data = [self.CreateNumpyVector(np.array(x, "<i4").view("u1")) for x in constants]
        buffers = [self.table("Buffer"), *(self.table("Buffer", Data=x) for x in data)]
        kinds = {"Tensors": self.vector(tensors), "Operators": self.vector(operators)}
        ends = {"Inputs": self.ints([0]), "Outputs": self.ints(outputs)}
        graph = self.table("SubGraph", **kinds, **ends)
        codes = [
            self.table("OperatorCode", DeprecatedBuiltinCode=code, BuiltinCode=code, Version=1)
            for code in codes
        ]
        lists = {"OperatorCodes": codes, "Subgraphs": [graph], "Buffers": buffers}
        fields = {field: self.vector(items) for field, items in lists.items()}
        self.Finish(self.table("Model", Version=3, **fields), b"TFL3")
        return bytes(self.Output())


def dynamic_flatten(features=(6,)):
    """Keras' Flatten of [batch, 2, 3] with a dynamic batch."""
    build = TFLiteBuilder()
    kind, f32 = tflite.BuiltinOperator, tflite.TensorType.FLOAT32
    tensors = [
        build.tensor("image", [1, 2, 3], [-1, 2, 3], f32),
        build.tensor("shape", [3]),
        build.tensor("zero", [1], buffer=1),
        build.tensor("one", [1], buffer=2),
        build.tensor("batch", []),
        build.tensor("six", [], buffer=3),
        build.tensor("target", [2]),
        build.tensor("flat", [1, 6], [-1, 6], f32),
    ]
    operators = [
        build.operator(0, [0], [1], "ShapeOptions", OutType=tflite.TensorType.INT32),
        build.operator(1, [1, 2, 3, 3], [4], "StridedSliceOptions", ShrinkAxisMask=1),
        build.operator(2, [4, 5], [6], "PackOptions", ValuesCount=2, Axis=0),
        build.operator(3, [0, 6], [7]),
    ]
    codes = [kind.SHAPE, kind.STRIDED_SLICE, kind.PACK, kind.RESHAPE]
    return build.model(codes, tensors, operators, [7], [[0], [1], features])


def relu(signature=(), code=tflite.BuiltinOperator.RELU):
    """One operator from [1, 2, 2, 1] to [1, 2, 2, 1]."""
    build = TFLiteBuilder()
    f32 = tflite.TensorType.FLOAT32
    tensors = [build.tensor(name, [1, 2, 2, 1], signature, f32) for name in ("image", "out")]
    return build.model([code], tensors, [build.operator(0, [0], [1])], [1])


def test_tflite_flatten_with_a_dynamic_batch(tmp_path):
    mod = load_model(written(tmp_path / "flatten.tflite", dynamic_flatten()), DIALECT)
    data = np.arange(6, dtype="float32").reshape(1, 2, 3)
    np.testing.assert_array_equal(compile_for_cpu(mod)(data), data.reshape(1, 6))
    assert "shape_of" not in str(mod)
    assert "strided_slice" not in str(mod)


@pytest.mark.skipif(DIALECT != "relay", reason="Relay's own reshape compiles to learn its target")
def test_relay_reads_a_dynamic_flatten_without_compiling(tmp_path, monkeypatch):
    from tvm import relay

    builds = []
    monkeypatch.setattr(relay, "build", lambda *args, **_: builds.append(args))
    load_model(written(tmp_path / "flatten.tflite", dynamic_flatten()), DIALECT)
    assert builds == []


def test_tflite_with_a_constant_of_the_wrong_size(tmp_path):
    path = written(tmp_path / "flatten.tflite", dynamic_flatten(features=(6, 6)))
    assert refusal(path) == f"{path} is corrupt or cut off: convert or copy it again"


def test_tflite_with_a_dynamic_batch_gets_batch_1(tmp_path):
    mod = load_model(written(tmp_path / "batch.tflite", relu([-1, 2, 2, 1])), DIALECT)
    data = np.array([-1, -0.0, 0, 2], "float32").reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(compile_for_cpu(mod)(data), np.maximum(data, 0))


def test_tflite_with_a_dynamic_height(tmp_path):
    line = refusal(written(tmp_path / "height.tflite", relu([-1, -1, 2, 1])))
    assert "input 'image' is dynamic in dimension 1; TVM needs it fixed" in line


def test_tflite_with_an_unsupported_operator(tmp_path, capfd):
    data = relu(code=tflite.BuiltinOperator.SKIP_GRAM)
    line = refusal(written(tmp_path / "skip.tflite", data))
    start = f"TVM cannot import {tmp_path / 'skip.tflite'}: The following operators are not"
    assert line == f"{start} supported in frontend TFLite: 'SKIP_GRAM'"
    gc.collect()  # TVM warns when it destroys what an error left half built
    assert capfd.readouterr() == ("", "")


def test_tflite_that_is_something_else(tmp_path):
    line = refusal(written(tmp_path / "text.tflite", b"hello, world"))
    assert line.endswith("is no TFLite model: bytes 4 to 8 are not TFL3")


@pytest.mark.parametrize("length", [8, 9, 40, 100, 1_000, 10_000, 500_000, 967_000, 971_467])
def test_tflite_cut_off(tmp_path, length):
    path = written(tmp_path / "cut.tflite", MNIST.read_bytes()[:length])
    assert refusal(path) == f"{path} is corrupt or cut off: convert or copy it again"


def test_tflite_with_each_byte_broken(tmp_path):
    """Every byte is part of the structure, so most of the 0xFFs must be found; none may escape."""
    data = relu()
    found = 0
    for index in range(8, len(data)):
        path = written(tmp_path / "x.tflite", data[:index] + b"\xff" + data[index + 1 :])
        try:
            load_model(path, DIALECT)
        except ModelError as err:
            found += "corrupt or cut off" in str(err)
    assert found > len(data) // 4


# --- ONNX --------------------------------------------------------------------------------------


def onnx_cnn(shape=("N", 3, 12, 12), last="Gemm", name="input.1"):
    """Convolution, ReLU, max-pool, flatten, dense, with seeded weights."""
    random = np.random.default_rng(3180)
    shapes = {"w": (4, 3, 3, 3), "b": (4,), "dense.w": (10, 144), "dense.b": (10,)}
    weights = [
        numpy_helper.from_array(random.standard_normal(shape, dtype="float32"), name)
        for name, shape in shapes.items()
    ]
    pads = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", [name, "w", "b"], ["conv"], **pads),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("MaxPool", ["relu"], ["pool"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node(last, ["flat", "dense.w", "dense.b"], ["out"], transB=1),
    ]
    image = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ("N", 10))
    graph = helper.make_graph(nodes, "cnn", [image], [out], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def saved(path, model):
    return written(path, model.SerializeToString())


def test_onnx_cnn_with_a_dynamic_batch(tmp_path):
    model = onnx_cnn()
    mod = load_model(saved(tmp_path / "cnn.onnx", model), DIALECT)
    assert input_names(mod) == ["input.1"]
    assert "(1, 3, 12, 12)" in str(mod)

    data = np.random.default_rng(0).standard_normal((1, 3, 12, 12), dtype="float32")
    (expected,) = ReferenceEvaluator(model).run(None, {"input.1": data})
    # Sums of 27 and 144 products of magnitude 1 in another order: 144 * 2**-23 * 5.
    np.testing.assert_allclose(compile_for_cpu(mod)(data), expected, rtol=0, atol=1e-4)


def test_onnx_with_an_embedding_compiles(tmp_path):
    """Its kernel loads from where the words say."""
    table = np.random.default_rng(5).standard_normal((40, 24), dtype="float32")
    node = helper.make_node("Gather", ["table", "words"], ["vectors"], axis=0)
    words = helper.make_tensor_value_info("words", TensorProto.INT64, (2, 7))
    out = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, (2, 7, 24))
    weights = [numpy_helper.from_array(table, "table")]
    graph = helper.make_graph([node], "embedding", [words], [out], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)

    folder = tmp_path / "out"
    assert main(["compile", str(saved(tmp_path / "embedding.onnx", model)), "-o", str(folder)]) == 0
    values = np.random.default_rng(6).integers(0, 40, (2, 7))
    (found,) = dialects.engine().load(folder / "lib.so", ["words"])(values)
    assert np.array_equal(found, table[values])


def test_onnx_with_a_dynamic_height(tmp_path):
    line = refusal(saved(tmp_path / "height.onnx", onnx_cnn(("N", 3, "H", 12))))
    assert "input 'input.1' is dynamic in dimension 2 (H); TVM needs it fixed" in line


def test_onnx_with_an_input_that_is_no_tensor(tmp_path):
    model = onnx_cnn()
    model.graph.input.append(
        helper.make_tensor_sequence_value_info("list", TensorProto.FLOAT, None)
    )
    assert "input 'list' is no tensor" in refusal(saved(tmp_path / "list.onnx", model))


def test_onnx_with_an_unsupported_operator(tmp_path):
    model = onnx_cnn(last="NoSuchOp")
    model.graph.node[-1].domain = "my.domain"
    model.opset_import.append(helper.make_opsetid("my.domain", 1))
    line = refusal(saved(tmp_path / "custom.onnx", model))
    start = f"TVM cannot import {tmp_path / 'custom.onnx'}: The following operators are not"
    assert line == f"{start} supported for frontend ONNX: NoSuchOp"


def test_onnx_that_tvm_cannot_import(tmp_path, capsys):
    line = refusal(saved(tmp_path / "channels.onnx", onnx_cnn((1, 5, 12, 12))))
    assert line.startswith(f"TVM cannot import {tmp_path / 'channels.onnx'}: ")
    assert capsys.readouterr().out == ""


def test_onnx_that_is_invalid(tmp_path):
    line = refusal(saved(tmp_path / "invalid.onnx", onnx_cnn(last="NoSuchOp")))
    assert "is no valid ONNX model: No Op registered for NoSuchOp" in line


def test_onnx_without_its_external_data(tmp_path):
    path = tmp_path / "external.onnx"
    onnx.save(onnx_cnn(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "w.bin").unlink()
    assert "w.bin" in refusal(path)


@pytest.mark.parametrize("length", [0, 1, 10, 100, 1_000, 5_000])
def test_onnx_cut_off(tmp_path, length):
    data = onnx_cnn().SerializeToString()
    assert len(data) > 5_000
    line = refusal(written(tmp_path / "cut.onnx", data[:length]))
    assert "no ONNX model, or a corrupt or truncated one" in line or "no valid ONNX model" in line


def test_onnx_that_is_something_else(tmp_path):
    line = refusal(written(tmp_path / "text.onnx", b"hello, world"))
    assert line.endswith("is no ONNX model, or a corrupt or truncated one")
