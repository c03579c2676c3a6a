"""The main job: compile a trained CNN in both orders, and show that the results are the same.

Example: python scripts/demo.py --rounds 51
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table

from tvm_passes.bench.script import run_script
from tvm_passes.cli import sites_table
from tvm_passes.compile import compile_model
from tvm_passes.dialects import Runner, engine
from tvm_passes.inspect import diff, inspect_model
from tvm_passes.measure import Timing, interleave, set_threads
from tvm_passes.output import LIBRARY

DATA = Path(__file__).parent.parent / "tests" / "data"
ORDERS = {"original": False, "reordered": True}


@click.command()
@click.option(
    "--model",
    type=click.Path(exists=True, path_type=Path),
    default=DATA / "mnist.tflite",
    help="A trained classifier with one image input; by default the shipped MNIST network.",
)
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    default=DATA / "mnist_test.npz",
    help="NumPy archive with images (uint8, 0 to 255) and labels.",
)
@click.option("--target", default="llvm", show_default=True, help="As for tvm-reorder compile.")
@click.option("--threads", default=1, show_default=True, help="Threads of the kernels.")
@click.option("--rounds", default=31, show_default=True, help="Interleaved rounds of timing.")
def demo(model: Path, data: Path, target: str, threads: int, rounds: int) -> None:
    """Sink the activations of a trained CNN, compile both orders, compare and time them."""
    out = Console(width=100)
    found = inspect_model(model)
    out.rule(f"sites of {model.name}, dialect {found.dialect}")
    out.print(sites_table(found.decisions))

    with tempfile.TemporaryDirectory() as folder:
        compiled = {
            name: compile_model(model, Path(folder) / name, target=target, reorder=reorder)
            for name, reorder in ORDERS.items()
        }
        for remark in compiled["reordered"].remarks:
            out.print(f"remark: {remark}", highlight=False, markup=False, soft_wrap=True)
        out.rule("the IR around the first site")
        out.print(_first_change(found.before, found.after))
        names = [tensor["name"] for tensor in compiled["original"].manifest["inputs"]]
        runners = {name: engine().load(Path(folder) / name / LIBRARY, names) for name in ORDERS}
        set_threads(threads)
        archive = np.load(data)
        images = (archive["images"] / np.float32(255)).astype("float32")
        _compare(out, runners, images, archive["labels"])
        _time(out, runners, images[:1], threads, rounds)


def _first_change(before: str, after: str) -> Syntax:
    """The first run of lines that differ, without what surrounds it."""
    lines = diff(before, after, context=0)
    starts = [n for n, line in enumerate(lines) if line.startswith("@@")] + [len(lines)] * 2
    first = lines[starts[0] + 1 : starts[1]] or ["no change"]
    return Syntax("\n".join(first), "diff", background_color="default", word_wrap=True)


def _compare(
    out: Console, runners: dict[str, Runner], images: np.ndarray, labels: np.ndarray
) -> None:
    """Print each order's accuracy on the test split, and whether all outputs are bitwise equal."""
    outputs = {
        name: np.concatenate([run(image[None])[0] for image in images])
        for name, run in runners.items()
    }
    out.rule(f"results on the {len(images)} images of the test split")
    for name, scores in outputs.items():
        out.print(f"accuracy, {name}: {np.mean(scores.argmax(axis=1) == labels):.4f}")
    original, reordered = (scores.view("uint8") for scores in outputs.values())
    same = np.array_equal(original, reordered)
    out.print(f"outputs bitwise equal: {'yes, all of them' if same else 'NO'}")
    if not same:
        raise click.ClickException("the two orders differ: please report this model")


def _time(
    out: Console, runners: dict[str, Runner], image: np.ndarray, threads: int, rounds: int
) -> None:
    timings = interleave({name: run.prepared(image) for name, run in runners.items()}, rounds)
    table = Table(title=f"one image, {threads} thread(s), {rounds} interleaved rounds")
    for header in ("order", "median ms", "± MAD ms", "original / this"):
        table.add_column(header, justify="left" if header == "order" else "right")
    for name, timing in timings.items():
        table.add_row(name, *_cells(timing, timings["original"]))
    out.print(table)


def _cells(timing: Timing, base: Timing) -> tuple[str, str, str]:
    ratio = base.median / timing.median
    return f"{timing.median * 1e3:.3f}", f"{timing.mad * 1e3:.3f}", f"{ratio:.2f}"


if __name__ == "__main__":
    run_script("demo", demo)
