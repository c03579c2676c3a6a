"""The schedule rules of kernels on CPUs, in the order in which they are asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tvm_passes.namespaces import Schedule, ScheduleRule, blocks_of
from tvm_passes.schedules import conv2d_rule, winograd_rule
from tvm_passes.schedules.conv2d_rule import BlockedConv2d
from tvm_passes.schedules.spatial import Spatial
from tvm_passes.schedules.structure import layer_of, plain_axes
from tvm_passes.schedules.tuned import Tuned
from tvm_passes.schedules.winograd_rule import WinogradConv2d, winograd_layer_of


def cpu_rules() -> Sequence[ScheduleRule]:
    """What ``dlight.ApplyDefaultSchedule`` takes."""
    return Tuned(), BlockedConv2d(), WinogradConv2d(), Spatial()


def may_store_plain(kernel: Any, reader: Any) -> bool:
    """Whether one PrimFunc is a layer's, and another one takes its result out of blocks.

    As one function they are a layer's, too.
    """
    sch = Schedule(reader)
    blocks = blocks_of(sch)
    if len(blocks) != 1 or plain_axes(sch.get(blocks[0])) is None:
        return False
    sch = Schedule(kernel)
    layer = layer_of(sch) or winograd_layer_of(sch)
    return layer is not None and layer.plain is None


def schedules(func: Any, target: Any) -> Sequence[Callable[[], Any]]:
    """Schedules of a kernel that has several to choose from, the most promising first."""
    for rule in (conv2d_rule, winograd_rule):
        ranked = rule.ranked_tiles(func, target)
        if ranked:
            return [partial(rule.schedule, func, tiles) for tiles in ranked]
    return []
