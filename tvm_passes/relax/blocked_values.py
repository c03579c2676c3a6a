"""The values of a dataflow block, each in blocks of channels, plain, or both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tvm import relax

from tvm_passes.blocked import Blocked, rows_of
from tvm_passes.relax.convolution import shape_of
from tvm_passes.schedules.conv2d import blocked, unblocked

OUT_ELEMENTWISE_FUSABLE = 4
"""TVM's pattern kind of a kernel that FuseOps may append elementwise ops to."""


@dataclass
class Values:
    """What the variables of the source program are bound to, and the bindings made so far."""

    builder: relax.BlockBuilder
    block: int
    bindings: list[relax.Binding] = field(default_factory=list)
    _blocked: dict[int, Blocked] = field(default_factory=dict)
    _plain: set[int] = field(default_factory=set)
    _packed: dict[tuple[int, bool, int], Blocked] = field(default_factory=dict)

    def of(self, expr: relax.Expr) -> Blocked | None:
        """The value in blocks, if it is."""
        return self._blocked.get(hash(expr))

    def bind(self, var: relax.Var, value: Blocked) -> None:
        """Let a variable of the source program stand for `value`."""
        self._blocked[hash(var)] = value
        if not isinstance(var, relax.DataflowVar):
            self.plain(var)

    def keep(self, binding: relax.Binding) -> None:
        """Keep a binding, after the plain form of all that it reads."""
        for used in relax.analysis.free_vars(binding.value):
            self.plain(used)
        self.bindings.append(binding)

    def plain(self, expr: relax.Expr) -> relax.Expr:
        """The value as the source program has it."""
        found = self.of(expr)
        if found is not None and hash(expr) not in self._plain:
            self._plain.add(hash(expr))
            value = self.builder.normalize(self._unblock(found))
            self.bindings.append(relax.VarBinding(expr, value))
        return expr

    def in_blocks(self, expr: relax.Expr, channels_last: bool, block: int) -> Blocked:
        """The value in blocks of so many channels, packed where it is not."""
        found = self.of(expr)
        if found is not None and (found.channels_last, found.block) == (channels_last, block):
            return found
        at = (hash(expr), channels_last, block)
        if at not in self._packed:
            self._packed[at] = self._pack(expr, channels_last, block)
        return self._packed[at]

    def _pack(self, expr: relax.Expr, channels_last: bool, block: int) -> Blocked:
        expr, shape = self.plain(expr), shape_of(expr) or ()
        if len(shape) != 4:
            expr = self.emit(relax.op.reshape(expr, rows_of(shape)))
        pack = partial(blocked, block=block, channels_last=channels_last)
        value = self.call(pack, expr, name="blocked")
        return Blocked(value, shape, channels_last, block)

    def kernel(self, te_func: Callable[..., Any], *args: relax.Expr) -> relax.Var:
        """Emit a call of a kernel that TVM may append elementwise ops to."""
        return self.call(te_func, *args, name="conv2d", op_pattern=OUT_ELEMENTWISE_FUSABLE)

    def call(
        self, te_func: Callable[..., Any], *args: relax.Expr, name: str, **attrs: Any
    ) -> relax.Var:
        """Emit a call of a function made from tensor expressions."""
        return self.emit(self._call(te_func, *args, name=name, **attrs))

    def emit(self, value: relax.Expr) -> relax.Var:
        """Bind a value to a new variable."""
        value = self.builder.normalize(value)
        var = relax.DataflowVar("lv", value.ty)
        self.bindings.append(relax.VarBinding(var, value))
        return var

    def _call(
        self, te_func: Callable[..., Any], *args: relax.Expr, name: str, **attrs: Any
    ) -> relax.Expr:
        return self.builder.call_te(te_func, *args, primfunc_name_hint=name, primfunc_attrs=attrs)

    def _unblock(self, found: Blocked) -> relax.Expr:
        unpack = partial(unblocked, channels=found.channels, channels_last=found.channels_last)
        value = self._call(unpack, found.value, name="unblocked")
        if len(found.shape) == 4:
            return value
        return relax.op.reshape(self.emit(value), found.shape)


def is_tensor(expr: Any) -> bool:
    """Whether an argument is a tensor, not a shape or an attribute."""
    return isinstance(getattr(expr, "ty", None), relax.TensorType)
