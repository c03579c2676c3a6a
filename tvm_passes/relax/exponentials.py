"""Relax: sigmoid and the like with exponentials in vectors, where TVM's own would call expf.

TVM lowers sinh and cosh of floats to calls of the math library, and knows none of vectors: they
are such calls from the start here, which make the loop over a vector's lanes a serial one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial

import tvm
from tvm import relax, te, topi

from tvm_passes.namespaces import tir
from tvm_passes.schedules.exponential import elementwise, has_expf

DTYPE = "float32"
SUFFIXES = {DTYPE: "f", "float64": ""}
"""What a function of the math library is called by, after its name, for each element type."""


def legalize_passes(target: tvm.target.Target) -> list[tvm.transform.Pass]:
    """What goes before a target's own ``LegalizeOps``, which finds nothing left to do then."""
    legalize = {op: _legalize(op, function, SUFFIXES) for op, function in CALLED.items()}
    if has_expf(target):
        legalize |= {op: _legalize(op, function, {DTYPE}) for op, function in FUNCTIONS.items()}
    return [relax.transform.LegalizeOps(legalize)]


def _legalize(
    op: str, function: Callable[[te.Tensor], te.Tensor], dtypes: Collection[str]
) -> Callable[..., relax.Expr]:
    stock = tvm.ir.Op.get(op).get_attr("FLegalize")

    def legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        (data,) = call.args
        if str(data.ty.dtype) not in dtypes:
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


def _called(name: str, x: te.Tensor) -> te.Tensor:
    symbol = f"{name}{SUFFIXES[str(x.dtype)]}"
    return te.compute(x.shape, lambda *at: tir.call_pure_extern(x.dtype, symbol, x(*at)), name)


FUNCTIONS: Mapping[str, Callable[[te.Tensor], te.Tensor]] = {
    "relax.exp": _exp,
    "relax.sigmoid": _sigmoid,
    "relax.tanh": _tanh,
    "relax.nn.silu": _silu,
}

CALLED: Mapping[str, Callable[[te.Tensor], te.Tensor]] = {
    f"relax.{name}": partial(_called, name) for name in ("sinh", "cosh")
}
