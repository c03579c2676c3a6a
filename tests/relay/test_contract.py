"""The contract, cell by cell: what becomes of NaN, of both zeros and of infinities."""

# ruff: noqa: RUF001 - the table has minus signs

import numpy as np
import pytest
import tvm
from contract_cells import CELLS, README, SHAPE, only
from relay_builders import const, data, max_pool, module, reasons, run_pass
from relay_runs import TARGETS, bits, run
from tvm import relay


def test_the_table_of_the_readme_has_these_rows():
    table = README.read_text(encoding="utf-8").split("| a window holds |")[1].split("\n\n")[0]
    rows = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    assert rows == list(CELLS)


KINDS = ("bounded", "unbounded", "falling")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", KINDS)
def test_cell(cell, kind, orders):
    x, *columns = CELLS[cell]
    holds = columns[KINDS.index(kind)]
    first, second = (run(executable, x) for executable in orders[kind])
    assert len(first) == len(FUNCTIONS[kind])
    for before, after in zip(first, second, strict=True):
        holds(before, after, x)


def test_what_may_differ_does(orders):
    """Or the table would promise too little."""
    found = {}
    for kind, executables in orders.items():
        for cell, (x, *_) in CELLS.items() if kind != "min" else ():
            first, second = (run(executable, x) for executable in executables)
            pairs = zip(first, second, strict=True)
            found[cell, kind] = any(not np.array_equal(bits(a), bits(b)) for a, b in pairs)
    assert [key for key, differs in found.items() if differs] == [
        ("NaN", "bounded"),
        ("zeros of both signs, or numbers that *f* rounds to zero", "unbounded"),
        ("−∞ alone", "unbounded"),
        ("+∞ alone", "falling"),
        ("NaN", "falling"),
    ]


def test_a_minimum_starts_from_the_highest_number(orders):
    first, second = (run(executable, only(np.inf)) for executable in orders["min"])
    for before, after in zip(first, second, strict=True):
        assert np.array_equal(bits(before), bits(after))
    assert np.all(first[0][:, :2] == np.finfo("float32").max)


FUNCTIONS = {
    "bounded": [relay.nn.relu, lambda x: relay.clip(x, -1.5, 6.0), relay.sigmoid, relay.tanh],
    "unbounded": [
        lambda x: relay.nn.leaky_relu(x, 0.1),
        lambda x: relay.add(x, const(0.25)),
    ],
    "falling": [
        lambda x: relay.negative(relay.tanh(x)),
        lambda x: relay.rsqrt(relay.add(relay.nn.relu(x), const(1.0))),
    ],
    "min": [relay.nn.relu, relay.tanh, lambda x: relay.nn.leaky_relu(x, 0.1)],
}


@pytest.fixture(scope="module", params=TARGETS, ids=str)
def orders(request):
    """Both orders of each function in front of a pool, compiled for each target."""

    def compiled(kind):
        pool = (lambda x: relay.min(x, [2, 3])) if kind == "min" else max_pool
        x = data(SHAPE)
        before = module(relay.Tuple([pool(f(x)) for f in FUNCTIONS[kind]]))
        after, remarks = run_pass(before)
        assert reasons(remarks).count("sunk") == len(FUNCTIONS[kind])
        with tvm.transform.PassContext(opt_level=3):
            return [relay.build(mod, request.param) for mod in (before, after)]

    return {kind: compiled(kind) for kind in FUNCTIONS}
