"""exp, sigmoid and tanh of vectors, with the bits that TVM's own code has with glibc's expf.

LLVM calls expf for each element of a vector.  glibc's (since 2.28, in all builds that have fused
multiply-adds) is, in double precision,

    exp(x) = 2^(k/32) (1 + c2 r + c1 r^2 + c0 r^3),    32 x log2(e) = k + r,  |r| <= 1/2

(sysdeps/ieee754/flt-32/e_expf.c, from Arm's optimized-routines, math/expf.c).  2^(k/32) is a
table there, here a product of a root of 2 for each bit of k; these differ in their last bits, but
round to the same float for each of all 2^32 arguments, which scripts/check_exp.py checks.

The functions are TIR intrinsics of this package, and become arithmetic where LLVM's own would
become calls: after vectorization.  What is used twice is written twice, for LLVM to merge: TVM
0.19 gives debug information to the vectors that a Let binds, which LLVM refuses.  The exponential
of an argument that has such a function in it is a call all the same: it would be written twenty
times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tvm
from tvm import te, topi

from tvm_passes.namespaces import (
    TIR,
    cpu_features,
    default_triple,
    dtype_of,
    register_intrinsic,
    tir,
)

Exp = Callable[[Any], Any]

BITS = 5
STEPS = 1 << BITS
"""Steps of k from a power of 2 to the next."""

LOG2_E = float.fromhex("0x1.71547652b82fep+0")
C0 = float.fromhex("0x1.c6af84b912394p-5") / STEPS**3
C1 = float.fromhex("0x1.ebfce50fac4f3p-3") / STEPS**2
C2 = float.fromhex("0x1.62e42ff0c52d6p-1") / STEPS

ROOTS = tuple(2.0 ** (2**bit / STEPS) for bit in range(BITS))
"""The factor of 2^(k/32) for each bit of k, the lowest first."""

INTEGER = 1.5 * 2.0**52
"""A double of that size has no fraction, and its lowest bits are those of an integer."""

LOWEST, HIGHEST = -104.0, 89.0
"""Beyond these, exp is 0 and infinite in float32."""


def has_expf(target: tvm.target.Target) -> bool:
    """Whether the expf of a target is glibc's, with fused multiply-adds."""
    triple = str(target.attrs.get("mtriple", "")) or default_triple()
    fused = triple.startswith("aarch64-") or "fma" in cpu_features(target)
    return fused and "-gnu" in triple


def _expf(x: Any) -> Any:
    """exp(x); a NaN stays, since TVM's maxima and minima give their second operand for it."""
    inside = tir.Max(_like(x, LOWEST), tir.Min(_like(x, HIGHEST), x))
    wide = inside.astype(_of_width(x, "float64"))
    scale, integer = _like(wide, LOG2_E * STEPS), _like(wide, INTEGER)
    shifted = _fma(wide, scale, integer)
    r = _fma(wide, scale, integer - shifted)
    c0, c1, c2, one = (_like(wide, value) for value in (C0, C1, C2, 1.0))
    cubic = _fma(_fma(c0, r, c1), r * r, _fma(c2, r, one))
    power = _power(tir.reinterpret(_of_width(x, "int64"), shifted), wide)
    return (cubic * power).astype(dtype_of(x))


def _power(k: Any, like: Any) -> Any:
    """2^(k/32), of the element type of `like`, for the integer in the lowest bits of `k`."""
    fraction = _like(like, 1.0)
    for bit, root in reversed([*enumerate(ROOTS)]):
        is_set = (k & _like(k, 1 << bit)) != _like(k, 0)
        fraction = tir.Select(is_set, fraction * _like(like, root), fraction)
    exponent = (k >> _like(k, BITS)) << _like(k, 52)
    return tir.reinterpret(dtype_of(like), tir.reinterpret(dtype_of(k), fraction) + exponent)


def _exp(x: Any, exp: Exp) -> Any:
    return exp(x)


def _sigmoid(x: Any, exp: Exp) -> Any:
    """1 / (1 + exp(-x))."""
    one = _like(x, 1.0)
    return one / (one + exp(_like(x, 0.0) - x))


def _tanh(x: Any, exp: Exp) -> Any:
    """(1 - e) / (1 + e) with e = exp(-2 |x|), and the sign of x; no zero has one."""
    zero, one = _like(x, 0.0), _like(x, 1.0)
    e = exp(_like(x, -2.0) * tir.abs(x))
    sign = tir.Select(x >= zero, one, _like(x, -1.0))
    return tir.Add((one - e) / (one + e) * sign, zero)  # `+` would drop the 0


def _fma(a: Any, b: Any, c: Any) -> Any:
    return tir.call_intrin(dtype_of(a), tvm.ir.Op.get(f"{TIR}.fma"), a, b, c)


def _like(x: Any, value: float) -> Any:
    """A constant of the type of an expression."""
    return tir.const(value, dtype_of(x))


def _of_width(x: Any, dtype: str) -> str:
    """An element type, with as many elements as an expression has."""
    _, times, lanes = dtype_of(x).partition("x")
    return dtype + times + lanes


NAMESPACE = "tvm_passes."

FUNCTIONS: Mapping[str, Callable[[Any, Exp], Any]] = {
    "exp": _exp,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
}


def register() -> None:
    """Let TVM compile the intrinsics, for targets of kind llvm; a second call does nothing."""
    for name, function in FUNCTIONS.items():
        register_intrinsic(NAMESPACE + name, name, _lowered(function))


def _lowered(function: Callable[[Any, Exp], Any]) -> Callable[[Any], Any]:
    """A function with its exponential in vectors, but of such a function with LLVM's calls."""
    return lambda x: function(x, tir.exp if _holds_one(x) else _expf)


OPERANDS = ("a", "b", "value", "condition", "true_value", "false_value")
"""Where TIR's expressions keep others; calls have arguments."""


def _holds_one(x: Any) -> bool:
    """Whether one of `FUNCTIONS` is called in an expression."""
    if isinstance(getattr(x, "op", None), tvm.ir.Op):
        return str(x.op.name).startswith(NAMESPACE) or any(map(_holds_one, x.args))
    return any(_holds_one(getattr(x, name)) for name in OPERANDS if hasattr(x, name))


def elementwise(name: str, data: te.Tensor) -> te.Tensor:
    """One of `FUNCTIONS` of each element of a float32 tensor."""
    register()
    op = tvm.ir.Op.get(NAMESPACE + name)

    def value(*at: Any) -> Any:
        return tir.call_intrin(data.dtype, op, data(*at))

    return te.compute(data.shape, value, name=name, tag=topi.tag.ELEMWISE)
