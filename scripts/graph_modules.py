"""Modules of random graphs in either dialect, their inputs, and how to run them."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from random_graphs import FUNCTIONS, Graph, Node, Value

from tvm_passes.compile import kernels_for
from tvm_passes.dialects import installed
from tvm_passes.rules import RELAX
from tvm_passes.target import CUDA, OPENCL

Target = Mapping[str, Any]

SAME_NAMES = (
    "sigmoid",
    "tanh",
    "abs",
    "negative",
    "floor",
    "erf",
    "cos",
    "exp",
    "sqrt",
    "log",
)
"""Ops that both dialects call by the name that they have here."""


def constant(node: Node) -> np.ndarray:
    """The constant of an op; factors are small, so that no chain of them overflows."""
    value = node.value
    if "value" in node.attrs:
        return np.asarray(node.attrs["value"], value.dtype)
    rng = np.random.default_rng(node.attrs["seed"])
    shape = node.attrs.get("shape", None)
    if shape is None:
        shape = (value.shape[node.attrs["axis"]],)
    if not value.is_float:
        low = -3 if value.dtype != "uint8" and node.attrs["negative"] else 0
        return rng.integers(low, 4, shape).astype(value.dtype)
    if node.op == "divide":
        return np.asarray(
            rng.uniform(0.6, 2, shape) * (1 - 2 * node.attrs["negative"]), value.dtype
        )
    array = rng.uniform(-1.5 if node.attrs["negative"] else 0.1, 1.5, shape)
    return np.asarray(array, value.dtype)


def shared_or_new(node: Node, const: Callable[[np.ndarray], Any]) -> Any:
    """The constant as a module holds it: one for all ops that share it and whose numbers agree."""
    array = constant(node)
    if not node.attrs.get("shared"):
        return const(array)
    return _kept.setdefault((array.tobytes(), array.shape, str(array.dtype)), const(array))


_kept: dict[tuple[object, ...], Any] = {}


def weight(node: Node) -> np.ndarray:
    """A convolution's weight, in OIHW."""
    attrs = node.attrs
    inputs = attrs["in_channels"] // attrs["groups"]
    shape = (attrs["channels"], inputs, attrs["size"], attrs["size"])
    return np.random.default_rng(attrs["seed"]).uniform(-1, 1, shape).astype("float32")


def sample(graph: Graph) -> np.ndarray:
    """An input for a graph, the same one every time: ties, both zeros, saturation, denormals."""
    value = graph.nodes[0].value
    rng = np.random.default_rng(zlib.crc32(repr(graph).encode()))
    if not value.is_float:
        info = np.iinfo(value.dtype)
        if value.dtype == "int32":  # LLVM takes it that sums and products of 32 bits fit
            return rng.integers(-1000, 1000, value.shape, value.dtype, endpoint=True)
        wide = rng.integers(info.min, info.max, value.shape, value.dtype, endpoint=True)
        ends = rng.choice(np.array([info.min, info.max, 0, 1], value.dtype), value.shape)
        return np.where(rng.random(value.shape) < 0.4, ends, wide)
    x = 3 * rng.standard_normal(value.shape)
    x = np.where(rng.random(value.shape) < 0.3, np.round(x), x)
    tiny = float(ml_dtypes.finfo(value.dtype).tiny)
    special = rng.choice([0.0, -0.0, 0.5, -0.5, 20.0, -20.0, tiny / 8, -tiny / 8], value.shape)
    return np.where(rng.random(value.shape) < 0.3, special, x).astype(value.dtype)


@dataclass(frozen=True)
class Spelling:
    """Functions as several ops of either dialect, of one element type."""

    ops: Any
    relu: Callable[[Any], Any]
    number: Callable[[float], Any]

    def rsqrt(self, x: Any) -> Any:
        return self.ops.rsqrt(self.ops.add(self.relu(x), self.number(1.0)))

    def silu(self, x: Any) -> Any:
        return self.ops.multiply(x, self.ops.sigmoid(x))

    def softplus(self, x: Any) -> Any:
        return self.ops.log(self.ops.add(self.number(1.0), self.ops.exp(x)))

    def power(self, x: Any) -> Any:
        return self.ops.power(x, self.number(2.0))

    def choice(self, x: Any) -> Any:
        falls = self.ops.less(x, self.number(0.0))
        return self.ops.where(falls, self.ops.multiply(self.number(0.7), x), x)

    def celu(self, x: Any) -> Any:
        alpha = self.number(0.7)
        curve = self.ops.subtract(self.ops.exp(self.ops.divide(x, alpha)), self.number(1.0))
        below = self.ops.multiply(alpha, self.ops.minimum(self.number(0.0), curve))
        return self.ops.add(below, self.relu(x))

    def gelu(self, x: Any) -> Any:
        error = self.ops.erf(self.ops.multiply(x, self.number(0.5**0.5)))
        half = self.ops.multiply(x, self.number(0.5))
        return self.ops.multiply(half, self.ops.add(self.number(1.0), error))

    def selu(self, x: Any) -> Any:
        falling = self.relu(self.ops.subtract(self.number(1.0), self.ops.exp(x)))
        below = self.ops.multiply(self.number(-1.7581), falling)
        return self.ops.add(below, self.ops.multiply(self.number(1.0507), self.relu(x)))

    def elu(self, x: Any, alpha: float, spelling: str) -> Any:
        """A sum, or a choice."""
        one, ops = self.number(1.0), self.ops
        if spelling == "sum":
            falling = self.relu(ops.subtract(one, ops.exp(x)))
            return ops.add(ops.multiply(self.number(-alpha), falling), self.relu(x))
        below = ops.subtract(ops.exp(x), one)
        if alpha != 1.0:
            below = ops.multiply(self.number(alpha), below)
        return ops.where(ops.greater(x, self.number(0.0)), x, below)


