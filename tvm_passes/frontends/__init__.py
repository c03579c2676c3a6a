"""Model file -> IRModule with its weights as constants, one framework a file.

Importing this imports neither TVM nor a framework; `load_model` imports what the file needs.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tvm_passes import dialects
from tvm_passes.errors import ModelError

if TYPE_CHECKING:
    import tvm

FORMATS = "a .keras, .tflite or .onnx file or a SavedModel folder"
MODULES = {".keras": "tensorflow", ".tflite": "tflite", ".onnx": "onnx"}


def load_model(path: str | os.PathLike[str], dialect: str) -> tvm.IRModule:
    """Read a trained model.

    Parameters
    ----------
    path : str or os.PathLike
        A ``.keras``, ``.tflite`` or ``.onnx`` file, or a SavedModel folder.
    dialect : str
        ``"relax"`` or ``"relay"``, whichever the installed TVM has.

    Returns
    -------
    tvm.IRModule
        Its function ``main`` takes the model's inputs under the names that TVM's front end
        gives them; the weights are constants. A dynamic batch becomes 1.

    Raises
    ------
    ModelError
        If the file is missing, unreadable, corrupt or unsupported.
    MissingExtraError
        If the dialect's TVM, or a package that the format needs, is not installed.
    """
    path = Path(path)
    module = _module_for(path)
    dialects.require(dialect)
    return importlib.import_module(f"{__name__}.{module}").load(path, dialect)


def _module_for(path: Path) -> str:
    try:
        path.stat()
    except OSError as err:
        raise ModelError(f"no model at {path} ({err.strerror}): expected {FORMATS}") from err
    if path.is_dir():
        return _module_for_folder(path)
    if path.suffix.lower() not in MODULES:
        raise ModelError(f"{path} has the extension {path.suffix!r}: expected {FORMATS}")
    return MODULES[path.suffix.lower()]


def _module_for_folder(folder: Path) -> str:
    if not (folder / "saved_model.pb").is_file():
        raise ModelError(f"{folder} is a folder without saved_model.pb: expected {FORMATS}")
    return "tensorflow"
