"""No two threads of a GPU schedule touch the same element without a barrier between them.

oclgrind interprets the kernels and reports data races.
"""

import os
import shutil
import subprocess

import numpy as np
import pytest
from gpu_filterings import CASES as FILTERINGS
from gpu_layers import Case, conv, largest_tile, pool
from opencl_runs import lower
from test_gpu_networks import OPENCL, functions, kernels, weights
from test_gpu_pool import GPU, pool_add
from tvm import relax

from tvm_passes.schedules.gpu_conv2d_rule import schedule
from tvm_passes.schedules.gpu_pool import MaxPool
from tvm_passes.schedules.gpu_tiles import best

OCLGRIND = shutil.which("oclgrind-kernel")
BARRIER = "barrier(CLK_LOCAL_MEM_FENCE);"

KEPT = Case((1, 9, 5, 7), conv(9, 4, 3, padding=1), pool(2, 2))
SHARED = Case((1, 9, 5, 7), conv(9, 4, 3, padding=1), pool(3, 2, 1))
GATHERED = Case((1, 26, 5, 7), conv(26, 4, 3, padding=1, channels_last=True), pool(2, 2))
CASES = {"kept": KEPT, "shared": SHARED, "gathered": GATHERED}


@pytest.fixture(autouse=True)
def _oclgrind():
    if OCLGRIND is None and os.environ.get("CI"):
        pytest.fail("oclgrind is missing: .ci/run installs it")
    if OCLGRIND is None:
        pytest.skip("no oclgrind: apt-get install oclgrind")


def reports(program, folder, source=None):
    """What oclgrind says about a program of one kernel."""
    (launch,) = program.launches
    sizes = {name: int(np.prod(shape)) for name, shape, _ in program.params}
    (folder / "kernel.cl").write_text(source or program.source)
    lines = [
        "kernel.cl",
        launch.name,
        " ".join(str(g * b) for g, b in zip(launch.grid, launch.block, strict=True)),
        " ".join(map(str, launch.block)),
        *(f"<size={4 * sizes[name]} float fill=1>" for name in launch.buffers),
    ]
    (folder / "kernel.sim").write_text("\n".join(lines) + "\n")
    command = [OCLGRIND, "--data-races", "--max-errors", "10", "kernel.sim"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("tile", [best, largest_tile])
@pytest.mark.parametrize("name", CASES)
def test_no_races(name, tile, tmp_path):
    case = CASES[name]
    chosen = best(case.nest) if tile is best else largest_tile(case)
    program = lower(schedule(case.func(chosen)).mod["main"])
    assert reports(program, tmp_path) == ""


def test_no_races_in_pools(tmp_path):
    func = MaxPool().apply(pool_add((1, 3, 9, 11), 3, 2, 1), GPU, False).mod["main"]
    assert reports(lower(func), tmp_path) == ""


@pytest.mark.parametrize("name", FILTERINGS)
def test_no_races_in_winograds_kernels(name, tmp_path):
    for func in FILTERINGS[name].kernels():
        assert reports(lower(func), tmp_path) == ""


def test_no_races_where_sums_are_split(tmp_path):
    """Parts of the channels as groups, and the kernel that adds and pools them."""
    rng = np.random.default_rng(0)
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 64, 6, 5), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            value = builder.emit(relax.op.nn.conv2d(x, weights(rng, 8, 64, 3, 3), padding=1))
            value = builder.emit(relax.op.nn.relu(value))
            value = builder.emit_output(builder.emit(relax.op.nn.max_pool2d(value, (2, 2), (2, 2))))
        builder.emit_func_output(value)
    found = functions(kernels(builder.get(), OPENCL))
    assert any("sum_of_parts" in name for name in found)
    assert len(found) == 2
    for name, func in found.items():
        folder = tmp_path / name
        folder.mkdir()
        assert reports(lower(func), folder) == ""


@pytest.mark.parametrize("case", [KEPT, SHARED, GATHERED])
def test_without_its_barriers_a_schedule_has_races(case, tmp_path):
    program = lower(schedule(case.func(best(case.nest))).mod["main"])
    assert BARRIER in program.source
    found = reports(program, tmp_path, program.source.replace(BARRIER, ""))
    assert "data race at local memory" in found
