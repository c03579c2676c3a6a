"""TVM with Relay: this package's ``relay.build``, and TVM's own."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import autotvm, relay
from tvm.contrib.graph_executor import GraphModule

from tvm_passes import relay as tvm_passes_relay
from tvm_passes.bench.files import bound_input
from tvm_passes.frontends import load_model
from tvm_passes.namespaces import host_cpu
from tvm_passes.rules import RELAY


class Relay:
    """Graph executors for this machine's CPU."""

    versions: Mapping[str, str] = {"tvm": tvm.__version__}

    def __init__(self, runtime: str, threads: int) -> None:
        self.build = relay.build if runtime == "tvm_relay" else tvm_passes_relay.build
        self.target = tvm.target.Target(f"llvm -mcpu={host_cpu()} -num-cores={threads}")
        logging.disable(logging.WARNING)  # advice to tune, once for every op

    def prepare(self, folder: Path, variant: str, _options: Mapping[str, Any]) -> Bound:
        """Compile ``VARIANT.onnx``."""
        mod = load_model(folder / f"{variant}.onnx", RELAY)
        with tvm.transform.PassContext(opt_level=3), autotvm.apply_history_best([]):
            factory = self.build(mod, self.target)
        graph = GraphModule(factory["default"](tvm.cpu()))
        graph.set_input(0, tvm.nd.array(bound_input(folder)))
        return Bound(graph)


class Bound:
    """A graph executor with its input set."""

    def __init__(self, graph: GraphModule) -> None:
        self.graph = graph

    def run(self) -> None:
        """Run once."""
        self.graph.run()

    def output(self) -> np.ndarray:
        """Fetch the output."""
        return np.asarray(self.graph.get_output(0).numpy())


def start(runtime: str, threads: int) -> Relay:
    """Serve a way of compiling Relay."""
    return Relay(runtime, threads)
