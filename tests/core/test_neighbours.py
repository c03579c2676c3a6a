"""What a compiler takes for one op, and what it drops."""

from dataclasses import replace
from math import inf
from types import SimpleNamespace

import numpy as np
import pytest
from site_builders import MULTIPLY, bias, op, site

from tvm_passes.decision import decide
from tvm_passes.decline import Reason
from tvm_passes.describe import CallView
from tvm_passes.legality import keeps_rounding, not_folded
from tvm_passes.neighbours import may_vanish, may_vanish_op
from tvm_passes.site import CALLER, Operand, Producer

MOST = float(np.finfo("float32").max)
MOST_BFLOAT16 = float.fromhex("0x1.fep127")


def number(value, size=1):
    return Operand((size,), None if value is None else np.full(size, value, "float32"))


def clip(low, high, dtype="float32"):
    params = {"low": low, "high": high}
    return op("clip", op="clip", params=params, dtype=dtype, data_dtype=dtype)


OPS = {
    "x + 0": bias((1, 1, 1, 1), 0.0, op="add"),
    "x + 1": bias((1, 1, 1, 1), 1.0, op="add"),
    "x + ?": bias((1, 1, 1, 1), None, op="add"),
    "x + 0 by channel": bias(value=0.0, op="add"),
    "x * 1": op("multiply", op="multiply", params={"factor": number(1)}),
    "x / 0.5": op("divide", op="divide", params={"divisor": number(0.5)}),
    "1 / x": op("divide_into", op="divide", params={"dividend": number(1)}),
    "clip": clip(-1, 1),
    "clip to half of all": clip(-MOST, 0),
    "clip to the other half": clip(0, MOST),
    "clip to all": clip(-MOST, MOST),
    "clip to positive bytes": clip(0, 127, "int8"),
    "clip to negative bytes": clip(-128, 0, "int8"),
    "clip to all bytes": clip(-128, 127, "int8"),
    "clip to numbers of bfloat16": clip(-MOST_BFLOAT16, MOST_BFLOAT16),
    "clip to all of bfloat16": clip(-MOST_BFLOAT16, MOST_BFLOAT16, "bfloat16"),
    "clip from an unknown number": clip(None, inf),
    "clip to an unknown number": clip(-inf, None),
    "cast": op("cast", op="cast", dtype="float16", data_dtype="float32"),
    "cast to the same": op("cast", op="cast"),
    "relu": op("relu", op="nn.relu"),
    "leaky_relu of slope 1": op("leaky_relu", op="nn.leaky_relu", params={"alpha": 1.0}),
    "leaky_relu": op("leaky_relu", op="nn.leaky_relu", params={"alpha": 0.5}),
    "abs": op("abs", op="abs"),
    "leaky_relu of nearly 1": op("leaky_relu", op="nn.leaky_relu", params={"alpha": 1 + 1e-10}),
    "leaky_relu of float64": op(
        "leaky_relu", op="nn.leaky_relu", params={"alpha": 1 + 1e-10}, dtype="float64"
    ),
    "clip to nearly all": clip(-MOST * (1 - 1e-10), MOST),
    "maximum": op("maximum", op="maximum", params={"bound": number(1)}),
    "maximum of what is computed": op(
        "maximum", op="maximum", params={"bound": Operand((1,), None, stored=False)}
    ),
}
VANISHING = [
    "x + 0",
    "x + ?",
    "x + 0 by channel",
    "x * 1",
    "clip to all",
    "clip to all bytes",
    "clip to all of bfloat16",
    "clip from an unknown number",
    "clip to an unknown number",
    "cast to the same",
    "leaky_relu of slope 1",
    "abs",
    "leaky_relu of nearly 1",
    "clip to nearly all",
    "maximum of what is computed",
]


def test_what_may_vanish():
    assert [name for name, each in OPS.items() if may_vanish_op(each)] == VANISHING


def call(name, *args, dtype="float32", **attrs):
    return CallView(name, SimpleNamespace(**attrs), args, (1, 8), dtype)


DATA = Operand((1, 8), dtype="float32")
MADE = Operand((1, 8), stored=False, dtype="float32")
CALLS = {
    "x + 0": call("add", DATA, number(0)),
    "0 + x": call("relax.add", number(0), DATA),
    "x + 1": call("add", DATA, number(1)),
    "1 + x": call("add", number(1), DATA),
    "x + 0 and 1": call("add", DATA, Operand((2,), np.array([0.0, 1.0], "float32"))),
    "x + y": call("add", DATA, DATA),
    "x - 0": call("subtract", DATA, number(0)),
    "0 - x": call("subtract", number(0), DATA),
    "x - y": call("relax.subtract", DATA, DATA),
    "x / 1": call("divide", DATA, number(1)),
    "1 / x": call("divide", number(1), DATA),
    "x * 1 by channel": call("multiply", DATA, number(1, 8)),
    "x + nothing": call("add", DATA, number(0, 0)),
    "x + what is no tensor": call("add", DATA, None),
    "cast": call("cast", DATA, dtype="int8"),
    "cast to the same": call("relax.astype", DATA),
    "clip": call("clip", DATA, a_min=0, a_max=6),
    "clip to all": call("clip", DATA, a_min=-inf, a_max=inf),
    "relax.clip": call("relax.clip", DATA, 0, 6),
    "relax.clip to all": call("relax.clip", DATA, -inf, inf),
    "leaky_relu of slope 1": call("relax.nn.leakyrelu", DATA, alpha=1.0),
    "leaky_relu": call("nn.leaky_relu", DATA, alpha=0.1),
    "abs": call("relax.abs", DATA),
    "relu": call("nn.relu", DATA),
    "maximum": call("maximum", MADE, number(1)),
    "maximum of an argument": call("relax.maximum", MADE, DATA),
    "minimum of what is computed": call("relax.minimum", MADE, MADE),
}
STAY = [
    *("x + 1", "1 + x", "x + 0 and 1", "0 - x", "1 / x"),
    *("cast", "clip", "relax.clip", "leaky_relu", "relu", "maximum", "maximum of an argument"),
]


