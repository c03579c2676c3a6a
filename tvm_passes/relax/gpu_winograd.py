"""Relax: a convolution, and the max-pool in its tile, by Winograd's filtering on a GPU.

max_pool2d(conv2d(x, w)) = three kernels: transform x, multiply, transform back and pool
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from tvm import relax

from tvm_passes.relax.blocked_values import OUT_ELEMENTWISE_FUSABLE
from tvm_passes.schedules.gpu_algorithm import Filtered
from tvm_passes.schedules.gpu_winograd import (
    pack_transformed,
    products,
    result,
    transformed_data,
)

OPAQUE = 8
"""TVM's kOpaque, an op that nothing is fused with (include/tvm/relax/op_attr_types.h)."""


def filtered_conv2d(
    data: relax.Expr,
    weight: np.ndarray,
    layer: Filtered,
    var: relax.Var,
    builder: relax.BlockBuilder,
) -> list[relax.VarBinding]:
    """What binds `var` to the layer: three kernels, the last of which may fuse with what follows.

    Parameters
    ----------
    data
        [n, c, h, w] or [n, h, w, c].
    weight
        [filters, channels / groups, taps, taps].
    layer
        How it is computed.
    var
        The result.
    builder
        Takes the kernels.
    """
    filtering, tile = layer.filtering, layer.tile

    def bind(compute: Callable[..., Any], name: str, *args: relax.Expr) -> relax.VarBinding:
        value = builder.call_te(
            compute, *args, primfunc_name_hint=name, primfunc_attrs={"op_pattern": OPAQUE}
        )
        value = builder.normalize(value)
        return relax.VarBinding(relax.DataflowVar(f"{var.name}_{name}", value.ty), value)

    transform = partial(transformed_data, filtering=filtering, tile=tile, origin=layer.origin)
    inward = bind(transform, "winograd_data", data)
    weights = relax.const(pack_transformed(weight, filtering, tile))
    summed = bind(partial(products, tile=tile), "winograd_products", inward.var, weights)
    value = builder.call_te(
        partial(result, filtering=filtering),
        summed.var,
        primfunc_name_hint="winograd_max_pool2d" if layer.takes_pool else "winograd",
        primfunc_attrs={"op_pattern": OUT_ELEMENTWISE_FUSABLE},
    )
    return [inward, summed, relax.VarBinding(var, builder.normalize(value))]
