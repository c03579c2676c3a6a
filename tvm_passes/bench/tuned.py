"""Which versions and runtimes are compiled with tuned records."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from tvm_passes.bench.versions import TUNED
from tvm_passes.errors import RecordsError
from tvm_passes.records import chosen, in_scope

WITH_RECORDS = (TUNED, "tvm_passes", "tvm_passes_winograd", "tvm_passes_relay")


def records_for(
    name: str, dialect: str, config: Mapping[str, Any], options: Mapping[str, Any]
) -> AbstractContextManager[Any]:
    """The context in which a version or runtime is compiled.

    Parameters
    ----------
    name
        Of the version or runtime.
    dialect, config
        What it is compiled for.
    options
        A worker's: ``tuned`` is a folder of records, by default those that ship for the CPU.

    Raises
    ------
    RecordsError
        If it is the version `TUNED`, and there are no records for it.
    """
    if name not in WITH_RECORDS:
        return nullcontext()
    folder = options.get("tuned")
    found = chosen(Path(folder) if folder else None, dialect, config)
    if name == TUNED and found.records is None:
        raise RecordsError(found.note or "no tuned records for this target")
    return in_scope(found.records)
