"""The convolutions of a Relax module that Winograd's filtering can compute, and what feeds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm
from tvm import relax

from tvm_passes.relax.convolution import CONV2D, op_name, read_conv2d, weight_of
from tvm_passes.relax.pipeline import passes_before_blocks
from tvm_passes.schedules.families import Convolution, is_filtered
from tvm_passes.schedules.machine import block_of, machine_of
from tvm_passes.schedules.operators import Conv2d


def convolutions(
    mod: tvm.IRModule, target: Mapping[str, Any]
) -> tuple[list[Convolution], tvm.IRModule]:
    """Those in blocks of ``main``, and a module whose ``main`` returns what each of them reads."""
    block = block_of(machine_of(tvm.target.Target(dict(target))))
    mod = tvm.transform.Sequential(passes_before_blocks())(mod)
    main = mod["main"]
    found: list[Convolution] = []
    blocks: list[relax.BindingBlock] = []
    results: list[relax.Var] = []
    count = 0
    for old in main.body.blocks:
        copies = []
        for binding in old.bindings:
            if not isinstance(binding, relax.VarBinding) or op_name(binding.value) != CONV2D:
                continue
            conv = read_conv2d(binding.value, block)
            if isinstance(conv, Conv2d) and is_filtered(conv):
                site = f"main/{CONV2D}#{count}"
                found.append(Convolution(site, CONV2D, conv, weight_of(binding.value)))
                data = binding.value.args[0]
                copies.append(relax.VarBinding(relax.Var("read", data.ty), data))
            count += 1
        blocks.append(type(old)([*old.bindings, *copies]))
        results += [binding.var for binding in copies]
    body = relax.SeqExpr(blocks, relax.Tuple(results))
    result = relax.TupleType([var.ty for var in results])
    func = relax.Function(main.params, body, result, main.is_pure, main.attrs)
    feeding = tvm.IRModule(dict(mod.functions.items()), attrs=mod.attrs)
    feeding.update_func(mod.get_global_var("main"), func)
    return found, relax.transform.Normalize()(feeding)