BINARY = ("add", "subtract", "multiply", "divide", "maximum", "minimum")


if installed() == RELAX:
    import tvm
    from tvm import relax
    from tvm.relax import op

    from tvm_passes.relax import ReorderActivationAfterMaxPool as Pass
    from tvm_passes.relax import decisions as decide
    from tvm_passes.relax import opencl
    from tvm_passes.relax.engine import Runner, build, export, load

    def module(graph: Graph) -> tvm.IRModule:
        """A module whose ``main`` computes the graph in one dataflow block."""
        builder = relax.BlockBuilder()
        first = graph.nodes[0].value
        x = relax.Var("x", relax.TensorType(first.shape, first.dtype))
        with builder.function("main", [x]):
            with builder.dataflow():
                values: list[relax.Expr] = [x]
                for index, node in enumerate(graph.nodes[1:], 1):
                    emit = builder.emit_output if index in graph.outputs else builder.emit
                    args = [values[n] for n in node.inputs]
                    values.append(emit(_relax(builder, node, args)))
                outputs = [values[n] for n in graph.outputs]
            builder.emit_func_output(relax.Tuple(outputs) if len(outputs) > 1 else outputs[0])
        return builder.finalize()

    def _relax(builder: relax.BlockBuilder, node: Node, args: list[relax.Expr]) -> relax.Expr:
        if node.op == "values":
            indices = builder.emit(op.zeros_like(args[0], "int64"))
            pair = builder.emit(relax.Tuple([args[0], indices]))
            return relax.TupleGetItem(pair, 0)
        return RELAX_OPS[node.op](node, *args)

    def _same_name(node: Node, x: relax.Expr) -> relax.Expr:
        return getattr(op, node.op)(x)

    def _relax_binary(node: Node, x: relax.Expr) -> relax.Expr:
        other = shared_or_new(node, relax.const)
        f = getattr(op, node.op)
        return f(other, x) if node.attrs["flip"] else f(x, other)

    def _relax_function(
        known: Callable[[relax.Expr], relax.Expr] | None, node: Node, x: relax.Expr
    ) -> relax.Expr:
        return known(x) if known else getattr(_spelling(node), node.op)(x)

    def _spelling(node: Node) -> Spelling:
        return Spelling(op, op.nn.relu, lambda x: relax.const(x, node.value.dtype))

    def _relax_requantize(node: Node, x: relax.Expr) -> relax.Expr:
        a = node.attrs
        scales = relax.const(a["scale_out"], "float32"), relax.const(a["zero_point_out"], "int32")
        return op.quantize(
            op.dequantize(x, *_relax_scales(node)), *scales, out_dtype=node.value.dtype
        )

    def _relax_bias(node: Node, x: relax.Expr) -> relax.Expr:
        ones = [1] * (-1 - node.attrs["axis"] % -len(node.value.shape))
        return op.add(x, relax.const(constant(node).reshape(-1, *ones)))

    def _relax_pool(node: Node, x: relax.Expr) -> relax.Expr:
        a = node.attrs
        f = getattr(op.nn, f"{node.op}{len(a['kernel'])}d")
        shape = (a["kernel"], a["strides"], a["padding"], a["dilation"])
        return f(x, *shape, ceil_mode=a["ceil_mode"], layout=a["layout"])

    def _relax_scales(node: Node) -> tuple[relax.Expr, relax.Expr]:
        zero_point = relax.const(node.attrs["zero_point"], "int32")
        return relax.const(node.attrs["scale"], "float32"), zero_point

    def _relax_conv(node: Node, x: relax.Expr) -> relax.Expr:
        layout = node.attrs["layout"]
        given = {"groups": node.attrs["groups"], "data_layout": layout, "out_layout": layout}
        return op.nn.conv2d(x, relax.const(weight(node)), **given)

    RELAX_OPS: Mapping[str, Callable[..., relax.Expr]] = {
        **dict.fromkeys(SAME_NAMES, _same_name),
        **dict.fromkeys(BINARY, _relax_binary),
        **{name: partial(_relax_function, getattr(op.nn, name, None)) for name in FUNCTIONS},
        "relu": lambda _, x: op.nn.relu(x),
        "cast": lambda n, x: op.astype(x, n.attrs["dtype"]),
        "elu": lambda n, x: _spelling(n).elu(x, **n.attrs),
        "clip": lambda n, x: op.clip(x, n.attrs["low"], n.attrs["high"]),
        "leaky_relu": lambda n, x: op.nn.leakyrelu(x, n.attrs["alpha"]),
        "bias_add": _relax_bias,
        "prelu": lambda n, x: op.nn.prelu(x, shared_or_new(n, relax.const), n.attrs["axis"]),
        "max_pool": _relax_pool,
        "avg_pool": _relax_pool,
        "max": lambda n, x: op.max(x, list(n.attrs["axes"]), n.attrs["keepdims"]),
        "min": lambda n, x: op.min(x, list(n.attrs["axes"]), n.attrs["keepdims"]),
        "pad": lambda n, x: op.nn.pad(
            x, [w for pair in n.attrs["widths"] for w in pair], "constant", n.attrs["fill"]
        ),
        "transpose": lambda n, x: op.permute_dims(x, n.attrs["axes"]),
        "reshape": lambda n, x: op.reshape(x, n.attrs["shape"]),
        "conv": _relax_conv,
        "residual": lambda _, x, y: op.add(x, y),
        "difference": lambda _, x, y: op.subtract(x, y),
        "plus zeros": lambda _, x: op.add(x, op.zeros_like(x)),
        "times ones": lambda _, x: op.multiply(x, op.ones_like(x)),
        "quantize": lambda n, x: op.quantize(x, *_relax_scales(n), out_dtype=n.value.dtype),
        "dequantize": lambda n, x: op.dequantize(x, *_relax_scales(n)),
        "requantize": _relax_requantize,
    }

    def run(mod: tvm.IRModule, target: Target, x: np.ndarray, *, kernels: bool) -> list[np.ndarray]:
        """The outputs of a module, compiled with kernels of this project or as TVM does it."""
        compiler = kernels_for(target)
        executable = build(mod, target, reorder=False, kernels=kernels, compile_kernels=compiler)
        if target["kind"] == CUDA:  # compiled kernels are loaded from libraries alone
            with tempfile.TemporaryDirectory() as folder:
                library = Path(folder) / "lib.so"
                export(executable, library)
                return load(library, ["x"], CUDA)(x)
        if target["kind"] == OPENCL:
            opencl.register()
        return Runner(relax.VirtualMachine(executable, tvm.cpu()), tvm.cpu())(x)

