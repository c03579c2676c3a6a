"""Compare the kernels of VGG16's 3x3 layers with and without Winograd's filtering, without a GPU.

Each layer, with its bias, relu and pool, is compiled both ways and its machine code counted, as
`tvm-reorder bench --static` does.

.venv/relax/bin/python scripts/gpu_winograd.py [--gpus a100,h100] [--output gpu-winograd.json]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvm_passes.cuda.compiler import KernelCompiler, kernel_compiler
from tvm_passes.cuda.gpu import Gpu, read_gpu
from tvm_passes.cuda.static import WINOGRAD, VersionReport, report_version
from tvm_passes.relax.gpu_conv2d import TileConv2d
from tvm_passes.remarks import Remark

LAYERS = {
    "conv1_1": (3, 64, 224, False),
    "conv1_2": (64, 64, 224, True),
    "conv2_1": (64, 128, 112, False),
    "conv2_2": (128, 128, 112, True),
    "conv3_1": (128, 256, 56, False),
    "conv3_2": (256, 256, 56, False),
    "conv3_3": (256, 256, 56, True),
    "conv4_1": (256, 512, 28, False),
    "conv4_2": (512, 512, 28, False),
    "conv4_3": (512, 512, 28, True),
    "conv5_1": (512, 512, 14, False),
    "conv5_3": (512, 512, 14, True),
}
"""Channels, filters, rows and columns, and whether a 2x2 pool follows."""


def module(
    channels: int, filters: int, extent: int, *, pooled: bool, layout: str = "NCHW"
) -> tvm.IRModule:
    """A layer in Relax, its weights random."""
    rng = np.random.default_rng(0)
    nn = relax.op.nn
    sides = {"N": 1, "C": channels, "H": extent, "W": extent}
    x = relax.Var("x", relax.TensorType([sides[letter] for letter in layout], "float32"))
    weight = rng.standard_normal((filters, channels, 3, 3)).astype("float32")
    bias = rng.standard_normal((1, filters, 1, 1)).astype("float32")
    bias = bias.reshape([filters if letter == "C" else 1 for letter in layout])
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            value = builder.emit(
                nn.conv2d(x, relax.const(weight), padding=(1, 1), data_layout=layout)
            )
            value = builder.emit(relax.op.add(value, relax.const(bias)))
            value = builder.emit(nn.relu(value))
            if pooled:
                value = builder.emit(nn.max_pool2d(value, (2, 2), (2, 2), layout=layout))
            value = builder.emit_output(value)
        builder.emit_func_output(value)
    return builder.get()


def entry(report: VersionReport) -> dict[str, Any]:
    """What is shown of a version."""
    return {
        "kernels": len(report.kernels),
        "registers": max(kernel.taken.registers for kernel in report.kernels),
        "shared_bytes": max(kernel.taken.shared for kernel in report.kernels),
        "spill_bytes": report.spilled,
        "bank_conflicts": report.conflicts,
        "ffma": report.instructions()["FFMA"],
        "unique_bytes": report.unique_bytes,
        "seconds": report.seconds,
        "of_each": [kernel.estimate.seconds for kernel in report.kernels],
        "bounds": [kernel.estimate.bound for kernel in report.kernels],
        "finished": all(kernel.counts.finished for kernel in report.kernels),
    }


def family_of(mod: tvm.IRModule, gpu: Gpu) -> str:
    """The tile that was chosen for a layer; empty where it is summed as written."""
    remarks: list[Remark] = []
    with tvm.target.Target({"kind": "cuda", "arch": gpu.arch, "host": "llvm"}):
        TileConv2d(on_remark=remarks.append, allow={WINOGRAD})(mod)
    return remarks[0].message.split(" by ")[1].split(", which")[0] if remarks else ""


def compared(gpu: Gpu, compiler: KernelCompiler) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each layer both ways."""
    for name, (channels, filters, extent, pooled) in LAYERS.items():
        mod = module(channels, filters, extent, pooled=pooled)
        found: dict[str, Any] = {"family": family_of(mod, gpu)}
        for version in ("fused", WINOGRAD) if found["family"] else ("fused",):
            found[version] = entry(report_version(mod, gpu, version, compiler))
        yield name, found


def row(name: str, found: dict[str, Any]) -> str:
    """A line of the table."""
    channels, filters, extent, pooled = LAYERS[name]
    layer = f"{name}: {channels}→{filters}, {extent}²{', pool' if pooled else ''}"
    cells = [layer, found["family"] or "as written"]
    for key, scale in (("registers", 1), ("ffma", 1e6), ("unique_bytes", 1e6), ("seconds", 1e-6)):
        for version in ("fused", WINOGRAD):
            value = found.get(version)
            digits = 0 if scale == 1 else 1
            cells.append(f"{value[key] / scale:.{digits}f}" if value else "")
    ratio = found["fused"]["seconds"] / found[WINOGRAD]["seconds"] if WINOGRAD in found else 1.0
    return f"| {' | '.join([*cells, f'{ratio:.2f}'])} |"


def main() -> None:
    """Print tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", default="a100,h100")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    document: dict[str, Any] = {}
    for gpu in map(read_gpu, options.gpus.split(",")):
        compiler = kernel_compiler(gpu.arch)
        names = ("regs", "M FFMA", "MB", "least µs")
        header = [
            "layer",
            "chosen",
            *(f"{n}{w}" for n in names for w in ("", ", Winograd")),
            "ratio",
        ]
        print(f"\n{gpu.name}\n\n| {' | '.join(header)} |\n|{' --- |' * len(header)}")
        for name, found in compared(gpu, compiler):
            document[f"{name}, {gpu.arch}"] = found
            print(row(name, found), flush=True)
            if options.output is not None:
                options.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
