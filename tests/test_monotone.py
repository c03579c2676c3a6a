"""As TVM compiles them, the functions of the rule table never fall from one value to the next."""

import importlib
import json
import sys
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tvm_passes import dialects
from tvm_passes.decline import Direction
from tvm_passes.monotone import (
    FLOAT_BITS,
    Line,
    Wavering,
    comparable,
    ranks,
    sweep,
    wavering,
    windows,
)
from tvm_passes.rules import RULES

SCRIPTS = Path(__file__).parent.parent / "scripts"
LLVM = {"kind": "llvm"}
WIDTH_16 = ("float16", "bfloat16", "int16")  # some samples are negative: not of uint16

needs_tvm = pytest.mark.skipif(dialects.installed() is None, reason="needs a TVM")


@pytest.fixture(scope="module")
def script():
    """The script, which imports its table from beside it."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module("check_monotone")
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def ops(script):
    return sys.modules[script.Candidate.__module__]


@pytest.fixture
def found(script):
    """Check one function, by the name that the command takes."""

    def check(name, dtype, **plan):
        (candidate,) = script.candidates(name).values()
        return script.check(candidate, dtype, LLVM, script.Plan(scalars=256, **plan))

    return check


# The rows.

ROWS = [r for r in RULES if not r.results and r.direction is not Direction.BY_CHANNEL]
"""Those of one function, whose results are of the type of its data."""


@needs_tvm
@pytest.mark.parametrize("rule", [rule for rule in ROWS if rule.forms], ids=lambda rule: rule.name)
def test_every_parameter_of_a_row_has_samples(rule, ops):
    named = {name for form in rule.forms.values() for f in form for name in (*f.attrs, *f.args)}
    samples = ops.SAMPLES.get(rule.name, ({},))
    assert samples
    assert all(set(sample) == named for sample in samples)


@needs_tvm
@pytest.mark.parametrize(
    ("rule", "dtype"),
    [
        pytest.param(rule, dtype, id=f"{rule.name}-{dtype}")
        for rule in ROWS
        if rule.forms
        for dtype in WIDTH_16
        if dtype in rule.dtypes
    ],
)
def test_no_row_falls_anywhere_or_depends_on_its_loop(rule, dtype, script, ops):
    """With one sample of its parameters; the record holds what all samples gave."""
    candidates = ops.row_candidates(rule, dialects.installed())
    for candidate in candidates[:1]:
        result = script.check(candidate, dtype, LLVM, script.Plan(scalars=256))
        line = Line(dtype)
        assert result["values"] == line.stop or candidate.domain is not None
        if rule.direction is Direction.QUASI_CONVEX:
            assert not result["monotone"]
            most = 0 if rule.is_exact else 2
            assert result["wavering"]["worst"] <= most, result
        else:
            assert result["monotone"], result
        differences = result["other_bits"]
        for loop in ("in memory", "behind a pool", "one element"):
            assert differences[loop]["count"] == 0, (candidate.name, loop, differences[loop])
        for orders in ("orders", "orders, equal values"):
            assert only_at_minus_infinity(differences[orders]), (candidate.name, differences)
    assert candidates or dialects.installed() not in rule.forms


FALL_AS_COMPUTED = {"softsign", "softplus as a sum"}
"""Rows that say so of their kernels, and that therefore never sink."""


@pytest.fixture(scope="module")
def recorded():
    """The record of this dialect: its versions, and results on all values, by op and type."""
    dialect = dialects.installed()
    record = json.loads((SCRIPTS / "records" / f"monotone-{dialect}.json").read_text())
    plain = [r for r in record["results"] if r["target"] == LLVM and r["sample"] is None]
    return record["versions"], {(r["op"], r["dtype"]): r for r in plain}


@needs_tvm
def test_the_record_is_of_this_tvm(recorded):
    package = dialects.TVM[dialects.installed()]
    assert recorded[0][package] == version(package)


@needs_tvm
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("rule", ROWS, ids=lambda rule: rule.name)
def test_the_record_holds_every_row_on_all_values(rule, dtype, ops, recorded):
    for candidate in ops.row_candidates(rule, dialects.installed()):
        result = recorded[1][candidate.name, dtype]
        if dtype not in rule.dtypes:
            continue
        assert result["values"] == Line(dtype).stop or candidate.domain is not None
        if rule.direction is Direction.QUASI_CONVEX:
            assert not result["monotone"]
            assert result["wavering"]["worst"] <= (0 if rule.is_exact else 2)
        else:
            assert result["monotone"] is (rule.name not in FALL_AS_COMPUTED)


@needs_tvm
@pytest.mark.parametrize("to", ["float16", "float32", "int8", "int32"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_record_holds_casts(dtype, to, recorded):
    result = recorded[1][f"cast({to})", dtype]
    assert result["monotone"]
    assert result["values"] >= Line(dtype).stop or result["domain"] is not None


@needs_tvm
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_the_record_holds_every_row_that_reads_bytes(dtype, script, recorded):
    found = [c for c in script.quantized(dialects.installed()) if dtype in c.reads]
    assert found
    for candidate in found:
        result = recorded[1][candidate.name, dtype]
        assert (result["values"], result["inversions"]) == (256, 0)


@needs_tvm
def test_the_wavering_of_gelu_is_found(found):
    """So opt-in it is: max(f(min), f(max)) misses more of it than two neighbours differ by."""
    result = found("gelu_composed", "float16")["wavering"]
    assert result["count"] > 0
    assert result["worst_ulp"] > 1
    assert -6 < result["at"] < 0


def only_at_minus_infinity(difference):
    """The pool starts from the lowest finite value, and so does not return -inf."""
    return difference["count"] == 0 or difference["first"][2] == -np.inf


# What must not become a row, at least not for that type.


@needs_tvm
@pytest.mark.parametrize("name", ["gelu_composed", "abs", "square_composed", "silu_composed"])
def test_functions_that_fall_are_found(name, found):
    result = found(name, "float16")
    assert not result["monotone"]
    assert result["inversions"] > 0
    first, second = result["worst"]["inputs"]
    assert first < second < 0
    assert result["worst"]["outputs"][0] > result["worst"]["outputs"][1]


@needs_tvm
@pytest.mark.parametrize("name", ["softsign", "softplus_stable"])
def test_rising_functions_whose_kernel_falls_are_found(name, found):
    result = found(name, "float16")
    assert not result["monotone"]
    assert result["other_bits"]["orders"]["count"] > 0


@needs_tvm
def test_fast_math_breaks_tanh(found):
    """On the same windows of float32 values, TVM's own tanh does not fall once."""
    plan = {"chunk": 1 << 16, "sample": 256}
    assert found("tanh", "float32", **plan)["monotone"]
    assert found("fast_tanh", "float32", **plan)["inversions"] > 0


