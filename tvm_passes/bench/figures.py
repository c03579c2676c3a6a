"""Figures of a kernel, in plain values: what it executes, moves and allocates, its inner loop."""

from __future__ import annotations

from dataclasses import asdict
from math import prod
from typing import Any

from tvm_passes.bench.assembly import main_loop
from tvm_passes.bench.counting import count
from tvm_passes.cost import BYTES
from tvm_passes.namespaces import buffers


def kernel_figures(name: str, func: Any, assembly: str, allocated: int) -> dict[str, Any]:
    """Describe a PrimFunc.

    Parameters
    ----------
    name
        Of its symbol.
    func
        As scheduled or lowered, with constant extents.
    assembly
        LLVM's, of the module that it is in.
    allocated
        Bytes of its own buffers.

    Returns
    -------
    dict
        ``evaluations`` by kind, ``arithmetic`` operations, ``maxima``: elements that a pool looks
        at, ``exact``: whether these are no upper bounds, ``bytes`` of its arguments, ``allocated``
        bytes, ``inner_loop`` with instructions by kind, and ``source``.
    """
    counts = count(func)
    loop = main_loop(assembly, name)
    return {
        "name": name,
        **asdict(counts),
        "evaluations": dict(counts.evaluations),
        "bytes": sum(buffer_bytes(buffer) for buffer in buffers(func)),
        "allocated": allocated,
        "inner_loop": asdict(loop) if loop else None,
        "source": func.script(show_meta=False),
    }


def buffer_bytes(buffer: Any) -> int:
    """Bytes of a buffer with constant extents."""
    return prod(int(extent) for extent in buffer.shape) * BYTES.get(str(buffer.dtype), 0)
