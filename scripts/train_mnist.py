"""Train the MNIST tutorial network on real digits and write the test model.

The network is the one most TensorFlow tutorials start from: two 5x5 convolutions, each with
ReLU and a 2x2 max-pool, then two dense layers. The digits are scikit-learn's ``load_digits``
(1797 scans of 8x8 pixels, no download), resized to MNIST's 28x28. Needs
``pip install tensorflow scikit-learn``; neither is needed to use what it writes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read once, when tensorflow is imported

import keras
import numpy as np
import sklearn
import tensorflow as tf
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

EXAMPLE = "example: python scripts/train_mnist.py --output-dir tests/data --seed 3180"
IMAGE_SIZE = 28  # pixels, MNIST's
DIGITS_WHITE = 16.0  # load_digits counts the dark pixels of 4x4 blocks: 0 to 16


def parse_args(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog=EXAMPLE,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output-dir", type=Path, default=Path("tests/data"), help="folder")
    parser.add_argument("--seed", type=int, default=3180, help="of split, weights and batches")
    parser.add_argument("--epochs", type=int, default=20, help="passes over the training split")
    parser.add_argument("--saved-model", type=Path, metavar="DIR", help="write a SavedModel too")
    args = parser.parse_args(argv)
    if args.saved_model and args.saved_model.exists():
        parser.error(f"--saved-model {args.saved_model} exists: name a new folder")
    return args


def load_images() -> tuple[np.ndarray, np.ndarray]:
    """Return the digits.

    Returns
    -------
    images : uint8 ``[n, 28, 28, 1]``
        Rounded to bytes once, here, so that training and the stored test split agree.
    labels : uint8 ``[n]``
    """
    digits = load_digits()
    pixels = digits.images[..., np.newaxis] / DIGITS_WHITE
    resized = tf.image.resize(pixels, (IMAGE_SIZE, IMAGE_SIZE), method="bilinear").numpy()
    images = np.rint(np.clip(resized, 0.0, 1.0) * 255.0).astype(np.uint8)
    return images, digits.target.astype(np.uint8)


def network_input(images: np.ndarray) -> np.ndarray:
    """Scale uint8 images to the network's float32 input in [0, 1]."""
    return images.astype(np.float32) / np.float32(255.0)


def build_model(batch: int | None = None) -> keras.Model:
    """Build the untrained network, NHWC, for a fixed batch or for any (None)."""
    return keras.Sequential(
        [
            keras.Input((IMAGE_SIZE, IMAGE_SIZE, 1), batch_size=batch, name="image"),
            layers.Conv2D(16, 5, padding="same", name="conv1"),
            layers.ReLU(name="relu1"),
            layers.MaxPooling2D(2, name="pool1"),
            layers.Conv2D(36, 5, padding="same", name="conv2"),
            layers.ReLU(name="relu2"),
            layers.MaxPooling2D(2, name="pool2"),
            layers.Flatten(name="flatten"),
            layers.Dense(128, activation="relu", name="dense1"),
            layers.Dense(10, activation="softmax", name="digit"),
        ],
        name="mnist",
    )


def train(images: np.ndarray, labels: np.ndarray, epochs: int) -> keras.Model:
    """Train the network on uint8 images ``[n, 28, 28, 1]`` and their labels ``[n]``."""
    model = build_model()
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    model.fit(network_input(images), labels, batch_size=64, epochs=epochs, verbose=2)
    return model


def without_optimizer(model: keras.Model, batch: int | None = None) -> keras.Model:
    """Copy the weights to an uncompiled network, which saves no optimizer state."""
    copy = build_model(batch)
    copy.set_weights(model.get_weights())
    return copy


def to_tflite(model: keras.Model) -> bytes:
    """Convert to a float32 TFLite flatbuffer of batch 1."""
    converter = tf.lite.TFLiteConverter.from_keras_model(without_optimizer(model, batch=1))
    return converter.convert()


def tflite_accuracy(model: bytes, images: np.ndarray, labels: np.ndarray) -> float:
    """Run the written model, not the trained one, and return the share it gets right."""
    interpreter = tf.lite.Interpreter(model_content=model)
    run = interpreter.get_signature_runner()
    batches = network_input(images)[:, np.newaxis]
    scores = [next(iter(run(image=batch).values())) for batch in batches]
    return float(np.mean(np.argmax(np.concatenate(scores), axis=1) == labels))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, with the same suffix, then rename it."""
    beside = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        write(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def export_saved_model(model: keras.Model, folder: Path) -> None:
    """Write a SavedModel folder beside `folder`, then rename it."""
    beside = folder.with_name(f".{os.getpid()}-{folder.name}")
    try:
        without_optimizer(model).export(beside, verbose=False)
        beside.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def describe(args: argparse.Namespace, argv: list[str], counts: dict, accuracy: float) -> str:
    """Say in JSON how the model came about and what it reaches."""
    record = {
        "accuracy": accuracy,
        "images": counts,
        "seed": args.seed,
        "epochs": args.epochs,
        "command": shlex.join(["python", "scripts/train_mnist.py", *argv]),
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "scikit-learn": sklearn.__version__,
            "numpy": np.__version__,
        },
    }
    return json.dumps(record, indent=2) + "\n"


def main(argv: list[str]) -> int:
    """Train, convert, measure and write."""
    args = parse_args(argv)
    keras.utils.set_random_seed(args.seed)
    tf.config.experimental.enable_op_determinism()

    images, labels = load_images()
    train_images, images, train_labels, labels = train_test_split(
        images, labels, test_size=0.2, stratify=labels, random_state=args.seed
    )
    model = train(train_images, train_labels, args.epochs)
    tflite = to_tflite(model)
    accuracy = tflite_accuracy(tflite, images, labels)
    counts = {"train": len(train_images), "test": len(images)}
    record = describe(args, argv, counts, accuracy)

    out = args.output_dir
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "mnist.tflite", lambda path: path.write_bytes(tflite))
    write_atomically(out / "mnist.keras", without_optimizer(model).save)
    write_atomically(
        out / "mnist_test.npz", lambda path: np.savez_compressed(path, images=images, labels=labels)
    )
    write_atomically(out / "mnist.json", lambda path: path.write_text(record))
    if args.saved_model:
        export_saved_model(model, args.saved_model)
    print(record, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
