"""PReLU as TVM's importers spell it, between reshapes, with a slope an element."""

import numpy as np
import pytest
import tvm
from relay_builders import data, max_pool
from tvm import relay

from tvm_passes.decline import Reason
from tvm_passes.relay import decisions
from tvm_passes.relay.prelu import RecoverPReLU

SHAPE = (1, 4, 8, 8)


def imported(slopes):
    x = data(SHAPE)
    flat = relay.reshape(relay.broadcast_to(relay.const(slopes.astype("float32")), SHAPE), [-1])
    prelu = relay.reshape(relay.nn.prelu(relay.reshape(x, [-1]), flat, axis=0), SHAPE)
    mod = tvm.IRModule.from_expr(relay.Function([x], max_pool(prelu)))
    return tvm.transform.Sequential([relay.transform.InferType(), RecoverPReLU()])(mod)


@pytest.mark.parametrize(
    "shape", [(4, 1, 1), (1, 4, 1, 1), (1, 1, 1), ()], ids=["channel", "image", "one", "scalar"]
)
def test_slopes_of_channels_sink(shape):
    slopes = np.arange(1, 1 + np.prod(shape, dtype=int)).reshape(shape) / 8
    (decision,) = decisions(imported(slopes))
    assert [op.op for op in decision.sunk] == ["nn.prelu"]
    (decision,) = decisions(imported(-slopes))
    assert decision.decline.reason is Reason.NEGATIVE_SLOPE


def test_slopes_of_pixels_stay():
    (decision,) = decisions(imported(np.arange(64).reshape(1, 8, 8) / 64))
    assert not decision.passed
    assert decision.decline.reason is Reason.LAYOUT
