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
PYTHON = re.findall(r"```python\n((?:.*\n)*?)```", (ROOT / "README.md").read_text())

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


def test_a_rule_of_ones_own():
    import tvm
    from tvm import relax

    from tvm_passes.relax import ReorderActivationAfterMaxPool

    def build(order):
        builder, x = relax.BlockBuilder(), relax.Var("x", relax.TensorType((1, 4, 8, 8), "float32"))

        def f(value):
            return relax.op.log(builder.emit(relax.op.sigmoid(value)))

        def pool(value):
            return relax.op.nn.max_pool2d(value, (2, 2), (2, 2))

        with builder.function("main", [x]):
            with builder.dataflow():
                last = pool(builder.emit(f(x))) if order == "before" else f(builder.emit(pool(x)))
                result = builder.emit_output(last)
            builder.emit_func_output(result)
        return builder.finalize()

    (code,) = [block for block in PYTHON if "RULES" in block]
    names = {"mod": build("before")}
    names["ReorderActivationAfterMaxPool"] = ReorderActivationAfterMaxPool
    tvm.ir.assert_structural_equal(ReorderActivationAfterMaxPool()(names["mod"]), names["mod"])
    exec(code, names)  # noqa: S102
    tvm.ir.assert_structural_equal(names["mod"], build("after"))
