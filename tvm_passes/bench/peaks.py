"""What this machine can do at most, measured: multiply-adds and memory traffic.

Kernels of TVM's own, so that they run on the same threads as what they are compared with.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tvm
from tvm import te

from tvm_passes.bench.worker import measure
from tvm_passes.namespaces import Schedule, block, built, tensor
from tvm_passes.schedules.machine import machine_of

STEPS = 4096
"""Multiply-adds that each accumulator takes in a row: 16 KB of operands, which L1 holds."""

TRIAD_FLOATS = 1 << 24
"""Of each of the triad's three arrays, 64 MB: more than the last cache of what this runs on."""

SECONDS = 0.2
TRIES = 5


def peaks(target: tvm.target.Target, threads: int) -> dict[str, float]:
    """Measure; the best of some tries, as others on the machine only slow it down.

    Returns
    -------
    dict
        ``gflops``: billions of float32 operations a second, a multiply-add being two;
        ``gbytes``: billions of bytes a second read and written by a triad, a + s * b.
    """
    return {
        "gflops": max(_multiply_adds(target, threads, rows) for rows in (5, 6, 7, 12, 14)),
        "gbytes": _triad(target, threads),
    }


def _multiply_adds(target: tvm.target.Target, threads: int, rows: int) -> float:
    """Sums of outer products in registers: `rows` x 2 vectors for each thread."""
    columns = 2 * machine_of(target).lanes
    x = te.placeholder((STEPS, columns), name="x")
    y = te.placeholder((STEPS, rows), name="y")
    k = te.reduce_axis((0, STEPS), name="k")
    out = te.compute(
        (threads, rows, columns), lambda _t, i, j: te.sum(y[k, i] * x[k, j], axis=k), name="out"
    )
    sch = Schedule(te.create_prim_func([x, y, out]))
    sums = block(sch, "out")
    accumulators = sch.cache_write(sums, 0, "local")
    thread, i, j, step = sch.get_loops(sums)
    sch.reorder(thread, step, i, j)
    sch.parallel(thread)
    sch.unroll(i)
    sch.vectorize(j)
    sch.reverse_compute_at(accumulators, thread)
    sch.decompose_reduction(sums, step)
    seconds = _best(sch, target, [(STEPS, columns), (STEPS, rows), (threads, rows, columns)])
    return 2e-9 * STEPS * rows * columns * threads / seconds


def _triad(target: tvm.target.Target, threads: int) -> float:
    a = te.placeholder((TRIAD_FLOATS,), name="a")
    b = te.placeholder((TRIAD_FLOATS,), name="b")
    out = te.compute((TRIAD_FLOATS,), lambda i: a[i] + te.const(3.0, "float32") * b[i], name="out")
    sch = Schedule(te.create_prim_func([a, b, out]))
    (i,) = sch.get_loops(block(sch, "out"))
    thread, _, inner = sch.split(i, [threads, None, machine_of(target).lanes])
    sch.parallel(thread)
    sch.vectorize(inner)
    return 1e-9 * 3 * 4 * TRIAD_FLOATS / _best(sch, target, [(TRIAD_FLOATS,)] * 3)


def _best(sch: Schedule, target: tvm.target.Target, shapes: list[tuple[int, ...]]) -> float:
    """Seconds of a call."""
    kernel = built(sch.mod["main"], target)
    arrays = [tensor(np.zeros(shape, "float32")) for shape in shapes]
    run: Callable[[], object] = lambda: kernel(*arrays)  # noqa: E731
    return min(float(measure(run, SECONDS / TRIES)["seconds"]) for _ in range(TRIES))
