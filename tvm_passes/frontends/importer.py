"""TVM's importers raise whatever their Python or C++ trips over; here it becomes a ModelError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from tvm_passes.errors import MissingExtraError, ModelError, last_line

# What TVM's own importers were seen to raise for models they do not support: an assert on an
# attribute, a missing converter or tensor (KeyError, IndexError), an attribute or argument of
# None (AttributeError, TypeError), a variable set in no branch (NameError), a division by a
# zero stride, a read-only view of the file handed to DLPack (BufferError), and TVM's C++ checks
# (RuntimeError, with NotImplementedError and tvm.error below it).
IMPORT_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)


def require(module: str, extra: str, needed_by: Path) -> None:
    """Refuse a model whose reader is not installed.

    Raises
    ------
    MissingExtraError
    """
    if find_spec(module) is None:
        raise MissingExtraError(extra, module, str(needed_by))


def read_bytes(path: Path) -> bytes:
    """Read a whole file.

    Raises
    ------
    ModelError
        If the operating system refuses.
    """
    try:
        return path.read_bytes()
    except OSError as err:
        raise ModelError(f"cannot read {path}: {err.strerror}") from err


@contextmanager
def refusals_of(path: Path) -> Iterator[None]:
    """Turn what an importer of TVM raises into one line about the model at `path`.

    Raises
    ------
    ModelError
    """
    try:
        yield
    except NotImplementedError as err:  # tvm.error.OpNotImplemented: names the operators
        raise ModelError(f"TVM cannot import {path}: {err}") from err
    except IMPORT_ERRORS as err:
        raise ModelError(f"TVM cannot import {path}: {_reason(err)}") from err


def _reason(err: BaseException) -> str:
    """Put the error's class before its message, where TVM has not done so itself."""
    line, kind = last_line(str(err)), type(err).__name__
    return line if line.startswith(kind) else f"{kind}: {line or 'no message'}"
