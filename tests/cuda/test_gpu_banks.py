"""Bank conflicts are counted, and the schedules that ship have none, or as few as there can be."""

import numpy as np
import pytest
import tvm
from test_gpu_conv2d import CASES

from tvm_passes.relax.banks import NOT_UNROLLED, banks_of
from tvm_passes.relax.launches import lower
from tvm_passes.schedules.gpu_banks import Offsets, conflicts
from tvm_passes.schedules.gpu_conv2d_rule import schedule
from tvm_passes.schedules.gpu_tiles import best

GPU = tvm.target.Target({"kind": "cuda", "arch": "sm_90", "host": "llvm"})
CHECKED = ["stages of channels, NHWC", "mnist", "odd sizes", "alexnet", "groups", "depthwise"]
CHECKED += ["uneven kernel and padding", "no pool", "pointwise"]
LEFT = {"odd sizes, NHWC": 0.01, "no pool, NHWC": 0.01, "resnet stem": 0.01, "dilated pool": 0.02}
"""Of all turns, what conflicts add where some are left.

In NHWC neighbouring threads copy neighbouring channels, which takes the fewest loads.  Where their
number is no power of two, no distance of channels keeps all lanes of a warp apart: at the end of
each place the next lane would have to lie as far from the last as others do.  And un-pooled sums
that threads share are written by groups and read by windows, in strides that are not each other's.
"""


def banks(func):
    with tvm.transform.PassContext(disabled_pass=list(NOT_UNROLLED)):
        (found,) = banks_of(lower({"main": func}, GPU).kernels).values()
    return found


def test_a_column_of_rows_in_one_bank_takes_32_turns():
    assert conflicts(np.arange(32), np.zeros(32, int))[0] == 31
    assert conflicts(np.arange(32), np.zeros(32, int))[1] == 0
    assert conflicts(np.arange(32), np.zeros(32, int))[2] == 1
    assert conflicts(np.zeros(32, int), np.zeros(32, int))[0] == 0  # all read the same


@pytest.mark.parametrize("name", [*CHECKED, *LEFT])
def test_schedules_have_none_that_can_be_done_without(name):
    case = CASES[name]
    found = banks(schedule(case.func(best(case.nest))).mod["main"])
    assert found.turns > 0
    assert found.unknown == 0
    assert found.share <= LEFT.get(name, 0), found


def test_without_its_padding_a_schedule_has_conflicts(monkeypatch):
    """Rows that begin where the row before them does."""
    from tvm_passes.schedules import gpu_conv2d_rule

    case = CASES["mnist"]
    tile = best(case.nest)
    monkeypatch.setattr(gpu_conv2d_rule, "offsets", lambda *_: Offsets(0, 0, 0, 0.0))
    found = banks(schedule(case.func(tile)).mod["main"])
    assert found.share > 0.05
