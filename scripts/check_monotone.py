"""Check, value by value, that activations as TVM compiles them never fall.

Every finite value of an element type goes through a compiled kernel in increasing order; of
float32 all 2^32, or a sample of windows.  The op is also compiled into other loops (one element;
behind a max-pool, where the swap puts it; in memory), whose outputs must have the same bits.
Run it with the Python of either environment.

Example: python scripts/check_monotone.py --dtype float16 --ops all --output relax.json
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
from monotone_ops import BOTH, CANDIDATES, FALLS, RISES, Candidate, Words, row_candidates
from monotone_quantized import quantized
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tvm_passes.bench.script import run_script
from tvm_passes.compile import kernels_for
from tvm_passes.dialects import TVM, Runner, engine, require
from tvm_passes.measure import set_threads
from tvm_passes.monotone import FLOAT_BITS, Line, comparable, storage, sweep, wavering, windows
from tvm_passes.output import check_file, write_text
from tvm_passes.rules import RELAX, RULES
from tvm_passes.target import LLVM, parse_target, require_device

WIDTH = 7  # of a pooled row: odd, so that no vector covers it
COMPARED = 8  # windows of a long sweep that other loops are compared on

Target = dict[str, Any]
Dtypes = tuple[str, str]  # of the inputs and of the outputs
Kernel = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Plan:
    """How much to look at.

    Parameters
    ----------
    chunk
        Elements of the long kernel.
    sample
        Windows of that many neighbouring values, at random; all values where None.
    scalars
        About how many values, evenly spread, to give to the kernel of one element.
    """

    chunk: int = 1 << 22
    sample: int | None = None
    scalars: int = 1 << 13


def module(candidate: Candidate, dtype: str, shape: tuple[int, ...], pool: str = "") -> Any:
    """A module of one op, with a 2x2 max-pool ``above`` it, ``below`` it, or none."""
    import tvm

    dialect = require()
    words = Words(dialect, dtype)

    def body(x: Any) -> Any:
        if pool == "above":
            x = words.max_pool2d(x, (2, 2), (2, 2))
        result = candidate.build(words, x)
        return words.max_pool2d(result, (2, 2), (2, 2)) if pool == "below" else result

    if dialect == RELAX:
        from tvm import relax

        builder = relax.BlockBuilder()
        data = relax.Var("x", relax.TensorType(shape, dtype))
        with builder.function("main", [data]):
            with builder.dataflow():
                result = builder.emit_output(builder.normalize(body(data)))
            builder.emit_func_output(result)
        mod = builder.get()
        return relax.transform.FastMathTransform()(mod) if candidate.fast_math else mod

    from tvm import relay

    data = relay.var("x", shape=shape, dtype=dtype)
    mod = relay.transform.InferType()(tvm.IRModule.from_expr(relay.Function([data], body(data))))
    if candidate.fast_math:
        with tvm.transform.PassContext(opt_level=4):
            mod = relay.transform.FastMath()(mod)
    return mod


def expression(candidate: Candidate, dtype: str) -> str:
    """The calls of a candidate in the order in which they run."""
    text = engine().text(module(candidate, dtype, (1, 1, 1, 8)))
    if require() == RELAX:
        calls = re.findall(r"= ((?:R|cls)\.(?!output|Tensor).*)", text)
    else:
        calls = re.findall(r"^  (?:%\d+ = )?(\S.*?\))(?: /\*.*)?;?$", text, re.M)
    return "; ".join(re.sub(r" /\*.*?\*/", "", call) for call in calls)


def run_exported(mod: Any, target: Target) -> Runner:
    """Compile as `tvm-reorder compile` does: to a shared library, loaded again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lib.so"
        compiler = kernels_for(target)
        engine().export(engine().build(mod, target, reorder=False, compile_kernels=compiler), path)
        return engine().load(path, ["x"], target["kind"])


