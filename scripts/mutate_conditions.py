"""Drop each condition of the passes in turn, run the tests, and list the mutants they let live.

Dropped are, one at a time: each way in which a predicate declines, each entry of the lists of
preconditions and of a row's conditions, each row's limits on the padding that it may pass, and that
it is arithmetic, a scale, a sign or inexact; and, where sites are found and decided on, each
guard that returns early, and each operand of ``and`` and ``or``.
Run it with the Python of either environment.

Example: python scripts/mutate_conditions.py --output scripts/records/mutants-relax.json
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import pytest

from tvm_passes.bench.environment import environment
from tvm_passes.bench.script import run_script
from tvm_passes.compile import TVM
from tvm_passes.dialects import require
from tvm_passes.output import write_text
from tvm_passes.rules import RELAX, RELAY

ROOT = Path(__file__).parent.parent
DECLINES = ("Decline", "not_constant", "_not_finite", "_negative")
QUICK = [
    f"tests/core/test_{name}.py"
    for name in (
        *("conditions", "legality", "neighbours"),
        *("decision", "quantized_rows", "movement"),
    )
]
"""Tests that take a second: they kill most mutants."""

CORE = ["tests/core"]


@dataclass(frozen=True)
class Mutant:
    """A change of one file: characters from `start` to `stop` become `text`."""

    file: str
    line: int
    what: str
    start: int
    stop: int
    text: str

    def __str__(self) -> str:
        """Where it is and what is dropped."""
        return f"{self.file}:{self.line}: {self.what}"


class _Finder(ast.NodeVisitor):
    """Finds the mutants of one file."""

    def __init__(self, file: str, source: str) -> None:
        self.file, self.source = file, source
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.found: list[Mutant] = []
        self.within = ""

    def visit_Return(self, node: ast.Return) -> None:
        """A predicate that returns a Decline returns None."""
        declines = [
            call.func.id
            for call in ast.walk(node)
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        ]
        if self.file in DECIDING and any(name in DECLINES for name in declines):
            self._add(node, f"a refusal of {self.within}", "return None")

    def visit_If(self, node: ast.If) -> None:
        """A guard that returns early lets everything pass."""
        if self.file in FINDING and isinstance(node.body[-1], ast.Return | ast.Continue):
            self._add(node.test, f"a guard of {self.within}", "False")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """One operand is left out of several, but such as narrow a type or stop a walk.

        ``x or ()`` only says what to take where there is none.
        """
        default = isinstance(node.values[-1], ast.Constant | ast.Tuple | ast.Set)
        if self.file in (*FINDING, *DECIDING) and not default:
            word = " and " if isinstance(node.op, ast.And) else " or "
            kept = (" is not None", " not in seen")
            for operand in (v for v in node.values if not ast.unparse(v).endswith(kept)):
                rest = [f"({ast.unparse(other)})" for other in node.values if other is not operand]
                text = f"({word.join(rest)})"
                self._add(node, f"{ast.unparse(operand)} in {self.within}", text, operand.lineno)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """What is found below is called after the function of the module."""
        outermost = self.within == ""
        self.within = self.within or node.name
        self.generic_visit(node)
        if outermost:
            self.within = ""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """An entry of a list of preconditions."""
        name = node.target.id if isinstance(node.target, ast.Name) else ""
        if name.endswith("PRECONDITIONS") and isinstance(node.value, ast.Tuple):
            self._entries(node.value, f"of {name}")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """An entry of a row's conditions, and what a row says of padding."""
        rule = next((ast.unparse(k.value) for k in node.keywords if k.arg == "name"), "")
        for keyword in node.keywords:
            if keyword.arg == "conditions" and isinstance(keyword.value, ast.Tuple):
                self._entries(keyword.value, f"of the row {rule}")
            if keyword.arg == "fixes":
                self._add(keyword.value, f"limits of padding of {rule}", "(lambda *_: True)")
            if keyword.arg in ("is_arithmetic", "is_scale", "is_sign"):
                self._add(keyword.value, f"{keyword.arg} of {rule}", "False")
            if keyword.arg == "is_exact" and ast.unparse(keyword.value) == "False":
                self._add(keyword.value, f"inexactness of {rule}", "True")
        self.generic_visit(node)

    def _entries(self, values: ast.Tuple, where: str) -> None:
        for entry in values.elts:
            kept = [ast.unparse(other) for other in values.elts if other is not entry]
            text = f"({', '.join(kept)}{',' if kept else ''})"
            self._add(values, f"{ast.unparse(entry)} {where}", text, entry.lineno)

    def _add(self, node: ast.AST, what: str, text: str, line: int = 0) -> None:
        start, stop = (
            self._at(node.lineno, node.col_offset),
            self._at(  # type: ignore[attr-defined]
                node.end_lineno,
                node.end_col_offset,  # type: ignore[attr-defined]
            ),
        )
        self.found.append(Mutant(self.file, line or node.lineno, what, start, stop, text))  # type: ignore[attr-defined]

    def _at(self, line: int, column: int) -> int:
        """Index of a character; columns count bytes of UTF-8."""
        start = self.starts[line - 1]
        text = self.source[start : self.starts[line]]
        return start + len(text.encode()[:column].decode())


