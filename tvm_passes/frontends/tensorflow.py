"""Keras file or SavedModel -> TFLite flatbuffer -> IRModule.

TensorFlow runs in a child process: it and TVM 0.19 each bring an LLVM, and the two abort in one
process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from tvm_passes.errors import ModelError, last_line
from tvm_passes.frontends import tflite
from tvm_passes.frontends.importer import read_bytes, require

if TYPE_CHECKING:
    import tvm

CONVERTER = "tvm_passes.frontends.tensorflow_to_tflite"


def load(path: Path, dialect: str) -> tvm.IRModule:
    """Read a ``.keras`` file or a SavedModel folder.

    Raises
    ------
    ModelError
        If TensorFlow cannot read or convert it, or TVM cannot import the result.
    MissingExtraError
        If TensorFlow or the package tflite is not installed.
    """
    return tflite.from_flatbuffer(to_tflite(path), path, dialect)


def to_tflite(path: Path) -> bytes:
    """Convert a ``.keras`` file or a SavedModel folder to a TFLite flatbuffer.

    Raises
    ------
    ModelError
        If TensorFlow cannot read or convert it.
    MissingExtraError
        If TensorFlow is not installed.
    """
    if path.is_file() and not zipfile.is_zipfile(path):
        raise ModelError(f"{path} is corrupt or cut off: a .keras file is a zip archive")
    require("tensorflow", "tensorflow", path)
    with tempfile.TemporaryDirectory(prefix="tvm-passes-") as folder:
        output = Path(folder) / "model.tflite"
        _convert(path, output)
        return read_bytes(output)


def _convert(path: Path, output: Path) -> None:
    command = [sys.executable, "-m", CONVERTER, str(path), str(output)]
    child = subprocess.run(  # noqa: S603 - this interpreter, our module, no shell
        command,
        env=child_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode != 0:
        said = last_line(child.stderr) or "it said nothing"
        raise ModelError(f"TensorFlow cannot convert {path} (exit {child.returncode}): {said}")


def child_environment() -> dict[str, str]:
    """Let the child import what this process can, and nothing from the current folder."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PYTHONSAFEPATH": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
    }