def test_which_calls_may_vanish():
    assert [name for name, each in CALLS.items() if not may_vanish(each)] == STAY


def test_a_cast_is_not_parted_from_one_above_it():
    integers = op("cast", op="cast", dtype="float32", data_dtype="int8")
    assert keeps_rounding(integers, op("cast", op="cast", dtype="int8")).reason is Reason.ROUNDING
    assert keeps_rounding(integers, op("relu", dtype="int8")) is None
    assert keeps_rounding(integers, MULTIPLY).reason is Reason.ROUNDING
    assert keeps_rounding(op("bias_add", dtype="int8"), op("cast", dtype="int8")) is None


UNROUNDED = Producer("a variable", rounded=False, reads_activation=False)


def test_a_cast_is_not_parted_from_what_may_be_one():
    integers = op("cast", op="cast", dtype="float32", data_dtype="int8")
    assert keeps_rounding(integers, UNROUNDED).reason is Reason.ROUNDING
    assert keeps_rounding(bias(dtype="int8", data_dtype="int8"), UNROUNDED) is None
    assert keeps_rounding(clip(0, 6), UNROUNDED) is None


@pytest.mark.parametrize(
    "below", [{"arithmetic_below": ("add", "cast")}, {"unknown_below": (CALLER,)}]
)
def test_a_clip_does_not_meet_a_cast(below):
    assert not_folded(clip(0, 6), site(clip(0, 6), **below)).reason is Reason.FOLDING
    assert not_folded(clip(0, 6), site(clip(0, 6), arithmetic_below=("add",))) is None


def test_a_clip_of_integers_may_meet_what_is_not_known():
    integers = clip(0, 6, "int32")
    assert not_folded(integers, site(integers, unknown_below=("copy",))) is None


def test_a_cast_to_integers_may_not():
    cast = op("cast", op="cast", dtype="int8", data_dtype="float32")
    assert not_folded(cast, site(cast, unknown_below=("copy",))).reason is Reason.FOLDING


def test_a_root_does_not_meet_a_quotient():
    root = op("sqrt", op="sqrt")
    assert not_folded(root, site(root, arithmetic_below=("divide",))).reason is Reason.FOLDING
    assert not_folded(root, site(root, arithmetic_below=("cast",))) is None


def test_what_meets_nothing_meets_a_caller():
    relu = op("relu", op="nn.relu")
    below = {"arithmetic_below": ("cast", CALLER), "unknown_below": (CALLER, "copy")}
    assert not_folded(relu, site(relu, **below)) is None


def test_integers_of_a_cast_do_not_meet_what_begins_with_one():
    cast = op("cast", op="cast", dtype="int8", data_dtype="float32")
    assert not_folded(cast, site(cast, casts_below=("nn.conv2d",))).reason is Reason.FOLDING
    assert not_folded(cast, site(cast)) is None
    for other in (
        op("cast", op="cast", dtype="float16", data_dtype="float32"),
        op("relu", op="nn.relu", dtype="int8", data_dtype="int8"),
    ):
        assert not_folded(other, site(other, casts_below=("nn.conv2d",))) is None


def test_a_requantization_is_not_parted_from_what_may_be_a_cast():
    requantize = op("requantize", op="qnn.requantize")
    assert keeps_rounding(requantize, op("cast", op="cast")).reason is Reason.ROUNDING
    assert keeps_rounding(requantize, UNROUNDED).reason is Reason.ROUNDING
    assert keeps_rounding(requantize, replace(UNROUNDED, reads_activation=True)).reason is (
        Reason.ROUNDING
    )
    assert keeps_rounding(requantize, replace(UNROUNDED, rounded=True)) is None
    assert keeps_rounding(requantize, replace(UNROUNDED, stays=True)) is None
    assert keeps_rounding(op("relu", op="nn.relu"), UNROUNDED) is None


def test_what_may_vanish_hides_nothing():
    cast = op("cast", op="cast", dtype="float32", data_dtype="int8")
    zero = bias((1, 1, 1, 1), 0.0, op="add", dtype="int8", data_dtype="int8")
    stays = op("cast", op="cast", dtype="int8", data_dtype="float16")
    assert decide(site(cast, zero, stays)).decline is not None
    meets = decide(site(clip(-MOST, MOST), clip(0, 6), arithmetic_below=("cast",)))
    assert meets.decline.reason is Reason.FOLDING
    unknown = bias((1, 1, 1, 1), None, op="add", dtype="int8", data_dtype="int8")
    assert decide(site(cast, unknown, stays)).decline is not None


def test_a_sum_does_not_sink_from_a_product_past_what_may_vanish():
    leaky = op("leaky_relu", op="nn.leaky_relu", params={"alpha": 1.0})
    for middle in (leaky, op("abs", op="abs")):
        parted = decide(site(bias(), middle, producer=MULTIPLY))
        assert (parted.sunk, parted.decline.reason) == ((), Reason.ROUNDING)
    met = decide(site(leaky, bias(), arithmetic_below=("multiply",)))
    assert met.decline.reason is Reason.FOLDING


def test_a_slope_that_is_not_known_may_be_1():
    leaky = op("leaky_relu", op="nn.leaky_relu")
    assert not may_vanish_op(leaky)
    assert may_vanish_op(replace(leaky, params={}))
    assert may_vanish_op(replace(leaky, params={"alpha": 1.0}))
