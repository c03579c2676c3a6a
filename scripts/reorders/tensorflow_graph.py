"""TensorFlow: the graph that runs, after Grappler, constant folding and oneDNN's rewrites."""

from __future__ import annotations

import re

import tensorflow as tf
from cases import ACTIVATION, POOL, Case, Node, decide, serve
from tensorflow_case import function

ACTIVATIONS = {
    "Relu",
    "Relu6",
    "LeakyRelu",
    "Elu",
    "Softplus",
    "Sigmoid",
    "Tanh",
    "Swish",
    "Erf",
    "Erfc",
    "GeluExact",
}
PREFIX = re.compile("_Mkl(Native)?")
"""Of operators that run in oneDNN."""
POOLS = {"MaxPool", "AvgPool", "MaxPoolV2"}


def inspect(case: Case) -> tuple[str, str]:
    """Decide on the nodes, fused ones by their attribute ``fused_ops``."""
    run, x = function(case)
    graph = tf.Graph()
    with graph.as_default():
        placeholder = tf.compat.v1.placeholder(tf.float32, x.shape)
        outputs = [tf.identity(y, name=f"output{n}") for n, y in enumerate(run(placeholder))]
        metadata = tf.compat.v1.RunMetadata()
        options = tf.compat.v1.RunOptions(output_partition_graphs=True)
        with tf.compat.v1.Session(graph=graph) as session:
            session.run(outputs, {placeholder: x}, options, metadata)
    nodes, lines = {}, []
    for part in metadata.partition_graphs:
        for node in part.node:
            fused = [op.decode() for op in node.attr["fused_ops"].list.s]
            reads = [name.lstrip("^").partition(":")[0] for name in node.input]
            nodes[node.name] = Node(_does({PREFIX.sub("", node.op), *fused}), reads)
            lines.append(f"{node.name} = {node.op}{fused or ''}({', '.join(reads)})")
    return decide(nodes), "\n".join(lines)


def _does(ops: set[str]) -> frozenset[str]:
    found = {ACTIVATION} if ops & ACTIVATIONS else set()
    return frozenset(found | ({POOL} if ops & POOLS else set()))


serve(inspect)
