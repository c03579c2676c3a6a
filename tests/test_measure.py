"""Timing: every runner in every round, and the statistics of known samples."""

import pytest

from tvm_passes.measure import Timing, interleave


def test_statistics_resist_an_outlier():
    timing = Timing((3.0, 1.0, 2.0, 100.0, 2.0))
    assert timing.median == 2.0
    assert timing.mad == 1.0


def test_rounds_are_interleaved_and_alternate_in_order():
    calls = []
    runners = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    timings = interleave(runners, rounds=3, seconds=0)
    assert [len(timing.samples) for timing in timings.values()] == [3, 3]
    assert "".join(calls[-6:]) == "abbaab"


def test_a_sample_is_the_mean_of_its_calls(monkeypatch):
    clock = iter(float(n) for n in range(100))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    timings = interleave({"a": lambda: None}, rounds=1, seconds=4.0)
    assert timings["a"].samples == pytest.approx((0.25,))
