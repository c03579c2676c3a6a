"""Whole networks as ONNX models, with the published topologies and seeded random weights.

Batch normalization is left as exporters leave it, an operator of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tvm_passes.bench.onnx_model import Graph, window, write_model

if TYPE_CHECKING:
    import onnx

LEAKY_SLOPE = 0.1
"""Darknet's."""

CLASSES = 1000
"""ImageNet's."""


class Network:
    """A graph that is built layer by layer.

    Weights have the variance 2 / fan-in (He et al., 2015, arXiv:1502.01852, eq. 10), so that values
    stay of the order of 1 from layer to layer.

    Parameters
    ----------
    shape
        Of the input ``x``, ``[n, c, h, w]``.
    seed
        Of the weights.
    """

    def __init__(self, shape: tuple[int, int, int, int], seed: int = 0) -> None:
        self.shape = shape
        self.graph = Graph({})
        self.random = np.random.default_rng(seed)
        self.channels = {"x": shape[1]}

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node whose result has the channels of its first input."""
        output = self.graph.add(op, *inputs, **attributes)
        self.channels[output] = self.channels[inputs[0]]
        return output

    def conv(  # noqa: PLR0913 - what a convolution is
        self,
        x: str,
        filters: int,
        kernel: int,
        stride: int = 1,
        pad: int = 0,
        *,
        norm: bool = False,
        gain: float = 1.0,
    ) -> str:
        """Convolve, then add a bias, or normalize if `norm`."""
        weights = [self._weights((filters, self.channels[x], kernel, kernel))]
        if not norm:
            weights.append(self._array(0.1 * self._normal(filters)))
        y = self.graph.add("Conv", x, *weights, **window(kernel, stride, pad))
        self.channels[y] = filters
        return self.norm(y, gain) if norm else y

    def norm(self, x: str, gain: float = 1.0) -> str:
        """Normalize with statistics as after training: scales around `gain`, variances around 1."""
        n = self.channels[x]
        uniform = self.random.uniform
        scale = (gain * uniform(0.8, 1.2, n)).astype(np.float32)
        variance = uniform(0.8, 1.2, n).astype(np.float32)
        arrays = (scale, 0.1 * self._normal(n), 0.1 * self._normal(n), variance)
        return self.add(
            "BatchNormalization", x, *(self._array(array) for array in arrays), epsilon=1e-5
        )

    def pool(self, x: str, kernel: int, stride: int, pad: int = 0, **attributes: Any) -> str:
        """Take the maxima of windows."""
        return self.add("MaxPool", x, **{**window(kernel, stride, pad), **attributes})

    def relu(self, x: str) -> str:
        """The maximum with 0."""
        return self.add("Relu", x)

    def leaky(self, x: str) -> str:
        """Darknet's activation."""
        return self.add("LeakyRelu", x, alpha=LEAKY_SLOPE)

    def dense(self, x: str, units: int) -> str:
        """Multiply rows by a matrix, and add a bias."""
        weights = self._weights((units, self.channels[x]))
        y = self.graph.add("Gemm", x, weights, self._array(0.1 * self._normal(units)), transB=1)
        self.channels[y] = units
        return y

    def flat(self, x: str, area: int = 1) -> str:
        """Make rows of images of `area` pixels."""
        y = self.add("Flatten", x, axis=1)
        self.channels[y] = self.channels[x] * area
        return y

    def join(self, *values: str) -> str:
        """Concatenate channels."""
        y = self.add("Concat", *values, axis=1)
        self.channels[y] = sum(self.channels[value] for value in values)
        return y

    def _weights(self, shape: tuple[int, ...]) -> str:
        fan_in = math.prod(shape[1:])
        scale = np.float32(math.sqrt(2 / fan_in))
        return self._array(scale * self._normal(*shape))

    def _normal(self, *shape: int) -> np.ndarray:
        return self.random.standard_normal(shape, np.float32)

    def _array(self, array: np.ndarray) -> str:
        name = f"weight{len(self.graph.constants)}"
        self.graph.constants[name] = np.asarray(array, np.float32)
        return name


def mnist() -> Network:
    """The network of ``scripts/train_mnist.py``: two 5x5 convolutions, two dense layers."""
    net = Network((1, 1, 28, 28))
    y = "x"
    for filters in (16, 36):
        y = net.pool(net.relu(net.conv(y, filters, 5, pad=2)), 2, 2)
    y = net.relu(net.dense(net.flat(y, 49), 128))
    net.add("Softmax", net.dense(y, 10), axis=1)
    return net


