"""Layers that Winograd's filtering computes less exactly than is asked for stay as they are."""

import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from tvm_passes.calibrate import calibrate
from tvm_passes.cli import cli, main
from tvm_passes.dialects import engine
from tvm_passes.errors import InputError
from tvm_passes.frontends import load_model
from tvm_passes.input_file import read_samples

SHAPE = [1, 32, 16, 16]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Two convolutions, and two samples beside them."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((32, 32, 3, 3)).astype("float32") / 17 for _ in range(2)]
    values = {"w0": weights[0], "b0": np.ones(32, "float32"), "w1": weights[1]}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w0", "b0"], ["y"], pads=[1] * 4),
            helper.make_node("Conv", ["y", "w1"], ["z"], pads=[1] * 4),
        ],
        "two convolutions",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, SHAPE)],
        [numpy_helper.from_array(array, name) for name, array in values.items()],
    )
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    np.save(path.with_suffix(".npy"), rng.standard_normal([2, *SHAPE[1:]]).astype("float32"))
    return path


def remarks(model, tmp_path, *options):
    args = ["compile", str(model), "-o", str(tmp_path / "out"), "--allow", "winograd", *options]
    result = CliRunner().invoke(cli, args)
    assert result.exit_code == 0, result.output
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    return [(r["reason"], r["site"][-2:]) for r in manifest["remarks"] if "winograd" in r["reason"]]


def test_without_data_no_layer_is_barred(model, tmp_path):
    assert remarks(model, tmp_path) == [("winograd", "#0"), ("winograd", "#1")]


def test_layers_that_are_exact_enough_on_the_data_are_computed_so(model, tmp_path):
    found = remarks(model, tmp_path, "--calibrate", str(model.with_suffix(".npy")))
    assert found == [("winograd", "#0"), ("winograd", "#1")]


def test_layers_that_are_not_stay_as_they_are(model, tmp_path):
    options = ["--calibrate", str(model.with_suffix(".npy")), "--max-error", "1e-9"]
    found = remarks(model, tmp_path, *options)
    assert found == [("winograd-error", f"#{n}") for n in (0, 0, 1, 1)]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--calibrate", "samples.npy"], "--calibrate is for --allow winograd, which is not given"),
        (["--max-error", "1e-5"], "--max-error is for --calibrate, which is not given"),
    ],
)
def test_calibration_without_what_it_is_for(model, tmp_path, capsys, options, says):
    output = tmp_path / "out"
    assert main(["compile", str(model), "-o", str(output), *options]) == 2
    assert says in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_a_layer_whose_transforms_overflow_on_the_data_stays_as_it_is(model, tmp_path):
    huge = np.full([1, *SHAPE[1:]], 5e37, "float32")
    huge[:, :, ::2] *= -1  # terms of the input's transform all have one sign
    np.save(tmp_path / "huge.npy", huge)
    found = remarks(model, tmp_path, "--calibrate", str(tmp_path / "huge.npy"))
    assert ("winograd-error", "#0") in found


def test_what_is_compiled_for_a_gpu_is_measured_on_the_cpu(model):
    found = engine(None)
    mod = load_model(model, found.DIALECT)
    samples = read_samples(model.with_suffix(".npy"), found.signature(mod)["inputs"])
    barred = calibrate(found, mod, {"kind": "cuda", "arch": "sm_90"}, samples, 1e-9)
    assert len(barred.layers) == 4


def test_data_that_does_not_fit_the_model(model, tmp_path):
    np.save(tmp_path / "other.npy", np.zeros((1, 3, 8, 8), "float32"))
    args = ["compile", str(model), "-o", str(tmp_path / "out")]
    args += ["--allow", "winograd", "--calibrate", str(tmp_path / "other.npy")]
    assert isinstance(CliRunner().invoke(cli, args).exception, InputError)
    assert not (tmp_path / "out").exists()
