"""Pack tuned records to ship: of each kernel the fastest one, where tuning gained something.

A kernel that several folders have is taken from the first; what ships already may be one of them.

Example: python scripts/ship_records.py records/* --output targets/znver4/relax
"""

from __future__ import annotations

import json
import lzma
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from tvm_passes.bench.script import run_script
from tvm_passes.bench.statistics import geometric_mean
from tvm_passes.namespaces import meta_schedule
from tvm_passes.records import FILES, PACKED, PAGE, copy_record, open_records

LEAST_GAIN = 1.02
"""Below it a record is noise: times of one kernel vary by about so much from run to run."""


@click.command(help=__doc__)
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--output", required=True, type=click.Path(path_type=Path))
@click.option("--least-gain", default=LEAST_GAIN, show_default=True)
def ship_records(folders: tuple[Path, ...], output: Path, least_gain: float) -> None:
    """Run."""
    pages: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        packed = meta_schedule.database.JSONDatabase(*(str(Path(temporary) / f) for f in FILES))
        for folder in folders:
            records = open_records(folder)
            pages.append(records.page)
            gained = {row["name"] for row in records.page["kernels"] if row["gain"] >= least_gain}
            _copy_best(records.database, packed, gained)
        output.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            data = (Path(temporary) / name).read_bytes()
            (output / f"{name}{PACKED}").write_bytes(lzma.compress(data, preset=9))
    page = _merged(pages, least_gain) | {"records": len(packed)}
    (output / PAGE).write_text(json.dumps(page, indent=2) + "\n")
    click.echo(f"{len(page['kernels'])} kernels, geometric mean of the gains {page['gain']}")


def _copy_best(source: Any, packed: Any, gained: set[str]) -> None:
    """Add the fastest record of each kernel that gained, unless it is there already."""
    for record in source.get_all_tuning_records():
        mod = record.workload.mod
        if packed.has_workload(mod) or _operands(mod) not in gained:
            continue
        (best,) = source.get_top_k(source.commit_workload(mod), 1)
        copy_record(best, packed, best.run_secs)


def _operands(mod: Any) -> str:
    """The name of a kernel on the page: its operands' shapes."""
    from tvm_passes.tune import operands_of

    (func,) = mod.functions.values()
    return operands_of(func)


def _merged(pages: list[dict[str, Any]], least_gain: float) -> dict[str, Any]:
    """One page of all; what each was made with is the same, their commands are listed."""
    rows = list({row["name"]: row for page in pages[::-1] for row in page["kernels"]}.values())
    kept = [row for row in rows if row["gain"] >= least_gain]
    return {
        **pages[0],
        "date": max(page["date"] for page in pages),
        "command": shlex.join(["python", *sys.argv]),
        "commands": [c for page in pages for c in page.get("commands", [page["command"]])],
        "trials": sum(page["trials"] for page in pages),
        "tuned": len(rows),
        "kernels": kept,
        "gain": round(geometric_mean(row["gain"] for row in kept) or 1.0, 3),
    }


if __name__ == "__main__":
    run_script("ship_records", ship_records)
