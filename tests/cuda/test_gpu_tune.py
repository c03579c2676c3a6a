"""Tiles of GPU kernels are sampled, measured through a tracker, recorded and compiled with."""

import json
from pathlib import Path

import numpy as np
import pytest
import tvm
from gpu_layers import Case, conv, pool
from opencl_runs import TARGET, run
from test_gpu_conv2d import CASES
from tvm.rpc import Server
from tvm.rpc.tracker import Tracker as RpcTracker

from tvm_passes.cli import main
from tvm_passes.frontends import load_model
from tvm_passes.measure_trials import Tracker, Trial
from tvm_passes.namespaces import Schedule
from tvm_passes.records import PAGE, in_scope, new_records
from tvm_passes.relax import engine
from tvm_passes.relax.device_code import COMPILED
from tvm_passes.relax.gpu_trials import export, kernel_of, layers_of, points
from tvm_passes.relax.opencl import register
from tvm_passes.schedules.gpu_conv2d import LayerOf
from tvm_passes.schedules.gpu_conv2d_rule import TiledConv2d
from tvm_passes.schedules.gpu_space import (
    CHOICE,
    choose,
    chosen,
    multiprocessors_of,
    recorded,
    sampled,
    stated,
    tiles_of,
    workload,
)
from tvm_passes.tune import Order, tasks_of, tune_model

MNIST = Path(__file__).parents[1] / "data" / "mnist.tflite"
SM_90 = {"kind": "cuda", "arch": "sm_90"}
GPU = tvm.target.Target({**SM_90, "host": "llvm"})
SMALL = Case((1, 8, 11, 13), conv(8, 12, 3, padding=1), pool(2, 2))


@pytest.mark.parametrize("name", CASES)
def test_a_layer_is_told_from_its_kernel(name):
    layer = CASES[name].layer
    assert LayerOf.of(layer.numbers()).nest == layer.nest
    found = workload(layer)
    tiles = tiles_of(layer, GPU)
    for number in (0, len(tiles) - 1):
        point = sampled(found, tiles, number)
        again = Schedule(found)
        point.trace.apply_to_schedule(again, remove_postproc=False)
        assert chosen(again) == tiles[number]


def test_sampled_kernels_are_right():
    layer, data = SMALL.layer, SMALL.inputs()
    mod, make = points(layer, GPU)
    for number in np.random.default_rng(0).choice(len(make), 3, replace=False):
        point = make[number]()
        weight, packed = SMALL.weights(chosen(point))
        got = run(kernel_of(point, layer), data[1], packed)[-1]
        np.testing.assert_array_equal(got, SMALL.expected(data[0], weight))
    assert len({str(schedule().trace) for schedule in make[:8]}) == 8
    assert mod.functions


def test_a_sampled_tile_that_does_not_fit_is_refused():
    layer = SMALL.layer
    sch = sampled(workload(layer), tiles_of(layer, GPU), 0)
    sums = sch.get_child_blocks(sch.get_sblock("root"))[1]
    sch.unannotate(sums, CHOICE + "filters")
    sch.annotate(sums, CHOICE + "filters", 512)
    with pytest.raises(ValueError, match="does not fit"):
        kernel_of(sch, layer)


def test_the_rule_gives_the_space():
    alone = stated(SMALL.layer, tiles_of(SMALL.layer, GPU)[0])
    found = TiledConv2d().apply(alone, GPU, True)
    assert len(found) == len(tiles_of(SMALL.layer, GPU))
    fused = engine.unscheduled(load_model(MNIST, "relax"), SM_90)
    spaces = [space for func in fused if (space := TiledConv2d().apply(func, GPU, True))]
    assert [len(space) for space in spaces] == [1, 1]  # weights are packed already


def test_the_gpu_decides_how_many_blocks_pay():
    assert multiprocessors_of(GPU) == 132
    assert multiprocessors_of(tvm.target.Target(TARGET)) == 108
    vgg = LayerOf((1, 64, 224, 224), conv(64, 64, 3, padding=1), pool(2, 2))
    h100, a100 = choose(vgg, GPU), choose(vgg, tvm.target.Target({**SM_90, "arch": "sm_80"}))
    assert h100 != a100


def test_what_is_sent_to_a_gpu_is_compiled(tmp_path):
    layer = SMALL.layer
    _, make = points(layer, GPU)
    export(kernel_of(make[0](), layer), GPU, tmp_path / "trial.so")
    data = (tmp_path / "trial.so").read_bytes()
    assert COMPILED in data
    assert b"__global__" not in data


def records_of(folder, config, seconds):
    """Records that give the n-th tile of each layer of MNIST `seconds[n]`, none of it measured."""
    records = new_records(folder, "relax", config, "made up")
    target = tvm.target.Target({**config, "host": "llvm"})
    for task in tasks_of(engine.unscheduled(load_model(MNIST, "relax"), config), target):
        for make, time in zip(task.schedules, seconds, strict=False):
            records.add(Trial(task.name, task.workload, make(), target), time)
    return records


def test_compile_takes_the_recorded_tile(tmp_path):
    records = records_of(tmp_path / "records", SM_90, [1.0, 1.0, 0.5])
    layers = layers_of(engine.unscheduled(load_model(MNIST, "relax"), SM_90))
    with in_scope(records):
        assert [choose(layer, GPU) for layer in layers] == [tiles_of(la, GPU)[2] for la in layers]
        assert recorded(SMALL.layer, GPU) is None
    command = ["compile", str(MNIST), "--target", "sm_90", "-q"]
    tuned = ["--tuned", str(tmp_path / "records")]
    for name, options in (("plain", ()), ("tuned", tuned)):
        assert main([*command, *options, "-o", str(tmp_path / name)]) == 0
    plain, tuned = (
        json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("plain", "tuned")
    )
    assert tuned["tuned"]["command"] == "made up"
    assert plain["device"]["kernels"].keys() == tuned["device"]["kernels"].keys()
    assert plain["device"]["kernels"] != tuned["device"]["kernels"]


def test_records_for_another_gpu_are_not_applied(tmp_path, capsys):
    records_of(tmp_path / "records", {**SM_90, "arch": "sm_80"}, [1.0])
    options = ["--tuned", str(tmp_path / "records"), "-o", str(tmp_path / "out")]
    assert main(["compile", str(MNIST), "--target", "sm_90", *options]) == 0
    assert "those for the processor sm_80, not sm_90" in capsys.readouterr().out


def test_through_a_tracker_and_a_server(tmp_path):
    """As on a machine with a GPU, but that the server's is PoCL's."""
    tracker = RpcTracker(host="127.0.0.1", port=9190, port_end=9999, silent=True)
    address = ("127.0.0.1", tracker.port)
    server = Server(
        *("127.0.0.1", 9190, 9999),
        tracker_addr=address,
        key="pocl",
        silent=True,
        server_init_callback=register,
    )
    said = []
    try:
        order = Order("opencl", 3, tracker=Tracker(*address, "pocl"))
        tune_model(MNIST, tmp_path / "records", order, lambda *what: said.append(what[2]))
    finally:
        server.terminate()
        tracker.terminate()
    said = [what for what in said if not what.endswith("again")]
    assert len(said) == 3
    assert all(what.endswith(" ms") for what in said), said
    page = json.loads((tmp_path / "records" / PAGE).read_text())
    assert page["trials"] == 3
    assert [row["name"] for row in page["kernels"]] == [
        "1x14x14x16, 36x16x5x5, 2x2",
        "1x28x28x1, 16x1x5x5, 2x2",
    ]
