"""A bench's result as one HTML page that needs nothing else."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

from tvm_passes.bench.others import MUCH
from tvm_passes.bench.plots import place, plots, svg
from tvm_passes.bench.sites import counted, site_kernels
from tvm_passes.errors import MissingExtraError

try:
    import jinja2
except ImportError as err:
    raise MissingExtraError("report", "jinja2", "a report") from err

COLUMNS = 70
"""Of text on either side: both fit the width of the page."""

IMPORTS = "# from tvm"
"""How each kernel's source begins, which tells nothing."""

LONGEST = 400
"""Lines of a kernel's source that are compared; the rest is left out, and said to be."""


def html_report(document: Mapping[str, Any]) -> str:
    """Render a result of ``tvm-reorder bench``: tables, plots, and sources side by side."""
    template = resources.files("tvm_passes.bench").joinpath("report.html.j2").read_text()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render(
        environment={
            name: _words(value)
            for name, value in document["environment"].items()
            if value is not None
        },
        entries=[_entry(entry) for entry in document["results"]],
        plots={name: svg(figure) for name, figure in plots(document).items()},
    )


def _words(value: Any) -> str:
    """A value of the environment in words, inner mappings in brackets."""
    if isinstance(value, Mapping):
        pairs = ((name, inner, isinstance(inner, Mapping)) for name, inner in value.items())
        return ", ".join(
            f"{name} ({_words(inner)})" if nested else f"{name} {_words(inner)}"
            for name, inner, nested in pairs
        )
    if isinstance(value, float):
        return f"{value:.1f}"
    return value if isinstance(value, str) else ", ".join(map(str, _listed(value)))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows of one source on one number of threads."""
    dialect = entry["dialect"]
    figures = {name: f for name, f in entry["figures"].items() if "error" not in f}
    first, last = (_sources(figures.get(name)) for name in _pair(list(figures)))
    return {
        "anchor": re.sub(r"\W+", "-", place(entry)),
        "place": place(entry),
        "dialect": dialect,
        "samples": entry["samples"].get(dialect, {}),
        "peers": {
            f"{peer}, {variant}": entry["samples"][peer][variant]
            for peer, variant in entry["fastest_variant"].items()
            if peer != dialect
        },
        "ratios": entry["version_ratios"],
        "bitwise": entry["bitwise"],
        "figures": figures,
        "counted": {name: counted(found) for name, found in figures.items()},
        "others": entry.get("others"),
        "doubtful": (entry.get("others") or 0) > MUCH,
        "roofline": entry.get("roofline", {}),
        "sites": site_kernels(entry) if figures else {},
        "failed": entry["failed"],
        "predicted": entry["predicted"],
        "pair": _pair(list(figures)),
        "ir": side_by_side(entry["ir"]["original"], entry["ir"]["reordered"]),
        "source": side_by_side(first, last),
    }


def _pair(versions: list[str]) -> tuple[str, str]:
    """The versions whose kernels are shown side by side: the same schedules, in both orders."""
    for pair in (("scheduled", "fused"), ("original", "reordered")):
        if set(pair) <= set(versions):
            return pair
    return ("", "")


def _sources(figures: Mapping[str, Any] | None) -> str:
    """Sources of the kernels in the order in which they run, each once."""
    if figures is None:
        return ""
    names = dict.fromkeys(name for name in figures["calls"] if name in figures["kernels"])
    sources = (figures["kernels"][name]["source"].splitlines() for name in names)
    lines = [line for source in sources for line in source if not line.startswith(IMPORTS)]
    left_out = [f"... {len(lines) - LONGEST} lines left out"] if len(lines) > LONGEST else []
    return "\n".join(lines[:LONGEST] + left_out)


def side_by_side(before: str, after: str) -> str:
    """A table of two texts, differences marked, escaped."""
    differ = difflib.HtmlDiff(tabsize=4, wrapcolumn=COLUMNS)
    return differ.make_table(before.splitlines(), after.splitlines(), context=True, numlines=4)
