"""Rewrite random graphs and compare every output with the unrewritten graph's, bit by bit.

Hypothesis draws the graphs and shrinks one that differs.  Run it with the Python of either
environment.

Example: python scripts/fuzz_reorder.py --graphs 10000 --seed 1 --output relax.json
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
import tvm
from graph_modules import Pass, allowed, decide, module, run, sample
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from random_graphs import Graph, further_inputs, graphs, inputs

from tvm_passes.bench.environment import environment
from tvm_passes.bench.script import run_script
from tvm_passes.compare import Difference, compare
from tvm_passes.compile import TVM
from tvm_passes.dialects import require
from tvm_passes.errors import TvmPassesError
from tvm_passes.output import check_file, write_text
from tvm_passes.remarks import Remark
from tvm_passes.target import LLVM, parse_target, require_device

BATCH = 250  # graphs from one seed, then what was found is written
Target = dict[str, Any]
TARGETS = ('{"kind": "llvm"}', "x86-64-v3")
"""The second has FMA: LLVM makes one of a product and a sum that meet in a kernel."""

INVALID = (
    "location of #dbg_declare must be a pointer or int",
    "Instruction does not dominate all uses",
)
"""What LLVM says of code that TVM generates for some modules, in either order: of debug information
of a vector of constants, and of a vector that is read before it is made."""


@dataclass
class Tally:
    """What was met: graphs, decisions and values, and how long it took.

    `not_compiled` counts the graphs that TVM does not compile before the pass, or, for what is
    `INVALID` alone, after it.
    """

    seconds: int = 0
    graphs: int = 0
    rewritten: int = 0
    not_compiled: int = 0
    values: int = 0
    sites: Counter[str] = field(default_factory=Counter)
    sunk: Counter[str] = field(default_factory=Counter)
    stayed: Counter[str] = field(default_factory=Counter)
    left_open: Counter[str] = field(default_factory=Counter)


def runnable(targets: Sequence[str] = TARGETS) -> list[Target]:
    """Those that this machine can run.

    Raises
    ------
    TvmPassesError
        If it can run none, for the last of them.
    """
    found = [parse_target(target) for target in targets]
    return [config for config in found if _runs_here(config)] or [require_device(found[-1])]


def _runs_here(config: Target) -> bool:
    try:
        require_device(config)
    except TvmPassesError:
        return False
    return True


def check(graph: Graph, target: Target, tally: Tally, *, kernels: bool) -> None:
    """Compare a graph in both orders, with kernels of this project or with TVM's own pipeline.

    Raises
    ------
    AssertionError
        If a value differs in more than the contract leaves open, the pass is not done, or a site
        has no remark, or one that is no site has.
    """
    before = module(graph)
    allow = allowed(before)
    found = decide(before, allow=allow)
    tally.graphs += 1
    for decision in found:
        tally.sites["passed" if decision.passed else "missed"] += 1
        tally.sunk.update(op.op for op in decision.sunk)
        if decision.decline is not None:
            tally.stayed[decision.decline.reason.value] += 1
    if not any(decision.passed for decision in found):
        return
    after = rewritten(before, allow, {decision.site.name for decision in found})
    tally.rewritten += 1
    x = sample(graph)
    try:
        expected = run(before, target, x, kernels=kernels)
    except RuntimeError:  # TVM's own error: LLVM refuses some of its code
        tally.not_compiled += 1
        return
    try:
        found = run(after, target, x, kernels=kernels)
    except RuntimeError as err:
        if not any(text in str(err) for text in INVALID):
            raise
        tally.not_compiled += 1
        return
    tally.values += sum(value.size for value in expected)
    findings = [f for pair in zip(expected, found, strict=True) for f in compare(*pair)]
    wrong = next((finding for finding in findings if not finding.kind.allowed), None)
    if wrong is not None and is_finite(graph, target):
        raise AssertionError(f"{wrong.first} on {target}\n{before}\n{after}")
    for finding in findings:
        kind = finding.kind if finding.kind.allowed else Difference.NAN
        tally.left_open[kind.value] += finding.count


def is_finite(graph: Graph, target: Target) -> bool:
    """Whether all values that an unrewritten graph computes are finite.

    Pools of windows in padding give the lowest number, a sum of such is infinite, and the cosine
    of that is NaN, which a later op may hide.
    """
    every = module(replace(graph, outputs=tuple(range(1, len(graph.nodes)))))
    values = run(every, target, sample(graph), kernels=False)
    return all(np.isfinite(value.astype("float64")).all() for value in values)


def rewritten(mod: tvm.IRModule, allow: Sequence[str], sites: Set[str]) -> tvm.IRModule:
    """The module after the pass.

    Raises
    ------
    AssertionError
        If another run of the pass changes it, or remarks are not on these sites.
    """
    remarks: list[Remark] = []
    after = Pass(allow=allow, on_remark=remarks.append)(mod)
    tvm.ir.assert_structural_equal(Pass(allow=allow)(after), after)
    if {remark.site for remark in remarks} != sites:
        raise AssertionError(f"sites are {sites}, remarks {remarks}\n{mod}\n{after}")
    return after


def fuzz(  # noqa: PLR0913 - its settings
    count: int,
    start: int,
    targets: Sequence[Target],
    tally: Tally,
    *,
    pools: int = 3,
    shrink: bool = True,
    further: bool = False,
) -> None:
    """Check that many graphs, each of at most so many pools; images, or `further` data.

    Raises
    ------
    AssertionError
        If one differs: the smallest that Hypothesis finds.
    """

    @seed(start)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    @given(
        graphs(pools, further_inputs() if further else inputs()),
        st.sampled_from(targets),
        st.booleans(),
    )
    def each(graph: Graph, target: Target, ours: bool) -> None:
        check(graph, target, tally, kernels=ours or target["kind"] != LLVM)

    each()


def record(tally: Tally, dialect: str, targets: Sequence[Target]) -> dict[str, Any]:
    """What a run found, where and when, as JSON."""
    counts = {
        name: dict(value.most_common()) if isinstance(value, Counter) else value
        for name, value in vars(tally).items()
    }
    packages = ("hypothesis", "numpy", TVM[dialect])
    return {
        "command": " ".join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "machine": f"{environment()['cpu']}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in packages},
        "targets": targets,
        "different": 0,
        **counts,
    }


def resumed(output: Path | None) -> Tally:
    """The tally of an earlier run that was cut off, or an empty one."""
    if output is None or not output.exists():
        return Tally()
    found = json.loads(output.read_text(encoding="utf-8"))
    fields = {name: found[name] for name in vars(Tally())}
    return Tally(**{k: Counter(v) if isinstance(v, dict) else v for k, v in fields.items()})


@click.command()
@click.option(
    "--graphs",
    "count",
    type=click.IntRange(1),
    default=200,
    show_default=True,
    help="How many to draw.",
)
@click.option("--seed", "start", default=0, show_default=True, help="Other graphs.")
@click.option(
    "--further", is_flag=True, help="Pools of 1 and 3 axes, blocks of channels, bfloat16."
)
@click.option("--dialect", type=click.Choice(["relax", "relay"]), help="Of this environment.")
@click.option(
    "--target",
    "targets",
    multiple=True,
    default=TARGETS,
    show_default=True,
    help="Drawn from those that run here.",
)
@click.option(
    "--output", type=click.Path(path_type=Path), help="What was found; a run cut off goes on."
)
def main(
    count: int,
    start: int,
    further: bool,
    dialect: str | None,
    targets: tuple[str, ...],
    output: Path | None,
) -> None:
    """Compare random graphs in both orders; exit code 1 and the graph if one differs."""
    dialect = require(dialect)
    if output is not None:
        check_file(output)
    configs, tally = runnable(targets), resumed(output)
    while tally.graphs < count:
        began, wanted = time.perf_counter(), min(BATCH, count - tally.graphs)
        fuzz(wanted, start * 1_000_000 + tally.graphs, configs, tally, further=further)
        tally.seconds += round(time.perf_counter() - began)
        if output is not None:
            write_text(output, json.dumps(record(tally, dialect, configs), indent=1) + "\n")
    click.echo(json.dumps(record(tally, dialect, configs), indent=1))


if __name__ == "__main__":
    run_script("fuzz_reorder", main)
