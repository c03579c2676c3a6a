"""Repeat the experiment of TensorFlow issue 3180: MNIST with relu before and behind its pools.

The tutorial network in both orders, inference and a training step, in TensorFlow (eager, as a
graph, with XLA) and through this package, rounds interleaved, with intervals and verdicts.  In
TensorFlow the original is there twice: how these two differ is what no order explains.

Parts that the output holds already, and that are not asked for again, are kept in it.

Example: python scripts/mnist_orders.py --rounds 101 --output mnist.json --plot mnist.png
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from tvm_passes.bench.bench import Bench, Request
from tvm_passes.bench.environment import environment
from tvm_passes.bench.script import run_script
from tvm_passes.bench.verdict import compare
from tvm_passes.dialects import engine
from tvm_passes.output import check_file, write_text
from tvm_passes.rules import RELAX

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "tests" / "data" / "mnist.tflite"
ENVIRONMENTS = click.Path(path_type=Path)


@click.command(help=__doc__)
@click.option("--parts", default="tensorflow,inference,training", show_default=True)
@click.option(
    "--train-batch", type=click.IntRange(1), default=16, show_default=True, help="In TVM."
)
@click.option("--rounds", type=click.IntRange(1), default=101, show_default=True)
@click.option("--seconds", type=float, default=0.05, show_default=True, help="Of a sample.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--environments", type=ENVIRONMENTS, default=ROOT / ".venv")
@click.option("--plot", type=click.Path(path_type=Path), help="Picture of the ratios.")
@click.option("--output", required=True, type=click.Path(path_type=Path))
def mnist_orders(**options: Any) -> None:
    """Run."""
    check_file(options["output"])
    wanted = list(filter(None, options["parts"].split(",")))
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        raise click.UsageError(f"no part {unknown[0]!r}: expected of {', '.join(PARTS)}")
    document = kept(options["output"], wanted)
    for part in wanted:
        document["environments"][part] = environment() | {"seed": options["seed"]}
        for entry in PARTS[part](options):
            document["results"].append({"part": part, **entry})
            document["results"].sort(key=lambda found: list(PARTS).index(found["part"]))
            write_text(options["output"], json.dumps(document, indent=1) + "\n")
    Console().print(table(document["results"]))
    if options["plot"] is not None:
        draw(document["results"], options["plot"])


def kept(output: Path, wanted: Sequence[str]) -> dict[str, Any]:
    """What an earlier run left of the parts that are not measured again."""
    if not output.exists():
        return {"environments": {}, "results": []}
    earlier = json.loads(output.read_text())
    results = [entry for entry in earlier["results"] if entry["part"] not in wanted]
    return {"environments": earlier["environments"], "results": results}


def tensorflow(options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Both orders in TensorFlow."""
    python = options["environments"].absolute() / "peers" / "bin" / "python"
    if not python.exists():
        raise click.ClickException(f"no {python}: run make env-peers")
    numbers = [str(options[name]) for name in ("threads", "rounds", "seconds", "seed")]
    command = [python, ROOT / "scripts" / "mnist_tensorflow.py", *numbers]
    variables = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    with subprocess.Popen(  # noqa: S603 - our own program
        command, env=variables, stdout=subprocess.PIPE, text=True
    ) as child:
        for line in child.stdout or ():
            entry = json.loads(line)
            samples = entry["samples"]
            ratios = {
                name: compare(samples["original"], samples[run]).as_dict()
                for name, run in (("ratio", "swapped"), ("control", "control"))
            }
            yield entry | {"what": f"TensorFlow, {entry['mode']}"} | ratios
    if child.returncode:
        raise click.ClickException(f"TensorFlow ended with code {child.returncode}")


def ours(options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The trained network through TVM's own schedules and this package's, in both orders."""
    request = Request(
        sources=[str(MODEL)],
        blocks=ROOT / "scripts" / "blocks.json",
        seed=options["seed"],
        python=Path(sys.executable),
        peers_python=Path(sys.executable),
        threads=[options["threads"]],
        rounds=options["rounds"],
        seconds=options["seconds"],
        figures=False,
    )
    for entry in Bench(request).entries():
        samples = entry["samples"][entry["dialect"]]
        for base, other in (("original", "reordered"), ("scheduled", "fused")):
            if base in samples and other in samples:
                pair = {"original": samples[base]["samples"], "swapped": samples[other]["samples"]}
                yield {
                    "what": f"TVM {entry['dialect']}, {base} and {other}",
                    "work": "inference",
                    "batch": 1,
                    "samples": pair,
                    "others": entry["others"],
                    "ratio": compare(*pair.values()).as_dict(),
                    "max_abs_difference": entry["max_abs_difference"][entry["dialect"]],
                }


def training(options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A training step in Relax, whose gradients TVM derives; Relay is left out."""
    if engine().DIALECT != RELAX:
        return
    sys.path.insert(0, str(ROOT / "scripts"))
    from mnist_relax import train

    numbers = [options[name] for name in ("rounds", "seconds", "seed", "threads")]
    found = train(options["train_batch"], *numbers)
    ratio = compare(*found["samples"].values()).as_dict()
    what = {"what": "TVM relax, original and reordered", "work": "training"}
    yield what | found | {"batch": options["train_batch"], "ratio": ratio}


PARTS: Mapping[str, Callable[[dict[str, Any]], Iterator[dict[str, Any]]]] = {
    "tensorflow": tensorflow,
    "inference": ours,
    "training": training,
}
"""What is measured: TensorFlow, and this package's inference and training step."""


def table(results: list[dict[str, Any]]) -> Table:
    """A row a comparison."""
    found = Table(title="time of relu → pool over time of pool → relu", title_justify="left")
    for header in ("in", "work", "batch", "ratio", "95% interval", "verdict", "control"):
        numbers = ("batch", "ratio", "control")
        found.add_column(header, justify="right" if header in numbers else "left")
    for entry in results:
        ratio = entry["ratio"]
        interval = f"{ratio['low']:.3f} to {ratio['high']:.3f}"
        cells = (entry["what"], entry["work"], str(entry["batch"]), f"{ratio['ratio']:.3f}")
        verdict = ratio["verdict"].replace("not significant", "n.s.")
        control = f"{entry['control']['ratio']:.3f}" if "control" in entry else ""
        found.add_row(*cells, interval, verdict, control)
    return found


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Ratios with their intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1 + 0.35 * len(results)), layout="constrained")
    axes = figure.add_subplot()
    for y, entry in enumerate(results):
        ratio = entry["ratio"]
        axes.plot([ratio["low"], ratio["high"]], [y, y], color="tab:blue")
        axes.plot(ratio["ratio"], y, "o", color="tab:blue")
        if "control" in entry:
            (cross,) = axes.plot(entry["control"]["ratio"], y, "x", color="tab:gray")
            axes.legend([cross], ["the original over itself"], fontsize=8)
    labels = [f"{e['what']}, {e['work']}, batch {e['batch']}" for e in results]
    axes.set_yticks(range(len(results)), labels)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("time of relu → pool over time of pool → relu")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    run_script("mnist_orders", mnist_orders)
