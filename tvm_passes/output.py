"""Write results whole or not at all: beside the place asked for, then renamed into it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tvm_passes.errors import OutputError

MANIFEST = "manifest.json"


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `path` when the block ends without an error.

    An earlier result at `path`, a folder with a manifest, is replaced; anything else is refused.

    Raises
    ------
    OutputError
        If `path` cannot be written, before the block runs where that can be told.
    """
    _refuse_foreign(path)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield staged
        with _writing(path):
            staged.chmod(0o755)
            _replace_folder(staged, path)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def check_file(path: Path) -> None:
    """Find out, before the work, that a file can be written.

    Raises
    ------
    OutputError
        If it cannot.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder: give the name of a file")
    with _writing(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        Path(name).unlink()


def write_text(path: Path, text: str) -> None:
    """Write a file whole.

    Raises
    ------
    OutputError
        If `path` cannot be written.
    """
    with _writing(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with _writing(path), os.fdopen(handle, "w") as file:
            file.write(text)
        with _writing(path):
            Path(name).chmod(0o644)
            os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _refuse_foreign(path: Path) -> None:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise OutputError(f"{path} exists and is no folder: give -o the name of a new folder")
    if path.is_dir() and any(path.iterdir()) and not (path / MANIFEST).is_file():
        raise OutputError(
            f"{path} exists and is no compiled model ({MANIFEST} is missing): "
            "give -o the name of a new folder"
        )


def _replace_folder(staged: Path, path: Path) -> None:
    """Put `staged` at `path`; an earlier folder there is moved aside first, then removed."""
    if not path.exists():
        staged.rename(path)
        return
    aside = staged.with_name(f"{staged.name}.old")
    path.rename(aside)
    try:
        staged.rename(path)
    except OSError:
        aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        reason = err.strerror or type(err).__name__
        raise OutputError(f"cannot write {path}: {reason}; choose another place") from err
