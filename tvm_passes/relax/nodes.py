"""Read and make Relax's nodes by the functions that TVM registers.

Its Python classes call the same ones, and take two to five times as long, which counts where a
pass looks at a hundred thousand ops.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm
import tvm_ffi
from tvm import relax

_SIZE = tvm_ffi.get_global_func("ffi.ArraySize")
_ITEM = tvm_ffi.get_global_func("ffi.ArrayGetItem")
_CALL = tvm_ffi.get_global_func("ir.Call")
_VAR = tvm_ffi.get_global_func("relax.DataflowVar")
_BINDING = tvm_ffi.get_global_func("relax.VarBinding")

address = tvm_ffi.core.Object.__hash__
"""A node's identity, also where its class hashes by value."""


def items(array: Sequence[Any]) -> list[Any]:
    """What an array of TVM's holds."""
    return [_ITEM(array, index) for index in range(_SIZE(array))]


def call_like(
    old: relax.Call, args: Sequence[relax.Expr], ty: tvm.ir.Type, attrs: tvm.ir.Attrs | None = None
) -> relax.Call:
    """The call with other arguments, of another type, perhaps with other attributes."""
    return _CALL(ty, old.op, args, old.attrs if attrs is None else attrs, old.ty_args, old.span)


def dataflow_var(like: relax.Var, ty: tvm.ir.Type) -> relax.DataflowVar:
    """A variable of a dataflow block with the name and the place of another."""
    return _VAR(like.name, ty, like.span)


def bind(var: relax.Var, value: relax.Expr, span: tvm.ir.Span | None) -> relax.VarBinding:
    """The binding of a value to a variable."""
    return _BINDING(var, value, span)
