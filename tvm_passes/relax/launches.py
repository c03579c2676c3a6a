"""Lower scheduled functions for a GPU, and see which kernels they start on how many threads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm.tirx.build import split_host_device_mods

from tvm_passes.cuda.kernels import Dimensions, Launch


@dataclass(frozen=True)
class Lowered:
    """Kernels before code generation, and how they are started, in order.

    Parameters
    ----------
    kernels, target
        For ``target.build``.
    launches
        Of all functions.
    temporaries
        Elements and element type of what functions allocate, by name.
    """

    kernels: tvm.IRModule
    target: tvm.target.Target
    launches: tuple[Launch, ...]
    temporaries: Mapping[str, tuple[int, str]]


def lower(functions: Mapping[str, Any], target: tvm.target.Target) -> Lowered:
    """Lower scheduled functions, by name.

    Parameters
    ----------
    functions
        PrimFuncs of fixed extents, on threads.
    target
        A GPU, with its host.
    """
    named = {
        name: distinct(func).with_attr("global_symbol", name).with_attr("tirx.noalias", True)
        for name, func in functions.items()
    }
    mod = tvm.tirx.transform.BindTarget(target)(tvm.IRModule(named))
    pipeline, _, finalize_device = tvm.tirx.get_default_tir_pipeline(target)
    host, device = split_host_device_mods(pipeline(mod))
    ((device_target, kernels),) = device.items()
    launches: list[Launch] = []
    temporaries: dict[str, tuple[int, str]] = {}
    for gvar, entry in host.functions.items():
        name = str(gvar.name_hint)
        allocated = dict(_allocated(entry))
        temporaries |= allocated
        params = {
            str(p.name): (prod(map(int, p.ty.shape)), str(p.ty.dtype)) for p in named[name].params
        }
        launches += _launches(name, entry, kernels, params | allocated)
    return Lowered(finalize_device()(kernels), device_target, tuple(launches), temporaries)


def distinct(func: Any) -> Any:
    """A function whose arguments have names of their own: fused ones may share some."""
    names = {
        hash(param): tvm.ir.Var(f"p{n}_{param.name}", param.ty)
        for n, param in enumerate(func.params)
    }
    return tvm_ffi.structural_map(func, [(tvm.ir.Var, lambda var: names.get(hash(var), var))])


def _nodes(body: Any, kind: Any) -> Sequence[Any]:
    found: list[Any] = []
    tvm_ffi.structural_walk(body, [(kind, found.append)])
    return found


def _allocated(entry: Any) -> Iterator[tuple[str, tuple[int, str]]]:
    for node in _nodes(entry.body, tvm.tirx.AllocBuffer):
        buffer = node.buffer
        yield str(buffer.name), (prod(int(extent) for extent in buffer.shape), str(buffer.dtype))


def _launches(
    function: str, entry: Any, kernels: tvm.IRModule, buffers: Mapping[str, tuple[int, str]]
) -> Iterator[Launch]:
    for call in _nodes(entry.body, tvm.ir.Call):
        if str(getattr(call.op, "name", "")) != "tirx.call_ffi_kernel":
            continue
        tags = [str(tag) for tag in call.attrs.launch_params]
        name = str(call.args[0].value)
        extents = [int(value) for value in list(call.args)[-len(tags) :]]
        sizes = dict(zip(tags, extents, strict=True))
        names = tuple(re.sub(r"_ptr$", "", str(var.name)) for var in kernels[name].params)
        known = [buffers[item] for item in names if item in buffers]
        total = sum(count * np.dtype(dtype).itemsize for count, dtype in known)
        yield Launch(
            function, name, names, _axes(sizes, "blockIdx"), _axes(sizes, "threadIdx"), total
        )


def _axes(sizes: Mapping[str, int], prefix: str) -> Dimensions:
    x, y, z = (sizes.get(f"{prefix}.{axis}", 1) for axis in "xyz")
    return x, y, z
