"""Write results whole or not at all: beside the place asked for, then renamed into it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tvm_passes.errors import OutputError

LIBRARY = "lib.so"
MANIFEST = "manifest.json"
SOURCE, PTX, CUBIN = "kernels.cu", "kernels.ptx", "kernels.cubin"
KERNELS = (SOURCE, PTX, CUBIN)
"""A GPU's kernels, beside the library that holds them."""


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `path` when the block ends without an error.

    An earlier result at `path`, a folder with a manifest, is replaced; anything else is refused.

    Raises
    ------
    OutputError
        If `path` cannot be written, before the block runs where that can be told.
    """
    with writing(path):
        _refuse_foreign(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield staged
        with writing(path):
            staged.chmod(0o777 & ~_umask())
            _replace_folder(staged, path)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def check_file(path: Path, apart_from: Sequence[Path] = ()) -> None:
    """Find out, before the work, that a file can be written.

    Parameters
    ----------
    path
        The file.
    apart_from
        Files that it must not be, and folders that it must not be in.

    Raises
    ------
    OutputError
        If it cannot.
    """
    with writing(path):
        target = path.resolve()
        for other in apart_from:
            if target.is_relative_to(other.resolve()):
                raise OutputError(f"{path} would overwrite {other}: give another name")
        if target.is_dir():
            raise OutputError(f"{path} is a folder: give the name of a file")
        if target.is_file() or not target.exists():
            handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
            os.close(handle)
            Path(name).unlink()


def write_text(path: Path, text: str) -> None:
    """Write a file whole; what is no file, such as a pipe, is written as it is.

    Raises
    ------
    OutputError
        If `path` cannot be written.
    """
    with writing(path):
        target = path.resolve()
        if target.exists() and not target.is_file():
            target.write_text(text)
            return
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with writing(path), os.fdopen(handle, "w") as file:
            file.write(text)
        with writing(path):
            Path(name).chmod(0o666 & ~_umask())
            os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _refuse_foreign(path: Path) -> None:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise OutputError(f"{path} exists and is no folder: give -o the name of a new folder")
    if path.is_dir() and any(path.iterdir()) and not _is_ours(path):
        raise OutputError(
            f"{path} exists and holds more than a compiled model: give -o the name of a new folder"
        )


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds a result of ours and nothing else."""
    if {path.name for path in folder.iterdir()} - {LIBRARY, MANIFEST, *KERNELS}:
        return False
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError, RecursionError):
        return False
    versions = manifest.get("versions") if isinstance(manifest, dict) else None
    return isinstance(versions, dict) and "tvm-passes" in versions


def _replace_folder(staged: Path, path: Path) -> None:
    """Put `staged` at `path`; an earlier folder there is moved aside first, then removed."""
    if not path.exists():
        staged.rename(path)
        return
    aside = staged.with_name(f"{staged.name}.old")
    try:
        path.rename(aside)
        staged.rename(path)
    except BaseException:
        if aside.exists() and not path.exists():
            aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of a place that the system lets nobody write to that another one is wanted.

    Raises
    ------
    OutputError
        If the block meets such an error.
    """
    try:
        yield
    except OSError as err:
        reason = err.strerror or type(err).__name__
        raise OutputError(f"cannot write {path}: {reason}; choose another place") from err
