"""The versions of generated kernels that ``tvm-reorder bench`` compares."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tvm_passes.bench.runtimes import Runtime
from tvm_passes.describe import WINOGRAD
from tvm_passes.rules import RELAX, RELAY

ORIGINAL_VERSION = "original"
REORDERED = "reordered"
SCHEDULED = "scheduled"
FUSED = "fused"
TUNED = "tuned"

VERSIONS: Mapping[str, Mapping[str, str]] = {
    RELAX: {
        ORIGINAL_VERSION: "TVM's own pipeline, nothing moved",
        REORDERED: "activations sunk, then TVM's own pipeline",
        SCHEDULED: "this package's kernels and schedules, nothing moved",
        FUSED: "activations sunk, and this package's kernels and schedules",
        TUNED: "as fused, with tuned records",
        WINOGRAD: "as fused, by Winograd's filtering where that is faster",
    },
    RELAY: {
        ORIGINAL_VERSION: "relay.build, nothing moved",
        REORDERED: "activations sunk, then relay.build",
        SCHEDULED: "this package's kernels and schedules, nothing moved",
        FUSED: "tvm_passes.relay.build",
        TUNED: "as fused, with tuned records",
        WINOGRAD: "as fused, by Winograd's filtering where that is faster",
    },
}
"""What each version is, by dialect; the first is what the others are compared with."""


DEFAULT_VERSIONS = (ORIGINAL_VERSION, REORDERED, SCHEDULED, FUSED, TUNED)
"""Those whose sums are as they are written."""


def versions_runtime(dialect: str, versions: Collection[str] = DEFAULT_VERSIONS) -> Runtime:
    """The runtime whose variants are a dialect's versions: the first, and those asked for."""
    base, *others = VERSIONS[dialect]
    kept = (base, *(version for version in others if version in versions))
    return Runtime(dialect, dialect, kept, ours=True)
