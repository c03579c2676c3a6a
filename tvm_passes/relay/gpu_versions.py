"""The kernels of a Relay module in both orders, under TOPI's schedules for CUDA."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import numpy as np
import tvm
from tvm import autotvm, relay

from tvm_passes.cuda.kernels import Dimensions, Kernels, Launch
from tvm_passes.relay import device_code
from tvm_passes.relay.engine import without_advice
from tvm_passes.relay.reorder import ReorderActivationAfterMaxPool

VERSIONS = ("original", "reordered")


def kernels_of(mod: tvm.IRModule, target: Mapping[str, Any], version: str) -> Kernels:
    """Compile a version of a module to CUDA C.

    Parameters
    ----------
    mod
        With its parameters bound.
    target
        A configuration of kind cuda.
    version
        Of `VERSIONS`.
    """
    sources: list[str] = []
    found: list[tvm.IRModule] = []

    def keep(source: str) -> bytes:
        sources.append(source)
        return source.encode()

    if version == "reordered":
        mod = tvm.transform.Sequential([ReorderActivationAfterMaxPool()])(mod)
    context = tvm.transform.PassContext(opt_level=3)
    with (
        context,
        autotvm.apply_history_best([]),
        without_advice(),
        device_code.compiled_by(keep, found.append),
    ):
        factory = relay.build(mod, tvm.target.Target(dict(target), host="llvm"))
    calls, moved = _graph(json.loads(factory.get_graph_json()))
    launches = tuple(_launches(found[0], moved))
    return Kernels(sources[0], launches, calls, {})


def _graph(graph: Mapping[str, Any]) -> tuple[Counter[str], dict[str, int]]:
    """How often each function is called, and the bytes that a call reads and writes."""
    shapes, dtypes = graph["attrs"]["shape"][1], graph["attrs"]["dltype"][1]
    first = graph["node_row_ptr"]
    sizes = [prod(s) * np.dtype(d).itemsize for s, d in zip(shapes, dtypes, strict=True)]
    calls: Counter[str] = Counter()
    moved: dict[str, int] = {}
    for number, node in enumerate(graph["nodes"]):
        if node["op"] == "tvm_op" and node["attrs"]["func_name"] != "__nop":
            name = node["attrs"]["func_name"]
            read = sum(sizes[first[source] + output] for source, output, _ in node["inputs"])
            calls[name] += 1
            moved[name] = read + sum(sizes[first[number] : first[number + 1]])
    return calls, moved


def _launches(kernels: tvm.IRModule, moved: Mapping[str, int]) -> Iterator[Launch]:
    for gvar, func in kernels.functions.items():
        name = str(gvar.name_hint)
        function = name.rpartition("_kernel")[0]
        if function not in moved:  # a reshape, which the graph does without
            continue
        extents = dict(_extents(func.body))
        grid, block = (_axes(extents, prefix) for prefix in ("blockIdx", "threadIdx"))
        yield Launch(function, name, (), grid, block, moved[function])


def _extents(body: Any) -> Iterator[tuple[str, int]]:
    found: list[Any] = []
    tvm.tir.stmt_functor.post_order_visit(body, found.append)
    for node in found:
        if isinstance(node, tvm.tir.AttrStmt) and node.attr_key == "thread_extent":
            yield str(node.node.thread_tag), int(node.value)


def _axes(extents: Mapping[str, int], prefix: str) -> Dimensions:
    x, y, z = (extents.get(f"{prefix}.{axis}", 1) for axis in "xyz")
    return x, y, z