DECIDING = ("conditions.py", "kernel_conditions.py", "legality.py")
"""Files whose functions decline."""

FINDING = (
    *("decision.py", "neighbours.py", "below.py", "twins.py"),
    *("plan.py", "readers.py", "matching.py", "ranges.py"),
)
"""Files that say what a site may rely on, and what becomes of it."""

BY_DIALECT = ("below.py", "twins.py", "plan.py", "readers.py", "matching.py")
"""Files that the core's tests do not reach: the dialects' come first."""


Killers = Mapping[str, str]
"""The test that killed a mutant, by the mutant's file and what is dropped."""

EQUIVALENT = {
    "decision.ends is Ends.OTHER in _alone": "one that takes no other end is found again",
    "a guard of _names": "what is known is found again",
    "a guard of of": "all cuts are looked at, and none is refused",
    "a guard of _lowest": "more is looked at than matters",
    "not least in _in_kernel": "more is looked at than matters",
    "bool(self.words.absorbers) in _has_factor": "more is looked at than matters",
    "any((op.rule.is_scale for op in ops)) in _has_factor": "more is looked at than matters",
}
"""What only saves time, and why nothing else changes."""

EQUIVALENT_IN = {
    RELAX: EQUIVALENT
    | {
        "self._has_factor(chain) in _may_meet": "it folds no factors into layers",
        "a guard of _layer": "it folds no factors into layers",
        "self._is_tuple(reader) in _may_go": "what merges is arithmetic, and stops there",
        "op in words.dropouts in _may_go": "dropout counts as arithmetic",
        "any((op.op in SELECTIONS for op in nearest(decision.sunk))) in stay_apart": (
            "of what heeds sums, selections alone sink next to them"
        ),
    },
    RELAY: EQUIVALENT
    | {
        "isinstance(operand, Operand) in _match_arg": "arguments of its ops are tensors",
        "not _has(graph.view(node), pattern) in _match": "no pattern of its ops has attributes",
        "name in KERNELS in _describe_kernels": "it has no such op",
        "graph.is_output(node) in _items": "what is in a tuple that leaves counts as leaving",
        **dict.fromkeys(
            (
                "name not in SUMS in _describe_kernels",
                "self._computes(name) in _describe_kernels",
                "a guard of _in_kernel",
                "not self._goes_on(reader) in _in_kernel",
                "None not in shape in _in_kernel",
                "elements(shape) < least in _in_kernel",
            ),
            "its kernels store nothing",
        ),
    },
}
"""What changes nothing in a dialect, and why."""