def run_in_memory(mod: Any, target: Target) -> Runner:
    """Compile and run without a linker, with LLVM's just-in-time one."""
    import tvm

    built = engine().build(mod, target, reorder=False)
    if require() == RELAX:
        from tvm_passes.relax.engine import Runner as RelaxRunner

        return RelaxRunner(tvm.relax.VirtualMachine(built, tvm.cpu()), tvm.cpu())
    from tvm_passes.relay.engine import GraphModule
    from tvm_passes.relay.engine import Runner as RelayRunner

    return RelayRunner(GraphModule(built["default"](tvm.cpu())), ("x",), tvm.cpu())


def long_loop(
    candidate: Candidate,
    dtype: str,
    target: Target,
    size: int,
    run: Callable[[Any, Target], Runner] = run_exported,
) -> Kernel:
    """The op over a row of `size` elements: a loop that LLVM may vectorize."""
    runner = run(module(candidate, dtype, (1, 1, 1, size)), target)
    return lambda x: runner(_padded(x, size).reshape(1, 1, 1, size))[0].ravel()[: len(x)]


def one_element(candidate: Candidate, dtype: str, target: Target) -> Kernel:
    """The op on one element a call."""
    runner = run_exported(module(candidate, dtype, (1, 1, 1, 1)), target)
    return lambda x: np.concatenate([runner(v)[0].ravel() for v in x.reshape(-1, 1, 1, 1, 1)])


