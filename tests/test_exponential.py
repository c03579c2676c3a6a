"""exp, sigmoid and tanh in vectors have the bits of the libm that TVM's own code calls."""

import importlib
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tvm_passes import dialects

pytestmark = pytest.mark.skipif(dialects.installed() is None, reason="needs a TVM")

FLAGS = Path("/proc/cpuinfo")
HAS_FMA = FLAGS.exists() and {"fma", "avx2"} <= set(FLAGS.read_text().split())
FUNCTIONS = ("exp", "sigmoid", "tanh")


def target(**config):
    import tvm

    return tvm.target.Target({"kind": "llvm", **config})


@pytest.fixture
def script():
    folder = str(Path(__file__).parent.parent / "scripts")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("check_exp")
    finally:
        sys.path.remove(folder)


@pytest.mark.skipif(not HAS_FMA, reason="needs fused multiply-add")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_random_arguments(script, name):
    found = script.compare(name, target(mcpu="x86-64-v3"), chunks=2)
    assert (found["arguments"], found["differ"]) == (2 << 22, 0)


def test_the_command_refuses_other_libms(script):
    result = CliRunner().invoke(script.check_exp, ["--target", "llvm"])
    assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.parametrize(
    ("config", "vectors"),
    [
        ({"mtriple": "x86_64-unknown-linux-gnu", "mcpu": "x86-64-v3"}, True),
        ({"mtriple": "aarch64-linux-gnu"}, True),
        ({"mtriple": "x86_64-unknown-linux-gnu"}, False),
        ({"mtriple": "x86_64-unknown-linux-musl", "mcpu": "x86-64-v3"}, False),
        ({"mtriple": "aarch64-apple-darwin"}, False),
    ],
    ids=str,
)
def test_targets_whose_expf_is_known(config, vectors):
    from tvm_passes.schedules.exponential import has_expf

    assert has_expf(target(**config)) == vectors
