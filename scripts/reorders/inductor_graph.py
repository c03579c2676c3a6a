"""PyTorch Inductor: the FX graph after its last pass, and the code made of it.

Run with ``freezing`` to freeze weights.
"""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from cases import ACTIVATION, LEAKY_SLOPE, POOL, Case, Node, arrays, decide, serve
from torch._inductor import config
from torch._inductor.graph import GraphLowering
from torch.nn import functional

ACTIVATIONS = {
    "relu": functional.relu,
    "leaky_relu": lambda x: functional.leaky_relu(x, LEAKY_SLOPE),
    "relu6": functional.relu6,
    "elu": functional.elu,
    "softplus": functional.softplus,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": functional.silu,
    "gelu": functional.gelu,
}
DECOMPOSED = {
    "relu": ("relu",),
    "leaky_relu": ("where", "leaky_relu"),
    "relu6": ("clamp", "clamp_min", "clamp_max", "hardtanh"),
    "elu": ("expm1", "where", "elu"),
    "softplus": ("log1p", "where", "softplus"),
    "sigmoid": ("sigmoid",),
    "tanh": ("tanh",),
    "silu": ("sigmoid", "exp", "silu", "swish"),
    "gelu": ("erf", "gelu"),
}
"""Names of operators that an activation may be after decomposition."""


FUSED = re.compile(r"mkldnn\._convolution_pointwise.*?'(\w+)'")
"""The activation that a convolution of oneDNN is called with."""


class Network(torch.nn.Module):
    """A case."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case
        for name, array in arrays(case).items():
            if name != "x":
                self.register_parameter(name, torch.nn.Parameter(torch.from_numpy(array)))

    def forward(self, x: torch.Tensor) -> Any:
        """Compute it."""
        case = self.case
        if case.producer != "none":
            bias = self.b if case.producer == "conv, bias" else None
            x = functional.conv2d(x, self.w, bias, padding=1)
        if case.producer == "conv, add":
            x = x + self.b.reshape(1, -1, 1, 1)
        if case.producer == "conv, batch norm":
            x = functional.batch_norm(x, self.mean, self.variance, self.scale, self.b)
        activated = x = ACTIVATIONS[case.activation](x)
        kernel, stride, pad = case.window
        pool = functional.avg_pool2d if case.averages else functional.max_pool2d
        return (pool(x, kernel, stride, pad), activated)[: case.consumers]


def generated(network: Any, x: torch.Tensor, outputs: int) -> str:
    """The code that Inductor generates, neither compiled nor run."""
    codes: list[str] = []

    def compile_to_module(graph: GraphLowering) -> Any:
        codes.append(graph.codegen()[0].value)
        return SimpleNamespace(call=lambda _args: [x] * outputs)

    with mock.patch.object(GraphLowering, "compile_to_module", compile_to_module):
        network(x)
    return "\n".join(codes)


def inspect(case: Case) -> tuple[str, str]:
    """Decide on the graph's nodes, fused convolutions by the name of their activation."""
    graphs: list[torch.fx.Graph] = []

    def keep(graph: torch.fx.Graph) -> None:
        graphs.append(graph)

    torch.compiler.reset()
    config.post_grad_custom_post_pass = keep
    config.force_disable_caches = True
    config.freezing = "freezing" in sys.argv
    with torch.no_grad():
        network, x = torch.compile(Network(case).eval()), torch.from_numpy(arrays(case)["x"])
        code = generated(network, x, case.consumers)
    graph = graphs[-1]
    nodes = {
        node.name: Node(_does(node, case, code), [read.name for read in node.all_input_nodes])
        for node in graph.nodes
    }
    return decide(nodes), f"{graph}\n\n{code}"


def _does(node: torch.fx.Node, case: Case, code: str) -> frozenset[str]:
    """What a node is; what was fused into a convolution of oneDNN is in the code alone."""
    if node.op != "call_function":
        return frozenset()
    target, names = str(node.target), DECOMPOSED[case.activation]
    library = "mkldnn" in target or "mkldnn" in getattr(node.target, "__module__", "")
    fused = FUSED.findall(code) if library else []
    found = {POOL} if "pool2d" in target or "max_pool" in target else set()
    if any(name in target.split(".") for name in names) or set(fused) & set(names):
        found.add(ACTIVATION)
    return frozenset(found)


serve(inspect)