else:
    import tvm
    from tvm import relay
    from tvm.contrib.graph_executor import GraphModule

    from tvm_passes.relay import ReorderActivationAfterMaxPool as Pass
    from tvm_passes.relay.engine import build
    from tvm_passes.relay.reorder import decisions as decide

    def module(graph: Graph) -> tvm.IRModule:
        """A typed module whose ``main`` computes the graph."""
        first = graph.nodes[0].value
        x = relay.var("x", shape=first.shape, dtype=first.dtype)
        values: list[relay.Expr] = [x]
        for node in graph.nodes[1:]:
            values.append(RELAY_OPS[node.op](node, *(values[n] for n in node.inputs)))
        outputs = [values[n] for n in graph.outputs]
        body = relay.Tuple(outputs) if len(outputs) > 1 else outputs[0]
        return relay.transform.InferType()(tvm.IRModule.from_expr(relay.Function([x], body)))

    def _same_name(node: Node, x: relay.Expr) -> relay.Expr:
        return getattr(relay, node.op)(x)

    def _relay_binary(node: Node, x: relay.Expr) -> relay.Expr:
        other = shared_or_new(node, relay.const)
        f = getattr(relay, node.op)
        return f(other, x) if node.attrs["flip"] else f(x, other)

    def _spelling(node: Node) -> Spelling:
        return Spelling(relay, relay.nn.relu, lambda x: relay.const(x, node.value.dtype))

    def _relay_bias(node: Node, x: relay.Expr) -> relay.Expr:
        return relay.nn.bias_add(x, shared_or_new(node, relay.const), node.attrs["axis"])

    def _relay_pool(node: Node, x: relay.Expr) -> relay.Expr:
        a = node.attrs
        f = getattr(relay.nn, f"{node.op}{len(a['kernel'])}d")
        shape = (a["kernel"], a["strides"], a["dilation"], a["padding"])
        return f(x, *shape, ceil_mode=a["ceil_mode"], layout=a["layout"])

    def _relay_scales(node: Node) -> tuple[relay.Expr, relay.Expr]:
        zero_point = relay.const(node.attrs["zero_point"], "int32")
        return relay.const(node.attrs["scale"], "float32"), zero_point

    def _relay_conv(node: Node, x: relay.Expr) -> relay.Expr:
        a = node.attrs
        kernel = "OIHW" if a["layout"] == "NCHW" else "HWIO"
        array = weight(node).transpose(["OIHW".index(letter) for letter in kernel])
        return relay.nn.conv2d(
            x,
            relay.const(array),
            channels=a["channels"],
            kernel_size=(a["size"], a["size"]),
            groups=a["groups"],
            data_layout=a["layout"],
            kernel_layout=kernel,
        )

    RELAY_OPS: Mapping[str, Callable[..., relay.Expr]] = {
        **dict.fromkeys(SAME_NAMES, _same_name),
        **dict.fromkeys(BINARY, _relay_binary),
        **dict.fromkeys(FUNCTIONS, lambda n, x: getattr(_spelling(n), n.op)(x)),
        "relu": lambda _, x: relay.nn.relu(x),
        "cast": lambda n, x: relay.cast(x, n.attrs["dtype"]),
        "elu": lambda n, x: _spelling(n).elu(x, **n.attrs),
        "clip": lambda n, x: relay.clip(x, float(n.attrs["low"]), float(n.attrs["high"])),
        "leaky_relu": lambda n, x: relay.nn.leaky_relu(x, n.attrs["alpha"]),
        "bias_add": lambda n, x: relay.nn.bias_add(
            x, shared_or_new(n, relay.const), n.attrs["axis"]
        ),
        "prelu": lambda n, x: relay.nn.prelu(
            x, shared_or_new(n, relay.const), n.attrs["axis"] % len(n.value.shape)
        ),
        "max_pool": _relay_pool,
        "avg_pool": _relay_pool,
        "max": lambda n, x: relay.max(x, n.attrs["axes"], n.attrs["keepdims"]),
        "min": lambda n, x: relay.min(x, n.attrs["axes"], n.attrs["keepdims"]),
        "pad": lambda n, x: relay.nn.pad(x, n.attrs["widths"], n.attrs["fill"]),
        "transpose": lambda n, x: relay.transpose(x, n.attrs["axes"]),
        "reshape": lambda n, x: relay.reshape(x, n.attrs["shape"]),
        "conv": _relay_conv,
        "residual": lambda _, x, y: relay.add(x, y),
        "difference": lambda _, x, y: relay.subtract(x, y),
        "plus zeros": lambda _, x: relay.add(x, relay.zeros_like(x)),
        "times ones": lambda _, x: relay.multiply(x, relay.ones_like(x)),
        "dropout": lambda _, x: relay.nn.dropout(x),
        "cast_like": lambda n, x: relay.cast_like(x, relay.const(0, n.value.dtype)),
        "quantize": lambda n, x: relay.qnn.op.quantize(
            x, *_relay_scales(n), out_dtype=n.value.dtype
        ),
        "dequantize": lambda n, x: relay.qnn.op.dequantize(x, *_relay_scales(n)),
        "requantize": lambda n, x: relay.qnn.op.requantize(
            x,
            *_relay_scales(n),
            relay.const(n.attrs["scale_out"], "float32"),
            relay.const(n.attrs["zero_point_out"], "int32"),
            out_dtype=n.value.dtype,
        ),
        "values": lambda _, x: relay.TupleGetItem(relay.Tuple([x, relay.zeros_like(x)]), 0),
    }

    def run(mod: tvm.IRModule, target: Target, x: np.ndarray, *, kernels: bool) -> list[np.ndarray]:
        """The outputs of a module, compiled with kernels of this project or as TVM does it."""
        lib = build(mod, target, reorder=False, kernels=kernels)
        executor = GraphModule(lib["default"](tvm.cpu()))
        executor.set_input(0, x)
        executor.run()
        return [executor.get_output(n).numpy() for n in range(executor.get_num_outputs())]


ALLOW = ("quasi-convex",)
"""What the passes may do, too; where what of it a graph holds is exact."""


def allowed(mod: tvm.IRModule) -> tuple[str, ...]:
    """What the pass may do to a module without rounding otherwise."""
    sunk = [op for decision in decide(mod, allow=ALLOW) for op in decision.sunk]
    return ALLOW if all(op.rule.is_exact for op in sunk) else ()


__all__ = ["Pass", "Value", "allowed", "decide", "module", "run", "sample"]
