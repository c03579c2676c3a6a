"""A training step of the tutorial network in Relax, activation before or behind its pools.

The pass runs on the network, then TVM derives the gradients of what it is given; the weights are no
constants, so both orders are left to TVM's own schedules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.script import relax as R  # noqa: N812 - its usual name

from tvm_passes.bench.others import Others
from tvm_passes.bench.worker import measure
from tvm_passes.relax.reorder import ReorderActivationAfterMaxPool
from tvm_passes.target import parse_target

RATE = 0.01
WEIGHTS = {
    "w1": (16, 1, 5, 5),
    "b1": (1, 16, 1, 1),
    "w2": (36, 16, 5, 5),
    "b2": (1, 36, 1, 1),
    "w3": (7 * 7 * 36, 128),
    "b3": (128,),
    "w4": (128, 10),
    "b4": (10,),
}
"""As in scripts/mnist_tensorflow.py, [o, c, kh, kw] and [in, out]."""


def network(batch: int) -> tvm.IRModule:
    """The loss of ``[batch, 1, 28, 28]`` images, relu before each pool."""
    shapes = {"x": (batch, 1, 28, 28), **WEIGHTS}
    values = {name: relax.Var(name, R.Tensor(shape, "float32")) for name, shape in shapes.items()}
    labels = relax.Var("labels", R.Tensor((batch,), "int64"))
    nn, builder = relax.op.nn, relax.BlockBuilder()
    with builder.function("loss", [*values.values(), labels]):
        with builder.dataflow():
            x = values["x"]
            for w, b in (("w1", "b1"), ("w2", "b2")):
                x = builder.emit(nn.conv2d(x, values[w], padding=2))
                x = builder.emit(nn.relu(builder.emit(relax.op.add(x, values[b]))))
                x = builder.emit(nn.max_pool2d(x, 2, 2))
            x = builder.emit(relax.op.reshape(x, (batch, WEIGHTS["w3"][0])))
            x = builder.emit(relax.op.matmul(x, values["w3"]))
            x = builder.emit(nn.relu(builder.emit(relax.op.add(x, values["b3"]))))
            x = builder.emit(relax.op.matmul(x, values["w4"]))
            x = builder.emit(nn.log_softmax(builder.emit(relax.op.add(x, values["b4"]))))
            loss = builder.emit_output(nn.nll_loss(x, labels, reduction="mean"))
        builder.emit_func_output(loss)
    return builder.get()


def training(mod: tvm.IRModule) -> tvm.IRModule:
    """Add ``step``: the loss, and the weights after a step of gradient descent."""
    weights = list(mod["loss"].params)[1:-1]
    mod = relax.transform.Gradient("loss", require_grads=weights)(mod)
    builder = relax.BlockBuilder(mod)
    adjoint = mod.get_global_var("loss_adjoint")
    params = [relax.Var(str(p.name), p.ty) for p in mod["loss_adjoint"].params]
    with builder.function("step", params):
        with builder.dataflow():
            found = builder.emit(relax.Call(adjoint, params))
            gradients = builder.emit(relax.TupleGetItem(found, 1))
            new = [builder.emit(relax.TupleGetItem(found, 0))]
            for n, weight in enumerate(params[1:-1]):
                change = relax.op.multiply(
                    relax.TupleGetItem(gradients, n), relax.const(RATE, "float32")
                )
                new.append(builder.emit(relax.op.subtract(weight, builder.emit(change))))
            result = builder.emit_output(relax.Tuple(new))
        builder.emit_func_output(result)
    return relax.transform.DeadCodeElimination(["step"])(builder.get())


def runner(mod: tvm.IRModule, batch: int, seed: int, threads: int) -> Callable[[], Any]:
    """What a round calls."""
    target = tvm.target.Target({"num-cores": threads, **parse_target("host")})
    step = relax.VirtualMachine(tvm.compile(training(mod), target), tvm.cpu())["step"]
    random = np.random.default_rng(seed)
    arrays = [random.random((batch, 1, 28, 28), np.float32)]
    for shape in WEIGHTS.values():
        scale = np.sqrt(np.prod(shape[1:] if len(shape) == 4 else shape[:-1]) or 1)
        arrays.append(random.standard_normal(shape, np.float32) / np.float32(scale))
    arrays.append(random.integers(0, 10, batch))
    inputs = [tvm.runtime.tensor(array) for array in arrays]
    return lambda: step(*inputs)


def train(batch: int, rounds: int, seconds: float, seed: int, threads: int) -> dict[str, Any]:
    """Samples of both orders in turn, and how far their losses and new weights differ."""
    original = network(batch)
    swapped = tvm.transform.Sequential([ReorderActivationAfterMaxPool()])(original)
    modules = {"original": original, "swapped": swapped}
    runs = {order: runner(mod, batch, seed, threads) for order, mod in modules.items()}
    results = [[tensor.numpy() for tensor in run()] for run in runs.values()]
    samples: dict[str, list[float]] = {order: [] for order in runs}
    others = Others()
    for turn in range(rounds):
        for order in runs if turn % 2 == 0 else reversed(runs):
            samples[order].append(measure(runs[order], seconds)["seconds"])
    found = {"samples": samples, "others": others.cores()}
    differences = [np.max(np.abs(a - b)) for a, b in zip(*results, strict=True)]
    return found | {"max_abs_difference": float(max(differences))}
