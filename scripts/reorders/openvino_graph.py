"""OpenVINO: the execution graph of the compiled model, with what was fused into each node."""

from __future__ import annotations

import openvino as ov
from cases import ACTIVATION, POOL, Case, Node, decide, serve
from onnx_case import model

CORE = ov.Core()


def inspect(case: Case) -> tuple[str, str]:
    """Decide on the nodes by the names of the original layers that each of them computes."""
    read = CORE.read_model(model(case).SerializeToString())
    compiled = CORE.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    nodes, lines = {}, []
    for op in compiled.get_runtime_model().get_ordered_ops():
        info = {key: str(op.get_rt_info()[key].astype(str)) for key in op.get_rt_info()}
        original = info.get("originalLayersNames", "").split(",")
        inputs = [op.input_value(n).get_node() for n in range(op.get_input_size())]
        reads = [node.get_friendly_name() for node in inputs]
        kind, runs = info.get("layerType"), info.get("primitiveType")
        named = any(name.startswith(ACTIVATION) for name in original)
        does = ({ACTIVATION} if named else set()) | ({POOL} if kind == "Pooling" else set())
        nodes[op.get_friendly_name()] = Node(frozenset(does), reads)
        lines.append(f"{op.get_friendly_name()} = {kind}({', '.join(reads)}) {original} {runs}")
    return decide(nodes), "\n".join(lines)


serve(inspect)
