"""Print the README's tables of the experiments, from their records.

A ratio is the time of activation, then pool, over that of pool, then activation; one in italics
is not significant.

Example: python scripts/experiment_tables.py
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tvm_passes.bench.script import run_script

RECORDS = Path(__file__).parent / "records"
DIALECTS = ("relax", "relay")
PAIRS = ("TVM's schedules", "our kernels")
HEADERS = ("Relax, TVM's", "Relax, ours", "Relay, TVM's", "Relay, ours")
TIMES = "\N{MULTIPLICATION SIGN}"
AXES = {
    "kernel": "kernel",
    "channels": "input channels",
    "image": "image",
    "pool": "pool",
    "depth": f"depth, 3{TIMES}3",
    "activation": "activation",
}
BASE = ("kernel: 3x3", "channels: 3 channels", "image: 112x112", "pool: 2x2, stride 2, pad 0")
"""The layer that the axes vary, which is measured again on each of them."""

WHO = ("TensorFlow", "ours, Relax", "ours, Relay")
"""The compilers that move an activation anywhere; the others share a column."""

PRODUCERS = {
    "conv, bias": "bias_add",
    "conv, add": "AddV2",
    "conv": "no bias",
    "conv, batch norm": "batch norm",
    "none": "no conv",
}
WORK = (("inference", 1), ("inference", 64), ("training", 64))
MODES = ("eager", "graph", "xla")

GPU_PEERS = (("torch", "cuDNN"), ("inductor", "Inductor"))
COUNTED = ("FFMA", "all", "LDG", "STG", "LDS")
SHOWN_COUNTERS = (
    "vgg3_3-original",
    "vgg3_3-fused",
    "vgg3_3-winograd",
    "tinyyolo1-fused",
    "resnet1-fused",
)

Results = Sequence[Mapping[str, Any]]


def results(name: str, folder: Path = RECORDS) -> list[dict[str, Any]]:
    """What a record holds."""
    return list(json.loads((folder / f"{name}.json").read_text())["results"])


def ratio(found: Mapping[str, Any], *, interval: bool = False) -> str:
    """A ratio to three digits, in italics if it is not significant."""
    text = f"{found['ratio']:#.3g}".rstrip(".")
    if found["verdict"] == "not significant":
        text = f"*{text}*"
    return f"{text} [{found['low']:#.3g}, {found['high']:#.3g}]" if interval else text


def _cells(entries: Sequence[Mapping[str, Any] | None]) -> Iterator[str]:
    """Both pairs of a block, in each dialect; it stays where nothing sinks."""
    for entry in entries:
        for pair in PAIRS:
            found = entry["ratios"].get(pair) if entry else None
            yield (
                ""
                if found is None or entry is None
                else (ratio(found) if entry["sunk"] else "stays")
            )


def _value(block: str) -> str:
    axis, _, value = block.partition(": ")
    return value.removesuffix(" channels").replace("x", TIMES) if axis != "activation" else value


def who_table(found: Mapping[str, Mapping[str, str]]) -> list[str]:
    """A row an activation: the producers behind which it runs after each max-pool, if read once.

    Raises
    ------
    ValueError
        If it depends on the pool, or runs after an average, or after a pool despite another reader.
    """
    others = [name for name in found if name not in WHO]
    lines = [
        "| activation | TensorFlow | this package, Relax | this package, Relay | all others |",
        "| --- | --- | --- | --- | --- |",
    ]
    for activation in dict.fromkeys(case.split(" | ")[1] for case in found[WHO[0]]):
        cells = [_producers(found[name], activation) for name in WHO]
        rest = {_producers(found[name], activation) for name in others}
        lines.append(f"| {' | '.join([activation, *cells, *rest])} |")
    return lines


def _producers(places: Mapping[str, str], activation: str) -> str:
    """In words, the producers behind which a compiler moves an activation."""
    after: dict[str, list[bool]] = {producer: [] for producer in PRODUCERS}
    for case, where in places.items():
        producer, which, pool = case.split(" | ")
        if which == activation and "average" not in pool and "two consumers" not in pool:
            after[producer].append(where == "after")
        elif which == activation and where == "after":
            raise ValueError(f"{case}: after")
    if any(len(set(moved)) > 1 for moved in after.values()):
        raise ValueError(f"{activation}: after some pools")
    moved = [PRODUCERS[producer] for producer, each in after.items() if all(each)]
    if len(moved) in (0, len(PRODUCERS)):
        return "all" if moved else "never"
    left = [name for name in PRODUCERS.values() if name not in moved]
    return f"all but {left[0]}" if len(left) == 1 else ", ".join(moved)


def savings_table(relax: Results, relay: Results) -> list[str]:
    """A row a block, the layer itself under its activation alone."""
    lines = [
        f"| varied | | the formula | {' | '.join(HEADERS)} |",
        "| --- | --- | --: | --: | --: | --: | --: |",
    ]
    of_relay = {entry["block"]: entry for entry in relay}
    for axis, title in AXES.items():
        named = title
        for entry in relax:
            if entry["axis"] == axis and entry["block"] not in BASE:
                other = of_relay.get(entry["block"])
                share = max(entry["formula"], other["formula"] if other else 0.0)
                formula = f"{share:.2%}" if share else ""
                cells = [named, _value(entry["block"]), formula, *_cells((entry, other))]
                lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
                named = ""
    return lines


def expensive_table(relax: Results, relay: Results) -> list[str]:
    """A row a layer and function."""
    lines = [f"| layer | | {' | '.join(HEADERS)} |", "| --- | --- | --: | --: | --: | --: |"]
    of_relax, of_relay = ({e["block"]: e for e in found} for found in (relax, relay))
    for layer in ("first", "deep"):
        named = [name for name in of_relax if name.startswith(f"{layer}: ")]
        for name in (*named, f"int8: {layer}, relu"):
            what = name.partition(": ")[2] if name in named else "int8: relu, requantize"
            cells = [layer, what, *_cells((of_relax.get(name), of_relay.get(name)))]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def mnist_table(relax: Results, relay: Results) -> list[str]:
    """A row a way of running the network."""
    lines = [
        "| in | inference, batch 1 | inference, batch 64 | training step |",
        "| --- " * 4 + "|",
    ]
    places = {(e["what"], e["work"], e["batch"]): e["ratio"] for e in (*relax, *relay)}
    for mode in MODES:
        cells = [
            ratio(places[f"TensorFlow, {mode}", work, batch], interval=True) for work, batch in WORK
        ]
        name = mode.upper() if mode == "xla" else mode
        lines.append(f"| TensorFlow, {name} | {' | '.join(cells)} |")
    for dialect in DIALECTS:
        for what, base in (
            ("TVM's schedules", "original"),
            ("this package's kernels", "scheduled"),
        ):
            found = {
                work: ratio(value, interval=True)
                for (name, work, _), value in places.items()
                if name.startswith(f"TVM {dialect}, {base}")
            }
            cells = f"{found['inference']} | | {found.get('training', '')} |".replace("  ", " ")
            lines.append(f"| {dialect.title()}, {what} | {cells}")
    return lines


def gpu_table(found: Results, filtered: Collection[str]) -> list[str]:
    """A row a source: microseconds of our versions and of the peers, each in its faster order."""
    versions = ("original", "reordered", "scheduled", "fused", "winograd")
    header = ["", *versions, *(label for _, label in GPU_PEERS), "peer / fused", "peer / winograd"]
    lines = [f"| {' | '.join(header)} |", f"| --- |{' --: |' * (len(header) - 1)}"]
    for entry in found:
        medians = {
            (runtime, variant): samples["median"]
            for runtime, variants in entry["samples"].items()
            for variant, samples in variants.items()
        }
        ours = {name: medians.get((entry["dialect"], name)) for name in versions}
        peers = {
            peer: min((t for (runtime, _), t in medians.items() if runtime == peer), default=None)
            for peer, _ in GPU_PEERS
        }
        best = min(filter(None, peers.values()), default=None)
        cells = [f"{1e6 * t:.1f}" if t else "" for t in (*ours.values(), *peers.values())]
        for name in ("fused", "winograd"):
            time, shown = ours[name], name == "fused" or entry["block"] in filtered
            cells.append(f"{best / time:.2f}" if best and time and shown else "")
        lines.append(f"| {entry['block'].partition('.')[0]} | {' | '.join(cells)} |")
    return lines


def _filters(pairs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a version has kernels of Winograd's filtering."""
    return any("winograd" in pair["stated"]["name"] for pair in pairs)


