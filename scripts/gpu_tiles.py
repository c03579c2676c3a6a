"""Time tiles of GPU kernels, to hold the models that choose among them against a GPU.

``prepare`` compiles some tiles of convolutions, and of the products of Winograd's filtering: those
that the model prefers, and others; without a GPU.  ``time`` runs them, with CuPy alone: the machine
with the GPU needs no TVM.

.venv/relax/bin/python scripts/gpu_tiles.py prepare FOLDER [--arch sm_90]
python scripts/gpu_tiles.py time FOLDER --output gpu-tiles.json
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

PREFERRED, OTHERS, AMONG = 5, 5, 400
"""Tiles of a convolution: the best by the model, and some of the next, no two of as many sums and
threads."""
PRODUCTS = 14
"""Tiles of a product: the best eight, and some of the others in even steps."""
CONVOLUTIONS = {
    "vgg3_3": (256, 256, 56, 3, 1, 1, (2, 2, 0)),
    "vgg1_2": (64, 64, 224, 3, 1, 1, (2, 2, 0)),
    "vgg5_3": (512, 512, 14, 3, 1, 1, (2, 2, 0)),
    "resnet1": (3, 64, 224, 7, 2, 3, None),
    "tinyyolo1": (3, 16, 416, 3, 1, 1, (2, 2, 0)),
    "tinyyolo4": (64, 128, 52, 3, 1, 1, (2, 2, 0)),
    "alexnet1": (3, 64, 224, 11, 4, 2, (3, 2, 0)),
    "googlenet2": (64, 192, 56, 3, 1, 1, None),
    "1x1, 64 to 256, 56": (64, 256, 56, 1, 1, 0, None),
    "1x1, 256 to 64, 56": (256, 64, 56, 1, 1, 0, None),
    "1x1, 1024 to 256, 14": (1024, 256, 14, 1, 1, 0, None),
    "3x3, 128, 28": (128, 128, 28, 3, 1, 1, None),
    "3x3, 512 to 1024, 13": (512, 1024, 13, 3, 1, 1, None),
}
"""Channels, filters, extent, kernel, stride, padding; kernel, stride and padding of a pool."""
FILTERED = {
    "vgg3_3": (4, 256, 56),
    "vgg1_2": (4, 64, 224),
    "vgg2_2": (4, 128, 112),
    "vgg4_3": (4, 512, 28),
    "vgg5_3": (2, 512, 14),
}
"""Outputs of a tile, channels and filters, and extent, of layers before a 2x2 pool."""


def convolutions(gpu: Any) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name of a layer, its scheduled functions, and what is known of each."""
    from tvm_passes.schedules.gpu_conv2d import LayerOf
    from tvm_passes.schedules.gpu_conv2d_rule import schedule
    from tvm_passes.schedules.gpu_space import stated
    from tvm_passes.schedules.gpu_tiles import expected, ranked
    from tvm_passes.schedules.operators import Conv2d, MaxPool2d

    for name, (channels, filters, extent, kernel, stride, pad, pool) in CONVOLUTIONS.items():
        conv = Conv2d(
            channels, filters, 1, (kernel,) * 2, (stride,) * 2, (1, 1), (pad,) * 4, False, block=1
        )
        of = pool and MaxPool2d((pool[0],) * 2, (pool[1],) * 2, (1, 1), (pool[2],) * 4, False)
        layer = LayerOf((1, channels, extent, extent), conv, of)
        tiles = ranked(layer.nest, gpu.multiprocessors)
        others = tiles[PREFERRED:AMONG]
        random.Random(1).shuffle(others)  # noqa: S311 - a sample that is the same again
        kinds = {(tile.accumulators, tile.threads): tile for tile in others[::-1]}
        chosen = [*tiles[:PREFERRED], *islice(reversed(kinds.values()), OTHERS)]
        functions = {
            f"k{n}": schedule(stated(layer, tile)).mod["main"] for n, tile in enumerate(chosen)
        }
        known = {
            f"k{n}": {
                "tile": astuple(tile),
                "seconds_expected": expected(layer.nest, tile, gpu.multiprocessors) / gpu.clock_hz,
            }
            for n, tile in enumerate(chosen)
        }
        yield name, functions, known


