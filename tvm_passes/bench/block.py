"""A block to measure: conv2d, bias, activation and max_pool2d, with seeded weights and input."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tvm_passes.errors import BlockError

ORIGINAL, SWAPPED = "original", "swapped"
ORDERS = (ORIGINAL, SWAPPED)
"""Activation before the pool, as frameworks write it, and behind it."""

ACTIVATIONS = ("relu", "leaky_relu", "sigmoid", "tanh", "softplus", "elu", "gelu", "silu", "none")
LEAKY_SLOPE = 0.1
"""Darknet's, from where the tiny-YOLO blocks are; ONNX's own default is 0.01."""


@dataclass(frozen=True)
class Block:
    """One convolution and what follows it, float32, layout [n, c, h, w].

    Parameters
    ----------
    name
        What tables call it.
    shape
        Of the input, ``[n, c_in, h, w]``.
    channels
        c_out.
    kernel, stride, pad
        Of the convolution, the same for both axes and both sides.
    activation
        One of `ACTIVATIONS`.
    pool
        Kernel, stride and padding of the max-pool.
    bias
        Whether a bias, never zero, is added.
    """

    name: str
    shape: tuple[int, int, int, int]
    channels: int
    kernel: int
    stride: int
    pad: int
    activation: str
    pool: tuple[int, int, int]
    bias: bool = True

    @property
    def conv_shape(self) -> tuple[int, int, int, int]:
        """Of the convolution's result, ``[n, c_out, h, w]``."""
        n, _, h, w = self.shape
        extents = [(size + 2 * self.pad - self.kernel) // self.stride + 1 for size in (h, w)]
        return (n, self.channels, extents[0], extents[1])

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        """Of the block's result, ``[n, c_out, h, w]``."""
        kernel, stride, pad = self.pool
        n, c, h, w = self.conv_shape
        extents = [(size + 2 * pad - kernel) // stride + 1 for size in (h, w)]
        return (n, c, extents[0], extents[1])

    @property
    def flops(self) -> int:
        """Floating-point operations of the convolution, a multiply-add being two."""
        return 2 * math.prod(self.conv_shape) * self.shape[1] * self.kernel**2

    def arrays(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Input ``x [n, c, h, w]``, weights ``w [o, c, kh, kw]`` and bias ``b [o]``, all float32.

        Weights are scaled by the fan-in, so that results are of the order of 1.
        """
        random = np.random.default_rng(seed)
        fan_in = self.shape[1] * self.kernel**2
        kernel = (self.channels, self.shape[1], self.kernel, self.kernel)
        return {
            "x": random.standard_normal(self.shape, np.float32),
            "w": random.standard_normal(kernel, np.float32) / np.float32(math.sqrt(fan_in)),
            "b": random.standard_normal(self.channels, np.float32),
        }

    def as_dict(self) -> dict[str, Any]:
        """The block in plain values, for another process."""
        return asdict(self)


def from_dict(fields: Mapping[str, Any]) -> Block:
    """The inverse of `Block.as_dict`."""
    tuples = {name: tuple(fields[name]) for name in ("shape", "pool")}
    return Block(**{**fields, **tuples})


def read_blocks(path: Path, only: Sequence[str] = ()) -> tuple[Block, ...]:
    """Read a file in the form of ``scripts/blocks.json``.

    Parameters
    ----------
    path
        The file.
    only
        Names of the blocks to take, all of them if empty.

    Raises
    ------
    BlockError
        If the file cannot be read, is not of that form, or lacks a name of `only`.
    """
    try:
        entries = json.loads(path.read_text())["blocks"]
        blocks = tuple(_block(entry) for entry in entries)
    except OSError as err:
        raise BlockError(f"cannot read {path}: {err.strerror}") from err
    except KeyError as err:
        raise BlockError(f"{path}: a block or the file lacks {err}") from err
    except (TypeError, ValueError) as err:
        raise BlockError(f"{path} does not hold blocks: {err}") from err
    names = [block.name for block in blocks]
    unknown = [name for name in only if name not in names]
    if unknown:
        raise BlockError(f"{path} has no block {unknown[0]!r}: expected of {', '.join(names)}")
    if len(set(names)) < len(names):
        raise BlockError(f"{path} gives two blocks the same name: {', '.join(sorted(names))}")
    return tuple(block for block in blocks if not only or block.name in only)


def _block(entry: Mapping[str, Any]) -> Block:
    conv = entry["conv"]
    n, c, h, w = map(int, entry["in"])
    kernel, stride, pad = map(int, entry["pool"])
    block = Block(
        name=str(entry["name"]),
        shape=(n, c, h, w),
        channels=int(conv["out"]),
        kernel=int(conv["kernel"]),
        stride=int(conv["stride"]),
        pad=int(conv["pad"]),
        activation=str(entry["activation"]),
        pool=(kernel, stride, pad),
        bias=bool(conv.get("bias", True)),
    )
    if block.activation not in ACTIVATIONS:
        raise ValueError(f"{block.name}: activation {block.activation!r}, not of {ACTIVATIONS}")
    if min(*block.shape, *block.out_shape, block.kernel, block.stride, stride) < 1:
        raise ValueError(f"{block.name} has an extent below 1")
    return block
