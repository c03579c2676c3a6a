"""Random graphs, rewritten and compared; and what the generator must be able to meet."""

import importlib
import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import Phase, given, settings

from tvm_passes import dialects, legality
from tvm_passes.decline import Reason
from tvm_passes.rule import RELAX

SCRIPTS = Path(__file__).parent.parent / "scripts"
GRAPHS = 100
GENERATE = (Phase.generate,)

pytestmark = pytest.mark.skipif(dialects.installed() is None, reason="needs a TVM")


@pytest.fixture(scope="module")
def script():
    """The script, which imports the generator from beside it."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module("fuzz_reorder")
    finally:
        sys.path.remove(str(SCRIPTS))


def test_random_graphs_give_the_same_bits(script):
    tally = script.Tally()
    script.fuzz(GRAPHS, 1, script.runnable(), tally, pools=2)
    assert tally.graphs >= GRAPHS
    assert tally.rewritten > GRAPHS // 5


@pytest.mark.skipif(dialects.installed() != RELAX, reason="Relax's kernels run on OpenCL")
def test_random_graphs_give_the_same_bits_in_c(script):
    tally = script.Tally()
    script.fuzz(GRAPHS // 2, 77, script.runnable(["opencl"]), tally, pools=2)
    assert tally.rewritten - tally.not_compiled > GRAPHS // 20


def test_a_pass_that_is_wrong_is_found(script, monkeypatch):
    """Without the check for windows in padding, a graph that differs turns up."""
    wrong = [check for check in legality.SITE_PRECONDITIONS if check.__name__ != EMPTY]
    monkeypatch.setattr("tvm_passes.decision.SITE_PRECONDITIONS", tuple(wrong))
    with pytest.raises(AssertionError) as found:
        script.fuzz(8 * GRAPHS, 0, script.runnable()[:1], script.Tally(), pools=1, shrink=False)
    assert "max_pool" in str(found.value)


EMPTY = "windows_touch_data"


@pytest.mark.skipif(dialects.installed() == RELAX, reason="both dialects decide alike")
def test_the_generator_meets_every_reason_that_it_can(script):
    met = set()

    @settings(max_examples=1000, database=None, derandomize=True, deadline=None, phases=GENERATE)
    @given(script.graphs(3))
    def look(graph):
        mod = script.module(graph)
        found = script.decide(mod, allow=script.allowed(mod))
        met.update(d.decline.reason for d in found if d.decline is not None)

    look()
    assert MET - met == set()


MET = {
    Reason.NOT_SELECTING,
    Reason.NO_ACTIVATION,
    Reason.NO_RULE,
    Reason.LAYOUT,
    Reason.EMPTY_WINDOW,
    Reason.DOES_NOT_PAY,
    Reason.SHARED,
    Reason.OUTPUT,
    Reason.DTYPE,
    Reason.VARIES_IN_WINDOW,
    Reason.PAD_VALUE,
    Reason.FOLDING,
}


def test_the_command_records_what_it_found_and_goes_on(script, tmp_path):
    output = tmp_path / "record.json"
    command = ["--graphs", "3", "--seed", "5", "--output", str(output)]
    first = CliRunner().invoke(script.main, command)
    assert first.exit_code == 0, first.output
    assert json.loads(first.output) == json.loads(output.read_text())
    assert json.loads(output.read_text())["graphs"] == 3
    again = CliRunner().invoke(script.main, command)
    assert json.loads(again.output)["graphs"] == 3
    assert json.loads(again.output)["seconds"] == json.loads(first.output)["seconds"]
