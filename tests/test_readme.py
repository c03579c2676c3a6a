"""The README's commands print what it says they print."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tvm_passes import dialects
from tvm_passes.rules import RELAX, RELAY

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```console\n\$ (.+)\n((?:.*\n)*?)```", (ROOT / "README.md").read_text())
PYTHON = re.findall(r"```python\n((?:.*\n)*?)```", (ROOT / "README.md").read_text())

shows_relax = pytest.mark.skipif(dialects.installed() != RELAX, reason="the README shows Relax")


@shows_relax
def test_there_are_commands():
    assert len(BLOCKS) >= 2


@shows_relax
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


def relax_module(pool_first):
    """log(sigmoid(x)) and a max-pool, in one of both orders."""
    from tvm import relax

    builder, x = relax.BlockBuilder(), relax.Var("x", relax.TensorType((1, 4, 8, 8), "float32"))

    def f(value):
        return relax.op.log(builder.emit(relax.op.sigmoid(value)))

    def pool(value):
        return relax.op.nn.max_pool2d(value, (2, 2), (2, 2))

    with builder.function("main", [x]):
        with builder.dataflow():
            last = f(builder.emit(pool(x))) if pool_first else pool(builder.emit(f(x)))
            result = builder.emit_output(last)
        builder.emit_func_output(result)
    return builder.finalize()


def relay_module(pool_first):
    """log(sigmoid(x)) and a max-pool, in one of both orders."""
    import tvm
    from tvm import relay

    x = relay.var("x", shape=(1, 4, 8, 8))
    if pool_first:
        last = relay.log(relay.sigmoid(relay.nn.max_pool2d(x, (2, 2), (2, 2))))
    else:
        last = relay.nn.max_pool2d(relay.log(relay.sigmoid(x)), (2, 2), (2, 2))
    return relay.transform.InferType()(tvm.IRModule.from_expr(last))


@pytest.mark.skipif(dialects.installed() is None, reason="needs a TVM")
def test_a_rule_of_ones_own():
    import tvm

    if dialects.installed() == RELAY:
        from tvm_passes.relay import ReorderActivationAfterMaxPool

        build = relay_module
    else:
        from tvm_passes.relax import ReorderActivationAfterMaxPool

        build = relax_module

    (code,) = [block for block in PYTHON if "RULES" in block]
    before = build(pool_first=False)
    names = {"mod": before, "ReorderActivationAfterMaxPool": ReorderActivationAfterMaxPool}
    tvm.ir.assert_structural_equal(ReorderActivationAfterMaxPool()(before), before)
    exec(code, names)  # noqa: S102
    tvm.ir.assert_structural_equal(names["mod"], build(pool_first=True))
