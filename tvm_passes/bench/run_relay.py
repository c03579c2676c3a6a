"""TVM with Relay: this package's ``relay.build``, and TVM's own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import autotvm, relay
from tvm.contrib.graph_executor import GraphModule

from tvm_passes import relay as tvm_passes_relay
from tvm_passes.bench.files import inputs_of, model_file
from tvm_passes.bench.versions import FUSED, ORIGINAL_VERSION, REORDERED
from tvm_passes.frontends import load_model
from tvm_passes.namespaces import host_cpu
from tvm_passes.relay.reorder import ReorderActivationAfterMaxPool
from tvm_passes.rules import RELAY


def _reordered(mod: tvm.IRModule, target: tvm.target.Target) -> Any:
    return relay.build(tvm.transform.Sequential([ReorderActivationAfterMaxPool()])(mod), target)


BUILDS: Mapping[str, Callable[..., Any]] = {
    "tvm_relay": relay.build,
    "tvm_passes_relay": tvm_passes_relay.build,
    ORIGINAL_VERSION: relay.build,
    REORDERED: _reordered,
    FUSED: tvm_passes_relay.build,
}


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

    def prepare(self, folder: Path, variant: str, options: Mapping[str, Any]) -> Bound:
        """Compile the model, or the block in the order of the variant."""
        config = options.get("target") or {"kind": "llvm", "mcpu": host_cpu()}
        target = tvm.target.Target({"num-cores": self.threads, **config})
        if self.runtime == RELAY:
            mod, build = load_model(model_file(folder), RELAY), BUILDS[variant]
        else:
            mod, build = load_model(model_file(folder, variant), RELAY), BUILDS[self.runtime]
        with tvm.transform.PassContext(opt_level=3), autotvm.apply_history_best([]):
            factory = build(mod, target)
        return Bound(factory, inputs_of(folder))


class Bound:
    """A graph executor with its inputs set."""

    def __init__(self, factory: Any, inputs: list[np.ndarray]) -> None:
        self.factory = factory
        self.graph = GraphModule(factory["default"](tvm.cpu()))
        for n, array in enumerate(inputs):
            self.graph.set_input(n, tvm.nd.array(array))

    def run(self) -> None:
        """Run once."""
        self.graph.run()

    def outputs(self) -> list[np.ndarray]:
        """Fetch the outputs."""
        return [self.graph.get_output(n).numpy() for n in range(self.graph.get_num_outputs())]


def start(runtime: str, threads: int) -> Relay:
    """Serve a way of compiling Relay."""
    return Relay(runtime, threads)
