"""What the script says of the inner loops of kernels for machines that are not at hand."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import tvm
from click.testing import CliRunner

from tvm_passes.bench.assembly import inner_loops, kernel_lines
from tvm_passes.bench.block import read_blocks
from tvm_passes.namespaces import Schedule, build_module
from tvm_passes.schedules.winograd_rule import winograd_layer_of
from tvm_passes.schedules.winograd_tiles import WinogradTiles
from tvm_passes.target import parse_target

SCRIPTS = Path(__file__).parent.parent.parent / "scripts"


def module(name):
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.fixture
def script():
    return module("inner_loops")


def test_accumulators_stay_in_registers(script, tmp_path):
    file = tmp_path / "loops.json"
    arguments = ["--only", "mnist1", "--target", script.NEON, "--output", str(file)]
    assert CliRunner().invoke(script.inner_loops, arguments).exit_code == 0
    ((loop,),) = (found["loops"] for found in json.loads(file.read_text())["targets"])
    assert (loop["block"], loop["stores"], loop["spills"]) == ("mnist1", 0, 0)
    assert loop["multiply_adds"] > loop["instructions"] / 2


def test_those_of_a_narrower_last_tile_do_too():
    stages = module("winograd_stages")
    (block,) = read_blocks(SCRIPTS / "blocks.json", ("tinyyolo4",))
    target = tvm.target.Target({**parse_target("x86-64-v3"), "num-cores": 1})
    layer = winograd_layer_of(Schedule(stages.winograd_kernel(block, target)))
    tiles = WinogradTiles(
        rows=1, columns=13, blocks=2, register_blocks=2, register_rows=1, register_columns=5
    )
    products, _ = stages.products_alone(layer.nest, tiles)
    assembly = build_module(products.mod, target).mod.inspect_source("asm")
    loops = [loop for lines in kernel_lines(assembly, "main") for loop in inner_loops(lines)]
    counts = [loop.instructions.get("multiply-add", 0) for loop in loops]
    assert sorted(counts)[-2:] == [2 * 3 * 8, 2 * 5 * 8]
    assert [loop.spills for loop, n in zip(loops, counts, strict=True) if n >= 2 * 3 * 8] == [0, 0]
