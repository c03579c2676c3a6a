"""ONNX Runtime: the model that it writes after all its optimizations."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnxruntime as ort
from cases import ACTIVATION, POOL, Case, Node, decide, serve
from onnx_case import OPS, model

ACTIVATIONS = {*OPS.values(), "Gelu", "QuickGelu"}


def inspect(case: Case) -> tuple[str, str]:
    """Decide on the nodes, fused ones by their attribute ``activation``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 3
        providers = ["CPUExecutionProvider"]
        ort.InferenceSession(model(case).SerializeToString(), options, providers=providers)
        graph = onnx.load(path).graph
    makers = {name: str(n) for n, node in enumerate(graph.node) for name in node.output}
    nodes = {}
    for n, node in enumerate(graph.node):
        fused = {a.s.decode() for a in node.attribute if a.name == "activation"}
        reads = [makers[name] for name in node.input if name in makers]
        nodes[str(n)] = Node(_does({node.op_type} | fused), reads)
    return decide(nodes), onnx.printer.to_text(graph)


def _does(ops: set[str]) -> frozenset[str]:
    found = {ACTIVATION} if ops & ACTIVATIONS else set()
    return frozenset(found | ({POOL} if ops & {"MaxPool", "AveragePool"} else set()))


serve(inspect)
