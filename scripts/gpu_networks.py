"""Compile whole networks for GPUs, and check that every kernel is on threads and fits.

.venv/relax/bin/python scripts/gpu_networks.py [--arch sm_80,sm_90] [--output gpu-networks.json]
    [--version winograd]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import tvm

from tvm_passes.bench.networks import NETWORKS, write_network
from tvm_passes.cuda.compiler import DeviceCode, compile_device_code, kernel_compiler
from tvm_passes.frontends import load_model
from tvm_passes.relax.gpu_versions import functions_of, scheduled, source_of
from tvm_passes.relax.launches import Launch, lower


def check(mod: tvm.IRModule, arch: str, version: str) -> dict[str, Any]:
    """Compile all kernels of a network for an architecture; what they are, and what is wrong."""
    start = time.perf_counter()
    target = tvm.target.Target({"kind": "cuda", "arch": arch, "host": "llvm"})
    functions = functions_of(scheduled(mod, target, version))
    lowered = lower(functions, target)
    compiler = kernel_compiler(arch)
    code = compile_device_code(compiler.compiler, source_of(lowered), compiler.options)
    wrong = list(faults(set(functions), lowered.launches, code))
    return {
        "kernels": len(lowered.launches),
        "registers": max(taken.registers for taken in code.resources.values()),
        "spill_bytes": sum(taken.spill_stores for taken in code.resources.values()),
        "wrong": wrong,
        "seconds": round(time.perf_counter() - start, 1),
    }


def faults(functions: set[str], launches: tuple[Launch, ...], code: DeviceCode) -> Iterator[str]:
    """Functions without a kernel, and kernels on one thread."""
    for name in functions - {launch.function for launch in launches}:
        yield f"{name} starts no kernel"
    for launch in launches:
        if prod(launch.grid) * prod(launch.block) == 1:
            yield f"{launch.name} is on one thread"
        if launch.name not in code.resources:
            yield f"{launch.name} was not compiled"


def main() -> int:
    """Check them all; the exit code is 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default="sm_80,sm_90")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--version", default="fused", choices=("fused", "winograd"))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.networks.split(","):
            path = Path(folder) / f"{name}.onnx"
            write_network(name, path)
            mod = load_model(path, "relax")
            for arch in options.arch.split(","):
                found[f"{name}, {arch}"] = check(mod, arch, options.version)
                print(f"{name}, {arch}: {found[f'{name}, {arch}']}", flush=True)
                if options.output is not None:
                    options.output.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if any(entry["wrong"] for entry in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
