"""``tvm-reorder verify``: its options, and how its result is printed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tvm_passes.cli_options import ALLOW, DIALECT, JSON, MODEL, QUIET, TARGET, progress
from tvm_passes.compare import Difference, Finding, raw_bits
from tvm_passes.compile import silent
from tvm_passes.inputs import DRAWS, Draws
from tvm_passes.verify import CPU, SITE, Check, Verification, verify_model

COLUMNS = {
    Difference.ZERO_SIGN: "±0",
    Difference.NAN: "NaN",
    Difference.INFINITY: "±∞",
    Difference.ROUNDING: "rounding",
    Difference.DIFFERENT: "differ",
}


@click.command(name="verify")
@MODEL
@TARGET
@DIALECT
@ALLOW
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=DRAWS.rounds,
    show_default=True,
    help="How often each generator of inputs is drawn from.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=DRAWS.seed,
    show_default=True,
    help="Of the generators.",
)
@click.option(
    "--input",
    "inputs",
    type=click.Path(path_type=Path),
    help="Compare on these, too: an .npz of arrays by input name, or an .npy for a model of one "
    "input. The first axis may hold several batches.",
)
@click.option(
    "--strict", is_flag=True, help="Fail on differences that the contract leaves open, too."
)
@JSON
@QUIET
def verify_command(
    model: Path,
    target: str,
    dialect: str | None,
    allow: tuple[str, ...],
    rounds: int,
    seed: int,
    inputs: Path | None,
    strict: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Compile MODEL with and without the pass, and compare the results bit by bit.

    Compares every output of the model, and every site that the pass rewrites by itself, on random
    and adversarial inputs: ties, saturation, denormals, zeros of both signs; on sites alone, the
    largest numbers and infinities. Exit code 0: equal; 1: different.

    MODEL is a .keras, .tflite or .onnx file or a SavedModel folder.

    \b
    Example:
      tvm-reorder verify model.tflite --target x86-64-v3
      tvm-reorder verify model.onnx --input samples.npz --strict
    """
    step = silent if quiet or as_json else progress
    found = verify_model(
        model,
        target=target,
        dialect=dialect,
        allow=allow,
        draws=Draws(rounds, seed),
        inputs=inputs,
        step=step,
    )
    if as_json:
        document = {
            "model": str(model),
            "input": str(inputs) if inputs else None,
            "rounds": rounds,
            "seed": seed,
            "strict": strict,
            "allowed": sorted(allow),
            **_document(found, strict=strict),
        }
        click.echo(json.dumps(document, indent=2))
    elif not quiet:
        out = Console()
        out.print(_table(found))
        for line in (*_explain(found), _verdict(found, strict=strict)):
            out.print(line, highlight=False, markup=False, soft_wrap=True)
    return 1 if found.failed(strict=strict) else 0


def _table(found: Verification) -> Table:
    """A row a check; of the columns that the contract leaves open, those that something is in."""
    kinds = [
        kind for kind in COLUMNS if not kind.allowed or any(c.count(kind) for c in found.checks)
    ]
    table = Table(title="bits of both orders", title_justify="left")
    table.add_column("compared", no_wrap=True)
    for header in ("runs", "equal", *(COLUMNS[kind] for kind in kinds), "worst ulp"):
        table.add_column(header, justify="right")
    for check in found.checks:
        counts = [_count(check, kind) for kind in kinds]
        equal = str(check.equal) if check.runs else "skipped"
        table.add_row(escape(check.name), str(check.runs), equal, *counts, _worst(check))
    return table


def _count(check: Check, kind: Difference) -> str:
    count = check.count(kind)
    colour = "yellow" if kind.allowed else "red"
    return f"[{colour}]{count}" if count else "0"


def _worst(check: Check) -> str:
    """The worst distance of the values that are not put down to zeros, NaN or infinities."""
    rounded = (Difference.ROUNDING, Difference.DIFFERENT)
    worst = [finding.worst_ulp for finding in check.findings if finding.kind in rounded]
    return "NaN" if None in worst else str(max([0, *(ulp for ulp in worst if ulp is not None)]))


def _explain(found: Verification) -> Iterator[str]:
    """What differs and where first, a line for each kind; what was not compared."""
    for check in found.checks:
        if check.note:
            yield f"{check.name}: not compared{' on them' if check.runs else ''}: {check.note}"
        for finding in check.findings:
            yield f"{check.name}: {finding.kind.value}: {_describe(finding, check)}"
    if not any(check.kind == SITE for check in found.checks):
        yield "no site passed: both orders are the same module"


def _describe(finding: Finding, check: Check) -> str:
    first = finding.first
    apart = "a NaN among them" if finding.worst_ulp is None else f"up to {finding.worst_ulp} ulp"
    one, other = ("in the original order", "reordered")
    if check.kind == CPU:
        one, other = ("on the CPU", "on the GPU")
    return (
        f"{finding.count} of {check.values} values, {apart}; first at {list(first.index)} "
        f"of {first.sample}: {first.original!s} {one}, {first.reordered!s} {other}"
    )


def _verdict(found: Verification, *, strict: bool) -> str:
    failed = found.failed(strict=strict)
    if failed:
        names = ", ".join(check.name for check in failed)
        return f"different: {names}" + ("" if strict else "; please report this model")
    values = sum(check.values for check in found.checks)
    skipped = sum(not check.runs for check in found.checks)
    but = f"; {skipped} sites were not compared by themselves" if skipped else ""
    if any(check.count(Difference.ROUNDING) for check in found.checks):
        return f"equal: all {values} values{but}, but for the rounding that was allowed"
    if any(check.findings for check in found.checks):
        return f"equal: all {values} values{but}, except where the contract leaves the bits open"
    return f"equal: all bits of {values} values{but}"


def _document(found: Verification, *, strict: bool) -> dict[str, Any]:
    return {
        "dialect": found.dialect,
        "target": found.target,
        "equal": not found.failed(strict=strict),
        "checks": [
            {
                "kind": check.kind,
                "name": check.name,
                "runs": check.runs,
                "values": check.values,
                "equal": check.equal,
                "note": check.note,
                "differences": [_finding_json(finding) for finding in check.findings],
            }
            for check in found.checks
        ],
    }


def _finding_json(finding: Finding) -> dict[str, Any]:
    first = finding.first
    return {
        "kind": finding.kind.value,
        "allowed": finding.kind.allowed,
        "count": finding.count,
        "worst_ulp": finding.worst_ulp,
        "first": {
            "input": first.sample,
            "index": list(first.index),
            "original": str(first.original),
            "reordered": str(first.reordered),
            "original_bits": _hex(first.original),
            "reordered_bits": _hex(first.reordered),
        },
    }


def _hex(value: np.generic) -> str:
    bits = int(raw_bits(np.asarray(value)))
    return f"0x{bits:0{2 * value.itemsize}x}"
