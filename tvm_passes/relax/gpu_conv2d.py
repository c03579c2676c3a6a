"""Relax: conv2d, and the max-pool behind it, as tiled kernels for GPUs.

max_pool2d(conv2d(x, w)) = one kernel, which keeps the un-pooled result on the chip
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import tvm
from tvm import relax, te, topi

from tvm_passes.decline import Decline
from tvm_passes.relax.blocked_values import OUT_ELEMENTWISE_FUSABLE
from tvm_passes.relax.blocks import map_dataflow_blocks, only_reader
from tvm_passes.relax.convolution import CONV2D, MAX_POOL2D, op_name, read_conv2d, shape_of
from tvm_passes.relax.gpu_winograd import filtered_conv2d
from tvm_passes.remarks import ChosenKernels, Remark
from tvm_passes.schedules.conv2d import pack_weight
from tvm_passes.schedules.families import NONE_BARRED, Barred
from tvm_passes.schedules.gpu_algorithm import Filtered, GpuChooser
from tvm_passes.schedules.gpu_conv2d import LayerOf, conv2d
from tvm_passes.schedules.gpu_fusion import unless_slower
from tvm_passes.schedules.gpu_space import choose, parts_of
from tvm_passes.schedules.gpu_tiles import Tile
from tvm_passes.schedules.operators import Conv2d, MaxPool2d, read_max_pool2d

PASS_NAME = "TileConv2d"


@dataclass(frozen=True)
class Choose:
    """How kernels are chosen for a target.

    Parameters
    ----------
    tile
        The tile of a layer.
    parts
        Into how many its sums fall.
    filtered
        How Winograd's filtering computes it, of its weights, or why it does not.
    unless_slower
        Why its pool stays apart, if it does.
    """

    tile: Callable[[LayerOf], Tile]
    parts: Callable[[LayerOf], int]
    filtered: Callable[[LayerOf, Callable[[], np.ndarray]], Filtered | str]
    unless_slower: Callable[[LayerOf], Decline | None]


@tvm.transform.module_pass(opt_level=1, name=PASS_NAME)
class TileConv2d:
    """Replace conv2d by tiled kernels, and each max-pool that alone reads one together with it.

    TVM's own ``FuseOps`` then appends bias and activation, which
    `tvm_passes.relax.ReorderActivationAfterMaxPool` has moved below the pool, and
    `tvm_passes.schedules.gpu_conv2d_rule.TiledConv2d` schedules what it becomes.  Sums over many
    channels for few results fall into parts, which another kernel adds.  Pools stay kernels of
    their own where the model expects that to be faster.  Convolutions that are not in float32, or
    not of constant weights, stay TVM's.

    Parameters
    ----------
    choose
        The tile of a layer for a target; by default that of the fastest record in
        ``Database.current()``, or else the model's choice.
    on_remark
        Called with a Passed remark for each conv2d that Winograd's filtering computes, and a Missed
        one for each that stays apart from its pool.
    allow
        ``{"winograd"}`` for sums in another order, where that should be faster.
    barred
        Layers to which that does not extend, as `tvm_passes.calibrate.calibrate` finds them.
    """

    def __init__(
        self,
        choose: Callable[[LayerOf, Any], Tile] = choose,
        on_remark: Callable[[Remark], object] | None = None,
        allow: Collection[str] = (),
        barred: Barred = NONE_BARRED,
    ) -> None:
        self.choose = choose
        self.on_remark = on_remark
        self.allow = frozenset(allow)
        self.barred = barred

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite every function; the kernels are added to the module."""
        builder = relax.BlockBuilder(mod)
        target = tvm.target.Target.current(allow_none=True)

        decide = Choose(
            partial(_chosen, self.choose, target),
            partial(parts_of, target=target),
            GpuChooser(target, self.allow, self.barred).filtered,
            partial(unless_slower, target=target),
        )
        for gvar, func in mod.functions.items():
            if isinstance(func, relax.Function):
                said = ChosenKernels(str(gvar.name_hint), CONV2D, self.on_remark)
                rewrite = partial(_rewritten, builder=builder, choose=decide, said=said)
                builder.update_func(gvar, map_dataflow_blocks(func, rewrite, builder))
        return builder.finalize()


def _rewritten(
    old: relax.DataflowBlock, builder: relax.BlockBuilder, choose: Choose, said: ChosenKernels
) -> relax.DataflowBlock:
    users = relax.analysis.udchain(old)
    bound = {hash(binding.var): binding for binding in old.bindings}
    bindings: list[relax.Binding] = []
    taken: set[int] = set()
    for binding in old.bindings:
        if hash(binding.var) in taken:
            continue
        new = _kernels(binding, users, bound, builder, choose, said)
        bindings += new or [binding]
        taken |= {hash(item.var) for item in new}
    return relax.DataflowBlock(bindings, old.span) if taken else old


