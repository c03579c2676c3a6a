"""TVM's own MetaSchedule, as it comes, for a comparison with the same number of trials."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import tvm
from tvm import relax
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule.relax_integration import extract_tasks, tune_relax

TIMEOUT_S = 300
"""Of building a candidate.  TVM's 30 s are what a process of its builder takes to start on a busy
machine: it imports all of TVM's tensor intrinsics."""

DONE = "done"


def tuning(target: tvm.target.Target, folder: Path, trials: int) -> tvm.transform.Pass:
    """Tune each kernel of a module, unless `folder` has its records, then schedule by the best.

    These are the passes of TVM's ``static_shape_tuning`` pipeline, with time to build candidates,
    and `trials` for each kernel, not for all.

    Parameters
    ----------
    target
        What for.
    folder
        Where records go.
    trials
        Candidates of each kernel.
    """

    @tvm.transform.module_pass(opt_level=0, name="MetaSchedule")
    def pipeline(mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        passes = [
            relax.transform.DecomposeOpsForInference(),
            relax.transform.CanonicalizeBindings(),
            relax.get_pipeline("zero"),
        ]
        with target:
            mod = tvm.transform.Sequential(passes)(mod)
            if not (folder / DONE).exists():
                tune_relax(
                    mod,
                    params={},
                    target=target,
                    work_dir=str(folder),
                    max_trials_global=trials * len(extract_tasks(mod, target)),
                    max_trials_per_task=trials,
                    num_trials_per_iter=min(trials, 64),
                    builder=ms.builder.LocalBuilder(timeout_sec=TIMEOUT_S),
                    cost_model=cost_model(),
                    seed=0,
                )
                (folder / DONE).touch()
            return relax.transform.MetaScheduleApplyDatabase(str(folder))(mod)

    return pipeline


def cost_model() -> str:
    """TVM's default where its package is installed, else the one that needs none."""
    return "xgb" if importlib.util.find_spec("xgboost") else "random"
