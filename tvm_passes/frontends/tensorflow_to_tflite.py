"""The child process of tensorflow.py: ``python -m ... MODEL OUTPUT.tflite``.

Exits 1 with one line on stderr where TensorFlow refuses the model.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import keras
import tensorflow as tf
from tensorflow.lite.python.convert import ConverterError

# What Keras and TensorFlow raise for a model they cannot read or convert.
REFUSALS = (
    AttributeError,
    ConverterError,
    ImportError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    tf.errors.OpError,
)


def convert(path: Path) -> bytes:
    """Convert a ``.keras`` file or a SavedModel folder to a TFLite flatbuffer."""
    if path.is_dir():
        return tf.lite.TFLiteConverter.from_saved_model(str(path)).convert()
    # from_concrete_functions loses the weights of Keras 3.
    model = keras.models.load_model(path, compile=False)
    return tf.lite.TFLiteConverter.from_keras_model(model).convert()


def reason(err: BaseException) -> str:
    """Say in one line why, where the message has a stack, a config or a whole graph."""
    names = sorted({data.operator.name for data in getattr(err, "errors", ())} - {""})
    if names:
        return f"TFLite has no operator for {', '.join(names)}"
    said = str(err).rpartition("Exception encountered: ")[2]  # Keras puts a config before it
    return textwrap.shorten(said, width=300, placeholder=" ...") or repr(err)


def main(argv: list[str]) -> None:
    """Convert argv[0] to argv[1]."""
    source, output = map(Path, argv)
    try:
        flatbuffer = convert(source)
    except REFUSALS as err:
        sys.exit(reason(err))
    output.write_bytes(flatbuffer)


if __name__ == "__main__":
    main(sys.argv[1:])
