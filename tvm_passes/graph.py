"""A function as a graph of values: what an adapter shows; what a node is, is its own business."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from tvm_passes.describe import CallView
from tvm_passes.site import Producer, Shape

Node = TypeVar("Node")


class Graph(Protocol[Node]):
    """A function as a graph of values."""

    @property
    def may_be_joined(self) -> bool:
        """Whether its results may come to be next to ops that are not in it."""

    @property
    def in_dataflow(self) -> bool:
        """Whether it is known that nothing in it has effects."""

    def pools(self) -> Sequence[Node]:
        """The calls of pools, in the order in which they are computed."""

    def key(self, node: Node) -> int:
        """What identifies a node."""

    def op_name(self, node: Node) -> str:
        """The op that a node calls, or an empty string."""

    def view(self, node: Node) -> CallView:
        """The call of an op that the vocabulary knows, as plain values."""

    def argument(self, node: Node, index: int) -> Node:
        """An argument of the call."""

    def consumers(self, node: Node) -> int:
        """How many nodes read this one."""

    def readers(self, node: Node) -> Sequence[Node]:
        """The nodes that read this one."""

    def reads(self, node: Node) -> Sequence[Node]:
        """What a node reads, numbers and constants apart."""

    def extents(self, node: Node) -> Shape | None:
        """The extents of a tensor; None for what is none."""

    def is_stored(self, node: Node) -> bool:
        """Whether the value is a constant or an argument, perhaps moved about."""

    def is_output(self, node: Node) -> bool:
        """Whether the value leaves the function by itself."""

    def leaves(self, node: Node) -> bool:
        """Whether the value leaves the function, by itself, under another name or in a tuple."""

    def is_result(self, reader: Node, node: Node) -> bool:
        """Whether `reader` does nothing with `node` but return it from the function."""

    def fields(self, node: Node) -> Sequence[Node] | None:
        """The fields of a node that makes a tuple, or None."""

    def item(self, node: Node) -> tuple[Node, int] | None:
        """The tuple that a node takes an item out of, and its index, or None."""

    def source(self, node: Node) -> Producer:
        """Describe a node that calls no op that the vocabulary knows."""

    def location(self, node: Node) -> str:
        """Source location, or an empty string."""
