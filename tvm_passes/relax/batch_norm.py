"""Relax: batch normalization at inference, as weights and a bias.

    batch_norm(conv2d(x, w) + b) = conv2d(x, w * s) + (b * s + t), where
    s = scale / sqrt(variance + epsilon) and t = offset - mean * s

Products are taken in float64 and rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvm_passes.relax.blocks import map_dataflow_blocks, only_reader
from tvm_passes.relax.convolution import CONV2D, is_constant, op_name, shape_of

PASS_NAME = "FoldBatchNorm"
BATCH_NORM = "relax.nn.batch_norm"


@tvm.transform.module_pass(opt_level=1, name=PASS_NAME)
class FoldBatchNorm:
    """Fold batch normalization into the convolution before it, or make it one product and one sum.

    Results differ in the last bits: weights are rounded after they are scaled.  Unlike TVM's
    ``FoldBatchnormToConv2D`` this takes any layout, a bias before the normalization and one that no
    convolution precedes, and leaves convolutions that something else reads.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite every function that has a batch normalization."""
        builder = relax.BlockBuilder(mod)
        for gvar, func in mod.functions.items():
            if isinstance(func, relax.Function):
                used = relax.analysis.remove_all_unused(func)
                new = map_dataflow_blocks(used, partial(_folded, builder=builder), builder)
                if not new.same_as(used):
                    builder.update_func(gvar, relax.analysis.remove_all_unused(new))
        return builder.finalize()


def _folded(block: relax.DataflowBlock, builder: relax.BlockBuilder) -> relax.DataflowBlock:
    folder = _Folder(block, builder)
    folder.run()
    return relax.DataflowBlock(folder.bindings, block.span) if folder.changed else block


@dataclass(frozen=True)
class _Affine:
    """What a batch normalization computes: its data, times a scale, plus an offset, by channel."""

    data: relax.Expr
    axis: int
    scale: np.ndarray
    offset: np.ndarray


@dataclass
class _Folder:
    """Rewrites one dataflow block."""

    block: relax.DataflowBlock
    builder: relax.BlockBuilder
    bindings: list[relax.Binding] = field(default_factory=list)
    changed: bool = False

    def run(self) -> None:
        """Copy the bindings, with other values for normalized results."""
        self.users = relax.analysis.udchain(self.block)
        self.bound = {hash(binding.var): binding for binding in self.block.bindings}
        for binding in self.block.bindings:
            affine = self._affine(binding)
            if affine is None:
                self.bindings.append(binding)
                continue
            self.changed = True
            value = self._into_weights(affine)
            if value is None:
                value = self._product_and_sum(affine)
            self.bindings.append(relax.VarBinding(binding.var, self.builder.normalize(value)))

    def _affine(self, binding: relax.Binding) -> _Affine | None:
        """Read the first result of a batch normalization whose others nothing reads."""
        value = getattr(binding, "value", None)
        if not isinstance(value, relax.TupleGetItem) or int(value.index) != 0:
            return None
        source = self.bound.get(hash(value.tuple_value))
        if source is None or self._reader(source.var) is None:
            return None
        return read_batch_norm(source.value)

    def _reader(self, var: relax.Var) -> relax.VarBinding | None:
        return only_reader(var, self.users, self.bound)

    def _into_weights(self, affine: _Affine) -> relax.Expr | None:
        """Scale the weights of the convolution before, if there is one that nothing else reads."""
        found = self.bound.get(hash(affine.data))
        offset = affine.offset
        if found is not None and op_name(found.value) == "relax.add":
            bias = _by_channel(found.value.args[1], found.var, affine.axis)
            if bias is None or self._reader(found.var) is None:
                return None
            offset = offset + bias * affine.scale
            found = self.bound.get(hash(found.value.args[0]))
        if found is None or op_name(found.value) != CONV2D or self._reader(found.var) is None:
            return None
        weight = _scaled_weight(found.value, affine)
        if weight is None:
            return None
        conv = found.value
        scaled = relax.Call(conv.op, [conv.args[0], weight], conv.attrs, conv.ty_args, conv.span)
        return relax.op.add(self._emit(scaled), _channels(offset, found.var, affine.axis))

    def _product_and_sum(self, affine: _Affine) -> relax.Expr:
        scale, offset = (
            _channels(array, affine.data, affine.axis) for array in (affine.scale, affine.offset)
        )
        return relax.op.add(self._emit(relax.op.multiply(affine.data, scale)), offset)

    def _emit(self, value: relax.Expr) -> relax.Var:
        value = self.builder.normalize(value)
        var = relax.DataflowVar("lv", value.ty)
        self.bindings.append(relax.VarBinding(var, value))
        return var


def read_batch_norm(call: relax.Expr) -> _Affine | None:
    """What a float32 batch normalization computes at inference, if its parameters are known."""
    if op_name(call) != BATCH_NORM or call.attrs.training or str(call.args[0].ty.dtype) != FLOAT32:
        return None
    data, *parameters = call.args
    if not all(map(is_constant, parameters)) or shape_of(data) is None:
        return None
    gamma, beta, mean, variance = (p.value.numpy().astype(np.float64) for p in parameters)
    scale = 1 / np.sqrt(variance + float(call.attrs.epsilon))
    scale = gamma * scale if call.attrs.scale else scale
    offset = (beta if call.attrs.center else 0) - mean * scale
    if not np.all(np.isfinite(scale) & np.isfinite(offset)):
        return None
    return _Affine(data, int(call.attrs.axis) % len(shape_of(data) or ()), scale, offset)


FLOAT32 = "float32"


def _by_channel(expr: relax.Expr, like: relax.Var, axis: int) -> np.ndarray | None:
    """A constant operand with one number a channel, or None."""
    shape, own = shape_of(like), shape_of(expr)
    if not is_constant(expr) or shape is None or own is None:
        return None
    aligned = (1,) * (len(shape) - len(own)) + own
    wanted = tuple(extent if at == axis else 1 for at, extent in enumerate(shape))
    return expr.value.numpy().reshape(-1).astype(np.float64) if aligned == wanted else None


def _scaled_weight(conv: relax.Call, affine: _Affine) -> relax.Expr | None:
    """Weights of each filter times its scale, or None where an axis does not count filters."""
    weight, layout = conv.args[1], str(conv.attrs.kernel_layout)
    out_layout = str(conv.attrs.out_layout) or str(conv.attrs.data_layout)
    if not is_constant(weight) or out_layout.find("C") != affine.axis or len(layout) != 4:
        return None
    array = weight.value.numpy()
    if str(array.dtype) != FLOAT32 or array.shape[layout.index("O")] != affine.scale.size:
        return None
    extents = [affine.scale.size if letter == "O" else 1 for letter in layout]
    return relax.const((array * affine.scale.reshape(extents)).astype(FLOAT32))


def _channels(array: np.ndarray, like: Any, axis: int) -> relax.Expr:
    """One number a channel, as a constant that broadcasts."""
    extents = [1] * len(shape_of(like) or ())
    extents[axis] = array.size
    return relax.const(array.reshape(extents).astype(FLOAT32))
