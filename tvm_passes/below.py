"""What is below a pool, as far as compilers may bring it next to what sinks there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic

from tvm_passes.describe import Vocabulary, plain
from tvm_passes.graph import Graph, Node
from tvm_passes.neighbours import PROVED, SUMS, VANISHING, may_begin_with_cast, may_vanish
from tvm_passes.readers import Readers, read_by, value_of
from tvm_passes.site import BINDING, CALLER, elements

TUPLE = "a tuple"

ADD_NOTHING = frozenset(
    (
        *("concatenate", "concat", "split", "strided_slice", "take", "stack", "tile", "repeat"),
        *("argmax", "argmin", "space_to_depth", "depth_to_space", "cos", "sin", "tan", "cosh"),
    )
)
"""Other ops that neither add nor compare with numbers, by their names in patterns."""

SMALL, JOINED = "a small result", "what is computed beside the pool"
"""What kernels hold beside ops."""

KERNELS = frozenset({"relax.call_tir", "relax.call_tir_with_grad"})
"""Kernels of others, which may compute anything."""


@dataclass(frozen=True, slots=True)
class Below:
    """The names of ops that may come to read what sinks below a pool.

    Parameters
    ----------
    arithmetic
        Those that a compiler may fold or contract arithmetic above them into.
    unknown
        Those of which it is not known whether they stay, and what they are.
    casts
        Those that may begin with a cast of integers that they read.
    absorbers
        Those through which a compiler may fold a factor into a layer's weights.
    """

    arithmetic: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    casts: tuple[str, ...] = ()
    absorbers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kernels:
    """The names of ops in kernels with what sinks below a pool.

    Parameters
    ----------
    sums
        Those that may add.
    products
        Those that may multiply.
    told
        Those, beside sums, whose code depends on what is known of their data.
    small
        Whether any gives less than what kernels store wherever they are cut.
    joined
        Whether any reads what is computed beside it.
    """

    sums: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    small: bool = False
    joined: bool = False


@dataclass(frozen=True)
class Surroundings(Generic[Node]):
    """What is below the values of a graph, found once for each."""

    graph: Graph[Node]
    words: Vocabulary
    names: dict[int, frozenset[str]] = field(default_factory=dict)
    described: dict[frozenset[str], Below] = field(default_factory=dict)
    in_kernels: dict[int, frozenset[str]] = field(default_factory=dict)
    kernels_described: dict[frozenset[str], Kernels] = field(default_factory=dict)

    def below(self, pool: Node) -> Below:
        """What is below a pool: its readers, and theirs where they may go or are folded past."""
        names = self._names(pool, self.names, self._may_go, self._named)
        if names not in self.described:
            self.described[names] = self._describe(sorted(names))
        return self.described[names]

    def kernels(self, pool: Node) -> Kernels:
        """What kernels with what sinks below a pool hold: all down to the next layer or pool."""
        names = self._names(pool, self.in_kernels, self._goes_on, self._in_kernel)
        if names not in self.kernels_described:
            self.kernels_described[names] = self._describe_kernels(names)
        return self.kernels_described[names]

    def _describe_kernels(self, found: frozenset[str]) -> Kernels:
        names = sorted(found - {SMALL, JOINED})
        sums = tuple(filter(self._may_add, names))
        products = tuple(name for name in names if name not in SUMS and self._computes(name))
        told = (
            name
            for name in names
            if name in KERNELS or (self._may_be_told(name) and set(sums) - {name})
        )
        return Kernels(sums, products, tuple(told), SMALL in found, JOINED in found)

    def _may_add(self, name: str) -> bool:
        rows = self.words.activations.get(name, ())
        is_scale = bool(rows) and not any(r.is_arithmetic and not r.is_scale for r, _ in rows)
        return self._computes(name) and not is_scale

    def _computes(self, name: str) -> bool:
        """Whether an op may add or multiply."""
        words = self.words
        if name in words.activations:
            return words.may_fold(name)
        moves = any(name in names for names in (words.moves, words.dropouts, words.apart))
        moves = moves or name == TUPLE
        return words.may_fold(name) and not (moves or name in PROVED or plain(name) in ADD_NOTHING)

    def _may_be_told(self, name: str) -> bool:
        return name in PROVED or not (self._is_known(name) or plain(name) in ADD_NOTHING)

    def _is_known(self, name: str) -> bool:
        return self.words.is_known(name) or name == TUPLE

    def _describe(self, names: list[str]) -> Below:
        words = self.words
        layers = words.absorbers
        through = (layers | words.activations.keys() | {CALLER, BINDING}) if layers else frozenset()
        return Below(
            tuple(name for name in names if words.may_fold(name) and not words.passes_on(name)),
            tuple(name for name in names if not self._is_known(name)),
            tuple(name for name in names if may_begin_with_cast(name, words.producers)),
            tuple(name for name in names if name in through),
        )

    def _names(
        self,
        node: Node,
        found: dict[int, frozenset[str]],
        passes: Callable[[Node], bool],
        named: Callable[[Node, Node], Iterable[str]],
    ) -> frozenset[str]:
        """The names of what reads a value, and what reads that, as far as it passes values on."""
        graph = self.graph
        reading: dict[int, tuple[Readers[Node], list[Node]]] = {}
        stack = [node]
        while stack:
            current = stack.pop()
            key = graph.key(current)
            if key in found:
                continue
            if key not in reading:
                readers = read_by(graph, current)
                reading[key] = readers, [each for each in readers.nodes if passes(each)]
                stack += [current, *reading[key][1]]
            else:
                readers, through = reading.pop(key)
                callers = {CALLER} if readers.leaves and graph.may_be_joined else ()
                beyond = (found[graph.key(each)] for each in through)
                names = (named(each, current) for each in readers.nodes)
                found[key] = frozenset().union(callers, *names, *beyond)
        return found[graph.key(node)]

    def _named(self, reader: Node, _value: Node) -> Iterable[str]:
        return (TUPLE if self._is_tuple(reader) else self.graph.op_name(reader) or BINDING,)

    def _in_kernel(self, reader: Node, value: Node) -> Iterator[str]:
        """The name of what reads a value, and what else matters of it in a kernel."""
        graph, least = self.graph, self.words.unstored
        yield from self._named(reader, value)
        if not least or not self._goes_on(reader):
            return
        shape = graph.extents(reader)
        if shape is not None and None not in shape and elements(shape) < least:
            yield SMALL
        computed = (each for each in graph.reads(reader) if not graph.is_stored(each))
        if any(graph.key(value_of(graph, each)) != graph.key(value) for each in computed):
            yield JOINED

    def _is_tuple(self, reader: Node) -> bool:
        """Whether what reads a value is a tuple, or takes the value out of one."""
        return self.graph.fields(reader) is not None or self.graph.item(reader) is not None

    def _goes_on(self, reader: Node) -> bool:
        """Whether what reads a value may be in a kernel with what reads its own."""
        return not self.words.ends_kernel(self.graph.op_name(reader))

    def _may_go(self, reader: Node) -> bool:
        """Whether what reads a value may be dropped, or compilers fold past it."""
        words, op = self.words, self.graph.op_name(reader)
        passes_on = words.passes_on(op) or op in words.dropouts
        vanishes = op in VANISHING and may_vanish(self.graph.view(reader))
        return passes_on or vanishes or self._is_tuple(reader)
