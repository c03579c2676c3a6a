"""Show what must not be reversed: each case declined, with its reason, and what would go wrong.

Average pooling; an activation needed at full resolution (a U-Net with a skip); indices for
unpooling (SegNet); a function that falls somewhere; a window wholly in padding.

Example: python scripts/must_not.py --output must_not.json --plot must_not.png
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table

from tvm_passes.bench.environment import environment
from tvm_passes.bench.script import run_script
from tvm_passes.dialects import engine
from tvm_passes.errors import ModelError
from tvm_passes.frontends import load_model
from tvm_passes.output import check_file, write_text

SHAPE = (1, 4, 16, 16)
POOL = {"kernel_shape": [2, 2], "strides": [2, 2]}
LOWEST = np.finfo("float32").min

Nodes = list[tuple[str, list[str], list[str], dict[str, Any]]]


@dataclass(frozen=True)
class Case:
    """A model in which the swap would be wrong.

    Parameters
    ----------
    name
        What it is.
    nodes
        Op, inputs, outputs and attributes of each node; ``x`` is the input.
    outputs
        What the model returns.
    harm
        Right and wrong result on an input, as NumPy computes them.
    wrong
        What the difference means.
    """

    name: str
    nodes: Nodes
    outputs: tuple[str, ...]
    harm: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    wrong: str


def windows(x: np.ndarray) -> np.ndarray:
    """2x2 windows ``[n, c, h / 2, w / 2, 4]`` of ``[n, c, h, w]``."""
    n, c, h, w = x.shape
    split = x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5)
    return split.reshape(n, c, h // 2, w // 2, 4)


def relu(x: np.ndarray) -> np.ndarray:
    """The greater of x and 0."""
    return np.maximum(x, np.float32(0))


def leaky(x: np.ndarray) -> np.ndarray:
    """A leaky relu whose slope below 0 is -0.5, as trained PReLUs have."""
    return np.where(x > 0, x, np.float32(-0.5) * x)


def average(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of relu, and relu of mean."""
    return relu(windows(x)).mean(-1), relu(windows(x).mean(-1))