def _kernels(
    binding: relax.Binding,
    users: Any,
    bound: dict[int, relax.Binding],
    builder: relax.BlockBuilder,
    choose: Choose,
    said: ChosenKernels,
) -> list[relax.VarBinding]:
    """What binds a convolution, and the pool that alone reads it, to a kernel; none: it stays."""
    if not isinstance(binding, relax.VarBinding) or op_name(binding.value) != CONV2D:
        return []
    call = binding.value
    conv = read_conv2d(call, 1)
    if isinstance(conv, Decline) or conv.dtype != "float32":
        said.computed("", {})
        return []
    layer = LayerOf(shape_of(call.args[0]) or (), conv, None)
    weight = _oihw(call.args[1].value.numpy(), str(call.attrs.kernel_layout))
    var, pool = _pool(binding, users, bound, conv)
    filtered = choose.filtered(replace(layer, pool=pool), lambda: weight)
    if isinstance(filtered, Filtered):
        family = filtered.filtering.family
        said.computed(str(family), family.error_bounds(weight))
        var = var if filtered.takes_pool else binding.var
        return filtered_conv2d(call.args[0], weight, filtered, var, builder)
    parts = choose.parts(layer)
    slower = None if pool is None or parts > 1 else choose.unless_slower(replace(layer, pool=pool))
    if slower is None:
        said.computed("", {}, filtered)
    else:
        said.declined(slower)
    if parts > 1:
        value = _call(call.args[0], *_apart(layer, weight, parts), builder, choose)
        first = relax.DataflowVar(f"{binding.var.name}_parts", value.ty)
        total = _added(first, conv, parts, pool, builder)
        return [relax.VarBinding(first, value), relax.VarBinding(var, total)]
    if slower is not None:
        return [relax.VarBinding(binding.var, _call(call.args[0], layer, weight, builder, choose))]
    layer = replace(layer, pool=pool)
    return [relax.VarBinding(var, _call(call.args[0], layer, weight, builder, choose))]


def _call(
    data: relax.Expr,
    layer: LayerOf,
    weight: np.ndarray,
    builder: relax.BlockBuilder,
    choose: Choose,
) -> relax.Expr:
    tile = choose.tile(layer)
    conv = replace(layer.conv, block=tile.block_filters)
    value = builder.call_te(
        partial(_layer, conv=conv, pool=layer.pool, tile=tile),
        data,
        relax.const(pack_weight(weight, "OIHW", conv)),
        primfunc_name_hint="conv2d" if layer.pool is None else "conv2d_max_pool2d",
        primfunc_attrs={"op_pattern": OUT_ELEMENTWISE_FUSABLE},
    )
    return builder.normalize(value)


def _apart(layer: LayerOf, weight: np.ndarray, parts: int) -> tuple[LayerOf, np.ndarray]:
    """A convolution as one of as many groups, each of them all filters of a part of the channels.

    Parameters
    ----------
    weight
        [filters, channels, rows, columns].
    """
    conv = layer.conv
    grouped = replace(conv, groups=parts, filters=parts * conv.filters)
    filters, channels, *kernel = weight.shape
    apart = weight.reshape(filters, parts, channels // parts, *kernel).swapaxes(0, 1)
    apart = apart.reshape(parts * filters, channels // parts, *kernel)
    return replace(layer, conv=grouped), apart


def _added(
    value: relax.Var, conv: Conv2d, parts: int, pool: MaxPool2d | None, builder: relax.BlockBuilder
) -> relax.Expr:
    """The sum of the groups' results, and the maxima over its windows, if there are any."""
    attrs = {} if pool is None else {"op_pattern": OUT_ELEMENTWISE_FUSABLE}
    total = builder.call_te(
        partial(_total, parts=parts, channels_last=conv.channels_last, pool=pool),
        value,
        primfunc_name_hint="sum_of_parts",
        primfunc_attrs=attrs,
    )
    return builder.normalize(total)


def _total(data: Any, parts: int, channels_last: bool, pool: MaxPool2d | None) -> Any:
    axis = 3 if channels_last else 1
    filters = int(data.shape[axis]) // parts
    shape = [*data.shape[:axis], filters, *data.shape[axis + 1 :]]

    def value(*at: Any) -> Any:
        terms = [data(*at[:axis], n * filters + at[axis], *at[axis + 1 :]) for n in range(parts)]
        return sum(terms[1:], terms[0])

    total = te.compute(shape, value, name="total")
    if pool is None:
        return total
    windows = (pool.kernel, pool.strides, pool.dilation, pool.padding)
    layout = "NHWC" if channels_last else "NCHW"
    return topi.nn.pool2d(total, *map(list, windows), "max", pool.ceil_mode, layout)


def _oihw(weight: np.ndarray, layout: str) -> np.ndarray:
    return weight.transpose([layout.index(axis) for axis in "OIHW"])


def _pool(
    binding: relax.VarBinding, users: Any, bound: dict[int, relax.Binding], conv: Conv2d
) -> tuple[relax.Var, MaxPool2d | None]:
    """The variable that the kernel binds, and the pool if it takes one along."""
    reader = only_reader(binding.var, users, bound)
    if reader is None or op_name(reader.value) != MAX_POOL2D:
        return binding.var, None
    shapes = shape_of(binding.value) or (), shape_of(reader.value) or ()
    pool = read_max_pool2d(reader.value.attrs, conv, *shapes)
    return (binding.var, None) if isinstance(pool, Decline) else (reader.var, pool)


def _chosen(choose: Callable[[LayerOf, Any], Tile], target: Any, layer: LayerOf) -> Tile:
    return choose(layer, target)


def _layer(data: Any, weight: Any, conv: Conv2d, pool: MaxPool2d | None, tile: Tile) -> Any:
    return conv2d(data, weight, conv, pool, tile)
