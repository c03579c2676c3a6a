"""Bank conflicts are counted, and the schedules that ship have next to none."""

import numpy as np
import pytest
import tvm
from test_gpu_conv2d import CASES

from tvm_passes.relax.banks import NOT_UNROLLED, banks_of
from tvm_passes.relax.launches import lower
from tvm_passes.schedules.gpu_conv2d_rule import schedule
from tvm_passes.schedules.gpu_tiles import best, conflicts

GPU = tvm.target.Target({"kind": "cuda", "arch": "sm_90", "host": "llvm"})
CHANNELS_APART = ("stages of channels, NHWC", "no pool, NHWC")
"""Stages of fewer elements than a row of the kernel: their rows of sums meet in banks."""
CHECKED = [*CHANNELS_APART, "mnist", "odd sizes", "odd sizes, NHWC", "resnet stem", "alexnet"]
CHECKED += ["dilated pool", "uneven kernel and padding", "depthwise", "no pool", "pointwise"]
MOST = {True: 0.2, False: 0.05}
"""Of all turns, what conflicts may add: where channels are apart, and elsewhere."""


def banks(func):
    with tvm.transform.PassContext(disabled_pass=list(NOT_UNROLLED)):
        (found,) = banks_of(lower({"main": func}, GPU).kernels).values()
    return found


def test_a_column_of_rows_in_one_bank_takes_32_turns():
    assert conflicts(np.arange(32), np.zeros(32, int))[0] == 31
    assert conflicts(np.arange(32), np.zeros(32, int))[1] == 0
    assert conflicts(np.arange(32), np.zeros(32, int))[2] == 1
    assert conflicts(np.zeros(32, int), np.zeros(32, int))[0] == 0  # all read the same


@pytest.mark.parametrize("name", CHECKED)
def test_schedules_have_next_to_none(name):
    case = CASES[name]
    found = banks(schedule(case.func(best(case.nest))).mod["main"])
    assert found.turns > 0
    assert found.unknown == 0
    assert found.share <= MOST[name in CHANNELS_APART], found


def test_without_its_padding_a_schedule_has_conflicts(monkeypatch):
    """Rows that begin where the row before them does."""
    from tvm_passes.schedules import gpu_conv2d_rule

    case = CASES["mnist"]
    tile = best(case.nest)
    monkeypatch.setattr(gpu_conv2d_rule, "row_offset", lambda *_: (0, 0.0))
    found = banks(schedule(case.func(tile)).mod["main"])
    assert found.share > MOST[False]
