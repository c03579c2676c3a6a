"""Relay ops on values in blocks of channels: one function an op, None where it needs them plain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from tvm import relay

from tvm_passes.blocked import Blocked
from tvm_passes.relay.blocked_values import Values
from tvm_passes.relay.convolution import MAX_POOL2D, op_name, shape_of
from tvm_passes.relay.layers import BIAS_ADD, ELEMENTWISE, can_block

AVG_POOL2D, CONCATENATE = "nn.avg_pool2d", "concatenate"
GLOBAL_AVG_POOL2D, GLOBAL_MAX_POOL2D = "nn.global_avg_pool2d", "nn.global_max_pool2d"


def pool(call: relay.Call, values: Values) -> Blocked | None:
    """max_pool2d and avg_pool2d of a blocked value."""
    found = _spatial(call, values)
    if found is None:
        return None
    attrs = call.attrs
    windows = (attrs.pool_size, attrs.strides, attrs.dilation, attrs.padding)
    layout = f"NCHW{found.block}c"
    if op_name(call) == MAX_POOL2D:
        value = relay.nn.max_pool2d(found.value, *windows, layout, "", attrs.ceil_mode)
    else:
        value = relay.nn.avg_pool2d(
            found.value, *windows, layout, "", attrs.ceil_mode, attrs.count_include_pad
        )
    return _like(found, call, value)


def global_pool(call: relay.Call, values: Values) -> Blocked | None:
    """A pool whose window is the whole image."""
    found = _spatial(call, values)
    if found is None:
        return None
    is_max = op_name(call) == GLOBAL_MAX_POOL2D
    make = relay.nn.global_max_pool2d if is_max else relay.nn.global_avg_pool2d
    return _like(found, call, make(found.value, layout=f"NCHW{found.block}c"))


def _spatial(call: relay.Call, values: Values) -> Blocked | None:
    """The operand of a pool, where it is in blocks and the pool has its layout."""
    found = values.of(call.args[0])
    layouts = {str(call.attrs.layout), str(call.attrs.out_layout) or str(call.attrs.layout)}
    if found is None:
        return None
    return found if layouts == {"NHWC" if found.channels_last else "NCHW"} else None


def concatenate(call: relay.Call, values: Values) -> Blocked | None:
    """Concatenation of channels, whole blocks of each operand but the last."""
    if not isinstance(call.args[0], relay.Tuple):
        return None
    found = [values.of(item) for item in call.args[0].fields]
    whole = [item for item in found if item is not None]
    if len(whole) != len(found) or not whole:
        return None
    axis, block = int(call.attrs.axis) % len(whole[0].shape), whole[0].block
    alike = all((item.axis, item.block) == (axis, block) for item in whole)
    if not alike or any(item.channels % block for item in whole[:-1]):
        return None
    value = relay.concatenate([item.value for item in whole], 1)
    return _like(whole[0], call, value)


def elementwise(call: relay.Call, values: Values) -> Blocked | None:
    """An elementwise op, one of whose operands is in blocks and of the result's shape."""
    shape = shape_of(call)
    found = [values.of(arg) for arg in call.args]
    like = next((item for item in found if item is not None and item.shape == shape), None)
    if like is None or not all(can_block(arg, call, like) for arg in call.args):
        return None
    args = [values.operand(arg, call, like) for arg in call.args]
    if op_name(call) == BIAS_ADD:
        return _like(like, call, relay.add(*args))
    return _like(like, call, relay.Call(call.op, args, call.attrs, None, call.span))


def _like(found: Blocked, call: relay.Call, value: relay.Expr) -> Blocked:
    return replace(found, value=value, shape=shape_of(call) or ())


OPS: Mapping[str, Callable[[relay.Call, Values], Blocked | None]] = {
    MAX_POOL2D: pool,
    AVG_POOL2D: pool,
    GLOBAL_AVG_POOL2D: global_pool,
    GLOBAL_MAX_POOL2D: global_pool,
    CONCATENATE: concatenate,
    **dict.fromkeys(ELEMENTWISE, elementwise),
}
"""Every op that may give a blocked value, beside conv2d."""
