"""What scripts/savings.py concludes from its samples: prices, a fitted statement, a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tvm_passes.bench.verdict import FASTER, SLOWER

Results = Sequence[Mapping[str, Any]]

PAIRS = {"TVM's schedules": ("original", "reordered"), "our kernels": ("scheduled", "fused")}
"""Versions that differ in the order alone."""

PRICE_LIST = Path(__file__).parent / "records" / "function-times-relax.json"
PRICED = {
    "relu": "relax.nn.relu",
    "leaky_relu": "relax.nn.leakyrelu(alpha=0)",
    "sigmoid": "relax.sigmoid",
    "tanh": "relax.tanh",
    "softplus": "relax.nn.softplus(beta=0.5, threshold=20)",
    "elu": "relax.nn.selu",
    "gelu": "relax.nn.gelu",
    "silu": "relax.nn.silu",
    "bias": "relax.add(bias=0.1)",
}
"""Rows of the price list, which scripts/time_functions.py measured, each in a kernel of its own."""


def prices() -> dict[str, float]:
    """Nanoseconds of an evaluation, by activation."""
    listed = json.loads(PRICE_LIST.read_text())["nanoseconds"]
    return {name: listed[row] for name, row in PRICED.items()}


@dataclass(frozen=True)
class Fit:
    """Measured share of the time saved as a line of a predicted one, and where it is significant.

    Parameters
    ----------
    slope, intercept, r2
        Least squares, and the share of the variance that they explain.
    threshold
        Of the predicted share: what tells blocks that got faster from others with fewest errors;
        None where it is best to expect nothing of any.
    above, below
        Blocks that got faster, slower, and neither, on its two sides.
    """

    slope: float
    intercept: float
    r2: float
    threshold: float | None
    above: tuple[int, int, int]
    below: tuple[int, int, int]


def fit_line(points: Sequence[tuple[float, float, str]]) -> Fit:
    """Fit predicted shares, measured shares and verdicts."""
    x, y = np.array([(p, m) for p, m, _ in points]).T
    varies = bool(np.ptp(x))
    slope, intercept = map(float, np.polyfit(x, y, 1)) if varies else (0.0, float(np.mean(y)))
    rest, total = np.sum((y - slope * x - intercept) ** 2), np.sum((y - y.mean()) ** 2)
    limits = [*sorted({*map(float, x)}), math.inf]
    limit = min(limits, key=lambda each: _errors(points, each))
    sides = [[v for p, _, v in points if (p >= limit) == above] for above in (True, False)]
    above, below = (_count(verdicts) for verdicts in sides)
    threshold = limit if math.isfinite(limit) else None
    return Fit(slope, intercept, float(1 - rest / total) if total else 0.0, threshold, above, below)


def _errors(points: Sequence[tuple[float, float, str]], limit: float) -> int:
    return sum((p >= limit) != (verdict == FASTER) for p, _, verdict in points)


def _count(verdicts: Sequence[str]) -> tuple[int, int, int]:
    faster, slower = verdicts.count(FASTER), verdicts.count(SLOWER)
    return faster, slower, len(verdicts) - faster - slower


def points(results: Results, pair: str, prediction: str) -> list[tuple[float, float, str]]:
    """Predicted and measured share of the time saved, and the verdict, of the blocks that sink."""
    return [
        (e[prediction][pair] if prediction == "priced" else e[prediction], share(r), r["verdict"])
        for e in results
        if e["sunk"] and (r := e["ratios"].get(pair))
    ]


def share(ratio: Mapping[str, Any], bound: str = "ratio") -> float:
    """Share of the time that is saved."""
    return 1 - 1 / float(ratio[bound])


PREDICTIONS = {
    "formula": "the formula's share, an activation counted as one multiply-add",
    "priced": "evaluations saved at their price, by the time of the layer",
}


def fits(results: Results) -> dict[str, dict[str, Fit]]:
    """A fit for each pair and prediction that has two blocks at least."""
    found: dict[str, dict[str, Fit]] = {}
    for pair in PAIRS:
        for prediction in PREDICTIONS:
            here = points(results, pair, prediction)
            if len(here) > 1:
                found.setdefault(pair, {})[prediction] = fit_line(here)
    return found


def evaluation_times(results: Results) -> dict[str, dict[str, float]]:
    """Nanoseconds that one evaluation saved is worth, by pair and activation.

    Least squares through the origin of the medians' difference over the evaluations' difference.
    """
    pairs: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for entry in results:
        for name, (first, second) in PAIRS.items():
            counts = [entry["evaluations"].get(version) for version in (first, second)]
            if name in entry["ratios"] and None not in counts and counts[0] != counts[1]:
                times = [float(np.median(entry["samples"][v])) for v in (first, second)]
                point = (counts[0] - counts[1], 1e9 * (times[0] - times[1]))
                pairs.setdefault((name, entry["activation"]), []).append(point)
    fitted: dict[str, dict[str, float]] = {}
    for (name, activation), found in pairs.items():
        x, y = np.array(found).T
        fitted.setdefault(name, {})[activation] = float(x @ y / (x @ x))
    return fitted


def statement(results: Results) -> list[str]:
    """When to expect what, in words."""
    lines = []
    for pair, by_prediction in fits(results).items():
        for prediction, fit in by_prediction.items():
            line = f"{fit.intercept:+.3f} {fit.slope:+.2f} x {prediction} (r2 {fit.r2:.2f})"
            sides = f"below {_words(fit.below)}"
            if fit.threshold is not None:
                sides = f"from {fit.threshold:.2%} on {_words(fit.above)}, {sides}"
            lines.append(f"{pair}: share saved = {line}; {sides}")
    for pair, costs in evaluation_times(results).items():
        worth = ", ".join(f"{ns:.2f} ns of {name}" for name, ns in costs.items())
        lines.append(f"{pair}: an evaluation saved is worth {worth}")
    return lines


def _words(counts: tuple[int, int, int]) -> str:
    faster, slower, neither = counts
    return f"{faster} of {sum(counts)} faster, {slower} slower, {neither} neither"


def draw(results: Results, path: Path) -> None:
    """A panel an axis: shares saved with their intervals, and the predicted ones; then the fit."""
    from matplotlib.figure import Figure

    axes = list(dict.fromkeys(entry["axis"] for entry in results))
    rows = -(-(len(axes) + 2) // 2)
    figure = Figure(figsize=(12, 3.6 * rows), layout="constrained")
    panels = figure.subplots(rows, 2).ravel()
    for panel, axis in zip(panels, axes, strict=False):
        _draw_axis(panel, axis, [entry for entry in results if entry["axis"] == axis])
    for panel, prediction in zip(panels[len(axes) :], PREDICTIONS, strict=False):
        _draw_fit(panel, results, prediction)
    for panel in panels[len(axes) + 2 :]:
        panel.set_axis_off()
    figure.savefig(path, dpi=110)


def _draw_axis(panel: Any, axis: str, entries: Results) -> None:
    for n, pair in enumerate(PAIRS):
        found = [(x, e["ratios"][pair]) for x, e in enumerate(entries) if pair in e["ratios"]]
        xs = [x + 0.16 * n - 0.08 for x, _ in found]
        middles = [100 * share(ratio) for _, ratio in found]
        lows, highs = ([100 * share(r, bound) for _, r in found] for bound in ("low", "high"))
        spread = [np.subtract(middles, lows), np.subtract(highs, middles)]
        panel.errorbar(xs, middles, np.maximum(spread, 0), fmt="o", capsize=3, label=pair)
        priced = [100 * entries[x]["priced"][pair] for x, _ in found]
        panel.plot(
            xs, priced, "_", color="black", label=None if n else "evaluations at their price"
        )
    formula = [100 * entry["formula"] for entry in entries]
    panel.plot(range(len(entries)), formula, "x", color="tab:red", label="formula")
    panel.axhline(0, color="grey", linewidth=0.8)
    names = [entry["block"].removeprefix(f"{axis}: ") for entry in entries]
    panel.set_xticks(range(len(names)), names, fontsize=8, rotation=15)
    panel.set_ylabel("% of the time saved")
    panel.set_title(axis)
    panel.legend(fontsize=7)


def _draw_fit(panel: Any, results: Results, prediction: str) -> None:
    for pair, by_prediction in fits(results).items():
        found, fit = points(results, pair, prediction), by_prediction.get(prediction)
        xs = np.array([100 * p for p, _, _ in found])
        (dots,) = panel.plot(xs, [100 * m for _, m, _ in found], "o", alpha=0.7, label=pair)
        if fit:
            ends = np.array([0, xs.max(initial=0)])
            line = 100 * fit.intercept + fit.slope * ends
            panel.plot(ends, line, color=dots.get_color(), linewidth=1)
    panel.axhline(0, color="grey", linewidth=0.8)
    panel.set_xlabel(f"% predicted: {PREDICTIONS[prediction]}", fontsize=8)
    panel.set_ylabel("% of the time saved")
    panel.legend(fontsize=7)
