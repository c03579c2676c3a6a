"""TVM with Relay: this package's ``relay.build``, and TVM's own."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Collection, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import autotvm, relay
from tvm.contrib.debugger.debug_executor import GraphModuleDebug
from tvm.contrib.graph_executor import GraphModule

from tvm_passes.bench.figures import kernel_figures
from tvm_passes.bench.files import inputs_of, named_file
from tvm_passes.bench.peaks import peaks
from tvm_passes.bench.tuned import records_for
from tvm_passes.bench.versions import FUSED, ORIGINAL_VERSION, REORDERED, SCHEDULED, TUNED
from tvm_passes.cost import BYTES
from tvm_passes.describe import WINOGRAD
from tvm_passes.frontends import load_model
from tvm_passes.relay.build import passes
from tvm_passes.relay.reorder import ReorderActivationAfterMaxPool
from tvm_passes.rules import RELAY
from tvm_passes.target import parse_target


def _stock(_target: tvm.target.Target, _allow: Collection[str]) -> list[tvm.transform.Pass]:
    return []


def _reordered(_target: tvm.target.Target, allow: Collection[str]) -> list[tvm.transform.Pass]:
    return [ReorderActivationAfterMaxPool(allow=allow)]


def _scheduled(target: tvm.target.Target, allow: Collection[str]) -> list[tvm.transform.Pass]:
    return passes(target, rules=(), allow=allow)


def _ours(target: tvm.target.Target, allow: Collection[str]) -> list[tvm.transform.Pass]:
    return passes(target, allow=allow)


def _winograd(target: tvm.target.Target, allow: Collection[str]) -> list[tvm.transform.Pass]:
    return passes(target, allow={*allow, WINOGRAD})


BUILDS: Mapping[str, Callable[..., list[tvm.transform.Pass]]] = {
    "tvm_relay": _stock,
    "tvm_passes_relay": _ours,
    ORIGINAL_VERSION: _stock,
    REORDERED: _reordered,
    SCHEDULED: _scheduled,
    FUSED: _ours,
    TUNED: _ours,
    WINOGRAD: _winograd,
}
"""What runs before ``relay.build``."""


class Relay:
    """Graph executors for this machine's CPU, or for a target that is given.

    Parameters
    ----------
    runtime
        A name of `BUILDS`, or ``relay``, whose variants are such names.
    threads
        For the target's ``num-cores``.
    """

    versions: Mapping[str, str] = {"tvm": tvm.__version__}

    def __init__(self, runtime: str, threads: int) -> None:
        self.runtime = runtime
        self.threads = threads
        logging.disable(logging.WARNING)  # advice to tune, once for every op

    def peaks(self) -> dict[str, float]:
        """What this machine can do at most."""
        target = {"num-cores": self.threads, **parse_target("host")}
        return peaks(tvm.target.Target(target), self.threads)

    def prepare(self, folder: Path, variant: str, options: Mapping[str, Any]) -> Bound:
        """Compile the model, or the block in the order of the variant."""
        cpu = options.get("target") or parse_target("host")
        target = tvm.target.Target({"num-cores": self.threads, **cpu})
        name, file = named_file(folder, variant, self.runtime, RELAY)
        mod = load_model(file, RELAY)
        lowered: list[Any] = []
        config = {"tir.add_lower_pass": [(3, _keep(lowered))]}
        context = tvm.transform.PassContext(opt_level=3, config=config)
        records = records_for(name, RELAY, cpu, options)
        with context, autotvm.apply_history_best([]), records:
            before = BUILDS[name](target, options.get("allow", ()))
            factory = relay.build(tvm.transform.Sequential(before)(mod), target)
        return Bound(factory, lowered, inputs_of(folder))


def _keep(lowered: list[Any]) -> Any:
    """A pass that changes nothing and keeps the functions that it is given."""

    @tvm.tir.transform.prim_func_pass(opt_level=0, name="KeepFunctions")
    def keep(func: Any, _mod: tvm.IRModule, _ctx: Any) -> Any:
        lowered.append(func)
        return func

    return keep


class Bound:
    """A graph executor with its inputs set."""

    def __init__(self, factory: Any, lowered: list[Any], inputs: list[np.ndarray]) -> None:
        self.factory, self.lowered = factory, lowered
        self.graph = GraphModule(factory["default"](tvm.cpu()))
        self.inputs = [tvm.nd.array(array) for array in inputs]
        for n, array in enumerate(self.inputs):
            self.graph.set_input(n, array)

    def run(self) -> None:
        """Run once."""
        self.graph.run()

    def outputs(self) -> list[np.ndarray]:
        """Fetch the outputs."""
        return [self.graph.get_output(n).numpy() for n in range(self.graph.get_num_outputs())]

    def describe(self) -> dict[str, Any]:
        """Figures of the kernels, their calls in order, and the bytes of the memory plan."""
        library = self.factory.get_lib()
        parts = [library, *library.imported_modules]
        assembly = "\n".join(part.get_source("asm") for part in parts if part.type_key == "llvm")
        kernels = {
            name: kernel_figures(name, func, assembly, _allocated(func))
            for func in self.lowered
            for name in [str(func.attrs["global_symbol"])]
        }
        graph = json.loads(self.factory.get_graph_json())
        calls = [node["attrs"]["func_name"] for node in graph["nodes"] if node["op"] != "null"]
        return {"calls": calls, "kernels": kernels, "planned": _planned(graph)}

    def profile(self, rounds: int) -> list[dict[str, Any]]:
        """Seconds of each kernel in the order of execution, a sample a round."""
        with tempfile.TemporaryDirectory() as folder:
            create = self.factory["debug_create"]
            graph = self.factory.get_graph_json()
            device = tvm.cpu()
            debug = GraphModuleDebug(create("default", device), [device], graph, folder)
            for n, array in enumerate(self.inputs):
                debug.set_input(n, array)
            samples = debug.run_individual(1, rounds)
            nodes = debug.debug_datum.get_graph_nodes()
        return [
            {"name": node["attrs"]["func_name"], "samples": [float(s) for s in found]}
            for node, found in zip(nodes, samples, strict=True)
            if node["op"] != "param"
        ]


def _planned(graph: Mapping[str, Any]) -> int:
    """Bytes of the storage that the memory plan gives to tensors, without parameters."""
    attributes = graph["attrs"]
    columns = (attributes[name][1] for name in ("storage_id", "shape", "dltype"))
    sizes: dict[int, int] = {}
    for node, (storage, shape, dtype) in enumerate(zip(*columns, strict=True)):
        if node not in graph["arg_nodes"]:
            size = prod(shape) * BYTES.get(dtype, 0)
            sizes[storage] = max(sizes.get(storage, 0), size)
    return sum(sizes.values())


def _allocated(func: Any) -> int:
    """Bytes of a lowered kernel's own buffers."""
    found: list[int] = []

    def visit(node: Any) -> None:
        if isinstance(node, tvm.tir.Allocate):
            scalar, _, lanes = str(node.dtype).partition("x")
            extents = [int(extent) for extent in node.extents]
            found.append(prod(extents) * BYTES.get(scalar, 0) * int(lanes or 1))

    tvm.tir.stmt_functor.post_order_visit(func.body, visit)
    return sum(found)


def start(runtime: str, threads: int) -> Relay:
    """Serve a way of compiling Relay."""
    return Relay(runtime, threads)
