"""The convolutions of a Relay module that Winograd's filtering can compute, and what feeds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm
from tvm import relay

from tvm_passes.relay.build import passes_before_blocks
from tvm_passes.relay.convolution import CONV2D, op_name, read_conv2d, weight_of
from tvm_passes.relay.nodes import nodes_of
from tvm_passes.schedules.families import Convolution, is_filtered
from tvm_passes.schedules.machine import block_of, machine_of
from tvm_passes.schedules.operators import Conv2d


def convolutions(
    mod: tvm.IRModule, target: Mapping[str, Any]
) -> tuple[list[Convolution], tvm.IRModule]:
    """Those of ``main`` that its inputs lead to, and a module that returns what each reads."""
    block = block_of(machine_of(tvm.target.Target(dict(target))))
    with tvm.transform.PassContext(opt_level=3):
        mod = tvm.transform.Sequential(passes_before_blocks())(mod)
    mod = relay.transform.InferType()(mod)
    arguments = {str(param.name_hint) for param in mod["main"].params}
    found: list[Convolution] = []
    reads: list[relay.Expr] = []
    calls = [expr for expr, _ in nodes_of(mod["main"].body) if op_name(expr) == CONV2D]
    for count, call in enumerate(calls):
        conv, free = read_conv2d(call, block), relay.analysis.free_vars(call.args[0])
        reachable = {str(var.name_hint) for var in free} <= arguments
        if isinstance(conv, Conv2d) and is_filtered(conv) and reachable:
            found.append(Convolution(f"main/{CONV2D}#{count}", CONV2D, conv, weight_of(call)))
            reads.append(call.args[0])
    body = relay.Tuple(reads)
    func = relay.Function(relay.analysis.free_vars(body), body)
    return found, relay.transform.InferType()(tvm.IRModule.from_expr(func))