# The sweep itself, without TVM.


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "int16", "uint16"])
def test_a_line_holds_every_finite_value_once_and_in_order(dtype):
    pytest.importorskip("ml_dtypes")
    line = Line(dtype)
    values = line.values(0, line.stop)
    assert len(np.unique(values.view(f"uint{8 * values.itemsize}"))) == line.stop
    numbers = comparable(values, dtype).astype(np.float64)
    assert np.all(np.isfinite(numbers))
    steps = np.diff(numbers)
    zeros = 1 if dtype in FLOAT_BITS else 0  # -0.0 and +0.0 are neighbours
    assert np.count_nonzero(steps == 0) == zeros
    assert np.all(steps >= 0)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("value", [-2.0, -0.0, 0.0, 1.5])
def test_a_line_finds_a_value(dtype, value):
    line = Line(dtype)
    n = line.index(value)
    (got,) = line.values(n, n + 1)
    assert got == value
    assert np.signbit(got) == np.signbit(value)
    below, above = line.values(n - 1, n + 2)[::2]
    assert below <= got <= above


def test_windows_lose_no_pair_of_neighbours():
    pairs = [pair for start, stop in windows(3, 100, 8) for pair in pairwise(range(start, stop))]
    assert pairs == list(pairwise(range(3, 100)))
    assert windows(3, 4, 8) == [(3, 4)]


def test_sampled_windows_are_some_of_all():
    chosen = windows(0, 10_000, 100, sample=7)
    assert len(chosen) == 7
    assert set(chosen) <= set(windows(0, 10_000, 100))
    assert windows(0, 10_000, 100, sample=1000) == windows(0, 10_000, 100)


