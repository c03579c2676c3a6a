"""Whether a max-pool joins the kernel of the convolution above it, by what the model expects.

Where windows overlap, a block of threads sums what its neighbours sum, too, at its edges: for a
3x3 pool of stride 2, an eighth more in a tile of 8 by 8 windows.  That may be more than the
un-pooled result costs on its way through memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

from tvm_passes.cuda.gpu import Gpu
from tvm_passes.decline import Decline, KernelReason
from tvm_passes.schedules.gpu_conv2d import LayerOf
from tvm_passes.schedules.gpu_space import gpu_of, recorded
from tvm_passes.schedules.gpu_tiles import FLOAT, FMAS, Nest, best, expected
from tvm_passes.schedules.gpu_winograd_tiles import LAUNCH

MARGIN = 1.2
"""How many times as long the one kernel has to be expected to take: within that, the model errs."""
RESULT = 40
"""Instructions of a pool alone for a result, but for its comparisons: bench --static, sm_90."""


@dataclass(frozen=True)
class Fusion:
    """Seconds that a layer is expected to take as one kernel, and as two."""

    together: float
    apart: float


def fusion(layer: LayerOf, gpu: Gpu) -> Fusion:
    """What the model expects of a layer with a pool."""
    alone = replace(layer, pool=None)
    data = prod(layer.shape)
    unpooled, result = _elements(alone.nest), _elements(layer.nest)

    def seconds(cycles: float, elements: int) -> float:
        return max(cycles / gpu.clock_hz, FLOAT * elements / gpu.bytes_per_second)

    def summed(nest: Nest) -> float:
        return expected(nest, best(nest, gpu.multiprocessors), gpu.multiprocessors)

    window = layer.nest.rows.pool * layer.nest.columns.pool
    pooling = result * (RESULT + window) / (FMAS * gpu.multiprocessors)
    return Fusion(
        seconds(summed(layer.nest), data + result),
        seconds(summed(alone.nest), data + unpooled) + LAUNCH + seconds(pooling, unpooled + result),
    )


def unless_slower(layer: LayerOf, target: Any) -> Decline | None:
    """Why the pool stays a kernel of its own, if it does: not where both as one are recorded."""
    if recorded(layer, target) is not None:
        return None
    found = fusion(layer, gpu_of(target))
    if found.together <= MARGIN * found.apart:
        return None
    return Decline(
        KernelReason.SLOWER_FUSED,
        f"one kernel with its pool is expected to take {found.together * 1e6:.1f} us, "
        f"two {found.apart * 1e6:.1f}",
        "a tuned record of the one kernel would be taken",
    )


def _elements(nest: Nest) -> int:
    """Of the result."""
    return nest.batch * nest.groups * nest.filters * nest.rows.out * nest.columns.out
