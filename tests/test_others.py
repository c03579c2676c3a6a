"""How much of the machine others used: on a /proc made for it, and on this one."""

import os
import time

import pytest

from tvm_passes.bench import others
from tvm_passes.bench.others import Others

pytestmark = pytest.mark.no_tvm
TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def proc(tmp_path, monkeypatch):
    """Writes how many seconds all processes, and worker 7, have used; time is what it says."""
    (tmp_path / "7").mkdir()
    monkeypatch.setattr(others, "PROC", tmp_path)

    def write(wall, every, worker, own):
        user, steal = int(every * TICKS) - 3, 3
        fields = [user, 0, 0, 10**6, 10**6, 0, 0, steal, 10**6, 0]
        (tmp_path / "stat").write_text(f"cpu  {' '.join(map(str, fields))}\ncpu0 1 2 3\n")
        half = int(worker * TICKS) // 2
        behind = " ".join(["S", *["0"] * 10, str(half), str(half), *["0"] * 20])
        (tmp_path / "7" / "stat").write_text(f"7 (a (strange) name) {behind}\n")
        monkeypatch.setattr(time, "perf_counter", lambda: wall)
        monkeypatch.setattr(time, "process_time", lambda: own)

    return write


def test_what_is_neither_ours_nor_a_workers(proc):
    proc(wall=0, every=100, worker=2, own=1)
    clock = Others([7])
    proc(wall=10, every=118, worker=10, own=3)
    assert clock.cores() == pytest.approx((18 - 8 - 2) / 10)


def test_clocks_that_disagree_are_not_below_nothing(proc):
    proc(wall=0, every=100, worker=2, own=1)
    clock = Others([7])
    proc(wall=10, every=108, worker=10, own=2)
    assert clock.cores() == 0


@pytest.mark.parametrize("pids", [[], [8]])
def test_where_linux_does_not_tell(pids, proc, tmp_path):
    proc(wall=0, every=100, worker=2, own=1)
    if not pids:
        (tmp_path / "stat").unlink()
    clock = Others(pids)
    assert clock.cores() is None


def test_this_machine_tells_something_or_nothing():
    """How much, of so short a time, is up to the clocks' ticks."""
    found = Others([os.getpid()]).cores()
    assert found is None or found >= 0
