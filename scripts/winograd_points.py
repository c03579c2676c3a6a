"""Where to evaluate Winograd's polynomials, and what larger tiles would save and cost.

Sums over normally distributed channels, in float32, are compared with float64 for sets of points
whose fractions are exact in binary; printed are the best for F(4x4, 3x3) and for F(6x6, 3x3), and
the multiplications that the latter saves on square images. No TVM is needed.

Example: python scripts/winograd_points.py --output scripts/records/winograd-points.json
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from itertools import combinations
from math import ceil
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from tvm_passes.bench.script import run_script
from tvm_passes.output import check_file, write_text
from tvm_passes.winograd import Winograd, convolved, filtered

MAGNITUDES = [Fraction(n, 8) for n in (2, 3, 4, 5, 6, 8, 10, 12, 16, 20)]
IMAGES = (14, 28, 56, 112, 224)
SHOWN = 5


@dataclass(frozen=True)
class Pointed(Winograd):
    """A member of the family with points of its own."""

    at: tuple[Fraction, ...] = ()

    @property
    def points(self) -> tuple[Fraction, ...]:
        """The finite points."""
        return self.at


def sets_of_points(family: Winograd) -> list[tuple[Fraction, ...]]:
    """0, and pairs of p and -p."""
    pairs = (family.tile - 2) // 2
    return [
        (Fraction(0), *(sign * p for p in chosen for sign in (1, -1)))
        for chosen in combinations(MAGNITUDES, pairs)
    ]


@click.command(help=__doc__)
@click.option("--channels", default=256, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--output", type=click.Path(path_type=Path))
def winograd_points(channels: int, seed: int, output: Path | None) -> None:
    """Run."""
    if output is not None:
        check_file(output)
    random = np.random.default_rng(seed)
    x = random.standard_normal((1, channels, 26, 26), np.float32)
    weight = random.standard_normal((32, channels, 3, 3), np.float32)
    exact = convolved(x.astype(float), weight.astype(float), (0, 0, 0, 0))

    def error(found: np.ndarray) -> float:
        return float(np.abs(found - exact).max() / np.abs(exact).max())

    record: dict[str, object] = {
        "command": " ".join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "as_written": error(convolved(x, weight, (0, 0, 0, 0))),
    }
    table = Table(title="largest error, as a share of the largest output")
    for header in ("tile", "points", "error"):
        table.add_column(header)
    for outputs in (4, 6):
        family = Winograd(outputs, 3)
        ranked = sorted(
            (error(filtered(x, weight, (0, 0, 0, 0), Pointed(outputs, 3, at))), at)
            for at in sets_of_points(family)
        )
        own = error(filtered(x, weight, (0, 0, 0, 0), family))
        named = [(value, [str(p) for p in at if p >= 0]) for value, at in ranked]
        record[str(family)] = {"here": own, "sets": len(named), "best": named[:SHOWN]}
        for value, points in [(own, ["as it is here"]), *named[:SHOWN]]:
            table.add_row(str(family), ", ".join(points), f"{value:.2e}")
    saved = {n: 1 - _products(n, 6) / _products(n, 4) for n in IMAGES}
    record["multiplications saved by F(6x6, 3x3)"] = saved
    console = Console(width=100)
    console.print(table)
    console.print({n: f"{share:.0%}" for n, share in saved.items()})
    if output is not None:
        write_text(output, json.dumps(record, indent=1) + "\n")


def _products(extent: int, outputs: int) -> int:
    """Multiplications for a square image, by channel and filter."""
    return int((ceil(extent / outputs) * (outputs + 2)) ** 2)


if __name__ == "__main__":
    run_script("winograd_points", winograd_points)
