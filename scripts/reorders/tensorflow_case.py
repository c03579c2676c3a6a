"""A case as a function of TensorFlow, [n, h, w, c]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from cases import LEAKY_SLOPE, Case, arrays

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": tf.nn.relu,
    "leaky_relu": lambda x: tf.nn.leaky_relu(x, LEAKY_SLOPE),
    "relu6": tf.nn.relu6,
    "elu": tf.nn.elu,
    "softplus": tf.nn.softplus,
    "sigmoid": tf.nn.sigmoid,
    "tanh": tf.nn.tanh,
    "silu": tf.nn.silu,
    "gelu": tf.nn.gelu,
}


def function(case: Case) -> tuple[Callable[[Any], list[Any]], np.ndarray]:
    """The case as Python code to trace, and its input."""
    values = arrays(case)
    weights = values["w"].transpose(2, 3, 1, 0)
    kernel, stride, pad = case.window

    def run(x: Any) -> list[Any]:
        if case.producer != "none":
            x = tf.nn.conv2d(x, weights, 1, "SAME")
        if case.producer == "conv, bias":
            x = tf.nn.bias_add(x, values["b"])
        if case.producer == "conv, add":
            x = tf.raw_ops.AddV2(x=x, y=values["b"])
        if case.producer == "conv, batch norm":
            scale = {name: values[name] for name in ("scale", "mean", "variance")}
            x = tf.compat.v1.nn.fused_batch_norm(x, offset=values["b"], is_training=False, **scale)[
                0
            ]
        activated = x = ACTIVATIONS[case.activation](x)
        pool = tf.nn.avg_pool2d if case.averages else tf.nn.max_pool2d
        return [pool(x, kernel, stride, "SAME" if pad else "VALID"), activated][: case.consumers]

    return run, values["x"].transpose(0, 2, 3, 1)
