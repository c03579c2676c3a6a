"""A convolution with the pool and the elementwise ops that alone read it: one kernel's work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from tvm import relay

from tvm_passes.blocked import Blocked
from tvm_passes.decline import Decline
from tvm_passes.relay.convolution import (
    CONV2D,
    MAX_POOL2D,
    op_name,
    read_conv2d,
    shape_of,
    weight_of,
)
from tvm_passes.relay.nodes import Nodes, key
from tvm_passes.schedules.algorithm import Algorithm, Chooser
from tvm_passes.schedules.operators import UNPOOLED_READ, Conv2d, oihw, read_max_pool2d

BIAS_ADD = "nn.bias_add"

ELEMENTWISE = frozenset(
    (
        "abs", "add", "clip", "divide", "erf", "exp", "maximum", "minimum", "multiply", "negative",
        "nn.bias_add", "nn.leaky_relu", "nn.relu", "sigmoid", "subtract", "tanh",
    )
)  # fmt: skip
"""Elementwise ops.  Channels that fill the last block hold what they make of it: none is read."""


@dataclass(frozen=True)
class Layer:
    """What one kernel computes.

    Parameters
    ----------
    algorithm, call
        The convolution, and how it is computed.
    pool_call
        The max-pool that alone reads it, if the kernel takes it along.
    links
        Elementwise ops, each of which alone reads the one before.
    apart
        Why the max-pool that reads it stays a kernel of its own, if there is one that does.
    """

    algorithm: Algorithm
    call: relay.Call
    pool_call: relay.Call | None
    links: tuple[relay.Call, ...]
    apart: Decline | None = None

    @property
    def conv(self) -> Conv2d:
        """The convolution."""
        return self.algorithm.conv

    @property
    def weight(self) -> np.ndarray:
        """The convolution's weights, in `layout`."""
        return self.call.args[1].data.numpy()

    @property
    def layout(self) -> str:
        """The layout of the weights."""
        return str(self.call.attrs.kernel_layout)

    def error_bounds(self) -> dict[str, float]:
        """See `Algorithm.error_bounds`."""
        return self.algorithm.error_bounds(oihw(self.weight, self.layout))

    @property
    def output(self) -> relay.Call:
        """The call whose value the kernel computes."""
        return self.links[-1] if self.links else self.pool_call or self.call

    def calls(self) -> tuple[relay.Call, ...]:
        """All calls, in the order of computation."""
        pool = () if self.pool_call is None else (self.pool_call,)
        return (self.call, *pool, *self.links)

    def result(self, value: relay.Expr) -> Blocked:
        """The kernel's result."""
        shape = shape_of(self.output) or ()
        return Blocked(value, shape, self.conv.channels_last, self.conv.block)


def layers_of(root: relay.Expr, nodes: Nodes, chooser: Chooser) -> Mapping[int, Layer | Decline]:
    """The layers below `root`, by the keys of their convolutions; no call is in two."""
    readers = _only_readers(root, nodes)
    pooled = {key(child) for expr, read in nodes if op_name(expr) == MAX_POOL2D for child in read}
    found: dict[int, Layer | Decline] = {}
    claimed: set[int] = set()
    for expr, _ in nodes:
        if op_name(expr) != CONV2D:
            continue
        conv = read_conv2d(expr, chooser.block)
        if isinstance(conv, Decline):
            found[key(expr)] = conv
            continue
        layer = _layer(conv, expr, readers, claimed, chooser)
        if key(expr) in pooled and readers.get(key(expr)) is None:
            layer = replace(layer, apart=UNPOOLED_READ)
        claimed.update(key(call) for call in layer.calls())
        found[key(expr)] = layer
    return found


def _only_readers(root: relay.Expr, nodes: Nodes) -> Mapping[int, relay.Expr | None]:
    """The node that alone reads each node, and reads it once."""
    readers: dict[int, relay.Expr | None] = {key(root): None}
    for expr, read in nodes:
        for child in read:
            readers[key(child)] = None if key(child) in readers else expr
    return readers


def _layer(
    conv: Conv2d,
    call: relay.Call,
    readers: Mapping[int, relay.Expr | None],
    claimed: set[int],
    chooser: Chooser,
) -> Layer:
    reader = readers.get(key(call))
    pool = apart = None
    if isinstance(reader, relay.Call) and op_name(reader) == MAX_POOL2D:
        read = read_max_pool2d(reader.attrs, conv, shape_of(call) or (), shape_of(reader) or ())
        pool, apart = (None, read) if isinstance(read, Decline) else (read, None)
    algorithm = chooser.fastest(conv, pool, shape_of(call.args[0]), partial(weight_of, call))
    pool_call = None if algorithm.pool is None else reader
    last = pool_call or call
    links: list[relay.Call] = []
    like = Blocked(None, shape_of(last) or (), conv.channels_last, conv.block)
    while True:
        reader = readers.get(key(last))
        if reader is None or key(reader) in claimed or not _appends(reader, last, like):
            return Layer(algorithm, call, pool_call, tuple(links), apart)
        links.append(reader)
        last = reader


def _appends(reader: relay.Expr, last: relay.Expr, like: Blocked) -> bool:
    """Whether a kernel that computes `last` may go on to compute `reader`."""
    if op_name(reader) not in ELEMENTWISE or shape_of(reader) != like.shape:
        return False
    others = [arg for arg in reader.args if key(arg) != key(last)]
    return all(can_block(arg, reader, like) for arg in others)


def can_block(arg: relay.Expr, call: relay.Call, like: Blocked) -> bool:
    """Whether an operand of an elementwise op can be read in the blocks of `like`."""
    constant = isinstance(arg, relay.Constant)
    if shape_of(arg) == like.shape and not constant:
        return op_name(call) != BIAS_ADD
    return constant and blocked_constant(arg, call, like) is not None


def blocked_constant(arg: relay.Constant, call: relay.Call, like: Blocked) -> np.ndarray | None:
    """A constant operand of an elementwise op in the blocks of `like`: see `Blocked.constant`."""
    array = arg.data.numpy()
    if op_name(call) == BIAS_ADD:
        rank = len(like.shape)
        if int(call.attrs.axis) % rank != like.axis:
            return None
        array = array.reshape([-1 if at == like.axis else 1 for at in range(rank)])
    return like.constant(array)
