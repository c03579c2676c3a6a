"""Relax: ops again, where an importer called their kernels: ONNX's Clip."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import tvm
import tvm_ffi
from tvm import relax

from tvm_passes.relax.blocks import map_dataflow_blocks
from tvm_passes.relax.convolution import op_name

CALL = "relax.call_tir"
OPS: tuple[Callable[..., relax.Call], ...] = (relax.op.maximum, relax.op.minimum)


@tvm.transform.module_pass(opt_level=0, name="RecoverClip")
class RecoverClip:
    """Call ``maximum`` and ``minimum`` where their kernels are called.

    TVM's ONNX importer writes Clip as calls of two kernels, which no pass looks into.  A kernel is
    known by what it computes: it is what TVM makes of the op for these arguments.
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


def _op_of(value: Any, mod: tvm.IRModule) -> Callable[..., relax.Call] | None:
    """The op whose kernel a call of two tensors calls, or None."""
    if not isinstance(value, relax.Call) or op_name(value) != CALL or len(value.args) != 2:
        return None
    kernel, args = _bare(mod[value.args[0]]), value.args[1]
    if not isinstance(args, relax.Tuple) or len(args.fields) != 2:
        return None
    types = [arg.ty for arg in args.fields]
    return next((op for op in OPS if _is_kernel_of(kernel, op, types)), None)


def _is_kernel_of(
    kernel: tvm.tirx.PrimFunc, op: Callable[..., relax.Call], types: list[relax.TensorType]
) -> bool:
    params = [relax.Var(f"p{n}", ty) for n, ty in enumerate(types)]
    builder = relax.BlockBuilder()
    with builder.function("main", params):
        builder.emit_func_output(builder.emit(op(*params)))
    legal = relax.transform.LegalizeOps()(builder.get())
    made = [_bare(func) for func in legal.functions.values() if isinstance(func, tvm.tirx.PrimFunc)]
    return any(tvm_ffi.structural_equal(kernel, func) for func in made)


def _bare(kernel: tvm.tirx.PrimFunc) -> tvm.tirx.PrimFunc:
    return kernel.without_attr("global_symbol") if kernel.attrs else kernel
