"""Relax: conv2d as blocked kernels that take the max-pool behind them along.

    max_pool2d(conv2d(x, w)) = one kernel, which keeps the un-pooled result in registers or cache

Values stay blocked, [n, c/b, h, w, b], from one kernel to the next, through elementwise ops and
pools; at the edges they are packed and unpacked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import tvm
from tvm import relax

from tvm_passes.blocked import Blocked
from tvm_passes.decline import Decline
from tvm_passes.relax.blocked_ops import OPS, convolution
from tvm_passes.relax.blocked_values import Values
from tvm_passes.relax.blocks import map_dataflow_blocks, only_reader
from tvm_passes.relax.convolution import (
    CONV2D,
    MAX_POOL2D,
    op_name,
    read_conv2d,
    shape_of,
    weight_of,
)
from tvm_passes.remarks import ChosenKernels, Remark
from tvm_passes.schedules.algorithm import Chooser
from tvm_passes.schedules.families import NONE_BARRED, Barred
from tvm_passes.schedules.machine import machine_of
from tvm_passes.schedules.operators import UNPOOLED_READ, read_max_pool2d

PASS_NAME = "BlockConv2d"


@tvm.transform.module_pass(opt_level=1, name=PASS_NAME)
class BlockConv2d:
    """Replace conv2d by blocked kernels, and each max-pool that alone reads one together with it.

    TVM's own ``FuseOps`` then appends bias and activation, which
    `tvm_passes.relax.ReorderActivationAfterMaxPool` has moved below the pool.

    Parameters
    ----------
    on_remark
        Called with a Missed remark for each conv2d that stays on TVM's own path, and with a
        Passed one for each that Winograd's filtering computes.
    allow
        ``{"winograd"}`` for sums in another order, where that should be faster.
    barred
        Layers to which that does not extend, as `tvm_passes.calibrate.calibrate` finds them.
    """

    def __init__(
        self,
        on_remark: Callable[[Remark], object] | None = None,
        allow: Collection[str] = (),
        barred: Barred = NONE_BARRED,
    ) -> None:
        self.on_remark = on_remark
        self.allow = frozenset(allow)
        self.barred = barred

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite every function; the kernels are added to the module."""
        target = tvm.target.Target.current(allow_none=True)
        if target is None or str(target.kind.name) != "llvm":
            return mod
        chooser = Chooser(machine_of(target), self.allow, self.barred)
        builder = relax.BlockBuilder(mod)
        for gvar, func in mod.functions.items():
            if isinstance(func, relax.Function):
                said = ChosenKernels(str(gvar.name_hint), CONV2D, self.on_remark)
                rewrite = partial(_rewritten, builder=builder, chooser=chooser, said=said)
                builder.update_func(gvar, map_dataflow_blocks(func, rewrite, builder))
        return builder.finalize()


def reader_of(
    var: relax.Var, users: Any, bound: dict[int, relax.Binding]
) -> tuple[relax.VarBinding | None, Decline | None]:
    """What alone reads a convolution; else why the max-pool that does so is no part of it."""
    readers = [bound.get(hash(reader)) for reader in users.get(var, ())]
    pooled = any(
        isinstance(item, relax.VarBinding) and op_name(item.value) == MAX_POOL2D for item in readers
    )
    reader = only_reader(var, users, bound)
    return reader, UNPOOLED_READ if pooled and reader is None else None


def _rewritten(
    old: relax.DataflowBlock,
    builder: relax.BlockBuilder,
    chooser: Chooser,
    said: ChosenKernels,
) -> relax.DataflowBlock:
    return _Rewriter(Values(builder, chooser.block), chooser, said).run(old)


@dataclass
class _Rewriter:
    """Rewrites one dataflow block, binding by binding."""

    values: Values
    chooser: Chooser
    said: ChosenKernels
    taken: set[int] = field(default_factory=set)

    def run(self, block: relax.DataflowBlock) -> relax.DataflowBlock:
        users = relax.analysis.udchain(block)
        bound = {hash(binding.var): binding for binding in block.bindings}
        changed = False
        for binding in block.bindings:
            if hash(binding.var) in self.taken:
                continue
            if self._rewrite(binding, users, bound):
                changed = True
            else:
                self.values.keep(binding)
        return relax.DataflowBlock(self.values.bindings, block.span) if changed else block

    def _rewrite(self, binding: relax.Binding, users: Any, bound: dict[int, relax.Binding]) -> bool:
        if not isinstance(binding, relax.VarBinding):
            return False
        var, name = binding.var, op_name(binding.value)
        if name == CONV2D:
            return self._convolution(binding, *reader_of(var, users, bound))
        value = OPS[name](binding.value, self.values) if name in OPS else None
        if value is not None:
            self.values.bind(var, value)
        return value is not None

    def _convolution(
        self, binding: relax.VarBinding, reader: relax.VarBinding | None, apart: Decline | None
    ) -> bool:
        conv, pool = read_conv2d(binding.value, self.values.block), None
        if isinstance(conv, Decline):
            self.said.declined(conv)
            return False
        if reader is not None and op_name(reader.value) == MAX_POOL2D:
            shapes = shape_of(reader.value.args[0]) or (), shape_of(reader.value) or ()
            found = read_max_pool2d(reader.value.attrs, conv, *shapes)
            pool, apart = (None, found) if isinstance(found, Decline) else (found, None)
        self.said.apart(apart)
        weight = partial(weight_of, binding.value)
        data = shape_of(binding.value.args[0])
        algorithm = self.chooser.fastest(conv, pool, data, weight)
        bounds = algorithm.error_bounds(weight()) if algorithm.family else {}
        self.said.computed(algorithm.name, bounds, algorithm.instead)
        var = binding.var if reader is None or algorithm.pool is None else reader.var
        self.taken.add(hash(var))
        value = convolution(binding.value, algorithm, self.values)
        self.values.bind(var, Blocked(value, shape_of(var) or (), conv.channels_last, conv.block))
        return True