def products(gpu: Any) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """As `convolutions`, of the products of Winograd's filtering."""
    from tvm import te

    from tvm_passes.schedules import gpu_winograd_tiles as model
    from tvm_passes.schedules.gpu_winograd import products as stated
    from tvm_passes.schedules.gpu_winograd_rule import schedule
    from tvm_passes.winograd import Winograd

    for name, (outputs, channels, extent) in FILTERED.items():
        family = Winograd(outputs, 3)
        sides = (extent,) * 4
        filtering = model.Filtering(family, 1, channels, channels, *sides, (2, 2))
        tiles = sorted(
            model.candidates(filtering),
            key=lambda tile: model.product_seconds(filtering, tile, gpu),
        )
        best = PRODUCTS // 2 + 1
        step = max(1, (len(tiles) - best) // (PRODUCTS - best))
        functions, known = {}, {}
        for n, tile in enumerate([*tiles[:best], *tiles[best::step]][:PRODUCTS]):
            padded, rows, columns = filtering.padded(tile)
            shape = (family.tile, family.tile, 1, padded)
            data = te.placeholder((*shape, *tile.split_tiles(columns)), name="transformed")
            weight = te.placeholder((*shape, *tile.split_filters(rows)), name="weight")
            func = te.create_prim_func([data, weight, stated(data, weight, tile)])
            functions[f"k{n}"] = schedule(func).mod["main"]
            seconds = model.product_seconds(filtering, tile, gpu)
            known[f"k{n}"] = {"tile": astuple(tile), "seconds_expected": seconds}
        yield f"products of {name}", functions, known


def prepare(folder: Path, arch: str) -> None:
    """Compile for an architecture: of each layer a cubin, and how its kernels are started."""
    import tvm

    from tvm_passes.cuda.compiler import compile_device_code, kernel_compiler
    from tvm_passes.relax.gpu_versions import source_of
    from tvm_passes.relax.launches import lower
    from tvm_passes.schedules.gpu_space import gpu_of

    folder.mkdir(parents=True, exist_ok=True)
    target = tvm.target.Target({"kind": "cuda", "arch": arch, "host": "llvm"})
    gpu, compiler = gpu_of(target), kernel_compiler(arch)
    for number, (name, functions, known) in enumerate([*convolutions(gpu), *products(gpu)]):
        lowered = lower(functions, target)
        code = compile_device_code(compiler.compiler, source_of(lowered), compiler.options)
        for launch in lowered.launches:
            params = functions[launch.function].params
            names = [f"p{n}_{param.name}" for n, param in enumerate(params)]
            shapes = [[int(extent) for extent in param.ty.shape] for param in params]
            known[launch.function] |= {
                "kernel": launch.name,
                "grid": launch.grid,
                "block": launch.block,
                "shapes": [shapes[names.index(buffer)] for buffer in launch.buffers],
                "registers": code.resources[launch.name].registers,
            }
        (folder / f"{number:02}.cubin").write_bytes(code.cubin)
        text = json.dumps({"layer": name, "kernels": known})
        (folder / f"{number:02}.json").write_text(text + "\n")
        print(f"{name}: {len(known)} kernels", flush=True)


def seconds(cupy: Any, start: Callable[[], object], calls: int = 20, rounds: int = 7) -> float:
    """Median of a kernel's seconds in a CUDA graph of so many."""
    with cupy.cuda.Stream(non_blocking=True) as stream:
        start()
        stream.synchronize()
        stream.begin_capture()
        for _ in range(calls):
            start()
        graph = stream.end_capture()
        times = []
        for _ in range(rounds + 1):
            before, after = cupy.cuda.Event(), cupy.cuda.Event()
            before.record(stream)
            graph.launch()
            after.record(stream)
            after.synchronize()
            times.append(cupy.cuda.get_elapsed_time(before, after) * 1e-3 / calls)
    return statistics.median(times[1:])


def timed(cupy: Any, path: Path, kernels: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Run the kernels of a layer on random data."""
    module = cupy.RawModule(path=str(path))
    for known in kernels.values():
        shapes = known.pop("shapes")
        arrays = [cupy.random.standard_normal(shape, dtype=np.float32) for shape in shapes]
        function = module.get_function(known["kernel"])
        grid, block = tuple(known["grid"]), tuple(known["block"])
        run = lambda f=function, g=grid, b=block, a=tuple(arrays): f(g, b, a)  # noqa: E731
        yield {"seconds": seconds(cupy, run), **known}


def time_all(folder: Path, output: Path) -> None:
    """Time what was prepared."""
    import cupy

    nothing = cupy.RawKernel('extern "C" __global__ void nothing() {}', "nothing")
    device = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    found: dict[str, Any] = {
        "gpu": device,
        "empty_kernel_s": seconds(cupy, lambda: nothing((1,), (32,), ()), 100),
        "layers": {},
    }
    for path in sorted(folder.glob("*.json")):
        stated = json.loads(path.read_text())
        rows = list(timed(cupy, path.with_suffix(".cubin"), stated["kernels"]))
        found["layers"][stated["layer"]] = rows
        output.write_text(json.dumps(found, indent=1) + "\n")
        print(f"{stated['layer']}: {1e6 * min(row['seconds'] for row in rows):.1f} us", flush=True)


def main() -> None:
    """Prepare, or time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("do", choices=("prepare", "time"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--arch", default="sm_90")
    parser.add_argument("--output", type=Path, default=Path("gpu-tiles.json"))
    options = parser.parse_args()
    if options.do == "prepare":
        prepare(options.folder, options.arch)
    else:
        time_all(options.folder, options.output)


if __name__ == "__main__":
    main()
