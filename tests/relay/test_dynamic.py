"""Symbolic batch and height: what is proved sinks, and gives the same bits for every extent."""

import numpy as np
import pytest
import tvm
from relay_builders import data, max_pool, module, per_channel, reasons, run_pass
from relay_runs import bits, hard_values
from tvm import relay
from tvm.runtime.vm import VirtualMachine

from tvm_passes.decline import Reason
from tvm_passes.relay.reorder import decisions

# TVM 0.19's hybrid script, in which it computes shapes, visits nodes that Python no longer has.
pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")

relu = relay.nn.relu


def biased(x):
    return relu(relay.nn.bias_add(x, per_channel((8,))))


def pad(x):
    return relay.nn.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))


SINKS = {
    "pool": lambda x: max_pool(biased(x)),
    "padded pool": lambda x: max_pool(biased(x), 3, 2, padding=(1, 1)),
    "pad": lambda x: max_pool(pad(relu(x)), 3, 2),
    "transpose": lambda x: max_pool(relay.transpose(biased(x), (0, 2, 3, 1)), layout="NHWC"),
    "maximum": lambda x: relay.max(biased(x), [3]),
    "two pools": lambda x: max_pool(max_pool(biased(x))),
}
STAYS = {
    "global": (lambda x: relay.nn.global_max_pool2d(relu(x)), Reason.EMPTY_WINDOW),
    "maximum over the height": (lambda x: relay.max(relu(x), [2]), Reason.EMPTY_WINDOW),
    "rounded up": (lambda x: max_pool(relu(x), ceil_mode=True), Reason.EMPTY_WINDOW),
    "stride 1": (lambda x: max_pool(relu(x), 3, 1), Reason.DOES_NOT_PAY),
    "addend of a symbolic extent past a transpose": (
        lambda x: max_pool(
            relay.transpose(x + data((1, relay.Any(), 1, 1), name="b"), (0, 2, 3, 1)), layout="NHWC"
        ),
        Reason.LAYOUT,
    ),
}


def var():
    return data((relay.Any(), 8, relay.Any(), 12))


@pytest.fixture(scope="module")
def orders():
    x = var()
    before = module(relay.Tuple([body(x) for body in SINKS.values()]), x)
    after, remarks = run_pass(before)
    assert reasons(remarks).count("sunk") == len(SINKS) + 1
    with tvm.transform.PassContext(opt_level=3):
        return [relay.vm.compile(mod, "llvm") for mod in (before, after)]


def run(executable, x):
    return [result.numpy() for result in VirtualMachine(executable, tvm.cpu()).run(x)]


@pytest.mark.parametrize(("n", "h"), [(1, 4), (1, 13), (3, 8), (2, 5)])
def test_bits(n, h, orders):
    x = tvm.nd.array(hard_values((n, 8, h, 12), "float32"))
    pairs = zip(*(run(executable, x) for executable in orders), strict=True)
    same = [np.array_equal(bits(a), bits(b)) for a, b in pairs]
    assert dict(zip(SINKS, same, strict=True)) == dict.fromkeys(SINKS, True)


@pytest.mark.parametrize("name", STAYS)
def test_what_is_not_proved_stays(name):
    body, reason = STAYS[name]
    (decision,) = decisions(module(body(var())))
    assert not decision.passed
    assert decision.decline.reason is reason
