"""TensorFlow on the CPU, as a graph, with and without XLA."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tvm_passes.bench.block import LEAKY_SLOPE, ORIGINAL, Block
from tvm_passes.bench.files import inputs_of, model_file, read_arrays, read_block
from tvm_passes.bench.worker import Prepared

ACTIVATIONS: Mapping[str, Callable[[Any], Any]] = {
    "none": lambda x: x,
    "relu": tf.nn.relu,
    "leaky_relu": lambda x: tf.nn.leaky_relu(x, LEAKY_SLOPE),
    "sigmoid": tf.nn.sigmoid,
    "tanh": tf.nn.tanh,
    "softplus": tf.nn.softplus,
    "elu": tf.nn.elu,
    "silu": tf.nn.silu,
    "gelu": lambda x: tf.nn.gelu(x, approximate=False),
}


class TensorFlow:
    """Functions of TensorFlow, traced and optimized."""

    versions: Mapping[str, str] = {"tensorflow": tf.__version__}

    def __init__(self, threads: int) -> None:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)

    def prepare(self, folder: Path, variant: str, _options: Mapping[str, Any]) -> Prepared:
        """Trace a variant; one that ends in ``xla`` is compiled by XLA."""
        order, _, compiler = variant.partition(" ")
        if not (folder / "block.json").exists():
            return _bound_model(model_file(folder), inputs_of(folder), xla=compiler == "xla")
        block, arrays = read_block(folder), read_arrays(folder)
        function = tf.function(block_function(block, order, arrays), jit_compile=compiler == "xla")
        x = tf.constant(arrays["x"].transpose(0, 2, 3, 1))
        return Bound(function.get_concrete_function(x), x)


def block_function(
    block: Block, order: str, arrays: Mapping[str, np.ndarray]
) -> Callable[[Any], Any]:
    """The block over ``x [n, h, w, c]``, the only layout that TensorFlow convolves on a CPU.

    A padded pool is a padding and a pool without: XLA takes no padding lists in ``max_pool2d``.
    """
    weights = tf.constant(arrays["w"].transpose(2, 3, 1, 0))
    bias = tf.constant(arrays["b"])
    pad = [[0, 0], [block.pad] * 2, [block.pad] * 2, [0, 0]]
    kernel, stride, pool_pad = block.pool
    activation = ACTIVATIONS[block.activation]

    def pool(x: Any) -> Any:
        if pool_pad:
            edges = [[0, 0], [pool_pad] * 2, [pool_pad] * 2, [0, 0]]
            x = tf.pad(x, edges, constant_values=-np.inf)
        return tf.nn.max_pool2d(x, kernel, stride, "VALID")

    def function(x: Any) -> Any:
        x = tf.nn.conv2d(x, weights, block.stride, pad)
        x = tf.nn.bias_add(x, bias) if block.bias else x
        return pool(activation(x)) if order == ORIGINAL else activation(pool(x))

    return function


class Bound:
    """A traced function and its input."""

    def __init__(self, function: Callable[[Any], Any], x: Any) -> None:
        self.function, self.x = function, x
        self.y = function(x)

    def run(self) -> None:
        """Run once; on a CPU ``numpy`` waits, and copies nothing."""
        self.y = self.function(self.x)
        self.y.numpy()

    def outputs(self) -> list[np.ndarray]:
        """Fetch the output, ``[n, c, h, w]``."""
        return [np.ascontiguousarray(self.y.numpy().transpose(0, 3, 1, 2))]


def _bound_model(path: Path, inputs: Sequence[np.ndarray], *, xla: bool) -> BoundModel:
    """A model file of TensorFlow's own."""
    if len(inputs) != 1:
        raise ValueError(f"runs models of one input, found {len(inputs)}")
    if path.suffix == ".keras":
        model = tf.keras.models.load_model(path, compile=False)
    elif path.is_dir():
        model = tf.saved_model.load(str(path)).signatures["serving_default"]
    else:
        raise ValueError(f"reads .keras files and SavedModel folders, not {path.suffix}")
    return BoundModel(tf.function(model, jit_compile=xla), tf.constant(inputs[0]))


class BoundModel:
    """A model and its input."""

    def __init__(self, function: Callable[[Any], Any], x: Any) -> None:
        self.function, self.x = function, x
        self.y = self._called()

    def _called(self) -> list[Any]:
        return list(tf.nest.flatten(self.function(self.x)))

    def run(self) -> None:
        """Run once, and wait."""
        self.y = self._called()
        for tensor in self.y:
            tensor.numpy()

    def outputs(self) -> list[np.ndarray]:
        """Fetch the outputs, as the model lays them out."""
        return [np.ascontiguousarray(tensor.numpy()) for tensor in self.y]


def start(_runtime: str, threads: int) -> TensorFlow:
    """Serve TensorFlow."""
    return TensorFlow(threads)
