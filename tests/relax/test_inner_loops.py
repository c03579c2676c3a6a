"""What the script says of the inner loops of kernels for machines that are not at hand."""

import importlib
import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

SCRIPTS = Path(__file__).parent.parent.parent / "scripts"


@pytest.fixture
def script():
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module("inner_loops")
    finally:
        sys.path.remove(str(SCRIPTS))


def test_accumulators_stay_in_registers(script, tmp_path):
    file = tmp_path / "loops.json"
    arguments = ["--only", "mnist1", "--target", script.NEON, "--output", str(file)]
    assert CliRunner().invoke(script.inner_loops, arguments).exit_code == 0
    ((loop,),) = (found["loops"] for found in json.loads(file.read_text())["targets"])
    assert (loop["block"], loop["stores"], loop["spills"]) == ("mnist1", 0, 0)
    assert loop["multiply_adds"] > loop["instructions"] / 2
