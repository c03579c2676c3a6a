"""Relax: what is measured to find the tiles of GPU kernels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import tvm

from tvm_passes.cuda.compiler import kernel_compiler
from tvm_passes.namespaces import Schedule
from tvm_passes.relax import opencl
from tvm_passes.relax.device_code import compiled_by, mark_compiled
from tvm_passes.schedules.gpu_conv2d import LayerOf
from tvm_passes.schedules.gpu_conv2d_rule import schedule
from tvm_passes.schedules.gpu_space import chosen, layer_in, sampled, stated, tiles_of, workload
from tvm_passes.schedules.tuned import NAME
from tvm_passes.target import OPENCL


def layers_of(kernels: Sequence[Any]) -> list[LayerOf]:
    """The layers that unscheduled functions compute, each once."""
    found = [layer_in(func) for func in kernels]
    return list(dict.fromkeys(layer for layer, _ in filter(None, found)))


def points(layer: LayerOf, target: Any) -> tuple[tvm.IRModule, list[Any]]:
    """A layer's workload, and what makes each point of its space, the most promising first."""
    mod, tiles = workload(layer), tiles_of(layer, target)
    return mod, [partial(sampled, mod, tiles, number) for number in range(len(tiles))]


def kernel_of(point: Schedule, layer: LayerOf) -> Any:
    """The scheduled PrimFunc that a point of the space stands for.

    Raises
    ------
    ValueError
        If its tile does not fit the layer.
    """
    tile = chosen(point)
    if tile is None:
        raise ValueError("the sampled tile does not fit the layer")
    return schedule(stated(layer, tile)).mod[NAME]


def export(func: Any, target: Any, path: Path) -> None:
    """Compile a scheduled PrimFunc, and link it for a machine that loads it, of this one's kind.

    Raises
    ------
    TvmPassesError
        If a GPU could not start its kernel.
    """
    if str(target.kind.name) == OPENCL:
        built = tvm.compile(opencl.host_function(func, target), target="llvm")
        built.export_library(str(path))
        return
    with compiled_by(kernel_compiler(str(target.attrs["arch"]))):
        built = tvm.compile(func, target=target)
    built.export_library(str(path))
    mark_compiled(path)
