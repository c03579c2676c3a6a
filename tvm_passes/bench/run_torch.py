"""PyTorch, on the CPU or a GPU: eager, there by cuDNN, and Inductor with frozen weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tvm_passes.bench.block import LEAKY_SLOPE, ORIGINAL, Block
from tvm_passes.bench.files import inputs_of, read_arrays, read_block, readable_file

ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": lambda x: x,
    "relu": functional.relu,
    "leaky_relu": lambda x: functional.leaky_relu(x, LEAKY_SLOPE),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": functional.softplus,
    "elu": functional.elu,
    "silu": functional.silu,
    "gelu": functional.gelu,
}


class TorchBlock(torch.nn.Module):
    """A block in either order."""

    def __init__(self, block: Block, order: str, arrays: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(
            block.shape[1], block.channels, block.kernel, block.stride, block.pad, bias=block.bias
        )
        self.conv.weight.data = torch.from_numpy(arrays["w"])
        if self.conv.bias is not None:
            self.conv.bias.data = torch.from_numpy(arrays["b"])
        self.pool = torch.nn.MaxPool2d(*block.pool)
        self.activation = ACTIVATIONS[block.activation]
        self.activation_first = order == ORIGINAL

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the block of ``x [n, c, h, w]``."""
        x = self.conv(x)
        return self.pool(self.activation(x)) if self.activation_first else self._swapped(x)

    def _swapped(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.pool(x))


class Torch:
    """PyTorch with or without its compiler."""

    versions: Mapping[str, str] = {"torch": torch.__version__}

    def __init__(self, threads: int, *, compiled: bool) -> None:
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        self.compiled = compiled

    def prepare(self, folder: Path, variant: str, options: Mapping[str, Any]) -> Bound:
        """Build a variant; one that ends in ``nhwc`` is in channels-last memory."""
        if (options.get("target") or {}).get("kind") == "cuda":
            return self._prepared(folder, variant, _cuda(), BoundOnGpu)
        return self._prepared(folder, variant, torch.device("cpu"), Bound)

    def _prepared(
        self, folder: Path, variant: str, device: torch.device, bound: type[Bound]
    ) -> Bound:
        order, _, layout = variant.partition(" ")
        model = _module(folder, order).eval().to(device)
        inputs = [torch.from_numpy(array).to(device) for array in inputs_of(folder)]
        if len(inputs) != 1:
            raise ValueError(f"runs models of one input, not {len(inputs)}")
        (x,) = inputs
        if layout == "nhwc":
            model = model.to(memory_format=torch.channels_last)
            x = x.to(memory_format=torch.channels_last)
        if self.compiled:
            import torch._inductor.config as inductor

            inductor.freezing = True
            model = torch.compile(model)
        return bound(model, x)


def _module(folder: Path, order: str) -> Any:
    """A block in an order, or what onnx2torch makes of a model."""
    if (folder / "block.json").exists():
        return TorchBlock(read_block(folder), order, read_arrays(folder))
    path = readable_file(folder, order)
    try:
        from onnx2torch import convert
    except ImportError as err:
        raise ValueError(f"reads .onnx files by onnx2torch: {err}") from None
    return convert(path)


def _cuda() -> torch.device:
    """The GPU, on which cuDNN tries its algorithms, all of them in float32."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device("cuda")


WARM_UPS = 3
"""Runs before kernels are recorded, as PyTorch's documentation does."""


class Bound:
    """A model and its input."""

    def __init__(self, model: Any, x: torch.Tensor) -> None:
        self.model, self.x = model, x
        with torch.no_grad():
            self.y = model(x)

    def run(self) -> None:
        """Run once."""
        with torch.no_grad():
            self.y = self.model(self.x)

    def outputs(self) -> list[np.ndarray]:
        """Fetch the output."""
        return [np.ascontiguousarray(self.y.cpu().numpy())]


class BoundOnGpu(Bound):
    """A model and its input on a GPU, timed by CUDA's events.

    Its kernels are recorded as a CUDA graph, so that what PyTorch does on the CPU costs nothing.
    """

    def __init__(self, model: Any, x: torch.Tensor) -> None:
        super().__init__(model, x)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # as torch.cuda.graph asks for
            for _ in range(WARM_UPS):
                super().run()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            super().run()

    def run(self) -> None:
        """Start the recorded kernels."""
        self.graph.replay()

    def measure(self, seconds: float) -> dict[str, Any]:
        """Call for about a time, as `tvm_passes.bench.worker.measure`."""
        self._mean(1)
        calls = max(1, round(seconds / max(self._mean(1), 1e-9)))
        cpu = time.process_time()
        mean = self._mean(calls)
        return {"seconds": mean, "cpu": (time.process_time() - cpu) / calls, "calls": calls}

    def _mean(self, calls: int) -> float:
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(calls):
            self.run()
        stop.record()
        stop.synchronize()
        return float(start.elapsed_time(stop)) / 1e3 / calls


def start(runtime: str, threads: int) -> Torch:
    """Serve PyTorch, or Inductor."""
    return Torch(threads, compiled=runtime == "inductor")
