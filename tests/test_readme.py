"""The README's commands print what it says they print."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tvm_passes import dialects
from tvm_passes.rules import RELAX

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```console\n\$ (.+)\n((?:.*\n)*?)```", (ROOT / "README.md").read_text())

pytestmark = pytest.mark.skipif(dialects.installed() != RELAX, reason="the README shows Relax")


def test_there_are_commands():
    assert len(BLOCKS) >= 2


@pytest.mark.parametrize(("command", "printed"), BLOCKS, ids=[command for command, _ in BLOCKS])
def test_command(command, printed, tmp_path):
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    program, *arguments = command.split()
    assert program == "tvm-reorder"
    done = subprocess.run(
        [Path(sys.executable).parent / program, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"COLUMNS": "80"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert lines == [line.rstrip() for line in printed.splitlines()]
