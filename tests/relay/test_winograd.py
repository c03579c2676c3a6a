"""Relay's convolutions by Winograd's filtering: within the bound that their remark states."""

import numpy as np
import pytest
import tvm
from layer_cases import HALVE, OVERLAP
from relay_builders import const, data, typed
from relay_runs import HAS_FMA, outputs
from tvm import relay

from tvm_passes.relay.blocked import BlockConv2d
from tvm_passes.relay.build import passes

TARGET = tvm.target.Target("llvm -mcpu=haswell" if HAS_FMA else "llvm")
NN = relay.nn
WINOGRAD = "winograd"
SHAPE = (1, 32, 13, 18)


def weights(*shape):
    return const(np.random.default_rng(1).standard_normal(shape) * 0.2, "float32")


def layer(x, taps=3, pool=None, channels=32, filters=36):
    y = NN.conv2d(
        x,
        weights(filters, channels, taps, taps),
        kernel_size=(taps, taps),
        channels=filters,
        padding=(taps // 2, taps // 2),
    )
    if pool is not None:
        y = NN.max_pool2d(y, **pool)
    return NN.relu(NN.bias_add(y, weights(filters)))


CASES = {
    "no pool": {},
    "2x2": {"pool": HALVE},
    "3x3/2": {"pool": OVERLAP},
    "5x5": {"taps": 5, "pool": HALVE},
    "channels that fill no block": {"channels": 3, "filters": 64, "pool": HALVE},
}


def module(body, shape=SHAPE):
    x = data(shape)
    return typed(tvm.IRModule.from_expr(relay.Function([x], body(x))))


def values(shape=SHAPE):
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


@pytest.mark.parametrize("case", CASES)
def test_a_layer(case):
    shape = (1, CASES[case].get("channels", SHAPE[1]), *SHAPE[2:])
    mod, x, remarks = module(lambda x: layer(x, **CASES[case]), shape), values(shape), []

    def build(mod, target, **_):
        ours = passes(target, on_remark=remarks.append, allow={WINOGRAD})
        return relay.build(tvm.transform.Sequential(ours)(mod), target)

    (found,) = outputs(mod, x, target=TARGET, build=build)
    (expected,) = outputs(mod, x, target=TARGET)
    (remark,) = [remark for remark in remarks if remark.reason == WINOGRAD]
    bounds = dict(remark.numbers)
    limit = (bounds["error_bound"] + bounds["error_bound_as_written"]) * np.abs(x).max()
    assert np.abs(found - expected).max() <= min(limit, 1e-4 * np.abs(expected).max())


def test_what_a_kernel_stands_for():
    """The body of each kernel, run by Relay itself, is the network."""
    mod = module(lambda x: layer(layer(x, pool=HALVE), channels=36))
    blocked = BlockConv2d(TARGET, allow={WINOGRAD})(mod)
    assert not blocked["main"].body.same_as(mod["main"].body)
    (found,) = outputs(relay.transform.DefuseOps()(blocked), values(), target=TARGET)
    (expected,) = outputs(mod, values(), target=TARGET)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
