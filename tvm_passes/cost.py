"""What a site costs before and after its chain sinks, counted, not measured."""

from __future__ import annotations

from dataclasses import dataclass

from tvm_passes.decision import Decision
from tvm_passes.decline import Ends
from tvm_passes.site import elements

BYTES: dict[str, int] = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8} | {
    f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)
}


@dataclass(frozen=True)
class Cost:
    """Work and traffic of a site's sunk ops, a symbolic batch or channel counted as 1.

    All of it is None where the extent of a pooled axis is symbolic.

    Parameters
    ----------
    evaluations_before, evaluations_after
        Scalar evaluations of the ops that sink.
    bytes_before, bytes_after
        Bytes of the tensors that those ops, the pool, and the pool of the other end write, each
        op a kernel of its own.
    unpooled_bytes
        Of the tensor that the pool reads once they are below it: a kernel that takes the pool along
        with what comes before never allocates it.
    arithmetic_saved
        Share of the producing layer's multiply-adds that one activation saves, between 0 and 1;
        None where the producer's arithmetic is not known, or the other end costs some, too.
    """

    evaluations_before: int | None
    evaluations_after: int | None
    bytes_before: int | None
    bytes_after: int | None
    unpooled_bytes: int | None
    arithmetic_saved: float | None


def cost(decision: Decision) -> Cost:
    """Count what the ops that sink cost above the pool and below it."""
    pool, ops = decision.site.pool, len(decision.sunk)
    if any(pool.in_shape[axis] is None for axis in pool.spatial_axes() or ()):
        return Cost(None, None, None, None, None, None)
    before, after = elements(pool.in_shape), elements(pool.out_shape)
    evaluations = sum(op.evaluations for op in decision.sunk)
    width = BYTES.get(pool.dtype, 0)
    written = [(op.evaluations, BYTES.get(op.dtype, 0)) for op in decision.sunk]
    pooled = BYTES.get(decision.sunk[-1].reads, 0) if ops else width
    times = decision.times
    macs = decision.site.producer.macs_per_output
    share = arithmetic_saved(after / before, macs) if ops and macs and before else None
    return Cost(
        evaluations_before=evaluations,
        evaluations_after=sum(times) * after,
        bytes_before=sum(count * each for count, each in written) + width * after,
        bytes_after=sum(n * each for n, (_, each) in zip(times, written, strict=True)) * after
        + pooled * (after + _of_other_ends(decision)),
        unpooled_bytes=pooled * before,
        arithmetic_saved=share if decision.ends is Ends.SAME else None,
    )


def _of_other_ends(decision: Decision) -> int:
    """Elements that are written for the windows' other ends, and for the larger of two results."""
    pool = decision.site.pool
    before, after = elements(pool.in_shape), elements(pool.out_shape)
    negations = 0 if pool.opposite else before + after
    return {Ends.SAME: 0, Ends.OTHER: negations, Ends.BOTH: negations + 2 * after}[decision.ends]


def arithmetic_saved(kept: float, macs_per_output: int) -> float:
    """Share of a convolution's multiply-adds that sinking one activation saves.

    The formula of TensorFlow issue 3180, (1 - 1/s^2) / (k_h * k_w * c_in) for pooling by s x s:
    an activation is counted as one multiply-add.

    Parameters
    ----------
    kept
        Outputs of the pool divided by its inputs, 1/s^2 for non-overlapping s x s windows.
    macs_per_output
        Multiply-adds an output element of the convolution takes, k_h * k_w * c_in.

    >>> f"{arithmetic_saved(1 / 4, 5 * 5 * 1):.2%}"
    '3.00%'
    >>> f"{arithmetic_saved(1 / 4, 5 * 5 * 64):.2%}"
    '0.05%'
    """
    return (1 - kept) / macs_per_output
