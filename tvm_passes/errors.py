"""What a user can have got wrong. Anything else that is raised is a bug of ours."""

from __future__ import annotations

import textwrap


class TvmPassesError(Exception):
    """A user's error: its ``str()`` is one line.

    The line says what was expected, what was found, where, and what to do.
    """

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


class ModelError(TvmPassesError):
    """A model that is missing, unreadable, corrupt or unsupported."""


class MissingExtraError(TvmPassesError, ImportError):
    """An optional dependency that is not installed.

    Parameters
    ----------
    extra : str
        The extra of tvm-passes that brings it.
    module : str
        The import that failed.
    needed_by : str
        What asked for it, the subject of the line.
    """

    def __init__(self, extra: str, module: str, needed_by: str = "this") -> None:
        super().__init__(f"{needed_by} needs {module}: {how_to_install(extra)}")
        self.extra = extra
        self.module = module


class DialectError(TvmPassesError, ValueError):
    """A dialect that there is none of."""


class TargetError(TvmPassesError):
    """A target that is unknown, malformed or not supported by the TVM at hand."""


class DeviceCompilerError(TvmPassesError):
    """A device compiler that is missing, does not know the target, or refuses a kernel."""


class RuleError(TvmPassesError):
    """A row of the rule table that is none."""


class AllowError(TvmPassesError):
    """A kind of function that is asked to be allowed, and is none."""


class InputError(TvmPassesError):
    """Arrays that cannot be read, or do not fit the model."""


class BlockError(TvmPassesError):
    """A file of benchmark blocks that is missing or malformed."""


class RecordsError(TvmPassesError):
    """Tuned records, or machines to measure on, that cannot be used."""


class OutputError(TvmPassesError):
    """A result that cannot be written where it was asked for."""


def how_to_install(extra: str) -> str:
    """What to do to get an extra of this distribution."""
    return f"install the extra {extra} of tvm-passes (in a clone: pip install '.[{extra}]')"


def last_line(text: str) -> str:
    """Shorten another library's message to its last line that is not blank.

    TVM puts its C++ stack first and the message last.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    return textwrap.shorten(lines[-1], width=300, placeholder=" ...") if lines else ""
