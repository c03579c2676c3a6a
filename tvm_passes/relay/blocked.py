"""Relay: conv2d as blocked kernels that take the max-pool, bias and activation along.

    f(max_pool2d(conv2d(x, w)) + b) = one kernel, which never stores the un-pooled result

Values stay blocked, [n, c/b, h, w, b], from one kernel to the next, through elementwise ops, pools
and concatenations, which TVM schedules; at the edges they are packed and unpacked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import tvm
from tvm import relay

from tvm_passes.blocked import Blocked
from tvm_passes.decline import Decline
from tvm_passes.relay.blocked_layer import layer
from tvm_passes.relay.blocked_ops import OPS
from tvm_passes.relay.blocked_values import Values
from tvm_passes.relay.convolution import CONV2D, op_name
from tvm_passes.relay.kernels import Kernels, register_codegen
from tvm_passes.relay.layers import Layer, layers_of
from tvm_passes.relay.nodes import is_opaque, key, nodes_of, with_children
from tvm_passes.relay.plain import store_plain
from tvm_passes.remarks import ChosenKernels, Remark
from tvm_passes.schedules.algorithm import Chooser
from tvm_passes.schedules.families import NONE_BARRED, Barred
from tvm_passes.schedules.machine import machine_of

PASS_NAME = "BlockConv2d"
OPT_LEVEL = 3


@tvm.transform.module_pass(opt_level=OPT_LEVEL, name=PASS_NAME)
class BlockConv2d:
    """Replace conv2d, with all that one kernel can compute behind it, by calls of such kernels.

    Parameters
    ----------
    target
        What the module will be compiled for: kernels are scheduled for it.
    on_remark
        Called with a Missed remark for each conv2d that stays on TVM's own path, and with a
        Passed one for each that Winograd's filtering computes.
    allow
        ``{"winograd"}`` for sums in another order, where that should be faster.
    barred
        Layers to which that does not extend, as `tvm_passes.calibrate.calibrate` finds them.
    """

    def __init__(
        self,
        target: Any,
        on_remark: Callable[[Remark], object] | None = None,
        allow: Collection[str] = (),
        barred: Barred = NONE_BARRED,
    ) -> None:
        self.target = tvm.target.Target(target)
        self.on_remark = on_remark
        self.allow = frozenset(allow)
        self.barred = barred

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite every function."""
        if str(self.target.kind.name) != "llvm":
            return mod
        register_codegen()
        typed = relay.transform.InferType()(mod.clone())
        names = frozenset(str(gvar.name_hint) for gvar in typed.functions)
        kernels = Kernels(self.target, names)
        machine = machine_of(self.target)
        for gvar, func in typed.functions.items():
            if isinstance(func, relay.Function) and not is_opaque(func):
                said = ChosenKernels(str(gvar.name_hint), CONV2D, self.on_remark)
                new = _rewritten(func, kernels, Chooser(machine, self.allow, self.barred), said)
                if not new.same_as(func):
                    typed.update_func(gvar, new)
        if not kernels.count:
            return mod
        return relay.transform.InferType()(typed)


def _rewritten(
    func: relay.Function, kernels: Kernels, chooser: Chooser, said: ChosenKernels
) -> relay.Function:
    nodes = nodes_of(func.body)
    found = layers_of(func.body, nodes, chooser).values()
    for item in found:
        if isinstance(item, Decline):
            said.declined(item)
        else:
            said.apart(item.apart)
            said.computed(item.algorithm.name, item.error_bounds(), item.algorithm.instead)
    layers = [item for item in found if isinstance(item, Layer)]
    if not layers:
        return func
    rewriter = _Rewriter(Values(kernels), layers)
    for expr, read in nodes:
        rewriter.rewrite(expr, read)
    body = store_plain(rewriter.values.plain(func.body), kernels)
    return relay.function.FunctionWithFields(func, None, body)


@dataclass
class _Rewriter:
    """Rewrites the nodes of a function, operands first."""

    values: Values
    layers: Sequence[Layer]
    outputs: dict[int, Layer] = field(default_factory=dict)
    inside: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        for found in self.layers:
            self.outputs[key(found.output)] = found
            self.inside.update(key(call) for call in found.calls())

    def rewrite(self, expr: relay.Expr, read: list[relay.Expr]) -> None:
        """Find what a node becomes."""
        node = key(expr)
        if node in self.outputs:
            self.values.bind(expr, layer(self.outputs[node], self.values))
            return
        if node in self.inside or isinstance(expr, relay.Tuple):
            return  # a tuple is made where it is read
        name = op_name(expr)
        value: Blocked | None = OPS[name](expr, self.values) if name in OPS else None
        if value is not None:
            self.values.bind(expr, value)
            return
        new = [self.values.plain(child) for child in read]
        if not all(a.same_as(b) for a, b in zip(new, read, strict=True)):
            self.values.replace(expr, with_children(expr, new))
