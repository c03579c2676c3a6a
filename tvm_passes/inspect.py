"""``tvm-reorder inspect``: what the pass would do to a model, and why."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tvm_passes.compile import Step, silent
from tvm_passes.cost import cost
from tvm_passes.decision import Decision
from tvm_passes.dialects import engine
from tvm_passes.frontends import load_model
from tvm_passes.remarks import remarks_of
from tvm_passes.target import parse_target


@dataclass(frozen=True)
class Inspection:
    """A model's sites, and its text before and after the pass."""

    dialect: str
    decisions: tuple[Decision, ...]
    before: str
    after: str


def inspect_model(
    model: Path,
    *,
    target: str = "llvm",
    dialect: str | None = None,
    allow: Collection[str] = (),
    step: Step = silent,
) -> Inspection:
    """Decide on every site of a model file for a target, and compile nothing.

    Raises
    ------
    TvmPassesError
        If the model or the environment is not as expected.
    """
    tvm_engine = engine(dialect)
    from tvm_passes.namespaces import scope  # which imports TVM

    config = parse_target(target)
    with step(f"reading {model.name}"):
        mod = load_model(model, tvm_engine.DIALECT)
    with step("deciding"), scope(config):
        decisions = tvm_engine.decisions(mod, allow=allow)
        after = tvm_engine.reorder(mod, allow)
        return Inspection(
            tvm_engine.DIALECT, decisions, tvm_engine.text(mod), tvm_engine.text(after)
        )


def site_json(decision: Decision) -> dict[str, Any]:
    """One site for programs: ``pool``, ``decision``, ``reason``, ``sunk`` and the numbers."""
    site, decline = decision.site, decision.decline
    return {
        "site": site.name,
        "function": site.function,
        "location": site.location,
        "pool": site.pool.op,
        "decision": "passed" if decision.passed else "missed",
        "reason": decline.reason.value if decline else "sunk",
        "detail": decline.detail if decline else "",
        "suggestion": decline.suggestion if decline else "",
        "ends": decision.ends.name.lower(),
        "exact": all(op.rule.is_exact for op in decision.sunk),
        "sunk": [op.op for op in reversed(decision.sunk)],
        "producer": site.producer.op,
        "cost": asdict(cost(decision)),
        "remarks": [str(remark) for remark in remarks_of(decision)],
    }


def diff(before: str, after: str, context: int = 3) -> Sequence[str]:
    """The unified difference of two texts, line by line."""
    lines = before.splitlines(), after.splitlines()
    return list(difflib.unified_diff(*lines, "before", "after", lineterm="", n=context))