@pytest.mark.parametrize("size", [7, 1000, 63_488])
@pytest.mark.parametrize("at", [0, 999, 30_000, 63_486])
def test_a_single_inversion_is_found_across_borders_too(size, at):
    line = Line("float16")
    low, high = line.values(at, at + 2)

    def swapped(x):
        return np.where(x == low, high, np.where(x == high, low, x))

    report = sweep(swapped, line, windows(0, line.stop, size))
    assert report.inversions >= 1
    assert report.worst.inputs == (low, high)
    assert report.worst.outputs == (high, low)
    assert report.worst.ulps == 1


def test_a_nan_is_reported_and_is_not_monotone():
    line = Line("float16")
    with np.errstate(invalid="ignore"):
        report = sweep(np.sqrt, line, windows(0, line.stop, 4096))
    assert report.nans > 0
    assert not report.monotone
    assert all(x < 0 for x in report.nan_inputs)


def test_falling_functions_are_checked_the_other_way():
    line = Line("float16")
    ranges = windows(0, line.stop, 4096)
    assert sweep(np.negative, line, ranges, falling=True).monotone
    assert not sweep(np.negative, line, ranges).monotone


@pytest.mark.parametrize("at", [-2.0, 3.0])
def test_a_value_that_no_window_shows_is_found(at):
    def bumpy(x):
        return np.where(x == at, np.abs(x) + np.float16(0.5), np.abs(x))

    line = Line("float16")
    assert wavering(np.abs, line) == Wavering(0, 0, 0.0, -65504.0)
    found = wavering(bumpy, line)
    assert (found.count, found.at) == (1, at)
    assert 0.49 * 2**10 < found.worst <= 0.5 * 2**10


def test_ulps_count_the_values_between():
    one = np.array([1.0, np.nextafter(np.float32(1), np.float32(2)), -1.0, 0.0, -0.0], np.float32)
    rank = ranks(one, "float32")
    assert rank[1] - rank[0] == 1
    assert rank[2] == -rank[0]
    assert rank[3] == rank[4] == 0


# Other loops.


@needs_tvm
def test_bits_are_compared_and_the_first_difference_is_kept(script):
    found = script.Difference()
    x = np.arange(4, dtype=np.float32)
    first = np.array([1.0, np.nan, 0.0, 2.0], np.float32)
    found.add(x, first, first, ("float32", "float32"))
    assert found == script.Difference(0, None)
    found.add(x, first, np.array([1.0, -np.nan, -0.0, 3.0], np.float32), ("float32", "float32"))
    assert (found.count, found.first) == (2, (2.0, 0.0, 0.0))


@needs_tvm
@pytest.mark.parametrize("name", ["log", "multiply(3)"])
def test_results_of_minus_infinity_tell_the_orders_apart(name, found):
    """The pool starts from the lowest finite number, which is what it gives for -inf alone."""
    lowest = -65504.0
    first = found(name, "float16")["other_bits"]["orders, equal values"]["first"]
    assert first[1:] == (lowest, -np.inf)


# The command.


@needs_tvm
def test_the_command_records_results_and_does_not_repeat_them(script, tmp_path, monkeypatch):
    output = tmp_path / "record.json"
    command = ["--dtype", "float16", "--ops", "relu,abs", "--scalars", "16", "--output", output]
    first = CliRunner().invoke(script.main, list(map(str, command)))
    assert first.exit_code == 0, first.output
    assert "abs" in first.output
    record = script.json.loads(output.read_text())
    assert [result["monotone"] for result in record["results"]] == [True, False]
    assert record["machine"]
    assert record["versions"]

    monkeypatch.setattr(script, "check", None)  # would fail if it were called
    again = CliRunner().invoke(script.main, list(map(str, command)))
    assert again.exit_code == 0, again.output
    assert len(script.json.loads(output.read_text())["results"]) == 2


@needs_tvm
def test_an_unknown_op_is_a_usage_error(script):
    result = CliRunner().invoke(script.main, ["--ops", "tanhh"])
    assert result.exit_code == 2
    assert "no op tanhh" in result.output