def both_orders(
    candidate: Candidate, dtype: str, target: Target, size: int
) -> tuple[Kernel, Kernel]:
    """The op before its max-pool and after it; each window holds four values that follow on."""
    height = -(-size // (4 * WIDTH))
    shape = (1, 1, 2 * height, 2 * WIDTH)

    def kernel(runner: Runner, x: np.ndarray) -> np.ndarray:
        # [row of windows, window, row in it, column in it] -> rows and columns of an image
        tiles = _padded(x, 4 * height * WIDTH).reshape(height, WIDTH, 2, 2)
        image = np.ascontiguousarray(tiles.transpose(0, 2, 1, 3)).reshape(shape)
        return runner(image)[0].ravel()[: -(-len(x) // 4)]

    before, after = (
        run_exported(module(candidate, dtype, shape, pool), target) for pool in ("below", "above")
    )
    return partial(kernel, before), partial(kernel, after)


def _padded(x: np.ndarray, size: int) -> np.ndarray:
    return x if len(x) == size else np.concatenate([x, np.repeat(x[-1:], size - len(x))])


@dataclass
class Difference:
    """How many values have other bits from another loop, and the first of them."""

    count: int = 0
    first: tuple[float, float, float] | None = None

    def add(self, x: np.ndarray, expected: np.ndarray, other: np.ndarray, dtypes: Dtypes) -> None:
        """Compare two kernels' outputs for the inputs x; all NaNs count as one."""
        unsigned = f"uint{8 * expected.dtype.itemsize}"
        unequal = expected.view(unsigned) != other.view(unsigned)
        numbers = [comparable(y, dtypes[1]) for y in (expected, other)]
        if dtypes[1] in FLOAT_BITS:
            unequal &= ~(np.isnan(numbers[0]) & np.isnan(numbers[1]))
        self.count += int(unequal.sum())
        if self.first is None and unequal.any():
            n = int(unequal.argmax())
            inputs = comparable(x, dtypes[0])
            self.first = (float(inputs[n]), float(numbers[0][n]), float(numbers[1][n]))


def domain(candidate: Candidate, line: Line) -> tuple[int, int]:
    """The half-open range of indices on which a candidate is defined."""
    if candidate.domain is None:
        return 0, line.stop
    low, high = candidate.domain
    most = float(comparable(line.values(line.stop - 1, line.stop), line.dtype)[0])
    return (
        line.index(low) if low >= -most else 0,
        line.index(high) + 1 if high <= most else line.stop,
    )


def check(
    candidate: Candidate,
    dtype: str,
    target: Target,
    plan: Plan,
    advance: Callable[[int], object] = lambda _values: None,
) -> dict[str, Any]:
    """Sweep one candidate, and compare its outputs with those of other loops.

    `advance` is called with the number of values done.
    """
    start_time = time.perf_counter()
    set_threads(1)
    line, out = Line(dtype), candidate.out_dtype or dtype
    first, last = domain(candidate, line)
    size = min(plan.chunk, last - first)
    ranges = windows(first, last, size, plan.sample)
    kernel = long_loop(candidate, dtype, target, size)

    def counted() -> Iterator[tuple[int, int]]:
        for pair in ranges:
            yield pair
            advance(pair[1] - pair[0])

    swept = time.perf_counter()
    report = sweep(kernel, line, counted(), out_dtype=out, falling=candidate.direction is FALLS)
    seconds = time.perf_counter() - swept
    some = ranges[:: -(-len(ranges) // COMPARED)]
    wavers = None
    if candidate.direction is BOTH and FLOAT_BITS.get(dtype, (0,))[0] == 16:
        whole = long_loop(candidate, dtype, target, line.stop)
        wavers = asdict(wavering(whole, line))
    few, dtypes = spread(line, some, plan.scalars), (dtype, out)
    others = compare(candidate, dtypes, target, kernel, some)
    others["one element"] = compare_one_element(candidate, dtypes, target, kernel, few)
    return {
        "op": candidate.name,
        "dtype": dtype,
        "target": target,
        **asdict(plan),
        "expression": expression(candidate, dtype),
        "direction": candidate.direction.value,
        "domain": candidate.domain,
        "monotone": report.monotone,
        **asdict(report),
        "wavering": wavers,
        "at_infinity": at_infinity(kernel, dtype, out),
        "other_bits": {name: asdict(difference) for name, difference in others.items()},
        "seconds_sweep": round(seconds, 3),
        "seconds": round(time.perf_counter() - start_time, 3),
    }


def at_infinity(kernel: Kernel, dtype: str, out: str) -> list[float]:
    """Outputs for -inf, for the lowest and the highest finite value, and for +inf."""
    if dtype not in FLOAT_BITS:
        return []
    line = Line(dtype)
    inf = np.array([np.inf], storage(dtype))
    ends = (-inf, line.values(0, 1), line.values(line.stop - 1, line.stop), inf)
    return [float(value) for value in comparable(kernel(np.concatenate(ends)), out)]


def compare(
    candidate: Candidate,
    dtypes: Dtypes,
    target: Target,
    kernel: Kernel,
    ranges: list[tuple[int, int]],
) -> dict[str, Difference]:
    """Find the values for which another loop gives other bits than the long one.

    ``behind a pool`` is the loop of the op after the swap.  ``orders`` and ``orders, equal values``
    compare the two sides of the swap, f then pool and pool then f, on windows of four values.
    """
    line, size = Line(dtypes[0]), max(stop - start for start, stop in ranges)
    how = run_in_memory if target["kind"] == LLVM else run_exported
    in_memory = long_loop(candidate, dtypes[0], target, size, how)
    before, after = both_orders(candidate, dtypes[0], target, 4 * size)
    names = ("in memory", "behind a pool", "orders", "orders, equal values")
    found = {name: Difference() for name in names}
    for start, stop in ranges:
        x = line.values(start, stop)
        four = np.repeat(x, 4)
        expected, behind = kernel(x), after(four)
        found["in memory"].add(x, expected, in_memory(x), dtypes)
        found["behind a pool"].add(x, expected, behind, dtypes)
        if candidate.direction is RISES:
            found["orders"].add(x[::4], before(x), after(x), dtypes)
            found["orders, equal values"].add(x, before(four), behind, dtypes)
    return found


def compare_one_element(
    candidate: Candidate, dtypes: Dtypes, target: Target, kernel: Kernel, x: np.ndarray
) -> Difference:
    """Find the values for which the kernel of one element gives other bits."""
    found = Difference()
    found.add(x, kernel(x), one_element(candidate, dtypes[0], target)(x), dtypes)
    return found


def spread(line: Line, ranges: list[tuple[int, int]], count: int) -> np.ndarray:
    """About `count` values at even distances, and no more than the first range holds."""
    total = sum(stop - start for start, stop in ranges)
    values = np.concatenate([line.values(*pair) for pair in ranges])[:: max(1, total // count)]
    return values[: ranges[0][1] - ranges[0][0]]


def candidates(ops: str) -> dict[str, Candidate]:
    """The candidates that names ask for: ``rules``, ``all``, or names before the parenthesis."""
    dialect = require()
    rows = {c.name: c for rule in RULES for c in row_candidates(rule, dialect)}
    rows |= {c.name: c for c in quantized(dialect)}
    others = {c.name: c for c in CANDIDATES if dialect in c.dialects}
    if ops in ("rules", "all"):
        return rows if ops == "rules" else rows | others
    wanted = ops.split(",")
    found = {n: c for n, c in (rows | others).items() if n in wanted or _short(n) in wanted}
    unknown = set(wanted) - set(found) - {_short(name) for name in found}
    if unknown:
        known = ", ".join(sorted({_short(name) for name in rows | others}))
        raise click.BadParameter(f"no op {', '.join(sorted(unknown))}; known: {known}")
    return found


def _short(name: str) -> str:
    return name.partition("(")[0].rpartition(".")[2]


@click.command()
@click.option("--dtype", "dtypes", default="float16,bfloat16", show_default=True, help="Several.")
@click.option("--ops", default="rules", show_default=True, help="rules, all, or names.")
@click.option("--target", default="llvm", show_default=True, help="As for tvm-reorder compile.")
@click.option("--mcpu", help="CPU of the target, such as x86-64-v4.")
@click.option("--chunk", default=1 << 22, show_default=True, help="Values of one kernel call.")
@click.option("--sample", type=click.IntRange(1), help="Windows of --chunk values; default: all.")
@click.option("--scalars", default=1 << 13, show_default=True, help="Values of the scalar kernel.")
@click.option("--jobs", default=1, show_default=True, help="Processes, of one thread each.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="JSON of the results; those that it already holds are not run again.",
)
def main(  # noqa: PLR0913, PLR0917
    dtypes: str,
    ops: str,
    target: str,
    mcpu: str | None,
    chunk: int,
    sample: int | None,
    scalars: int,
    jobs: int,
    output: Path | None,
) -> None:
    """Check that compiled activations never fall from one value to the next.

    Example: python scripts/check_monotone.py --dtype float32 --ops tanh,sigmoid --sample 64
    """
    config = require_device(parse_target(target)) | ({"mcpu": mcpu} if mcpu else {})
    if output is not None:
        check_file(output)
    record = _record(output)
    done = {_key(result) for result in record["results"]}
    tasks = [
        {"op": name, "dtype": dtype, "target": config, **asdict(Plan(chunk, sample, scalars))}
        for dtype in dtypes.split(",")
        for name, candidate in candidates(ops).items()
        if dtype in candidate.reads
    ]
    unread = set(dtypes.split(",")) - {task["dtype"] for task in tasks}
    if unread:
        raise click.UsageError(f"--dtype {','.join(sorted(unread))}: none of --ops {ops} reads it")
    where = {name: record[name] for name in ("machine", "date")}
    for result in _results([task for task in tasks if _key(task) not in done], jobs):
        record["results"].append(plain(result) | where)
        if output is not None:
            write_text(output, json.dumps(record, indent=1) + "\n")
    keys = {_key(task) for task in tasks}
    _print([result for result in record["results"] if _key(result) in keys])


def plain(value: Any) -> Any:
    """The same with strings for the numbers that JSON does not have."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _key(task: dict[str, Any]) -> str:
    return json.dumps([task[name] for name in ("op", "dtype", "target", *asdict(Plan()))])


def _record(output: Path | None) -> dict[str, Any]:
    """The record so far; one of another TVM is not continued."""
    dialect = require()
    cpus = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    record: dict[str, Any] = {
        "commands": [],
        "date": date.today().isoformat(),
        "machine": cpus[0] if cpus else "unknown",
        "dialect": dialect,
        "versions": {name: version(name) for name in (TVM[dialect], "numpy")},
        "results": [],
    }
    if output is not None and output.exists():
        earlier = json.loads(output.read_text())
        if all(earlier[name] == record[name] for name in ("dialect", "versions")):
            record |= {name: earlier[name] for name in ("commands", "results")}
    record["commands"].append(" ".join(["python", *sys.argv]))
    return record


def build_error(task: dict[str, Any]) -> str | None:
    """Why TVM cannot compile a task, found out in another process.

    TVM 0.19 does not survive some of its errors: LLVM's assertions abort it soon after.  A GPU's
    driver does not survive the other process.
    """
    if task["target"]["kind"] != LLVM:
        return _what_it_raises(run_exported, task)
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def build() -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sender.send(_what_it_raises(run_in_memory, task))
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=build)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        return "TVM aborts"
    finally:
        process.join()


def _what_it_raises(run: Callable[[Any, Target], Runner], task: dict[str, Any]) -> str | None:
    """The last line of what TVM says while it compiles a task, if that fails."""
    candidate = candidates("all")[task["op"]]
    try:
        run(module(candidate, task["dtype"], (1, 1, 1, 1)), task["target"])
    except (RuntimeError, TypeError, ValueError) as err:  # what TVM raises
        return str(err).strip().rpartition("\n")[2] or type(err).__name__
    return None


def _run(task: dict[str, Any], advance: Callable[[int], object] = lambda _n: None) -> Any:
    error = build_error(task)
    if error is not None:
        return task | {"error": error}
    plan = Plan(**{name: task[name] for name in asdict(Plan())})
    candidate = candidates("all")[task["op"]]
    return check(candidate, task["dtype"], task["target"], plan, advance)


def _results(tasks: list[dict[str, Any]], jobs: int) -> Iterator[dict[str, Any]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f}%"),
        TimeRemainingColumn(),
    )
    total = sum(_values(task) for task in tasks)
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("checking", total=total)
        if jobs == 1:
            for task in tasks:
                progress.update(bar, description=f"{task['op']}, {task['dtype']}")
                yield _run(task, lambda values: progress.advance(bar, values))
            return
        spawn = multiprocessing.get_context("spawn")  # TVM's threads do not survive a fork
        with ProcessPoolExecutor(jobs, mp_context=spawn) as pool:
            futures = {pool.submit(_run, task): task for task in tasks}
            for future in as_completed(futures):
                progress.advance(bar, _values(futures[future]))
                yield future.result()


def _values(task: dict[str, Any]) -> int:
    line = Line(task["dtype"])
    first, last = domain(candidates("all")[task["op"]], line)
    return min(last - first, task["chunk"] * (task["sample"] or last - first))


def _print(results: list[dict[str, Any]]) -> None:
    table = Table(title=f"{require()}: outputs in the wrong order")
    for header in ("op", "dtype", "values", "inversions", "worst ulp", "NaN", "other bits"):
        table.add_column(header, justify="left" if header in ("op", "dtype") else "right")
    table.add_column("s", justify="right")
    for result in results:
        table.add_row(result["op"], result["dtype"], *_cells(result))
    Console(width=140).print(table)


def _cells(result: dict[str, Any]) -> list[str]:
    if "error" in result:
        return [f"error: {result['error'][:60]}"]
    worst = result["worst"]
    different = {name: d["count"] for name, d in result["other_bits"].items() if d["count"]}
    return [
        f"{result['values']:,}",
        f"{result['inversions']:,}",
        f"{worst['ulps']} at {float(worst['inputs'][0]):.6g}" if worst else "",
        f"{result['nans']:,}" if result["nans"] else "",
        ", ".join(f"{name}: {count:,}" for name, count in different.items()),
        f"{result['seconds']:.1f}",
    ]


if __name__ == "__main__":
    run_script("check_monotone", main)