def counters_table(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """A row a kernel of the fused and filtered versions: what was stated, and what was counted."""
    header = ("version", "kernel", *(f"{kind}, counted" for kind in COUNTED), "conflicts", "cycles")
    lines = [f"| {' | '.join(header)} |", f"| --- | --- |{' --: |' * (len(header) - 2)}"]
    for version in SHOWN_COUNTERS:
        for pair in found[version]:
            stated, counted = pair["stated"], pair["counted"]
            cells = [
                f"{stated[kind] / 1e3:,.0f}, {counted[kind] / 1e3:,.0f}"
                if stated[kind] or counted[kind]
                else "0"
                for kind in COUNTED
            ]
            least = counted["turns"] - counted["conflicts"]
            cells.append(f"{counted['conflicts'] / least:.1%}" if counted["LDS"] else "")
            cells.append(f"{counted['cycles'] / stated['cycles']:.1f}")
            name = stated["name"].removesuffix("_kernel").removeprefix("fused_")
            lines.append(f"| {version.replace('-', ', ')} | {name} | {' | '.join(cells)} |")
    return lines


def tables(folder: Path = RECORDS) -> list[list[str]]:
    """The lines of each table."""
    pairs = (
        (savings_table, "savings-relax", "savings-relay"),
        (expensive_table, "expensive-relax", "expensive-relay"),
        (mnist_table, "mnist-orders", "mnist-orders-relay"),
    )
    who = json.loads((folder / "who-reorders.json").read_text())["found"]
    pictures = [make(results(one, folder), results(two, folder)) for make, one, two in pairs]
    counters = json.loads((folder / "gpu-counters-h100.json").read_text())["kernels"]
    filtered = {key.partition("-")[0] for key, pairs in counters.items() if _filters(pairs)}
    gpu = [gpu_table(results("gpu-h100", folder), filtered), counters_table(counters)]
    return [who_table(who), *pictures, *gpu]


@click.command(help=__doc__)
def main() -> None:
    """Print."""
    click.echo("\n\n".join("\n".join(lines) for lines in tables()))


if __name__ == "__main__":
    run_script("experiment_tables", main)
