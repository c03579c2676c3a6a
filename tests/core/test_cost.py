from dataclasses import asdict, replace
from decimal import Decimal

import pytest
from site_builders import CONV, PARAMETER, bias, op, pool, site

from tvm_passes.cost import BYTES, arithmetic_saved, cost
from tvm_passes.decision import decide
from tvm_passes.rules import RULES


@pytest.mark.parametrize(
    ("channels", "share"),
    [(1, Decimal("0.03")), (64, Decimal("0.00046875"))],  # 3% and 0.05%, TensorFlow issue 3180
)
def test_the_share_of_a_5x5_convolution_under_a_2x2_pool(channels, share):
    assert arithmetic_saved(1 / 4, 5 * 5 * channels) == pytest.approx(float(share), rel=1e-15)


def test_a_site_counts_its_own_convolution():
    thin = cost(decide(site(producer=replace(CONV, macs_per_output=5 * 5 * 1))))
    deep = cost(decide(site(producer=replace(CONV, macs_per_output=5 * 5 * 64))))
    assert f"{thin.arithmetic_saved:.0%}" == "3%"
    assert f"{deep.arithmetic_saved:.2%}" == "0.05%"


def test_evaluations_and_bytes_of_one_op():
    counted = cost(decide(site()))
    assert counted.evaluations_before == 1 * 8 * 16 * 16
    assert counted.evaluations_after == 1 * 8 * 8 * 8
    # relu writes 2048 floats and the pool 512; then both write 512.
    assert counted.bytes_before == 4 * (2048 + 512)
    assert counted.bytes_after == 4 * (512 + 512)


def test_each_op_of_a_chain_counts():
    counted = cost(decide(site(op("clip"), op("leaky_relu"), bias())))
    assert counted.evaluations_before == 3 * 2048
    assert counted.evaluations_after == 3 * 512
    assert counted.bytes_before == 4 * (3 * 2048 + 512)
    assert counted.bytes_after == 4 * (3 * 512 + 512)
    assert counted.arithmetic_saved == arithmetic_saved(1 / 4, CONV.macs_per_output)


def test_only_the_ops_that_sink_count():
    counted = cost(decide(site(op("clip"), op("leaky_relu", consumers=2))))
    assert counted.evaluations_before == 2048
    assert counted.evaluations_after == 512


def test_a_site_left_alone_saves_nothing():
    counted = cost(decide(site(op(consumers=2))))
    assert counted.evaluations_before == counted.evaluations_after == 0
    assert counted.bytes_before == counted.bytes_after == 4 * 512
    assert counted.arithmetic_saved is None


@pytest.mark.parametrize("producer", [PARAMETER, replace(CONV, macs_per_output=0)])
def test_without_known_arithmetic_there_is_no_share(producer):
    assert cost(decide(site(producer=producer))).arithmetic_saved is None


def test_a_symbolic_batch_counts_as_one():
    shapes = {"in_shape": (None, 8, 16, 16), "out_shape": (None, 8, 8, 8)}
    counted = cost(decide(site(op(shape=(None, 8, 16, 16)), pool=pool(**shapes))))
    assert (counted.evaluations_before, counted.evaluations_after) == (2048, 512)


def test_with_a_symbolic_pooled_extent_nothing_is_known():
    shapes = {"in_shape": (1, 8, None, 16), "out_shape": (1, 8, None, 8)}
    decision = decide(site(op(shape=(1, 8, None, 16)), pool=pool(**shapes)))
    assert decision.passed
    assert set(asdict(cost(decision)).values()) == {None}


def test_overlapping_windows_keep_more_than_their_strides_say():
    seven = pool(kernel=(3, 3), in_shape=(1, 8, 16, 16), out_shape=(1, 8, 7, 7))
    counted = cost(decide(site(pool=seven)))
    assert counted.arithmetic_saved == pytest.approx((1 - 49 / 256) / 25)


@pytest.mark.parametrize(("dtype", "width"), [("float16", 2), ("float64", 8), ("int8", 1)])
def test_bytes_follow_the_element_type(dtype, width):
    counted = cost(decide(site(op(dtype=dtype), pool=pool(dtype=dtype))))
    assert counted.bytes_after == width * 1024


def test_the_width_of_every_element_type_of_the_table_is_known():
    assert {dtype for rule in RULES for dtype in rule.dtypes} <= set(BYTES)


def test_what_is_evaluated_at_both_ends_counts_twice_and_the_other_end_writes_too():
    counted = cost(decide(site(op(), op("abs"), op("tanh")), {"quasi-convex"}))
    assert counted.evaluations_before == 3 * 2048
    assert counted.evaluations_after == (1 + 2 * 2) * 512
    # Negated: the data and its pool; then that pool and the larger of two results.
    assert counted.bytes_after == 4 * (5 * 512 + 512 + 2048 + 512 + 512 + 512)
    assert counted.arithmetic_saved is None


def test_what_is_evaluated_at_the_other_end_counts_once():
    counted = cost(decide(site(op("acos"))))
    assert (counted.evaluations_before, counted.evaluations_after) == (2048, 512)
    assert counted.bytes_after == 4 * (512 + 512 + 2048 + 512)
    opposite = cost(decide(site(op("acos"), pool=pool(opposite="min"))))
    assert opposite.bytes_after == 4 * (512 + 512)
