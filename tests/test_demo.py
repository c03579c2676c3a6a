"""The main job, on the shipped network."""

import importlib.util
from pathlib import Path

import pytest
from click.testing import CliRunner

from tvm_passes import dialects

SCRIPTS = Path(__file__).parent.parent / "scripts"

pytestmark = pytest.mark.skipif(dialects.installed() is None, reason="needs a TVM")


def script(name):
    """Load a script as a module."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def demo():
    return script("demo").demo


def test_prints_all_of_the_main_job(demo):
    result = CliRunner().invoke(demo, ["--rounds", "3"])
    assert result.exit_code == 0, result.output
    assert "2 pooling sites" in result.output
    assert result.output.count("remark: ") == 4
    assert "accuracy, original: 0.9806" in result.output
    assert "accuracy, reordered: 0.9806" in result.output
    assert "outputs bitwise equal: yes, all of them" in result.output
    assert "3 interleaved rounds" in result.output
    first = result.output.split("around the first site")[1].split("results on")[0]
    lines = [line for line in first.splitlines() if line.startswith(("-  ", "+  "))]
    assert [line[0] for line in lines] == ["-", "-", "-", "+", "+", "+"]
    assert "max_pool2d" in lines[3]


def test_a_difference_is_an_error(demo, monkeypatch):
    """One bit of one output of the reordered module is flipped."""
    variables = demo.callback.__globals__
    stock = variables["engine"]()

    class Engine:
        def load(self, path, names):
            runner = stock.load(path, names)
            if path.parent.name == "original":
                return runner
            return lambda *inputs: [flipped(output) for output in runner(*inputs)]

    def flipped(output):
        bits = output.copy().view("uint32")
        bits[0, 0] ^= 1
        return bits.view("float32")

    monkeypatch.setitem(variables, "engine", Engine)
    result = CliRunner().invoke(demo, ["--rounds", "3"])
    assert result.exit_code == 1
    assert "outputs bitwise equal: NO" in result.output
    assert "please report this model" in result.output
