"""Relax: kernels of convolutions whose result leaves blocks of channels write it as it leaves.

One kernel computes ``unblocked(conv2d(x, w))``: it takes a row out of blocks while that is in L1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tvm
from tvm import relax

from tvm_passes.namespaces import tir
from tvm_passes.relax.blocks import map_dataflow_blocks, only_reader
from tvm_passes.relax.convolution import op_name
from tvm_passes.schedules.rules import may_store_plain


@tvm.transform.module_pass(opt_level=1, name="StorePlain")
class StorePlain:
    """Put each PrimFunc that unblocks what one convolution's kernel alone gives into that kernel.

    Runs behind FuseOps and FuseTIR, which have appended biases and activations.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite every function."""
        builder = relax.BlockBuilder(mod)
        changed = False
        for gvar, func in mod.functions.items():
            if isinstance(func, relax.Function):
                new = map_dataflow_blocks(func, lambda old: _merged(old, mod, builder), builder)
                changed |= not new.same_as(func)
                builder.update_func(gvar, new)
        if not changed:
            return mod
        then = [relax.transform.FuseTIR(), relax.transform.DeadCodeElimination()]
        return tvm.transform.Sequential(then)(builder.finalize())


def _merged(
    old: relax.DataflowBlock, mod: tvm.IRModule, builder: relax.BlockBuilder
) -> relax.DataflowBlock:
    users = relax.analysis.udchain(old)
    bound = {hash(binding.var): binding for binding in old.bindings}
    pairs = {hash(one.var): other for one, other in _pairs(old, users, bound, mod)}
    if not pairs:
        return old
    taken = {hash(other.var) for other in pairs.values()}
    bindings = []
    for binding in old.bindings:
        if hash(binding.var) in pairs:
            other = pairs[hash(binding.var)]
            bindings.append(relax.VarBinding(other.var, _call(binding, other, builder)))
        elif hash(binding.var) not in taken:
            bindings.append(binding)
    return relax.DataflowBlock(bindings, old.span)


def _pairs(
    block: relax.DataflowBlock, users: Any, bound: dict[int, relax.Binding], mod: tvm.IRModule
) -> Iterator[tuple[relax.VarBinding, relax.VarBinding]]:
    """Calls of convolutions' kernels, each with the one that takes its result out of blocks."""
    for binding in block.bindings:
        other = only_reader(binding.var, users, bound)
        if other is None or not isinstance(binding, relax.VarBinding):
            continue
        kernel, reader = _called(binding, mod), _called(other, mod)
        if kernel is not None and reader is not None and may_store_plain(kernel, reader):
            yield binding, other


def _called(binding: relax.VarBinding, mod: tvm.IRModule) -> Any | None:
    """The PrimFunc that a binding calls, if it calls one."""
    value = binding.value
    if op_name(value) != "relax.call_tir" or len(value.args) != 2:  # the third is symbolic shapes
        return None
    func = mod[value.args[0]]
    return func if isinstance(func, tir.PrimFunc) else None


def _call(
    kernel: relax.VarBinding, reader: relax.VarBinding, builder: relax.BlockBuilder
) -> relax.Call:
    """A call of a function of both, which FuseTIR makes one PrimFunc of."""
    args = list(kernel.value.args[1].fields)
    params = [relax.Var(f"p{n}", arg.ty) for n, arg in enumerate(args)]
    inner = relax.DataflowVar("blocked", kernel.var.ty)
    result = relax.Var("plain", reader.var.ty)
    calls = (
        relax.VarBinding(inner, _with_args(kernel.value, params)),
        relax.VarBinding(result, _with_args(reader.value, [inner])),
    )
    body = relax.SeqExpr([relax.DataflowBlock(calls)], result)
    attrs = tvm.ir.make_node("ir.DictAttrs", Primitive=True)
    func = relax.Function(params, body, reader.var.ty, attrs=attrs)
    gvar = builder.add_func(func, str(kernel.value.args[0].name_hint))
    return relax.Call(gvar, args)


def _with_args(call: relax.Call, args: list[relax.Expr]) -> relax.Call:
    return relax.Call(call.op, [call.args[0], relax.Tuple(args)], call.attrs, call.ty_args)
