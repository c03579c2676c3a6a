"""The inputs of a user's .npz or .npy file, cut into runs of the model."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tvm_passes.errors import InputError
from tvm_passes.inputs import Sample, Signature

UNREADABLE = (
    ValueError,
    EOFError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy raises of a file that is no array, is cut off or corrupt, or holds Python objects."""


def read_samples(path: Path, inputs: Signature) -> tuple[Sample, ...]:
    """Read a file's arrays and cut them into samples.

    Parameters
    ----------
    path
        An ``.npz`` file with one array for each input, by name, or an ``.npy`` file for a model
        of one input.  An array has the input's dtype and shape, but for its first axis, which may
        be a multiple of the input's: that many runs.
    inputs
        The model's inputs.

    Raises
    ------
    InputError
        If the file cannot be read or does not fit the inputs.
    """
    arrays = _named(_read(path), path, inputs)
    runs = {i["name"]: _runs(arrays[i["name"]], i, path) for i in inputs}
    if len(set(runs.values())) != 1:
        counts = ", ".join(f"{name!r} for {count}" for name, count in runs.items())
        raise InputError(f"{path}: expected arrays for one number of runs, found {counts}")
    names = [i["name"] for i in inputs]
    return tuple(
        Sample(f"{path.name} #{n}", tuple(_part(arrays[name], n, runs[name]) for name in names))
        for n in range(runs[names[0]])
    )


def _read(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            return {name: np.asarray(loaded[name]) for name in loaded.files}
    except OSError as err:
        reason = err.strerror or "the file is cut off"
        raise InputError(f"cannot read {path}: {reason}") from err
    except UNREADABLE as err:
        raise InputError(
            f"{path} is no .npz or .npy file of numbers, or a corrupt one: "
            "write it with numpy.savez or numpy.save"
        ) from err


def _named(
    loaded: np.ndarray | dict[str, np.ndarray], path: Path, inputs: Signature
) -> dict[str, np.ndarray]:
    names = [tensor["name"] for tensor in inputs]
    if isinstance(loaded, np.ndarray):
        if len(names) != 1:
            raise InputError(
                f"{path} holds one array, the model has {len(names)} inputs: "
                f"give an .npz file with {_list(names)}"
            )
        return {names[0]: loaded}
    if set(loaded) != set(names):
        raise InputError(f"{path}: expected arrays named {_list(names)}, found {_list(loaded)}")
    return loaded


def _runs(array: np.ndarray, tensor: Mapping[str, Any], path: Path) -> int:
    """How many runs an array is for, after checking that it fits its input."""
    name, shape = tensor["name"], tuple(tensor["shape"])
    where = f"{path}: input {name!r}"
    if array.dtype != tensor["dtype"]:
        raise InputError(
            f"{where} is {tensor['dtype']}, found {array.dtype}: convert it, and scale it as the "
            "model expects"
        )
    batch = shape[0] if shape else 1
    fits = array.shape == shape or (
        shape and array.shape[1:] == shape[1:] and array.size and array.shape[0] % batch == 0
    )
    if not fits:
        raise InputError(
            f"{where} has shape {shape}, found {array.shape}: only the first axis may be longer, "
            f"by a multiple of {batch}"
        )
    return array.shape[0] // batch if shape else 1


def _part(array: np.ndarray, n: int, runs: int) -> np.ndarray:
    """The n-th of equal parts along the first axis, in C order."""
    if array.ndim == 0:
        return array
    length = len(array) // runs
    return np.asarray(array[n * length : (n + 1) * length], order="C")


def _list(names: Any) -> str:
    return ", ".join(repr(name) for name in names) or "none"
