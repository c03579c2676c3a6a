"""The schedule rules of kernels on CPUs, in the order in which they are asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tvm_passes.namespaces import ScheduleRule
from tvm_passes.schedules import conv2d_rule, winograd_rule
from tvm_passes.schedules.conv2d_rule import BlockedConv2d
from tvm_passes.schedules.spatial import Spatial
from tvm_passes.schedules.tuned import Tuned
from tvm_passes.schedules.winograd_rule import WinogradConv2d


def cpu_rules() -> Sequence[ScheduleRule]:
    """What ``dlight.ApplyDefaultSchedule`` takes."""
    return Tuned(), BlockedConv2d(), WinogradConv2d(), Spatial()


def schedules(func: Any, target: Any) -> Sequence[Callable[[], Any]]:
    """Schedules of a kernel that has several to choose from, the most promising first."""
    for rule in (conv2d_rule, winograd_rule):
        ranked = rule.ranked_tiles(func, target)
        if ranked:
            return [partial(rule.schedule, func, tiles) for tiles in ranked]
    return []
