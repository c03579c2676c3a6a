"""Time what an evaluation of each row of the rule table takes, in negations.

One thread, float32, a kernel of its own that is compiled as `tvm-reorder compile` does it; the
median of the runs.  Run it with the Python of either environment.

Example: python scripts/time_functions.py --output scripts/records/function-times-relax.json
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from check_monotone import module
from monotone_ops import Candidate, row_candidates

from tvm_passes.bench.script import run_script
from tvm_passes.compile import TVM
from tvm_passes.dialects import engine, require
from tvm_passes.measure import set_threads
from tvm_passes.output import write_text
from tvm_passes.rules import RULES

SEED = 0
ELEMENTS = 1 << 16
"""As many as a small layer has; input and output fit the second-level cache."""


def seconds(candidate: Candidate, runs: int) -> float:
    """The median time of one kernel."""
    mod = module(candidate, "float32", (1, 1, 1, ELEMENTS))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lib.so"
        engine().export(engine().build(mod, {"kind": "llvm"}, reorder=False), path)
        runner = engine().load(path, ["x"])
    low, high = candidate.domain or (-4.0, 4.0)
    x = np.random.default_rng(SEED).uniform(max(low, -4.0), min(high, 4.0), (1, 1, 1, ELEMENTS))
    run = runner.prepared(x.astype("float32"))
    found = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


@click.command()
@click.option("--runs", default=51, show_default=True)
@click.option("--only", default="", help="Rows whose name has this in it; negations always.")
@click.option("--output", type=click.Path(path_type=Path), required=True)
def main(runs: int, only: str, output: Path) -> None:
    """Time the rows and write the record."""
    set_threads(1)
    dialect = require()
    cpu = Path("/proc/cpuinfo").read_text().partition("model name\t: ")[2].partition("\n")[0]
    rows = [rule for rule in RULES if "float32" in rule.dtypes and rule.forms and not rule.results]
    nothing = Candidate("copy", rows[0].direction, lambda o, x: o.maximum(x, o.const(-5.0)))
    times = {"maximum(-5)": seconds(nothing, runs)}
    for rule in rows:
        for candidate in row_candidates(rule, dialect)[:1]:
            if only in candidate.name or candidate.name.endswith("negative"):
                times[candidate.name] = seconds(candidate, runs)
    negation = times[next(name for name in times if name.endswith("negative"))]
    record = {
        "command": " ".join(["python", *sys.argv]),
        "date": time.strftime("%Y-%m-%d"),
        "seed": SEED,
        "machine": cpu,
        "versions": {TVM[dialect]: version(TVM[dialect])},
        "elements": ELEMENTS,
        "runs": runs,
        "negations": {name: round(value / negation, 1) for name, value in times.items()},
        "nanoseconds": {name: round(1e9 * value / ELEMENTS, 3) for name, value in times.items()},
    }
    write_text(output, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    run_script("time_functions", main)
