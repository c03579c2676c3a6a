"""From samples to a result: the fastest variant of each runtime, and ratios to the best peer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tvm_passes.bench.others import MUCH
from tvm_passes.bench.runtimes import Runtime
from tvm_passes.bench.session import Measured
from tvm_passes.bench.statistics import Samples, geometric_mean
from tvm_passes.target import LLVM

MAIN = "tvm_passes"
"""The runtime of ours whose ratio counts."""

BUSY = 0.9
"""A run with less CPU time a second than this, on one thread, was kept waiting by others."""


def result(
    block: str, threads: int, runtimes: Sequence[Runtime], measured: Measured
) -> dict[str, Any]:
    """One entry of ``results``: times in seconds.

    Parameters
    ----------
    block
        Its name.
    threads
        Of every runtime.
    runtimes
        Those that were asked for.
    measured
        What came of it.
    """
    fastest = {name: _fastest(variants) for name, variants in measured.samples.items()}
    medians = {name: measured.samples[name][variant].median for name, variant in fastest.items()}
    ours = [runtime.name for runtime in runtimes if runtime.ours]
    peers = {name: seconds for name, seconds in medians.items() if name not in ours}
    best = min(peers, key=peers.__getitem__, default=None)
    ratios = {name: peers[best] / medians[name] for name in ours if best and name in medians}
    return {
        "block": block,
        "threads": threads,
        "runtimes": medians,
        "ratio_to_best_peer": ratios.get(MAIN),
        "best_peer": best,
        "ratios": ratios,
        "fastest_variant": fastest,
        "mad": {name: measured.samples[name][fastest[name]].mad for name in medians},
        "max_abs_difference": {
            name: max(by_variant.values()) for name, by_variant in measured.differences.items()
        },
        "reference": measured.reference,
        "differing": [list(pair) for pair in measured.differing],
        "failed": measured.failed,
        "others": measured.others,
        "samples": {
            name: {variant: samples.as_dict() for variant, samples in variants.items()}
            for name, variants in measured.samples.items()
        },
    }


def _fastest(variants: Mapping[str, Samples]) -> str:
    return min(variants, key=lambda variant: variants[variant].median)


def summary(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Geometric mean and least of the ratios to the best peer, by ``NAME, N threads``."""
    groups: dict[str, list[float]] = {}
    for entry in results:
        for name, ratio in entry["ratios"].items():
            groups.setdefault(f"{name}, {entry['threads']} threads", []).append(ratio)
    return {
        key: {"geometric_mean": geometric_mean(ratios), "least": min(ratios)}
        for key, ratios in groups.items()
    }


def troubles(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What went wrong, a line each; a reason that many blocks share is one line."""
    shared: dict[tuple[str, str], list[str]] = {}
    for entry in results:
        where = f"{entry['block']}/{entry['threads']}"
        for name, reasons in entry["failed"].items():
            for variant, reason in reasons.items():
                shared.setdefault((f"{name} {variant}".strip(), reason), []).append(where)
        for name, variant in entry["differing"]:
            limit = f"differs from {entry['reference']} by {entry['max_abs_difference'][name]:.2g}"
            shared.setdefault((f"{name} {variant}", limit), []).append(where)
    for (what, reason), places in shared.items():
        at = ", ".join(places) if len(places) < 4 else f"{len(places)} of {len(results)} blocks"
        yield f"{what}: {reason} ({at})"


def _on_one_core(entry: Mapping[str, Any]) -> bool:
    """Whether a run is the work of one thread of this machine, and not of a GPU."""
    target = entry.get("target") or {"kind": LLVM}
    return entry["threads"] == 1 and target["kind"] == LLVM


def busy(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Warnings about others on the machine, and runs on one thread that they kept from its core."""
    for entry in results:
        waiting = [
            name
            for name, variant in entry["fastest_variant"].items()
            if _on_one_core(entry) and entry["samples"][name][variant]["cores"] < BUSY
        ]
        said = [f"{', '.join(waiting)} had to wait for a core"] if waiting else []
        if (entry.get("others") or 0) > MUCH:
            said.insert(0, f"other processes used {entry['others']:.1f} cores")
        if said:
            yield f"busy machine at {entry['block']}: {', '.join(said)}"
