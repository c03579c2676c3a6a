"""The cases that are given to every compiler, and what is decided of its optimized graph."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ACTIVATIONS = (
    "relu",
    "leaky_relu",
    "relu6",
    "elu",
    "softplus",
    "sigmoid",
    "tanh",
    "silu",
    "gelu",
)
PRODUCERS = ("conv, bias", "conv, add", "conv", "conv, batch norm", "none")
POOLS = ("2x2/2", "3x3/2", "3x3/2 padded", "average 2x2/2")
SHAPE = (1, 3, 16, 16)
CHANNELS = 8
LEAKY_SLOPE = 0.1

BEFORE, AFTER, FAILED = "before", "after", "failed"
"""Where the activation runs: before the pool, after it; or the compiler refuses the case."""


@dataclass(frozen=True)
class Case:
    """What feeds the activation, the activation, the pool, and whether both are read."""

    producer: str
    activation: str
    pool: str = POOLS[0]
    consumers: int = 1
    seed: int = 0

    @property
    def name(self) -> str:
        """One line that tells cases apart."""
        readers = "" if self.consumers == 1 else ", two consumers"
        return f"{self.producer} | {self.activation} | {self.pool}{readers}"

    @property
    def window(self) -> tuple[int, int, int]:
        """Kernel, stride and padding of the pool."""
        return {"2x2/2": (2, 2, 0), "3x3/2": (3, 2, 0), "3x3/2 padded": (3, 2, 1)}.get(
            self.pool, (2, 2, 0)
        )

    @property
    def averages(self) -> bool:
        """Whether the pool is an average."""
        return self.pool.startswith("average")


def cases(*, everything: bool, seed: int = 0) -> list[Case]:
    """Every combination, or each value of each axis with a few of the others."""
    if everything:
        found = itertools.product(PRODUCERS, ACTIVATIONS, POOLS, (1, 2))
        return [Case(*values, seed) for values in found]
    plain = [Case(producer, f, seed=seed) for producer in PRODUCERS for f in ACTIVATIONS]
    special = [(pool, 1) for pool in POOLS[1:]] + [(POOLS[0], 2)]
    return plain + [
        Case(producer, activation, *values, seed)
        for producer in ("conv, bias", "none")
        for activation in ("relu", "sigmoid")
        for values in special
    ]


def arrays(case: Case) -> dict[str, np.ndarray]:
    """Seeded input and weights; biases are not zero, which TensorFlow would fold away."""
    random = np.random.default_rng(case.seed)
    channels = CHANNELS if case.producer != "none" else SHAPE[1]
    return {
        "x": random.standard_normal(SHAPE, np.float32),
        "w": random.standard_normal((CHANNELS, SHAPE[1], 3, 3), np.float32),
        "b": random.uniform(0.5, 1.5, channels).astype("float32"),
        "scale": random.uniform(0.5, 1.5, channels).astype("float32"),
        "mean": random.standard_normal(channels, np.float32),
        "variance": random.uniform(0.5, 1.5, channels).astype("float32"),
    }


@dataclass
class Node:
    """A node of an optimized graph: what it computes, and whose results it reads."""

    does: frozenset[str]
    reads: list[str] = field(default_factory=list)


ACTIVATION, POOL = "activation", "pool"


def decide(graph: Mapping[str, Node]) -> str:
    """Where the activation is in a graph, from edges alone.

    Raises
    ------
    ValueError
        If there is no pool, or no activation that it reads or feeds.
    """
    pools = [name for name, node in graph.items() if POOL in node.does]
    if not pools:
        raise ValueError("no pool in the optimized graph")
    above = {name for pool in pools for name in _ancestors(pool, graph)}
    if any(ACTIVATION in graph[name].does for name in above):
        return BEFORE
    for name, node in graph.items():
        if ACTIVATION in node.does and any(p in _ancestors(name, graph) for p in pools):
            return AFTER
    raise ValueError("no activation beside the pool in the optimized graph")


def _ancestors(name: str, graph: Mapping[str, Node]) -> set[str]:
    found: set[str] = set()
    waiting = list(graph[name].reads)
    while waiting:
        current = waiting.pop()
        if current in graph and current not in found:
            found.add(current)
            waiting += graph[current].reads
    return found


def serve(inspect: Callable[[Case], tuple[str, str]]) -> None:
    """Read cases as JSON from stdin; write a line each: where the activation is, and evidence.

    Parameters
    ----------
    inspect
        Compiles a case; returns `BEFORE` or `AFTER`, and the text that it was read from.
    """
    output = Path(sys.argv[1])
    with output.open("w") as file:
        for fields in json.load(sys.stdin):
            case = Case(**fields)
            try:
                where, evidence = inspect(case)
            except Exception as err:  # noqa: BLE001 - a compiler may refuse a case in any way
                where, evidence = FAILED, f"{type(err).__name__}: {err}"
            print(json.dumps([case.name, where, evidence]), file=file, flush=True)


def plain(found: Iterable[Case]) -> list[dict[str, Any]]:
    """Cases in plain values."""
    return [asdict(case) for case in found]


def read(path: Path) -> Iterator[tuple[str, str, str]]:
    """What `serve` wrote."""
    for line in path.read_text().splitlines():
        name, where, evidence = json.loads(line)
        yield name, where, evidence
