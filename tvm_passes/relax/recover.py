"""Relax: ops again, where an importer called their kernels: ONNX's Clip and Pad."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import tvm
import tvm_ffi
from tvm import relax

from tvm_passes.namespaces import BufferLoad
from tvm_passes.relax.blocks import map_dataflow_blocks
from tvm_passes.relax.convolution import op_name
from tvm_passes.relax.nodes import items

CALL = "relax.call_tir"
Op = Callable[..., relax.Call]
SELECTIONS: tuple[Op, ...] = (relax.op.maximum, relax.op.minimum)


@tvm.transform.module_pass(opt_level=0, name="RecoverOps")
class RecoverOps:
    """Call ``maximum``, ``minimum`` and ``nn.pad`` where their kernels are called.

    TVM's ONNX importer writes Clip and Pad as calls of kernels, which no pass looks into.  A kernel
    is known by what it computes: it is what TVM makes of the op for these arguments.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite every function that calls such a kernel."""
        mod = relax.transform.FoldConstant()(mod)  # Clip's bounds, unless they are NaN
        builder = relax.BlockBuilder(mod)
        for gvar, func in mod.functions.items():
            if isinstance(func, relax.Function):
                new = map_dataflow_blocks(func, partial(_recovered, mod=mod), builder)
                if not new.same_as(func):
                    builder.update_func(gvar, new)
        return relax.transform.DeadCodeElimination()(builder.finalize())


def _recovered(block: relax.DataflowBlock, mod: tvm.IRModule) -> relax.DataflowBlock:
    bindings, changed = [], False
    for binding in block.bindings:
        op = _op_of(getattr(binding, "value", None), mod)
        if op is None:
            bindings.append(binding)
            continue
        call = relax.BlockBuilder().normalize(op(*binding.value.args[1].fields))
        bindings.append(relax.VarBinding(binding.var, call, binding.span))
        changed = True
    return relax.DataflowBlock(bindings, block.span) if changed else block


def _op_of(value: Any, mod: tvm.IRModule) -> Op | None:
    """The op of one or two tensors whose kernel a call calls, or None."""
    if not isinstance(value, relax.Call) or op_name(value) != CALL or len(value.args) != 2:
        return None
    kernel, args = _bare(mod[value.args[0]]), value.args[1]
    if not isinstance(args, relax.Tuple):
        return None
    types = [arg.ty for arg in args.fields]
    candidates: Iterator[Op] = iter(())
    if len(types) == 2:
        candidates = iter(SELECTIONS)
    elif len(types) == 1:
        candidates = _of_one_tensor(kernel, types[0], value.ty)
    return next((op for op in candidates if _is_kernel_of(kernel, op, types)), None)


def _of_one_tensor(
    kernel: tvm.tirx.PrimFunc, data: relax.TensorType, result: tvm.ir.Type
) -> Iterator[Op]:
    """What a kernel may be, by the number it holds and where it reads its tensor."""
    reads, numbers = _reads_and_numbers(kernel)
    for number in numbers:
        for op in SELECTIONS:
            yield partial(_with_number, op, number)
    before = _offsets(reads[0]) if len(reads) == 1 else []
    extents = _extents(data), _extents(result)
    if not len(before) == len(extents[0]) == len(extents[1]):
        return
    after = [large - small - n for n, small, large in zip(before, *extents, strict=True)]
    widths = [n for pair in zip(before, after, strict=True) for n in pair]
    for number in numbers:
        yield partial(relax.op.nn.pad, pad_width=widths, pad_mode="constant", pad_value=number)


def _extents(ty: tvm.ir.Type) -> list[int]:
    """The extents of a tensor of the type; none where one is symbolic."""
    shape = getattr(ty, "shape", None)
    extents = list(shape.values) if isinstance(shape, relax.ShapeExpr) else []
    known = all(isinstance(extent, tvm.tirx.IntImm) for extent in extents)
    return [extent.value for extent in extents] if known else []


def _with_number(op: Op, number: float, data: relax.Expr) -> relax.Call:
    return op(data, relax.const(number, data.ty.dtype.dtype))


def _reads_and_numbers(kernel: tvm.tirx.PrimFunc) -> tuple[list[Any], list[float]]:
    """Where a kernel loads from memory, and the floating-point numbers in it."""
    reads: list[Any] = []
    numbers: list[float] = []
    callbacks = [
        (BufferLoad, reads.append),
        (tvm.tirx.FloatImm, lambda node: numbers.append(node.value)),
    ]
    tvm_ffi.structural_walk(kernel.body, callbacks)
    return reads, numbers


def _offsets(read: Any) -> list[int]:
    """What is subtracted from each axis's variable in the place of a read; nothing if more is."""
    offsets: list[int] = []
    for index in items(read.indices):
        if isinstance(index, tvm.tirx.Var):
            offsets.append(0)
        elif isinstance(index, tvm.tirx.Sub) and isinstance(index.b, tvm.tirx.IntImm):
            offsets.append(int(index.b.value))
        else:
            return []
    return offsets


def _is_kernel_of(kernel: tvm.tirx.PrimFunc, op: Op, types: Sequence[relax.TensorType]) -> bool:
    params = [relax.Var(f"p{n}", ty) for n, ty in enumerate(types)]
    builder = relax.BlockBuilder()
    with builder.function("main", params):
        builder.emit_func_output(builder.emit(op(*params)))
    legal = relax.transform.LegalizeOps()(builder.get())
    made = [_bare(func) for func in legal.functions.values() if isinstance(func, tvm.tirx.PrimFunc)]
    return any(tvm_ffi.structural_equal(kernel, func) for func in made)


def _bare(kernel: tvm.tirx.PrimFunc) -> tvm.tirx.PrimFunc:
    return kernel.without_attr("global_symbol") if kernel.attrs else kernel
