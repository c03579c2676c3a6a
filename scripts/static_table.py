"""Print the README's table of what GPU kernels of both orders execute, without a GPU.

.venv/relax/bin/python scripts/static_table.py [--gpu h100]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from tvm_passes.cuda.compiler import kernel_compiler
from tvm_passes.cuda.gpu import read_gpu
from tvm_passes.cuda.static import VERSIONS, VersionReport, report_version

KINDS = ("FMNMX", "MUFU", "FFMA", "LDG", "STG", "LDS", "BAR")
ACTIVATIONS = {"relu": relax.op.nn.relu, "sigmoid": relax.op.sigmoid}


@dataclass(frozen=True)
class Block:
    """conv2d, bias, activation, max-pool of [1, channels, extent, extent]."""

    channels: int
    filters: int
    extent: int
    kernel: int
    stride: int
    pool: tuple[int, int, int]

    def module(self, activation: Callable[[relax.Expr], relax.Expr]) -> tvm.IRModule:
        """The block in Relax, in its original order."""
        rng = np.random.default_rng(0)
        shape = (1, self.channels, self.extent, self.extent)
        x = relax.Var("x", relax.TensorType(shape, "float32"))
        weight = rng.standard_normal((self.filters, self.channels, self.kernel, self.kernel))
        bias = rng.standard_normal((1, self.filters, 1, 1))
        builder = relax.BlockBuilder()
        size, step, padding = self.pool
        with builder.function("main", [x]):
            with builder.dataflow():
                value = relax.op.nn.conv2d(
                    x,
                    relax.const(weight.astype("float32")),
                    (self.stride,) * 2,
                    (self.kernel // 2,) * 2,
                )
                value = relax.op.add(builder.emit(value), relax.const(bias.astype("float32")))
                value = builder.emit(activation(builder.emit(value)))
                value = relax.op.nn.max_pool2d(value, (size,) * 2, (step,) * 2, (padding,) * 2)
                value = builder.emit_output(builder.emit(value))
            builder.emit_func_output(value)
        return builder.get()


BLOCKS = {
    "MNIST conv1": Block(1, 16, 28, 5, 1, (2, 2, 0)),
    "VGG conv1_2": Block(64, 64, 224, 3, 1, (2, 2, 0)),
    "ResNet stem": Block(3, 64, 224, 7, 2, (3, 2, 1)),
}


def row(name: str, activation: str, report: VersionReport) -> Sequence[str]:
    """One version of one block."""
    counts = report.instructions()
    registers = max(kernel.taken.registers for kernel in report.kernels)
    occupancy = min(kernel.occupancy for kernel in report.kernels)
    thousands = [f"{counts[kind] / 1e3:,.0f}" for kind in KINDS]
    return (
        name,
        activation,
        report.version,
        str(len(report.kernels)),
        str(registers),
        f"{occupancy:.0%}",
        str(report.spilled),
        f"{report.conflicts:.1%}",
        *thousands,
        f"{sum(counts.values()) / 1e3:,.0f}",
        f"{report.requested_bytes / 1e6:,.1f}",
        f"{report.unique_bytes / 1e6:,.1f}",
        f"{report.seconds * 1e6:,.1f}",
    )


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", default="h100")
    gpu = read_gpu(parser.parse_args().gpu)
    compiler = kernel_compiler(gpu.arch)
    header = (
        "block",
        "activation",
        "version",
        "kernels",
        "regs",
        "occ.",
        "spills",
        "conflicts",
        *KINDS,
    )
    header = (*header, "all", "MB req.", "MB once", "least µs")
    print(f"| {' | '.join(header)} |")
    print(f"|{' --- |' * len(header)}")
    for name, block in BLOCKS.items():
        for activation, op in ACTIVATIONS.items():
            for version in VERSIONS:
                report = report_version(block.module(op), gpu, version, compiler)
                print(f"| {' | '.join(row(name, activation, report))} |", flush=True)


if __name__ == "__main__":
    main()