def skip(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a skip connection adds to the upsampled pool: the activation, or what is left of it."""
    pooled = relu(windows(x).max(-1)).repeat(2, 2).repeat(2, 3)
    return relu(x) + pooled, x + pooled


def indices(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each maximum is: of relu ties are common, and the first of a tie is taken."""
    return relu(windows(x)).argmax(-1), windows(x).argmax(-1)


def masks(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which elements equal the maximum of their window: a tie is several of them."""
    found = [relu(windows(x)), windows(x)]
    right, wrong = (values == values.max(-1, keepdims=True) for values in found)
    return right, wrong


def falling(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maximum of a function that falls below 0, and that function of the maximum."""
    return leaky(windows(x)).max(-1), leaky(windows(x).max(-1))


def padding(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A window wholly in padding: the lowest number, or relu of it."""
    edge = np.full((*x.shape[:2], 1), LOWEST, "float32")
    return edge, relu(edge)


CONV = ("Conv", ["x", "w"], ["a"], {"kernel_shape": [3, 3], "pads": [1] * 4})
RELU = ("Relu", ["a"], ["f"], {})
CASES = (
    Case(
        "average pooling",
        [CONV, RELU, ("AveragePool", ["f"], ["y"], POOL)],
        ("y",),
        average,
        "the mean of what is positive is not the positive part of the mean",
    ),
    Case(
        "U-Net: a skip reads the activation",
        [
            CONV,
            RELU,
            ("MaxPool", ["f"], ["p"], POOL),
            ("Resize", ["p", "", "scales"], ["u"], {"mode": "nearest"}),
            ("Add", ["u", "f"], ["y"], {}),
        ],
        ("y",),
        skip,
        "the skip would carry numbers that no activation has seen",
    ),
    Case(
        "SegNet: indices for unpooling",
        [
            CONV,
            RELU,
            ("MaxPool", ["f"], ["y"], POOL),
            ("Reshape", ["f", "split"], ["s"], {}),
            ("Transpose", ["s"], ["t"], {"perm": [0, 1, 2, 4, 3, 5]}),
            ("Reshape", ["t", "windows"], ["v"], {}),
            ("ArgMax", ["v"], ["i"], {"axis": 4, "keepdims": 0}),
        ],
        ("y", "i"),
        indices,
        "where relu makes ties, unpooling would put values elsewhere",
    ),
    Case(
        "SegNet: the indices of MaxPool itself",
        [CONV, RELU, ("MaxPool", ["f"], ["y", "i"], POOL)],
        ("y", "i"),
        indices,
        "TVM has no pool that gives indices",
    ),
    Case(
        "SegNet: a mask of the maxima",
        [
            CONV,
            RELU,
            ("MaxPool", ["f"], ["p"], POOL),
            ("Resize", ["p", "", "scales"], ["u"], {"mode": "nearest"}),
            ("Equal", ["f", "u"], ["m"], {}),
            ("Cast", ["m"], ["k"], {"to": TensorProto.FLOAT}),
            ("Mul", ["k", "u"], ["y"], {}),
        ],
        ("y",),
        masks,
        "where relu makes ties, unpooling would fill one place of four",
    ),
    Case(
        "PReLU with a negative slope (MTCNN)",
        [CONV, ("LeakyRelu", ["a"], ["f"], {"alpha": -0.5}), ("MaxPool", ["f"], ["y"], POOL)],
        ("y",),
        falling,
        "the maximum may come from the lowest input of a window",
    ),
    Case(
        "a window wholly in padding",
        [CONV, RELU, ("MaxPool", ["f"], ["y"], {**POOL, "pads": [2, 2, 0, 0]})],
        ("y",),
        padding,
        "the lowest number would become 0",
    ),
)


def model(case: Case, weights: np.ndarray) -> onnx.ModelProto:
    """The case as an ONNX model."""
    n, c, h, w = SHAPE
    constants = {
        "w": weights,
        "scales": np.array([1, 1, 2, 2], "float32"),
        "split": np.array([n, c, h // 2, 2, w // 2, 2]),
        "windows": np.array([n, c, h // 2, w // 2, 4]),
    }
    used = {name for _, inputs, _, _ in case.nodes for name in inputs}
    graph = helper.make_graph(
        [helper.make_node(op, i, o, **attributes) for op, i, o, attributes in case.nodes],
        "case",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [
            helper.make_tensor_value_info(
                name, TensorProto.INT64 if name == "i" else TensorProto.FLOAT, None
            )
            for name in case.outputs
        ],
        [onnx.numpy_helper.from_array(a, name) for name, a in constants.items() if name in used],
    )
    opsets = [helper.make_opsetid("", 17)]
    found = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return onnx.shape_inference.infer_shapes(found)


def examine(case: Case, random: np.random.Generator) -> dict[str, Any]:
    """What the pass says of a case, and the harm on random input."""
    weights = random.standard_normal((4, 4, 3, 3), np.float32)
    right, wrong = case.harm(random.standard_normal(SHAPE, np.float32))
    differs = right != wrong
    tvm_engine = engine()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.onnx"
        onnx.save(model(case, weights), path)
        try:
            decisions = tvm_engine.decisions(load_model(path, tvm_engine.DIALECT))
            declines = [d.decline for d in decisions if d.decline is not None]
            reasons = [f"{d.reason.value}: {d.detail}" for d in declines]
            passed = any(decision.passed for decision in decisions)
        except ModelError as err:
            reasons, passed = [f"not imported: {err}".replace(f"{folder}/", "")], False
    return {
        "case": case.name,
        "declined": not passed,
        "reasons": reasons,
        "wrong": case.wrong,
        "share_of_results_wrong": float(differs.mean()),
        "worst": float(np.max(np.abs(right.astype("float64") - wrong))),
    }


@click.command(help=__doc__)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--plot", type=click.Path(path_type=Path), help="Shares of wrong results.")
@click.option("--output", required=True, type=click.Path(path_type=Path))
def must_not(seed: int, plot: Path | None, output: Path) -> None:
    """Run."""
    check_file(output)
    random = np.random.default_rng(seed)
    results = [examine(case, random) for case in CASES]
    document = {
        "environment": environment(),
        "seed": seed,
        "dialect": engine().DIALECT,
        "results": results,
    }
    write_text(output, json.dumps(document, indent=1) + "\n")
    table = Table(title="what must not be reversed", title_justify="left")
    for header in ("case", "the pass says", "else wrong", "because"):
        table.add_column(header, justify="right" if header == "else wrong" else "left")
    for found in results:
        says = "; ".join(found["reasons"]) if found["declined"] else "[red]PASSED"
        table.add_row(found["case"], says, f"{found['share_of_results_wrong']:.0%}", found["wrong"])
    Console().print(table)
    if plot is not None:
        draw(results, plot)
    if not all(found["declined"] for found in results):
        raise click.ClickException("the pass would reverse what it must not")


def draw(results: list[Mapping[str, Any]], path: Path) -> None:
    """Shares of results that the swap would get wrong."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.add_subplot()
    shares = [100 * found["share_of_results_wrong"] for found in results]
    axes.barh([found["case"] for found in results], shares, color="tab:red")
    axes.invert_yaxis()
    axes.set_xlabel("% of results that the swap would get wrong, normal input")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    run_script("must_not", must_not)
