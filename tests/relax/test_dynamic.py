"""Symbolic batch and height: what is proved sinks, and gives the same bits for every extent."""

import numpy as np
import pytest
import tvm
from relax_builders import const, data, max_pool, module, per_channel, reasons, run_pass
from relax_runs import bits, hard_values, run
from tvm.relax import op

from tvm_passes.decline import Reason
from tvm_passes.relax import decisions

relu = op.nn.relu


def biased(x):
    return relu(op.add(x, per_channel((8, 1, 1))))


def pad(x):
    return op.nn.pad(x, (0, 0, 0, 0, 1, 1, 1, 1))


SINKS = {
    "pool": lambda x: max_pool(biased(x)),
    "padded pool": lambda x: max_pool(biased(x), 3, 2, padding=(1, 1)),
    "pad": lambda x: max_pool(pad(relu(x)), 3, 2),
    "transpose": lambda x: max_pool(op.permute_dims(biased(x), (0, 2, 3, 1)), layout="NHWC"),
    "maximum": lambda x: op.max(biased(x), [3]),
    "two pools": lambda x: max_pool(max_pool(biased(x))),
}
STAYS = {
    "maximum over the height": (lambda x: op.max(relu(x), [2]), Reason.EMPTY_WINDOW),
    "rounded up": (lambda x: max_pool(relu(x), ceil_mode=True), Reason.EMPTY_WINDOW),
    "stride 1": (lambda x: max_pool(relu(x), 3, 1), Reason.DOES_NOT_PAY),
    "bias on the height": (lambda x: max_pool(op.add(x, const(np.ones((1, 1))))), None),
}


def var():
    n, h = (tvm.tirx.Var(name, "int64") for name in "nh")
    return data((n, 8, h, 12))


@pytest.fixture(scope="module")
def orders():
    before = module(lambda x: [body(x) for body in SINKS.values()], var())
    after, remarks = run_pass(before)
    assert reasons(remarks).count("sunk") == len(SINKS) + 1
    return [tvm.compile(mod, "llvm") for mod in (before, after)]


@pytest.mark.parametrize(("n", "h"), [(1, 4), (1, 13), (3, 8), (2, 5)])
def test_bits(n, h, orders):
    x = hard_values((n, 8, h, 12), "float32")
    pairs = zip(*(run(executable, x) for executable in orders), strict=True)
    same = [np.array_equal(bits(a), bits(b)) for a, b in pairs]
    assert dict(zip(SINKS, same, strict=True)) == dict.fromkeys(SINKS, True)


@pytest.mark.parametrize("name", STAYS)
def test_what_is_not_proved_stays(name):
    body, reason = STAYS[name]
    (decision,) = decisions(module(body, var()))
    assert decision.passed is (reason is None)
    assert reason is None or decision.decline.reason is reason
