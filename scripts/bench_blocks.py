"""Time blocks of conv2d, bias, activation and max-pool against what else runs them on a CPU.

Each runtime is a process of its own, stopped while another is measured.  A peer is given the
activation before the pool and behind it, and whichever is faster counts.

Example: python scripts/bench_blocks.py --only mnist1,resnet1 --threads 1 --output blocks.json
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click

from tvm_passes.bench.block import read_blocks
from tvm_passes.bench.comparison import (
    Comparison,
    Source,
    runtimes,
    settings_for,
    shared_options,
)
from tvm_passes.bench.files import write_folder
from tvm_passes.bench.runtimes import DEFAULT_PEERS
from tvm_passes.bench.script import run_script
from tvm_passes.cli_options import split
from tvm_passes.output import check_file

ROOT = Path(__file__).parent.parent


@click.command(help=__doc__)
@click.option(
    "--blocks",
    type=click.Path(path_type=Path),
    default=ROOT / "scripts" / "blocks.json",
    help="File of blocks [default: scripts/blocks.json].",
)
@click.option("--only", default="", callback=split, help="Names of blocks, all by default.")
@click.option(
    "--trials",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of tvm_metaschedule, for each block; without any it is left out.",
)
@shared_options(ROOT, DEFAULT_PEERS, rounds=15)
def bench_blocks(
    blocks: Path,
    only: tuple[str, ...],
    trials: int,
    threads: tuple[int, ...],
    peers: tuple[str, ...],
    ours: tuple[str, ...],
    rounds: int,
    seconds: float,
    environments: Path,
    scratch: Path | None,
    tuned: Path | None,
    output: Path,
) -> None:
    """Run."""
    check_file(output, apart_from=(blocks,))
    chosen = runtimes((*ours, *peers))
    each = settings_for(threads, rounds=rounds, seconds=seconds, trials=trials, tuned=tuned)
    found = [
        Source(block.name, partial(write_folder, block)) for block in read_blocks(blocks, only)
    ]
    if not Comparison(found, chosen, each, environments, output, scratch).run():
        sys.exit(1)


if __name__ == "__main__":
    run_script("bench_blocks", bench_blocks)
