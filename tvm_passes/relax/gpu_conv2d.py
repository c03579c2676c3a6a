"""Relax: conv2d, and the max-pool behind it, as tiled kernels for GPUs.

max_pool2d(conv2d(x, w)) = one kernel, which keeps the un-pooled result on the chip
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import tvm
from tvm import relax

from tvm_passes.decline import Decline
from tvm_passes.relax.blocked_values import OUT_ELEMENTWISE_FUSABLE
from tvm_passes.relax.blocks import map_dataflow_blocks, only_reader
from tvm_passes.relax.convolution import CONV2D, MAX_POOL2D, op_name, read_conv2d, shape_of
from tvm_passes.schedules.conv2d import pack_weight
from tvm_passes.schedules.gpu_conv2d import LayerOf, conv2d
from tvm_passes.schedules.gpu_space import choose
from tvm_passes.schedules.gpu_tiles import Tile
from tvm_passes.schedules.operators import Conv2d, MaxPool2d, read_max_pool2d

PASS_NAME = "TileConv2d"

Choose = Callable[[LayerOf], Tile]


@tvm.transform.module_pass(opt_level=1, name=PASS_NAME)
class TileConv2d:
    """Replace conv2d by tiled kernels, and each max-pool that alone reads one together with it.

    TVM's own ``FuseOps`` then appends bias and activation, which
    `tvm_passes.relax.ReorderActivationAfterMaxPool` has moved below the pool, and
    `tvm_passes.schedules.gpu_conv2d_rule.TiledConv2d` schedules what it becomes.  Convolutions
    that are not in float32, or not of constant weights, stay TVM's.

    Parameters
    ----------
    choose
        The tile of a layer for a target; by default that of the fastest record in
        ``Database.current()``, or else the model's choice.
    """

    def __init__(self, choose: Callable[[LayerOf, Any], Tile] = choose) -> None:
        self.choose = choose

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite every function; the kernels are added to the module."""
        builder = relax.BlockBuilder(mod)
        target = tvm.target.Target.current(allow_none=True)

        def choose(layer: LayerOf) -> Tile:
            return self.choose(layer, target)

        for gvar, func in mod.functions.items():
            if isinstance(func, relax.Function):
                rewrite = partial(_rewritten, builder=builder, choose=choose)
                builder.update_func(gvar, map_dataflow_blocks(func, rewrite, builder))
        return builder.finalize()


def _rewritten(
    old: relax.DataflowBlock, builder: relax.BlockBuilder, choose: Choose
) -> relax.DataflowBlock:
    users = relax.analysis.udchain(old)
    bound = {hash(binding.var): binding for binding in old.bindings}
    bindings: list[relax.Binding] = []
    taken: set[int] = set()
    for binding in old.bindings:
        if hash(binding.var) in taken:
            continue
        new = _kernel(binding, users, bound, builder, choose)
        bindings.append(binding if new is None else new)
        if new is not None:
            taken.add(hash(new.var))
    return relax.DataflowBlock(bindings, old.span) if taken else old


def _kernel(
    binding: relax.Binding,
    users: Any,
    bound: dict[int, relax.Binding],
    builder: relax.BlockBuilder,
    choose: Choose,
) -> relax.VarBinding | None:
    """What binds a convolution, and the pool that alone reads it, to a kernel."""
    if not isinstance(binding, relax.VarBinding) or op_name(binding.value) != CONV2D:
        return None
    call = binding.value
    conv = read_conv2d(call, 1)
    if isinstance(conv, Decline) or conv.dtype != "float32":
        return None
    var, pool = _pool(binding, users, bound, conv)
    tile = choose(LayerOf(shape_of(call.args[0]) or (), conv, pool))
    conv = replace(conv, block=tile.block_filters)
    weight = pack_weight(call.args[1].value.numpy(), str(call.attrs.kernel_layout), conv)
    value = builder.call_te(
        partial(_layer, conv=conv, pool=pool, tile=tile),
        call.args[0],
        relax.const(weight),
        primfunc_name_hint="conv2d" if pool is None else "conv2d_max_pool2d",
        primfunc_attrs={"op_pattern": OUT_ELEMENTWISE_FUSABLE},
    )
    return relax.VarBinding(var, builder.normalize(value))


def _pool(
    binding: relax.VarBinding, users: Any, bound: dict[int, relax.Binding], conv: Conv2d
) -> tuple[relax.Var, MaxPool2d | None]:
    """The variable that the kernel binds, and the pool if it takes one along."""
    reader = only_reader(binding.var, users, bound)
    if reader is None or op_name(reader.value) != MAX_POOL2D:
        return binding.var, None
    pool = read_max_pool2d(reader.value.attrs, conv)
    return (binding.var, None) if pool is None else (reader.var, pool)


def _layer(data: Any, weight: Any, conv: Conv2d, pool: MaxPool2d | None, tile: Tile) -> Any:
    return conv2d(data, weight, conv, pool, tile)
