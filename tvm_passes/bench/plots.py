"""Plots of a bench's results: ratios, roofline, predicted against measured savings."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tvm_passes.bench.sites import counted
from tvm_passes.bench.verdict import FASTER, SLOWER
from tvm_passes.errors import MissingExtraError
from tvm_passes.output import writing

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator
except ImportError as err:
    raise MissingExtraError("report", "matplotlib", "a report") from err

Results = Sequence[Mapping[str, Any]]

COLOURS = {FASTER: "#1a7f37", SLOWER: "#cf222e"}
UNDECIDED = "#6e7781"
MARKERS = "osD^vPX*"

BASES = {"reordered": "original", "fused": "scheduled"}
"""What each version differs from in the order of activation and pool alone."""


def ratio_plot(results: Results) -> Figure:
    """Time of the original over that of each version, with its interval, a row each."""
    rows = [
        (f"{place(entry)}  {version}", ratio)
        for entry in results
        for version, ratio in entry["version_ratios"].items()
    ]
    figure, axes = _figure(1.2 + 0.28 * len(rows))
    for y, (_, ratio) in enumerate(rows):
        colour = COLOURS.get(ratio["verdict"], UNDECIDED)
        axes.plot([ratio["low"], ratio["high"]], [y, y], color=colour, linewidth=2)
        axes.plot(ratio["ratio"], y, "o", color=colour, markersize=5)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.invert_yaxis()
    axes.set_xlabel("time of original / time of this: right of 1 is faster")
    return figure


def roofline_plot(results: Results, peaks: Mapping[str, Mapping[str, float]]) -> Figure:
    """What each version reaches, under the measured peaks of its number of threads."""
    figure, axes = _figure(4.5)
    places = [
        (entry, version, point)
        for entry in results
        for version, point in entry.get("roofline", {}).items()
    ]
    intensities = [point["intensity"] for _, _, point in places] or [1.0]
    ends = [min(intensities) / 4, max(intensities) * 4]
    for threads, limits in peaks.items():
        if limits:
            ridge = limits["gflops"] / limits["gbytes"]
            xs = sorted({ends[0], min(max(ridge, ends[0]), ends[1]), ends[1]})
            roof = [min(limits["gflops"], x * limits["gbytes"]) for x in xs]
            axes.plot(xs, roof, color="black", linewidth=1)
            axes.annotate(_threads(threads), (xs[-1], roof[-1]), ha="right", va="bottom")
    versions = list(dict.fromkeys(version for _, version, _ in places))
    for n, (version, marker) in enumerate(zip(versions, MARKERS, strict=False)):
        for entry, name, point in places:
            if name == version:
                fill = {} if entry["threads"] == 1 else {"markerfacecolor": "none"}
                xy = (point["intensity"], point["gflops"])
                axes.plot(*xy, marker, color=f"C{n}", alpha=0.8, **fill)
        axes.plot([], [], marker, color=f"C{n}", label=version)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations a byte of the kernels' arguments")
    axes.set_ylabel("GFLOP/s")
    if versions:
        axes.legend()
    return figure


def savings_plot(results: Results) -> Figure:
    """Share of the time that the formula says the swap saves, against what was measured."""
    figure, axes = _figure(4.5)
    found = savings(results)
    for version, marker in zip(BASES, MARKERS, strict=False):
        points = [(p, m) for _, name, p, m in found if name == version]
        if points:
            label = f"{version} against {BASES[version]}"
            axes.plot(*zip(*points, strict=True), marker, label=label, alpha=0.8)
    top = max([p for _, _, p, _ in found] + [1e-3])
    named = sorted((m, p, name) for name, version, p, m in found if version == "fused")
    for n, (m, p, name) in enumerate(named):
        side, shift = ("right", -5) if p > top / 2 else ("left", 5)
        place_at = (shift, 4 if n % 2 else -8)
        text = axes.annotate(name, (p, m), xytext=place_at, textcoords="offset points")
        text.set(fontsize=7, ha=side)
    axes.plot([0, top], [0, top], color="black", linewidth=1, label="as predicted")
    axes.axhline(0, color=UNDECIDED, linewidth=0.5)
    axes.set_xlabel("predicted: evaluations saved / (multiply-adds + evaluations)")
    axes.set_ylabel("measured: share of the time saved")
    axes.legend()
    return figure


def savings(results: Results) -> list[tuple[str, str, float, float]]:
    """Block, version, predicted and measured share saved, where both are known.

    Predicted as the formula of TensorFlow issue 3180 does: an evaluation counts as much as a
    multiply-add of the convolution, or of all that a model's kernels compute.
    """
    found = []
    for entry in results:
        samples = entry["samples"].get(entry["dialect"], {})
        before, after = (entry["predicted"][f"evaluations_{w}"] for w in ("before", "after"))
        flops = entry["flops"] or _arithmetic(entry["figures"])
        if not flops or not before:
            continue
        predicted = (before - after) / (flops / 2 + before)
        for version, base in BASES.items():
            if version in samples and base in samples:
                measured = 1 - samples[version]["median"] / samples[base]["median"]
                found.append((place(entry), version, predicted, measured))
    return found


def _arithmetic(figures: Mapping[str, Any]) -> int:
    """Operations that the first version of a model computes, 0 where it was not looked at."""
    found = [version for version in figures.values() if "error" not in version]
    return counted(found[0])["arithmetic"] if found else 0


def place(entry: Mapping[str, Any]) -> str:
    """What a row or point is called."""
    return f"{entry['block']}, {_threads(entry['threads'])}"


def _threads(number: int | str) -> str:
    return f"{number} thread" + ("" if int(number) == 1 else "s")


def plots(document: Mapping[str, Any]) -> dict[str, Figure]:
    """The plots of a result that have something to show, by name."""
    results = document["results"]
    peaks = document["environment"].get("peaks", {})
    makers: dict[str, Callable[[], Figure]] = {
        "ratios": lambda: ratio_plot(results),
        "roofline": lambda: roofline_plot(results, peaks),
        "savings": lambda: savings_plot(results),
    }
    shown = {"ratios": True, "roofline": any("roofline" in entry for entry in results)}
    shown["savings"] = bool(savings(results))
    return {name: make() for name, make in makers.items() if shown[name]}


def svg(figure: Figure) -> str:
    """The figure as an element to put into a page, its text as text."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "tvm-passes"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def save(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write every plot as SVG and PNG; returns the files."""
    written = []
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in plots(document).items():
            for suffix in ("svg", "png"):
                written.append(folder / f"{name}.{suffix}")
                figure.savefig(written[-1], dpi=150)
    return written


def _figure(height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(visible=True, alpha=0.3)
    return figure, axes
