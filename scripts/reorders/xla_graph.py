"""XLA on the CPU: the optimized HLO, fusions taken apart."""

from __future__ import annotations

import re

import tensorflow as tf
from cases import ACTIVATION, POOL, Case, Node, decide, serve
from tensorflow_case import function

COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.-]+) \(.*\) -> .* \{$")
INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.-]+) = (?:\([^=]*?\)|\S+) ([\w-]+)\((.*?)\)(.*)$")
CALLS = re.compile(r"(?:calls|to_apply)=%?([\w.-]+)")
REFERENCE = re.compile(r"%?([\w.-]+)")


def inspect(case: Case) -> tuple[str, str]:
    """Decide on the instructions; a fusion's are put in its place."""
    run, x = function(case)
    compiled = tf.function(run, jit_compile=True)
    text = compiled.experimental_get_compiler_ir(tf.constant(x))(stage="optimized_hlo")
    text = text if isinstance(text, str) else text.decode()
    return decide(flatten(text, case.activation)), text


Instructions = list[tuple[bool, str, str, str, str]]


def flatten(text: str, activation: str) -> dict[str, Node]:
    """A graph of all instructions that are reached from the entry computation."""
    computations: dict[str, Instructions] = {}
    entry = current = ""
    for line in text.splitlines():
        start = COMPUTATION.match(line)
        found = INSTRUCTION.match(line)
        if start:
            current = start[1]
            computations[current] = []
            entry = current if line.startswith("ENTRY") else entry
        elif found and current:
            root, name, opcode, arguments, rest = found.groups()
            computations[current].append((bool(root), name, opcode, arguments, rest))
    graph: dict[str, Node] = {}
    _inline(entry, "", [], computations, graph, activation)
    return graph


def _inline(
    name: str,
    prefix: str,
    inputs: list[str],
    computations: dict[str, Instructions],
    graph: dict[str, Node],
    activation: str,
) -> str:
    """Add a computation's instructions to the graph; returns the name of its root."""
    result = ""
    for root, own, opcode, arguments, rest in computations[name]:
        here = f"{prefix}{own}"
        reads = [f"{prefix}{found}" for found in REFERENCE.findall(_without_types(arguments))]
        called = CALLS.search(rest)
        if opcode == "parameter" and inputs:
            graph[here] = Node(frozenset(), [inputs[int(arguments)]])
        elif opcode in ("fusion", "call") and called:
            inner = _inline(called[1], f"{here}/", reads, computations, graph, activation)
            graph[here] = Node(frozenset(), [inner])
        else:
            graph[here] = Node(_does(opcode, arguments, rest, activation), reads)
        result = here if root else result
    return result


def _without_types(arguments: str) -> str:
    return re.sub(r"\b\w+\[[\d,]*\](?:\{[^}]*\})?", "", arguments)


def _does(opcode: str, arguments: str, rest: str, activation: str) -> frozenset[str]:
    """What an instruction is, by its opcode and, for library calls, by what they were given."""
    found = set()
    if opcode == "reduce-window":
        found.add(POOL)
    names = {
        "relu": ("maximum",),
        "leaky_relu": ("select",),
        "relu6": ("maximum", "minimum", "clamp"),
        "elu": ("exponential-minus-one", "select"),
        "softplus": ("log-plus-one", "select"),
        "sigmoid": ("logistic", "exponential"),
        "tanh": ("tanh",),
        "silu": ("logistic", "exponential"),
        "gelu": ("erf", "tanh", "select"),
    }[activation]
    library = opcode == "custom-call" and activation.split("_", maxsplit=1)[0].upper() in rest
    if opcode in names or library or f"@xla.{activation}" in arguments:
        found.add(ACTIVATION)
    return frozenset(found)


if __name__ == "__main__":
    serve(inspect)
