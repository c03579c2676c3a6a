"""What lies in the folder that the parent writes and the workers read.

Of a block: ``block.json``; ``arrays.npz`` with ``x``, ``w`` and ``b``; ``original.onnx`` and
``swapped.onnx``.  Of a model: ``model.json``, which says where it is, and ``arrays.npz`` with its
inputs in order.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tvm_passes.bench.block import ORDERS, ORIGINAL, Block, from_dict


def write_folder(block: Block, folder: Path, seed: int = 0) -> None:
    """Write all that workers need of a block."""
    import onnx

    from tvm_passes.bench.onnx_model import onnx_model

    arrays = block.arrays(seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "block.json").write_text(json.dumps(block.as_dict()))
    np.savez(folder / "arrays.npz", **arrays)  # type: ignore[arg-type]
    for order in ORDERS:
        onnx.save(onnx_model(block, order, arrays), folder / f"{order}.onnx")


def write_model_folder(model: Path, inputs: Sequence[np.ndarray], folder: Path) -> None:
    """Write where a model is, and its inputs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(json.dumps(str(model.resolve())))
    named = {f"input{n}": array for n, array in enumerate(inputs)}
    np.savez(folder / "arrays.npz", **named)  # type: ignore[arg-type]


def onnx_inputs(path: Path, seed: int = 0) -> list[np.ndarray]:
    """Seeded normal numbers for the inputs of an ONNX model, a dynamic batch being 1.

    Raises
    ------
    ModelError
        If it cannot be read, or has an input that is not float32 of a known shape.
    """
    from tvm_passes.frontends.onnx import float_inputs

    random = np.random.default_rng(seed)
    return [random.standard_normal(shape, np.float32) for shape in float_inputs(path)]


def read_block(folder: Path) -> Block:
    """The block of a folder."""
    path = folder / "block.json"
    if not path.exists():
        raise ValueError("runs blocks, not model files")
    return from_dict(json.loads(path.read_text()))


def read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Input, weights and bias of a block by name, or a model's inputs."""
    with np.load(folder / "arrays.npz") as archive:
        return {name: archive[name] for name in archive.files}


def inputs_of(folder: Path) -> list[np.ndarray]:
    """What the block or model is run on, in the order of its inputs."""
    arrays = read_arrays(folder)
    chosen = [arrays["x"]] if (folder / "block.json").exists() else list(arrays.values())
    return [np.ascontiguousarray(array) for array in chosen]


def model_file(folder: Path, order: str = ORIGINAL) -> Path:
    """The file of the model, or of a block in one of its orders."""
    path = folder / "model.json"
    return Path(json.loads(path.read_text())) if path.exists() else folder / f"{order}.onnx"


def named_file(folder: Path, variant: str, runtime: str, dialect: str) -> tuple[str, Path]:
    """What to run, and the file of its model.

    The runtime named as the dialect runs versions of the model in the order in which it is; any
    other is what it is called, on the order that is its variant.
    """
    if runtime == dialect:
        return variant, model_file(folder)
    return runtime, model_file(folder, variant)


def readable_file(folder: Path, order: str, suffixes: Sequence[str] = (".onnx",)) -> Path:
    """As `model_file`, for runtimes that read some kinds of files alone."""
    path = model_file(folder, order)
    if path.suffix not in suffixes:
        raise ValueError(f"reads {', '.join(suffixes)} files, not {path.suffix or 'folders'}")
    return path
