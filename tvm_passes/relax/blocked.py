"""Relax: conv2d as blocked kernels that take the max-pool behind them along.

    max_pool2d(conv2d(x, w)) = one kernel, which keeps the un-pooled result in registers or cache

Values stay blocked, [n, c/b, h, w, b], from one kernel to the next, through elementwise ops and
pools; at the edges they are packed and unpacked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvm_passes.decline import Decline
from tvm_passes.relax.blocks import map_dataflow_blocks
from tvm_passes.relax.convolution import (
    AVG_POOL2D,
    CONV2D,
    MAX_POOL2D,
    is_constant,
    op_name,
    read_conv2d,
    read_max_pool2d,
    shape_of,
)
from tvm_passes.remarks import Kind, Remark
from tvm_passes.schedules.conv2d import (
    Conv2d,
    MaxPool2d,
    blocked,
    conv2d,
    pack_weight,
    unblocked,
)
from tvm_passes.schedules.machine import machine_of
from tvm_passes.schedules.structure import BLOCKED_RANK

PASS_NAME = "BlockConv2d"

MIN_BLOCK = 8
"""Channels of a block at least, on targets with narrower vectors, too."""

OUT_ELEMENTWISE_FUSABLE = 4
"""TVM's pattern kind of a kernel that FuseOps may append elementwise ops to."""

ELEMENTWISE = frozenset(
    f"relax.{op}"
    for op in (
        "abs", "add", "clip", "erf", "exp", "maximum", "minimum", "multiply", "negative",
        "nn.gelu", "nn.gelu_tanh", "nn.leakyrelu", "nn.relu", "nn.silu", "nn.softplus",
        "sigmoid", "square", "subtract", "tanh",
    )
)  # fmt: skip
"""Elementwise ops that are finite at 0, as the channels that fill up the last block are."""


