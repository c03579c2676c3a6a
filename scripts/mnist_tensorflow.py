"""The tutorial network in TensorFlow, activation before or behind its pools: times of a round each.

Run by scripts/mnist_orders.py, in the environment of the peers; writes a line of JSON to stdout for
each comparison, when it is done.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tvm_passes.bench.others import Others
from tvm_passes.bench.worker import die_with_parent, measure

RUNS = {"original": "original", "swapped": "swapped", "control": "original"}
"""The order of each network that is timed.  Two are the same: what tells them apart is no order."""

MODES = ("eager", "graph", "xla")
WORK = (("inference", 1), ("inference", 64), ("training", 64))
RATE = 0.01
STEPS = 20


class Network:
    """Conv 5x5x16, conv 5x5x36, each with bias, relu and 2x2 pool; dense 128 and 10."""

    def __init__(self, order: str, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.order = order
        shapes = [(5, 5, 1, 16), (5, 5, 16, 36), (7 * 7 * 36, 128), (128, 10)]
        self.weights = [_variable(random, shape, np.prod(shape[:-1])) for shape in shapes]
        self.biases = [_variable(random, shape[-1:], 10) for shape in shapes]

    def __call__(self, x: Any) -> Any:
        """Scores ``[n, 10]`` of images ``[n, 28, 28, 1]``."""
        for w, b in zip(self.weights[:2], self.biases[:2], strict=True):
            x = tf.nn.bias_add(tf.nn.conv2d(x, w, 1, "SAME"), b)
            x = tf.nn.relu(x) if self.order == "original" else x
            x = tf.nn.max_pool2d(x, 2, 2, "VALID")
            x = tf.nn.relu(x) if self.order == "swapped" else x
        x = tf.reshape(x, [-1, 7 * 7 * 36])
        x = tf.nn.relu(x @ self.weights[2] + self.biases[2])
        return x @ self.weights[3] + self.biases[3]

    def step(self, x: Any, labels: Any) -> Any:
        """One step of gradient descent; returns the loss."""
        variables = [*self.weights, *self.biases]
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, self(x))
            loss = tf.reduce_mean(losses)
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(RATE * gradient)
        return loss


def _variable(random: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> tf.Variable:
    return tf.Variable(random.standard_normal(shape, np.float32) / np.float32(np.sqrt(fan_in)))


def runner(network: Network, work: str, mode: str, x: Any, labels: Any) -> Callable[[], np.ndarray]:
    """What a round calls; it waits for the result."""
    function = network.__call__ if work == "inference" else network.step
    arguments = (x,) if work == "inference" else (x, labels)
    if mode != "eager":
        function = tf.function(function, jit_compile=mode == "xla")
    return lambda: function(*arguments).numpy()


def main(threads: int, rounds: int, seconds: float, seed: int) -> None:
    """Measure every mode and work, both orders in turn."""
    die_with_parent()
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    random = np.random.default_rng(seed)
    for (work, batch), mode in itertools.product(WORK, MODES):
        x = tf.constant(random.random((batch, 28, 28, 1), np.float32))
        labels = tf.constant(random.integers(0, 10, batch))
        runs = {
            name: runner(Network(order, seed), work, mode, x, labels)
            for name, order in RUNS.items()
        }
        results = {name: [run() for _ in range(STEPS)][-1] for name, run in runs.items()}
        samples: dict[str, list[float]] = {name: [] for name in RUNS}
        others = Others()
        for turn in range(rounds):
            for name in RUNS if turn % 2 == 0 else reversed(RUNS):
                samples[name].append(measure(runs[name], seconds)["seconds"])
        entry = {
            "version": tf.__version__,
            "work": work,
            "batch": batch,
            "mode": mode,
            "samples": samples,
            "others": others.cores(),
            "max_abs_difference": float(np.max(np.abs(results["original"] - results["swapped"]))),
        }
        print(json.dumps(entry), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
