"""Relay: PReLU again, where an importer spelled it between reshapes."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import tvm
from tvm import relay
from tvm.relay.dataflow_pattern import DFPatternCallback, is_op, rewrite, wildcard

BROADCASTS = frozenset({"broadcast_to", "broadcast_to_like"})


@tvm.transform.module_pass(opt_level=0, name="RecoverPReLU")
class RecoverPReLU:
    """Write ``prelu(x, a)`` for ``reshape(prelu(reshape(x, [-1]), broadcast(a)), shape of x)``.

    TVM's ONNX and TFLite importers give PReLU a slope an element of flat data, which nothing can
    move past a pool.  Where the slopes vary along one axis alone, they are those of its elements.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite every function of a module on which ``InferType`` has run."""
        for gvar, func in mod.functions.items():
            if isinstance(func, relay.Function):
                mod.update_func(gvar, rewrite(_Recover(), func))
        return relay.transform.InferType()(mod)


class _Recover(DFPatternCallback):
    def __init__(self) -> None:
        super().__init__(require_type=True)
        self.data, self.slopes = wildcard(), wildcard()
        flat = is_op("nn.prelu")(is_op("reshape")(self.data), self.slopes).has_attr({"axis": 0})
        self.pattern = is_op("reshape")(flat)

    def callback(self, pre: relay.Expr, post: relay.Expr, found: Any) -> relay.Expr:
        data = found[self.data][0]
        shape, slopes = _shape(data), _constant(found[self.slopes][0])
        if slopes is None or shape is None or _shape(pre) != shape or slopes.size != prod(shape):
            return post
        for axis in sorted(range(len(shape)), key=lambda axis: axis != 1):
            along = np.moveaxis(slopes.reshape(shape), axis, 0).reshape(shape[axis], -1)
            if np.array_equal(along, np.broadcast_to(along[:, :1], along.shape)):
                return relay.nn.prelu(data, relay.const(along[:, 0]), axis)
        return post


def _shape(expr: relay.Expr) -> tuple[int, ...] | None:
    """The extents, if all are known."""
    extents = expr.checked_type.shape
    known = all(isinstance(extent, tvm.tir.IntImm) for extent in extents)
    return tuple(map(int, extents)) if known else None


def _constant(expr: relay.Expr) -> np.ndarray | None:
    """The values of a constant, perhaps broadcast and reshaped."""
    if isinstance(expr, relay.Constant):
        return expr.data.numpy()
    name = expr.op.name if isinstance(expr, relay.Call) else ""
    shape = _shape(expr) if name == "reshape" or name in BROADCASTS else None
    values = None if shape is None else _constant(expr.args[0])
    if shape is None or values is None:
        return None
    return values.reshape(shape) if name == "reshape" else np.broadcast_to(values, shape)