@tvm.transform.module_pass(opt_level=1, name=PASS_NAME)
class BlockConv2d:
    """Replace conv2d by blocked kernels, and each max-pool that alone reads one together with it.

    TVM's own ``FuseOps`` then appends bias and activation, which
    `tvm_passes.relax.ReorderActivationAfterMaxPool` has moved below the pool.

    Parameters
    ----------
    on_remark
        Called with a Missed remark for each conv2d that stays on TVM's own path.
    """

    def __init__(self, on_remark: Callable[[Remark], object] | None = None) -> None:
        self.on_remark = on_remark

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite every function; the kernels are added to the module."""
        target = tvm.target.Target.current(allow_none=True)
        if target is None or str(target.kind.name) != "llvm":
            return mod
        block = max(MIN_BLOCK, machine_of(target).lanes)
        builder = relax.BlockBuilder(mod)
        for gvar, func in mod.functions.items():
            if isinstance(func, relax.Function):
                declined = _Declined(str(gvar.name_hint), self.on_remark)
                rewrite = partial(_rewritten, builder=builder, block=block, declined=declined)
                builder.update_func(gvar, map_dataflow_blocks(func, rewrite, builder))
        return builder.finalize()


@dataclass
class _Declined:
    """Says why a convolution stays as it is; numbers those of a function."""

    function: str
    on_remark: Callable[[Remark], object] | None
    count: int = 0

    def __call__(self, decline: Decline) -> None:
        if self.on_remark is not None:
            site = f"{self.function}/{CONV2D}#{self.count}"
            message = f"{decline.detail}; {decline.suggestion}"
            reason = decline.reason.value
            self.on_remark(Remark(Kind.MISSED, self.function, site, CONV2D, "", reason, message))
        self.count += 1


def _rewritten(
    old: relax.DataflowBlock,
    builder: relax.BlockBuilder,
    block: int,
    declined: Callable[[Decline], None],
) -> relax.DataflowBlock:
    return _Rewriter(builder, block, declined).run(old)


@dataclass(frozen=True)
class _Blocked:
    """A value in blocks, and what it stands for."""

    value: relax.Expr
    channels: int
    channels_last: bool
    block: int


@dataclass
class _Rewriter:
    """Rewrites one dataflow block, binding by binding."""

    builder: relax.BlockBuilder
    block: int
    declined: Callable[[Decline], None]
    bindings: list[relax.Binding] = field(default_factory=list)
    values: dict[int, _Blocked] = field(default_factory=dict)
    plain: set[int] = field(default_factory=set)
    taken: set[int] = field(default_factory=set)

    def run(self, block: relax.DataflowBlock) -> relax.DataflowBlock:
        users = relax.analysis.udchain(block)
        bound = {hash(b.var): b for b in block.bindings}
        changed = False
        for binding in block.bindings:
            if hash(binding.var) in self.taken:
                continue
            new = self._rewrite(binding, users, bound)
            if new is None:
                self._keep(binding)
                continue
            changed = True
            var, value = new
            self.values[hash(var)] = value
            if not isinstance(var, relax.DataflowVar):
                self._unblock(var)
        return relax.DataflowBlock(self.bindings, block.span) if changed else block

    def _rewrite(
        self, binding: relax.Binding, users: Any, bound: dict[int, relax.Binding]
    ) -> tuple[relax.Var, _Blocked] | None:
        if not isinstance(binding, relax.VarBinding):
            return None
        name = op_name(binding.value)
        if name == CONV2D:
            return self._convolution(binding, users, bound)
        if name in (MAX_POOL2D, AVG_POOL2D):
            return self._pool(binding)
        if name in ELEMENTWISE:
            return self._elementwise(binding)
        return None

    def _convolution(
        self, binding: relax.VarBinding, users: Any, bound: dict[int, relax.Binding]
    ) -> tuple[relax.Var, _Blocked] | None:
        call = binding.value
        conv = read_conv2d(call, self.block)
        if isinstance(conv, Decline):
            self.declined(conv)
            return None
        var, pool = binding.var, None
        readers = list(users.get(var, ())) if isinstance(var, relax.DataflowVar) else []
        if len(readers) == 1 and isinstance(bound.get(hash(readers[0])), relax.VarBinding):
            reader = bound[hash(readers[0])]
            if op_name(reader.value) == MAX_POOL2D:
                pool = read_max_pool2d(reader.value, conv)
        if pool is not None:
            var = readers[0]
            self.taken.add(hash(var))
        layout = str(call.attrs.kernel_layout)
        data = self._source(call.args[0], conv)
        extents = shape_of(data) or ()
        fill = extents[-1] if len(extents) == BLOCKED_RANK and not conv.depthwise else 1
        weight = relax.const(pack_weight(call.args[1].value.numpy(), layout, conv, fill))
        value = self._kernel(partial(_layer, conv=conv, pool=pool), data, weight)
        return var, _Blocked(value, conv.filters, conv.channels_last, conv.block)

    def _source(self, expr: relax.Expr, conv: Conv2d) -> relax.Expr:
        """The data of a convolution: in blocks where it is, and where the kernel can read them."""
        found = self.values.get(hash(expr))
        if found is not None and found.channels_last != conv.channels_last:
            found = None
        if conv.depthwise:
            return self._in_blocks(expr, conv.channels_last).value
        if found is not None and conv.groups > 1 and conv.channels // conv.groups % found.block:
            found = None
        return found.value if found is not None else self._as_plain(expr)

    def _pool(self, binding: relax.VarBinding) -> tuple[relax.Var, _Blocked] | None:
        call = binding.value
        found = self.values.get(hash(call.args[0]))
        if found is None or str(call.attrs.layout) != ("NHWC" if found.channels_last else "NCHW"):
            return None
        attrs = call.attrs
        op = relax.op.nn.max_pool2d if op_name(call) == MAX_POOL2D else relax.op.nn.avg_pool2d
        value = op(
            found.value,
            attrs.pool_size,
            attrs.strides,
            attrs.padding,
            attrs.dilation,
            attrs.ceil_mode,
            attrs.count_include_pad,
            layout=f"NCHW{found.block}c",
        )
        return binding.var, replace(found, value=self._emit(value))

    def _elementwise(self, binding: relax.VarBinding) -> tuple[relax.Var, _Blocked] | None:
        call = binding.value
        shape = shape_of(binding.var)
        found = [self.values[hash(arg)] for arg in call.args if hash(arg) in self.values]
        if not found or shape is None:
            return None
        like = found[0]
        args = [self._operand(arg, shape, like) for arg in call.args]
        if None in args:
            return None
        value = relax.Call(call.op, args, call.attrs, call.ty_args, call.span)
        return binding.var, replace(like, value=self._emit(value))

    def _operand(self, arg: relax.Expr, shape: tuple[int, ...], like: _Blocked) -> Any:
        """An operand of an elementwise op in the same blocks, or None."""
        if not isinstance(getattr(arg, "ty", None), relax.TensorType):
            return arg
        extents = shape_of(arg)
        if extents == shape:
            found = self._in_blocks(arg, like.channels_last)
            return found.value if found.block == like.block else None
        if not is_constant(arg) or extents is None:
            return None
        if int(np.prod(extents)) == 1:
            return relax.const(arg.value.numpy().reshape(()))
        aligned = (1,) * (len(shape) - len(extents)) + extents
        axis = len(shape) - 1 if like.channels_last else 1
        if len(shape) != 4 or int(np.prod(aligned)) != aligned[axis] != shape[axis]:
            return None
        values = arg.value.numpy().reshape(-1)
        filled = np.pad(values, (0, -len(values) % like.block), constant_values=1)
        return relax.const(filled.reshape(1, -1, 1, 1, like.block))

    def _in_blocks(self, expr: relax.Expr, channels_last: bool) -> _Blocked:
        found = self.values.get(hash(expr))
        if found is not None:
            return found
        axis = 3 if channels_last else 1
        channels = (shape_of(expr) or ())[axis]
        pack = partial(_blocked, block=self.block, channels_last=channels_last)
        value = self._emit(self.builder.call_te(pack, expr, primfunc_name_hint="blocked"))
        return _Blocked(value, channels, channels_last, self.block)

    def _as_plain(self, expr: relax.Expr) -> relax.Expr:
        if hash(expr) in self.values and hash(expr) not in self.plain:
            self._unblock(expr)
        return expr

    def _unblock(self, var: relax.Var) -> None:
        """Bind a variable of the source program to its value, unpacked."""
        found = self.values[hash(var)]
        unpack = partial(_unblocked, channels=found.channels, channels_last=found.channels_last)
        call = self.builder.call_te(unpack, found.value, primfunc_name_hint="unblocked")
        self.bindings.append(relax.VarBinding(var, self.builder.normalize(call)))
        self.plain.add(hash(var))

    def _keep(self, binding: relax.Binding) -> None:
        """Keep a binding, after the plain form of all that it reads."""
        for used in relax.analysis.free_vars(binding.value):
            self._as_plain(used)
        self.bindings.append(binding)

    def _kernel(self, te_func: Callable[..., Any], *args: relax.Expr) -> relax.Var:
        attrs = {"op_pattern": OUT_ELEMENTWISE_FUSABLE}
        call = self.builder.call_te(
            te_func, *args, primfunc_name_hint="conv2d", primfunc_attrs=attrs
        )
        return self._emit(call)

    def _emit(self, value: relax.Expr) -> relax.Var:
        value = self.builder.normalize(value)
        var = relax.DataflowVar("lv", value.ty)
        self.bindings.append(relax.VarBinding(var, value))
        return var


def _layer(data: Any, weight: Any, conv: Conv2d, pool: MaxPool2d | None) -> Any:
    return conv2d(data, weight, conv, pool)


def _blocked(data: Any, block: int, channels_last: bool) -> Any:
    return blocked(data, block, channels_last)


def _unblocked(data: Any, channels: int, channels_last: bool) -> Any:
    return unblocked(data, channels, channels_last)
