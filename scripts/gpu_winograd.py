"""Compare the kernels of 3x3 layers with and without Winograd's filtering, without a GPU.

Each layer of VGG16, and each grouped one of AlexNet, is compiled both ways with its bias, relu and
pool, and its machine code counted, as `tvm-reorder bench --static` does.

.venv/relax/bin/python scripts/gpu_winograd.py [--gpus a100,h100] [--output gpu-winograd.json]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Layer:
    """A 3x3 convolution of one image, padded by one on all sides, with bias and relu behind it.

    Parameters
    ----------
    channels, filters
        Of the data and of the result.
    extent
        Rows, and columns.
    pooled
        Whether a 2x2 max-pool follows.
    groups
        Of channels and filters.
    """

    channels: int
    filters: int
    extent: int
    pooled: bool = False
    groups: int = 1

    def __str__(self) -> str:
        """As tables have it."""
        groups = f", {self.groups} groups" if self.groups > 1 else ""
        pool = ", pool" if self.pooled else ""
        return f"{self.channels}→{self.filters}, {self.extent}²{groups}{pool}"

    def module(self, layout: str = "NCHW") -> tvm.IRModule:
        """The layer in Relax, its weights random."""
        rng = np.random.default_rng(0)
        nn = relax.op.nn
        sides = {"N": 1, "C": self.channels, "H": self.extent, "W": self.extent}
        x = relax.Var("x", relax.TensorType([sides[letter] for letter in layout], "float32"))
        shape = (self.filters, self.channels // self.groups, 3, 3)
        weight = relax.const(rng.standard_normal(shape).astype("float32"))
        bias = rng.standard_normal((1, self.filters, 1, 1)).astype("float32")
        bias = bias.reshape([self.filters if letter == "C" else 1 for letter in layout])
        builder = relax.BlockBuilder()
        with builder.function("main", [x]):
            with builder.dataflow():
                value = builder.emit(
                    nn.conv2d(x, weight, padding=(1, 1), groups=self.groups, data_layout=layout)
                )
                value = builder.emit(relax.op.add(value, relax.const(bias)))
                value = builder.emit(nn.relu(value))
                if self.pooled:
                    value = builder.emit(nn.max_pool2d(value, (2, 2), (2, 2), layout=layout))
                value = builder.emit_output(value)
            builder.emit_func_output(value)
        return builder.get()


LAYERS = {
    "conv1_1": Layer(3, 64, 224),
    "conv1_2": Layer(64, 64, 224, pooled=True),
    "conv2_1": Layer(64, 128, 112),
    "conv2_2": Layer(128, 128, 112, pooled=True),
    "conv3_1": Layer(128, 256, 56),
    "conv3_2": Layer(256, 256, 56),
    "conv3_3": Layer(256, 256, 56, pooled=True),
    "conv4_1": Layer(256, 512, 28),
    "conv4_2": Layer(512, 512, 28),
    "conv4_3": Layer(512, 512, 28, pooled=True),
    "conv5_1": Layer(512, 512, 14),
    "conv5_3": Layer(512, 512, 14, pooled=True),
    "alexnet conv4": Layer(384, 384, 13, groups=2),
    "alexnet conv5": Layer(384, 256, 13, groups=2),
}
"""Of VGG16, and the grouped ones of AlexNet."""


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
    (remark,) = remarks
    return remark.message.split(" by ")[1].split(", which")[0] if remark.reason == WINOGRAD else ""


def compared(gpu: Gpu, compiler: KernelCompiler) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each layer both ways."""
    for name, layer in LAYERS.items():
        mod = layer.module()
        found: dict[str, Any] = {"family": family_of(mod, gpu)}
        for version in ("fused", WINOGRAD) if found["family"] else ("fused",):
            found[version] = entry(report_version(mod, gpu, version, compiler))
        yield name, found


def row(name: str, found: dict[str, Any]) -> str:
    """A line of the table."""
    cells = [f"{name}: {LAYERS[name]}", found["family"] or "as written"]
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
