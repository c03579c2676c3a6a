"""Kernels lined up by pooling site, and where they stand under the roofline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any


def by_site(
    calls: Sequence[str], kernels: Mapping[str, Mapping[str, Any]], sites: int
) -> list[tuple[str, list[int]]]:
    """Group the calls of a model by pooling site.

    Parameters
    ----------
    calls
        Names of kernels in the order of execution.
    kernels
        Their figures by name.
    sites
        Pooling sites of the model: a softmax takes maxima, too.

    Returns
    -------
    list of (str, list of int)
        For each kernel that takes maxima, in order, the positions in `calls` from after the one
        before it up to itself; what follows the last is ``after the pools``.
    """
    groups: list[tuple[str, list[int]]] = []
    waiting: list[int] = []
    for position, name in enumerate(calls):
        waiting.append(position)
        if len(groups) < sites and kernels.get(name, {}).get("maxima"):
            groups.append((f"pool {len(groups)}", waiting))
            waiting = []
    return [*groups, ("after the pools", waiting)] if waiting else groups


def roofline(
    flops: float, moved: float, seconds: float, limits: Mapping[str, float]
) -> dict[str, Any]:
    """Where a kernel stands under the roofline.

    Parameters
    ----------
    flops, moved, seconds
        Operations, bytes of its arguments, and time of a call.
    limits
        As of `peaks`.

    Returns
    -------
    dict
        ``gflops`` and ``gbytes`` a second, ``intensity`` in operations a byte, and ``share`` of
        what is attainable there: the lesser of the peak and of intensity times bandwidth.
    """
    intensity = flops / moved if moved else float("inf")
    attainable = min(limits["gflops"], intensity * limits["gbytes"])
    gflops = 1e-9 * flops / seconds
    return {
        "gflops": gflops,
        "gbytes": 1e-9 * moved / seconds,
        "intensity": intensity,
        "share": gflops / attainable if attainable else None,
    }


def site_kernels(entry: Mapping[str, Any]) -> dict[str, dict[str, list[tuple[str, float]]]]:
    """Name and seconds of the kernels of each pooling site, in order, by version.

    Parameters
    ----------
    entry
        One of a bench's results.
    """
    table: dict[str, dict[str, list[tuple[str, float]]]] = {}
    for version, figures in entry["figures"].items():
        times = figures.get("times", ())
        calls = [timed["name"] for timed in times]
        for site, positions in by_site(calls, figures.get("kernels", {}), entry["sites"]):
            kernels = [(calls[n], median(times[n]["samples"])) for n in positions]
            table.setdefault(site, {})[version] = kernels
    return table


def site_times(entry: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Seconds of the kernels of each pooling site, by version.

    Parameters
    ----------
    entry
        One of a bench's results.
    """
    return {
        site: {version: sum(seconds for _, seconds in kernels) for version, kernels in row.items()}
        for site, row in site_kernels(entry).items()
    }


def counted(figures: Mapping[str, Any]) -> dict[str, int]:
    """What one run executes and allocates.

    Parameters
    ----------
    figures
        Of a version.

    Returns
    -------
    dict
        ``evaluations`` of activations, ``arithmetic`` operations, ``bytes`` of the memory plan and
        of the kernel with the largest buffers of its own, ``planned`` of them, and ``spills`` in
        inner loops.
    """
    kernels = figures["kernels"]
    calls = [kernels[name] for name in figures["calls"] if name in kernels]
    own = max((kernel["allocated"] for kernel in calls), default=0)
    return {
        "evaluations": sum(sum(kernel["evaluations"].values()) for kernel in calls),
        "arithmetic": sum(kernel["arithmetic"] for kernel in calls),
        "bytes": figures["planned"] + own,
        "planned": figures["planned"],
        "spills": sum((kernel["inner_loop"] or {}).get("spills", 0) for kernel in calls),
    }
