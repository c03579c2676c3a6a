"""A model that TensorFlow's converter quantized, end to end."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from tvm_passes import dialects
from tvm_passes.cli import main
from tvm_passes.frontends import load_model
from tvm_passes.frontends import tensorflow as tensorflow_frontend

pytestmark = [
    pytest.mark.skipif(dialects.installed() is None, reason="needs a TVM"),
    pytest.mark.skipif(find_spec("tensorflow") is None, reason="needs tensorflow"),
]

QUANTIZE = """
import sys, keras, numpy as np, tensorflow as tf
keras.utils.set_random_seed(0)
model = keras.Sequential([
    keras.layers.Input((12, 12, 3)),
    keras.layers.Conv2D(8, 3, activation="relu"),
    keras.layers.MaxPooling2D(2),
    keras.layers.Conv2D(4, 3, activation="relu6"),
    keras.layers.MaxPooling2D(2),
])
converter = tf.lite.TFLiteConverter.from_keras_model(model)
converter.optimizations = [tf.lite.Optimize.DEFAULT]
rng = np.random.default_rng(0)
converter.representative_dataset = lambda: (
    [rng.standard_normal((1, 12, 12, 3)).astype("float32")] for _ in range(8)
)
converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
converter.inference_input_type = converter.inference_output_type = tf.int8
open(sys.argv[1], "wb").write(converter.convert())
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Two convolutions of int8 with fused activations, each with a max-pool behind it."""
    path = tmp_path_factory.mktemp("model") / "quantized.tflite"
    environment = tensorflow_frontend.child_environment()
    command = [sys.executable, "-c", QUANTIZE, str(path)]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return path


def test_its_sites_sink(model):
    engine = dialects.engine()
    decisions = engine.decisions(load_model(model, engine.DIALECT))
    assert len(decisions) == 2
    ops = {"relay": "qnn.requantize", "relax": "relax.quantize"}
    for decision in decisions:
        assert ops[engine.DIALECT] in [op.op for op in decision.sunk]
        assert decision.site.pool.dtype == "int8"


def test_all_bits_are_equal(model, capsys):
    assert main(["verify", str(model), "--rounds", "1"]) == 0
    assert "equal: all bits" in " ".join(capsys.readouterr().out.split())