def vgg16() -> Network:
    """Simonyan and Zisserman, 2015, arXiv:1409.1556, table 1, column D."""
    net = Network((1, 3, 224, 224))
    y = "x"
    for depth, filters in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(depth):
            y = net.relu(net.conv(y, filters, 3, pad=1))
        y = net.pool(y, 2, 2)
    y = net.flat(y, 49)
    for units in (4096, 4096):
        y = net.relu(net.dense(y, units))
    net.add("Softmax", net.dense(y, CLASSES), axis=1)
    return net


def squeezenet() -> Network:
    """SqueezeNet 1.1: Iandola et al., 2016, arXiv:1602.07360, and their release 1.1."""
    net = Network((1, 3, 224, 224))
    y = net.pool(net.relu(net.conv("x", 64, 3, stride=2)), 3, 2, ceil_mode=1)
    for squeezes in ((16, 16), (32, 32), (48, 48, 64, 64)):
        for squeeze in squeezes:
            y = _fire(net, y, squeeze)
        if len(squeezes) == 2:
            y = net.pool(y, 3, 2, ceil_mode=1)
    y = net.relu(net.conv(y, CLASSES, 1))
    net.add("Softmax", net.flat(net.add("GlobalAveragePool", y)), axis=1)
    return net


def _fire(net: Network, x: str, squeeze: int) -> str:
    """A squeeze layer, and two expand layers of four times its filters."""
    y = net.relu(net.conv(x, squeeze, 1))
    narrow = net.relu(net.conv(y, 4 * squeeze, 1))
    return net.join(narrow, net.relu(net.conv(y, 4 * squeeze, 3, pad=1)))


def tiny_yolo() -> Network:
    """Tiny YOLO v2 for VOC: Redmon and Farhadi, 2016, arXiv:1612.08242; yolov2-tiny-voc."""
    net = Network((1, 3, 416, 416))
    y = "x"
    for filters in (16, 32, 64, 128, 256):
        y = net.pool(net.leaky(net.conv(y, filters, 3, pad=1, norm=True)), 2, 2)
    y = net.leaky(net.conv(y, 512, 3, pad=1, norm=True))
    y = net.pool(y, 2, 1, pads=[0, 0, 1, 1])
    for filters in (1024, 1024):
        y = net.leaky(net.conv(y, filters, 3, pad=1, norm=True))
    net.conv(y, 125, 1)
    return net


def resnet50() -> Network:
    """He et al., 2015, arXiv:1512.03385, table 1; strides on the 3x3 layers, as in torchvision."""
    net = Network((1, 3, 224, 224))
    y = net.relu(net.conv("x", 64, 7, stride=2, pad=3, norm=True))
    y = net.pool(y, 3, 2, 1)
    for stage, depth in enumerate((3, 4, 6, 3)):
        for number in range(depth):
            stride = 2 if stage and number == 0 else 1
            y = _bottleneck(net, y, 64 << stage, stride, project=number == 0)
    net.add("Softmax", net.dense(net.flat(net.add("GlobalAveragePool", y)), CLASSES), axis=1)
    return net


def _bottleneck(net: Network, x: str, width: int, stride: int, *, project: bool) -> str:
    y = net.relu(net.conv(x, width, 1, norm=True))
    y = net.relu(net.conv(y, width, 3, stride, 1, norm=True))
    y = net.conv(y, 4 * width, 1, norm=True, gain=0.25)
    shortcut = net.conv(x, 4 * width, 1, stride, norm=True) if project else x
    return net.relu(net.add("Add", y, shortcut))


NETWORKS: Mapping[str, Callable[[], Network]] = {
    "mnist": mnist,
    "squeezenet": squeezenet,
    "tiny_yolo": tiny_yolo,
    "resnet50": resnet50,
    "vgg16": vgg16,
}
"""The networks by name, the quickest first."""


def model_of(net: Network, name: str) -> onnx.ModelProto:
    """A network as a model with the input ``x`` and the output ``y``."""
    return write_model(net.graph, name, net.shape, None)


def write_network(name: str, path: Path) -> None:
    """Write a network of `NETWORKS` as an ``.onnx`` file."""
    import onnx

    onnx.save(model_of(NETWORKS[name](), name), path)