def mutants(package: Path, dialect: str) -> Iterator[Mutant]:
    """The mutants of every file of the package's core."""
    for path in sorted(package.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        finder = _Finder(path.name, source)
        finder.visit(ast.parse(source))
        yield from (mutant for mutant in finder.found if mutant.what not in EQUIVALENT_IN[dialect])


def killer(mutant: Mutant, folder: Path, suites: Iterable[Sequence[str]]) -> str:
    """The first test that fails in a copy with this change; an empty string where none does."""
    path = folder / "tvm_passes" / mutant.file
    source = path.read_text(encoding="utf-8")
    try:
        path.write_text(source[: mutant.start] + mutant.text + source[mutant.stop :])
        failures = (_failure(folder, tests) for tests in suites)
        return next((_failed(failure) for failure in failures if failure is not None), "")
    finally:
        path.write_text(source, encoding="utf-8")


def _failure(folder: Path, tests: Sequence[str]) -> str | None:
    """What pytest says of the first test that fails, or None; so where there is no such test."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(  # noqa: S603 - our own tests
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    is_gone = result.returncode == pytest.ExitCode.USAGE_ERROR and "::" in tests[0]
    return result.stdout[-1000:] if result.returncode and not is_gone else None


def _failed(said: str) -> str:
    """The test that pytest says failed, or all of what it says where no test did."""
    found = re.search(r"^(?:FAILED|ERROR) (\S+?\.py(?:::.*?)?)(?: - .*)?$", said, re.MULTILINE)
    return found[1] if found else said


def digests(folder: Path) -> dict[str, str]:
    """What tells whether the package, or a file of its tests, has changed since an earlier run."""
    package = hashlib.sha256()
    for path in sorted((folder / "tvm_passes").rglob("*.py")):
        package.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return {"tvm_passes": package.hexdigest()} | {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((folder / "tests").rglob("*.py"))
    }


def resumed(output: Path | None, sources: Mapping[str, str]) -> tuple[dict[str, Any], Killers]:
    """What is left of an earlier run, and which test killed each mutant.

    Of the same package, a mutant stays killed while the file of the test that killed it is the
    same, and alive while all are.
    """
    empty = {"sources": sources, "seconds": 0, "killed_by": {}, "survivors": []}
    if output is None or not output.exists():
        return empty, {}
    found = json.loads(output.read_text(encoding="utf-8"))
    killers = {_what(name): test for name, test in found["killed_by"].items()}
    before = found["sources"]
    if before["tvm_passes"] != sources["tvm_passes"]:
        return empty, killers
    same = {path for path, value in sources.items() if before.get(path) == value}
    killed = {
        mutant: test
        for mutant, test in found["killed_by"].items()
        if test.partition("::")[0] in same
    }
    lived = found["survivors"] if before == sources else []
    return empty | {"seconds": found["seconds"], "killed_by": killed, "survivors": lived}, killers


def _what(mutant: str) -> str:
    """What tells a mutant from others where lines have moved: its file and what is dropped."""
    file, _, what = mutant.split(":", 2)
    return f"{file}:{what}"


def record(
    found: Mapping[str, Any], suites: Sequence[Sequence[str]], mutants_in_all: int
) -> dict[str, Any]:
    """What a run found, where and when, as JSON."""
    dialect = require()
    return {
        "command": " ".join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "machine": f"{environment()['cpu']}, {os.cpu_count()} cores",
        "versions": {TVM[dialect]: version(TVM[dialect])},
        "tests": [" ".join(tests) for tests in suites],
        "mutants": mutants_in_all,
        "equivalent": EQUIVALENT_IN[dialect],
        "killed": len(found["killed_by"]),
        **found,
    }


@click.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="A JSON file for what was found; a run cut off goes on, of the same package and tests.",
)
@click.option("--only", multiple=True, help="Mutants whose description has one of these in it.")
@click.option("--list", "listing", is_flag=True, help="List the mutants and stop.")
def main(output: Path | None, only: tuple[str, ...], listing: bool) -> None:
    """List the conditions that can be dropped without a test failing; exit code 1 if any can."""
    dialect_tests = (f"tests/{require()}/test_{name}.py" for name in DIALECT_TESTS)
    suites = [QUICK, CORE, [path for path in dialect_tests if (ROOT / path).exists()]]
    chosen = [
        mutant
        for mutant in mutants(ROOT / "tvm_passes", require())
        if not only or any(words in str(mutant) for words in only)
    ]
    if not chosen:
        raise click.UsageError(f"--only {' '.join(only)}: no mutant has that in it; see --list")
    if listing:
        click.echo("\n".join(map(str, chosen)))
        return
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name)
        for part in ("tvm_passes", "tests", "scripts", "targets", "pyproject.toml"):
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, folder / part)
        found, killers = resumed(output, digests(folder))
        for tests in suites:
            failure = _failure(folder, tests)
            if failure is not None:
                raise click.ClickException(f"the tests fail without a mutant:\n{failure}")
        lived = {str(Mutant(**mutant)) for mutant in found["survivors"]}
        for mutant in (m for m in chosen if str(m) not in lived | found["killed_by"].keys()):
            began = time.perf_counter()
            turned = suites[::-1] if mutant.file in BY_DIALECT else suites
            known = killers.get(_what(str(mutant)))
            test = killer(mutant, folder, [[known], *turned] if known else turned)
            if test:
                found["killed_by"][str(mutant)] = test
            else:
                found["survivors"].append(asdict(mutant))
            found["seconds"] += round(time.perf_counter() - began)
            click.echo(f"{'killed' if test else 'LIVES '} {mutant}")
            if output is not None:
                written = record(found, suites, len(chosen))
                write_text(output, json.dumps(written, indent=1) + "\n")
    click.echo(f"{len(chosen)} mutants, {len(found['survivors'])} survivors")
    sys.exit(1 if found["survivors"] else 0)


DIALECT_TESTS = (
    *("readers", "declines", "reorder", "sequences", "inlining", "proofs", "moves"),
    *("contraction", "ends", "casts", "surroundings", "pools", "registers", "composites"),
    *("structure", "quantized", "folding"),
)
"""Run where the core's tests let a mutant live, as far as a dialect has them: quick ones first."""


if __name__ == "__main__":
    run_script("mutate_conditions", main)
