"""What the nodes of a Relay function become: in blocks of channels, plain, or both."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

from tvm import relay

from tvm_passes.blocked import Blocked
from tvm_passes.relay.convolution import dtype_of, shape_of
from tvm_passes.relay.kernels import Kernels
from tvm_passes.relay.layers import blocked_constant
from tvm_passes.relay.nodes import key, with_children
from tvm_passes.relay.packing import blocked_shape, pack, unpack
from tvm_passes.schedules.conv2d import blocked, unblocked


@dataclass
class Values:
    """What the nodes of the source program have become so far."""

    kernels: Kernels
    _blocked: dict[int, Blocked] = field(default_factory=dict)
    _plain: dict[int, relay.Expr] = field(default_factory=dict)
    _packed: dict[tuple[int, bool, int], Blocked] = field(default_factory=dict)

    def of(self, expr: relay.Expr) -> Blocked | None:
        """The value in blocks, if it is."""
        return self._blocked.get(key(expr))

    def bind(self, expr: relay.Expr, value: Blocked) -> None:
        """Let a node of the source program stand for `value`."""
        self._blocked[key(expr)] = value

    def replace(self, expr: relay.Expr, new: relay.Expr) -> None:
        """Let a node of the source program become another."""
        self._plain[key(expr)] = new

    def plain(self, expr: relay.Expr) -> relay.Expr:
        """The value as the source program has it."""
        if key(expr) in self._plain:
            return self._plain[key(expr)]
        found = self.of(expr)
        if found is not None:
            self._plain[key(expr)] = self._unblock(found, dtype_of(expr))
        elif isinstance(expr, relay.Tuple):
            fields = [self.plain(item) for item in expr.fields]
            same = all(a.same_as(b) for a, b in zip(fields, expr.fields, strict=True))
            self._plain[key(expr)] = expr if same else with_children(expr, fields)
        return self._plain.get(key(expr), expr)

    def in_blocks(self, expr: relay.Expr, channels_last: bool, block: int) -> Blocked:
        """The value in blocks of so many channels, packed where it is not."""
        found = self.of(expr)
        if found is not None and (found.channels_last, found.block) == (channels_last, block):
            return found
        at = (key(expr), channels_last, block)
        if at not in self._packed:
            self._packed[at] = self._pack(expr, channels_last, block)
        if found is None:
            self.bind(expr, self._packed[at])
            self.replace(expr, self.plain(expr))
        return self._packed[at]

    def _pack(self, expr: relay.Expr, channels_last: bool, block: int) -> Blocked:
        shape = shape_of(expr) or ()
        like = Blocked(None, shape, channels_last, block)
        param = relay.var("data", shape=shape, dtype=dtype_of(expr))
        meaning = relay.Function([param], pack(param, like))
        compute = partial(blocked, block=block, channels_last=channels_last)
        return replace(like, value=self.kernels.call(meaning, compute, [self.plain(expr)]))

    def operand(self, arg: relay.Expr, call: relay.Call, like: Blocked) -> relay.Expr:
        """An operand of an elementwise op that `can_block` admits, in the blocks of `like`."""
        if isinstance(arg, relay.Constant):
            return relay.const(blocked_constant(arg, call, like))
        return self.in_blocks(arg, like.channels_last, like.block).value

    def _unblock(self, found: Blocked, dtype: str) -> relay.Expr:
        param = relay.var("data", shape=blocked_shape(found), dtype=dtype)
        meaning = relay.Function([param], unpack(param, found))
        compute = partial(unblocked, channels=found.channels, channels_last=found.channels_last)
        return self.kernels.call(meaning, compute, [found.value])
