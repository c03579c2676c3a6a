"""Schedules found by measuring, from the MetaSchedule database in scope."""

from __future__ import annotations

from typing import Any

import tvm

from tvm_passes.namespaces import Schedule, ScheduleRule, meta_schedule

NAME = "main"
NO_ALIAS = ".noalias"


class Tuned(ScheduleRule):
    """A dlight schedule rule: the best of the records in ``Database.current()``, if any.

    ``with database:`` round ``tvm.compile`` or ``relay.build`` puts one in scope.
    """

    def apply(self, func: Any, target: Any, _tunable: bool) -> Schedule | None:
        """Schedule `func` as its fastest record says."""
        database = meta_schedule.Database.current()
        if database is None:
            return None
        found = database.query_schedule(workload_of(func), target, NAME)
        if found is None:
            return None
        scheduled = found.mod[NAME].without_attr("global_symbol")
        for name, value in (func.attrs or {}).items():
            scheduled = scheduled.with_attr(name, value)
        return Schedule(scheduled)


def workload_of(func: Any) -> tvm.IRModule:
    """A kernel as a module of its own, as records name it: without what is not in its code."""
    for name in list(func.attrs.keys()) if func.attrs else []:
        if not str(name).endswith(NO_ALIAS):
            func = func.without_attr(name)
    return tvm.IRModule({NAME: func.with_attr("global_symbol", NAME)})
