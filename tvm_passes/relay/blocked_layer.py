"""Relay: the kernel of a layer, what it computes in Relay's own ops, and its operands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import tvm
from tvm import relay, te
from tvm.relay.backend.te_compiler import select_implementation

from tvm_passes.blocked import Blocked
from tvm_passes.relay.blocked_values import Values
from tvm_passes.relay.convolution import dtype_of, shape_of
from tvm_passes.relay.layers import BIAS_ADD, Layer, blocked_constant
from tvm_passes.relay.nodes import key
from tvm_passes.relay.packing import (
    blocked_shape,
    pack,
    unpack,
    unpack_constant,
    unpack_transformed,
    unpack_weight,
)
from tvm_passes.schedules.algorithm import Algorithm
from tvm_passes.schedules.exponential import FUNCTIONS, elementwise, has_expf

Value = TypeVar("Value")


@dataclass(frozen=True)
class _Operand:
    """An operand of a kernel: its value, its extents, and what plain tensor it stands for."""

    value: relay.Expr
    shape: tuple[int, ...]
    dtype: str
    plain: Callable[[relay.Expr], relay.Expr]


def layer(found: Layer, values: Values) -> Blocked:
    """Call the kernel that computes a layer."""
    like = found.result(None)
    data = _data(found.call.args[0], found.algorithm, values)
    weight = _weight(found)
    others = [_other(arg, link, like, values) for link, arg in _others(found)]
    operands = [data, weight, *others]
    params = [relay.var(f"p{n}", shape=o.shape, dtype=o.dtype) for n, o in enumerate(operands)]
    plain = [operand.plain(param) for operand, param in zip(operands, params, strict=True)]
    meaning = relay.Function(params, pack(_meaning(found, plain), like))
    compute = partial(_compute, found=found, target=values.kernels.target)
    return found.result(values.kernels.call(meaning, compute, [o.value for o in operands]))


def _data(expr: relay.Expr, algorithm: Algorithm, values: Values) -> _Operand:
    """The data: in blocks where it is, and where the kernel can read them."""
    conv = algorithm.conv
    found = values.of(expr)
    if algorithm.needs_blocks:
        found = values.in_blocks(expr, conv.channels_last, conv.block)
    if found is None or not found.is_read_by(conv):
        return _Operand(values.plain(expr), shape_of(expr) or (), conv.dtype, lambda param: param)
    return _Operand(found.value, blocked_shape(found), conv.dtype, partial(unpack, like=found))


def _weight(found: Layer) -> _Operand:
    conv, array = found.conv, found.weight
    packed = found.algorithm.pack(array, found.layout)
    family = found.algorithm.family
    unpacked = unpack_weight if family is None else partial(unpack_transformed, family=family)
    plain = partial(unpacked, conv=conv, layout=found.layout, shape=array.shape)
    return _Operand(relay.const(packed), packed.shape, conv.dtype, plain)


def _other(arg: relay.Expr, link: relay.Call, like: Blocked, values: Values) -> _Operand:
    """An operand of an elementwise op."""
    dtype = dtype_of(arg)
    if not isinstance(arg, relay.Constant):
        value = values.in_blocks(arg, like.channels_last, like.block).value
        return _Operand(value, blocked_shape(like), dtype, partial(unpack, like=like))
    array = blocked_constant(arg, link, like)
    shape = () if array is None else array.shape
    plain = partial(unpack_constant, shape=arg.data.shape)
    return _Operand(relay.const(array), shape, dtype, plain)


def _others(found: Layer) -> Iterator[tuple[relay.Call, relay.Expr]]:
    """The operands of a layer's elementwise ops that the kernel does not compute itself."""
    last = found.pool_call or found.call
    for link in found.links:
        yield from ((link, arg) for arg in link.args if key(arg) != key(last))
        last = link


def _meaning(found: Layer, plain: list[relay.Expr]) -> relay.Expr:
    """The layer in Relay's ops."""
    value = relay.expr.CallWithFields(found.call, None, plain[:2])
    if found.pool_call is not None:
        value = relay.expr.CallWithFields(found.pool_call, None, [value])
    return _append(found, value, plain[2:], _call)


def _call(link: relay.Call, args: list[relay.Expr]) -> relay.Expr:
    return relay.expr.CallWithFields(link, None, args)


def _compute(*tensors: te.Tensor, found: Layer, target: tvm.target.Target) -> te.Tensor:
    """The layer in tensor expressions, on blocks."""
    data, weight, *others = tensors
    value = found.algorithm.compute(data, weight)
    return _append(found, value, others, partial(te_of, target=target))


def _append(
    found: Layer,
    value: Value,
    others: Iterable[Value],
    apply: Callable[[relay.Call, list[Value]], Value],
) -> Value:
    """Apply a layer's elementwise ops to `value` and the other operands, in order."""
    last, rest = found.pool_call or found.call, iter(others)
    for link in found.links:
        args = [value if key(arg) == key(last) else next(rest) for arg in link.args]
        value, last = apply(link, args), link
    return value


def te_of(call: relay.Call, args: list[te.Tensor], target: tvm.target.Target) -> te.Tensor:
    """An elementwise call, of tensors in blocks of channels, as TVM's own operator computes it."""
    op, attrs = call.op, call.attrs
    if str(op.name) in FUNCTIONS and dtype_of(call) == "float32" and has_expf(target):
        return elementwise(str(op.name), *args)
    if str(op.name) == BIAS_ADD:
        op, attrs = relay.op.get("add"), None
    extents = max((arg.shape for arg in args), key=len)
    out_type = relay.TensorType(extents, dtype_of(call))
    (value,) = select_implementation(op, attrs, args, out_type, target, use_autotvm=False)[1]
    return value
