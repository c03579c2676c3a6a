"""The built wheel, in an environment that holds nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tvm_passes import dialects
from tvm_passes.errors import how_to_install

ROOT = Path(__file__).parent.parent
MNIST = ROOT / "tests" / "data" / "mnist.tflite"
DIALECT = dialects.installed()
QUIET = ("--quiet", "--no-compile", "--disable-pip-version-check")

pytestmark = pytest.mark.skipif(DIALECT is None, reason="needs a TVM")


def run(*argv):
    """Run a command outside the sources; returns exit code, stdout and stderr."""
    done = subprocess.run([*map(str, argv)], capture_output=True, text=True, cwd="/", check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", folder, ROOT]
    assert run(*build)[0] == 0
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """An environment with the wheel and no extras; returns its folder of programs."""
    folder = tmp_path_factory.mktemp("env")
    assert run(sys.executable, "-m", "venv", folder)[0] == 0
    code, _, err = run(folder / "bin" / "pip", "install", *QUIET, wheel)
    assert code == 0, err
    return folder / "bin"


def test_without_extras(environment):
    code, out, err = run(environment / "tvm-reorder", "--version")
    assert (code, err) == (0, "")
    assert out.startswith("tvm-reorder, version ")
    code, out, err = run(environment / "tvm-reorder", "inspect", MNIST)
    assert (code, out) == (1, "")
    assert err == f"tvm-reorder: error: this command needs TVM: {how_to_install('relax')}\n"
    assert run(environment / "python", "-c", "import tvm_passes; tvm_passes.RULES")[0] == 0


def test_with_the_dialects_extra(environment, wheel, tmp_path):
    code, _, err = run(environment / "pip", "install", *QUIET, f"{wheel}[{DIALECT}]")
    assert code == 0, err
    code, out, err = run(environment / "tvm-reorder", "inspect", MNIST, "--json")
    assert code == 0, err
    assert [site["decision"] for site in json.loads(out)["sites"]] == ["passed", "passed"]
    shipped = ["compile", MNIST, "--target", "x86-64-v3", "-o", tmp_path / "out"]
    code, _, err = run(environment / "tvm-reorder", *shipped)
    assert code == 0, err
    assert (tmp_path / "out" / "lib.so").is_file()
    keras = run(environment / "tvm-reorder", "inspect", MNIST.with_suffix(".keras"))
    assert keras[0] == 1
    assert how_to_install("tensorflow") in keras[2]
