"""Batch normalizations become weights and a bias before the pass looks, as they would later."""

import numpy as np
import pytest
import tvm
from relay_builders import const, data, max_pool, module
from relay_runs import bits, hard_values, outputs
from tvm import relay

from tvm_passes.relay import build
from tvm_passes.relay.batch_norm import FoldBatchNorm
from tvm_passes.relay.blocked import PASS_NAME as BLOCK

SHAPE = (1, 8, 13, 11)
RANDOM = np.random.default_rng(2)
WEIGHT = const(RANDOM.standard_normal((8, 8, 3, 3)))


def norm(x):
    """Scales of both signs, and variances above 0."""
    gamma, beta, mean = (const(RANDOM.standard_normal(8)) for _ in range(3))
    variance = const(RANDOM.uniform(0.1, 2, 8))
    return relay.nn.batch_norm(x, gamma, beta, mean, variance)[0]


def conv(x):
    return relay.nn.conv2d(x, WEIGHT, channels=8, kernel_size=(3, 3), padding=(1, 1))


CHAINS = {
    "with a factor more": (lambda x: relay.nn.relu(norm(conv(x)) * const(1.3)), ["nn.relu"]),
    "behind a convolution": (lambda x: relay.nn.relu(norm(conv(x))), ["add, nn.relu"]),
    "behind an activation": (lambda x: relay.sigmoid(norm(relay.nn.relu(conv(x)))), ["sigmoid"]),
    "by itself": (
        lambda x: relay.sigmoid(norm(relay.tanh(x))),
        ["tanh, multiply, add, sigmoid"],
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_what_sinks_and_its_bits(name):
    chain, sunk = CHAINS[name]
    mod = module(max_pool(chain(data(SHAPE))))
    remarks = []
    with tvm.transform.PassContext(opt_level=3):
        build(mod, "llvm", on_remark=remarks.append)
    passed = [remark.message for remark in remarks if remark.reason == "sunk"]
    assert [message.partition(" below")[0] for message in passed] == sunk
    x = hard_values(SHAPE, "float32")
    a, b = (
        outputs(mod, x, build=f, opt_level=3, disabled=[BLOCK], params=None)
        for f in (relay.build, build)
    )
    zero = np.float32(0)  # a window that holds both zeros yields either
    assert np.array_equal(bits(a[0] + zero), bits(b[0] + zero))


def test_a_module_without_one_is_left_alone():
    mod = module(max_pool(relay.nn.relu(conv(data(SHAPE)))))
    assert FoldBatchNorm()(mod)["main"].same_as(mod["main"])
