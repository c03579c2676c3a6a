"""Write one convolution with relu and a 2x2 max-pool as an int8 model of TensorFlow Lite.

Run by scripts/expensive.py, in a process without TVM: the two cannot share one.

Example: python scripts/quantize_layer.py layer.tflite 3 112 32 0
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf


def quantized(channels: int, size: int, filters: int, seed: int) -> bytes:
    """The model, ``[1, size, size, channels]``, calibrated on seeded normal numbers."""
    keras.utils.set_random_seed(seed)
    random = np.random.default_rng(seed)
    layers = [
        keras.layers.Input((size, size, channels), batch_size=1),
        keras.layers.Conv2D(filters, 3, padding="same", bias_initializer="normal"),
        keras.layers.ReLU(),
        keras.layers.MaxPooling2D(2),
    ]

    def examples() -> Iterator[list[np.ndarray]]:
        for _ in range(4):
            yield [random.standard_normal((1, size, size, channels), np.float32)]

    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Sequential(layers))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = examples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(quantized(*map(int, sys.argv[2:6])))
