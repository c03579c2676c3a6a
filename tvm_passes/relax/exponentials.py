"""Relax: sigmoid and the like with exponentials in vectors, where TVM's own would call expf."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tvm
from tvm import relax, te, topi

from tvm_passes.schedules.exponential import elementwise, has_expf

DTYPE = "float32"


def legalize_passes(target: tvm.target.Target) -> list[tvm.transform.Pass]:
    """What goes before a target's own ``LegalizeOps``, which finds nothing left to do then."""
    legalize = {op: _legalize(op, function) for op, function in FUNCTIONS.items()}
    return [relax.transform.LegalizeOps(legalize)] if has_expf(target) else []


def _legalize(op: str, function: Callable[[te.Tensor], te.Tensor]) -> Callable[..., relax.Expr]:
    stock = tvm.ir.Op.get(op).get_attr("FLegalize")

    def legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        (data,) = call.args
        if str(data.ty.dtype) != DTYPE:
            return stock(builder, call)
        return builder.call_te(function, data, primfunc_name_hint=op.rpartition(".")[2])

    return legalize


def _exp(x: te.Tensor) -> te.Tensor:
    return elementwise("exp", x)


def _sigmoid(x: te.Tensor) -> te.Tensor:
    return elementwise("sigmoid", x)


def _tanh(x: te.Tensor) -> te.Tensor:
    return elementwise("tanh", x)


def _silu(x: te.Tensor) -> te.Tensor:
    return topi.multiply(x, _sigmoid(x))


FUNCTIONS: Mapping[str, Callable[[te.Tensor], te.Tensor]] = {
    "relax.exp": _exp,
    "relax.sigmoid": _sigmoid,
    "relax.tanh": _tanh,
    "relax.nn.silu": _silu,
}
