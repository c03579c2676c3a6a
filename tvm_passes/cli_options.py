"""What the commands of ``tvm-reorder`` share: arguments, options and progress."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from tvm_passes.describe import ALLOWABLE
from tvm_passes.dialects import DIALECTS

MODEL = click.argument("model", type=click.Path(path_type=Path))
TARGET = click.option(
    "--target",
    default="llvm",
    show_default=True,
    help="llvm, host, cuda, sm_90 or the like, a name in targets/, or JSON, in a file or as it is.",
)
DIALECT = click.option(
    "--dialect",
    type=click.Choice(DIALECTS),
    help="IR to go through; by default that of the TVM installed.",
)
ALLOW = click.option(
    "--allow",
    multiple=True,
    type=click.Choice(sorted(ALLOWABLE)),
    help="What not everyone wants. quasi-convex: sink functions that fall, then rise, too, as the "
    "larger of two results (abs, slopes below 0; gelu, silu: exact in real numbers alone). "
    "winograd: convolve by Winograd's filtering where it is faster, exact in real numbers alone. "
    "device-math: for a GPU, sink functions of its math library (exp, tanh, sigmoid), too, which "
    "were not checked there value by value.",
)
QUIET = click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def split(_context: click.Context, _option: click.Parameter, value: str) -> tuple[str, ...]:
    """Names between commas."""
    return tuple(filter(None, value.split(",")))


def numbers(context: click.Context, option: click.Parameter, value: str) -> tuple[int, ...]:
    """Numbers between commas, at least 1 each."""
    counts = split(context, option, value)
    if not counts or not all(count.isdigit() and int(count) for count in counts):
        raise click.BadParameter(f"{value!r}: expected numbers such as 1,2")
    return tuple(map(int, counts))


class Positive(click.FloatRange):
    """A finite number above 0."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read it; comparisons with NaN alone would let that pass."""
        number: float = super().convert(value, param, ctx)
        if not isfinite(number):
            self.fail(f"{value} is not a finite number above 0.", param, ctx)
        return number


@contextmanager
def progress(step: str) -> Iterator[None]:
    """Show a step on the terminal while it lasts, and how long it took."""
    console = Console(stderr=True)
    start = time.perf_counter()
    with console.status(escape(step)):
        yield
    seconds = time.perf_counter() - start
    if seconds > 1 or not console.is_terminal:
        console.print(f"{escape(step)}: {seconds:.1f} s", style="dim", highlight=False)
