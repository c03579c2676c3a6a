"""What lies in the folder that the parent writes and the workers read.

``block.json``; ``arrays.npz`` with ``x``, ``w`` and ``b``; ``original.onnx`` and ``swapped.onnx``.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tvm_passes.bench.block import ORDERS, Block, from_dict


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


def read_block(folder: Path) -> Block:
    """The block of a folder."""
    return from_dict(json.loads((folder / "block.json").read_text()))


def read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Input, weights and bias by name."""
    with np.load(folder / "arrays.npz") as archive:
        return {name: archive[name] for name in archive.files}


def bound_input(folder: Path) -> np.ndarray:
    """The input, contiguous."""
    return np.ascontiguousarray(read_arrays(folder)["x"])
