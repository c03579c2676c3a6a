"""How much of a chain sinks, and that every reason to decline can be reached."""

from dataclasses import replace
from math import inf, nan

import pytest
from site_builders import (
    BOUNDS,
    CONV,
    MINUS_ONES,
    MULTIPLY,
    ONES,
    RULE,
    bare_site,
    bias,
    op,
    pool,
    site,
)

from tvm_passes.decision import decide, decide_together
from tvm_passes.decline import Direction, Ends, Reason
from tvm_passes.site import Move, Operand

PAD = Move("nn.pad", (1, 8, 14, 14), (1, 8, 16, 16), padded=(2, 3), fills=True, fill=0.0)


UP, DOWN, BOWL = Direction.NON_DECREASING, Direction.NON_INCREASING, Direction.QUASI_CONVEX
ALLOW = {"quasi-convex"}


def falling(direction=BOWL, **fields):
    """An op of a row that says nothing but how it moves."""
    return replace(op(), rule=replace(RULE["relu"], direction=direction, **fields))


CALLED = falling(DOWN, is_call=True)


SITES = {
    Reason.NOT_SELECTING: site(pool=pool(selects=False)),
    Reason.NO_ACTIVATION: bare_site(CONV),
    Reason.NO_RULE: bare_site(MULTIPLY),
    Reason.NOT_MONOTONE: site(op("softplus", params={"beta": 3.0, "threshold": 20.0})),
    Reason.QUASI_CONVEX: site(falling()),
    Reason.LAYOUT: site(pool=pool(layout="NCHW4h")),
    Reason.EMPTY_WINDOW: site(pool=pool(padding=(2, 2, 2, 2))),
    Reason.DOES_NOT_PAY: site(pool=pool(strides=(1, 1), out_shape=(1, 8, 16, 16))),
    Reason.SHARED: site(op(consumers=2)),
    Reason.OUTPUT: site(op(is_output=True)),
    Reason.DTYPE: site(op("sigmoid", dtype="int8"), pool=pool(dtype="int8")),
    Reason.SHAPE: site(op(shape=(1, 1, 16, 16))),
    Reason.NOT_CONSTANT: site(op("leaky_relu", params={})),
    Reason.NOT_FINITE: site(op("leaky_relu", params={"alpha": nan})),
    Reason.NEGATIVE_SLOPE: site(op("leaky_relu", params={"alpha": -0.1})),
    Reason.POSITIVE_SLOPE: site(op("multiply_negative", params={"factor": ONES})),
    Reason.INVERTED_BOUNDS: site(op("clip", params={"low": 1.0, "high": 0.0})),
    Reason.VARIES_IN_WINDOW: site(bias((1, 8, 16, 16))),
    Reason.DOMAIN: site(op("log", bounds=(0.0, inf))),
    Reason.PAD_VALUE: site(op("sigmoid", crosses=(PAD,))),
    Reason.NOT_DATAFLOW: site(op(), in_dataflow=False),
    Reason.ROUNDING: site(bias(), producer=MULTIPLY),
    Reason.FOLDING: site(bias(), arithmetic_below=("multiply",)),
}


def test_no_reason_is_untested():
    assert set(SITES) == set(Reason)


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.value)
def test_each_reason_is_reached(reason):
    decision = decide(SITES[reason])
    assert decision.sunk == ()
    assert not decision.passed
    assert decision.decline.reason is reason
    assert decision.site is SITES[reason]


@pytest.mark.parametrize("rule", BOUNDS)
def test_outside_of_its_domain_no_row_is_trusted(rule):
    decision = decide(site(op(rule, bounds=(-inf, inf)), pool=pool(opposite="min")))
    assert decision.decline.reason is Reason.DOMAIN


@pytest.mark.parametrize(
    ("rule", "params"),
    [("leaky_relu_negative", {"alpha": 0.1}), ("prelu_negative", {"alpha": ONES})],
)
def test_what_only_rises_is_no_row_that_falls_first(rule, params):
    decision = decide(site(op(rule, params=params)), allow=ALLOW)
    assert decision.decline.reason is Reason.POSITIVE_SLOPE


def test_a_pool_that_does_not_shrink_is_named_as_the_reason():
    decline = decide(SITES[Reason.DOES_NOT_PAY]).decline
    assert "reads 2048 elements and writes 2048" in decline.detail


@pytest.mark.parametrize(
    "rule", [name for name, row in RULE.items() if not row.results and not row.patterns]
)
def test_one_op_of_each_rule_sinks(rule):
    chain = (op(rule),)
    decision = decide(site(*chain), ALLOW)
    cheap = chain[0].rule.direction in (DOWN, Direction.BY_CHANNEL) and not chain[0].rule.is_call
    if cheap:
        assert decision.decline.reason is Reason.DOES_NOT_PAY
        return
    assert decision.passed
    assert decision.sunk == chain
    assert decision.decline is None


# Which ends of a window.


def test_what_falls_is_evaluated_at_the_other_end():
    decision = decide(site(op(), CALLED, op("tanh")))
    assert decision.ends is Ends.OTHER
    assert decision.times == (1, 1, 1)


def test_what_falls_twice_is_evaluated_at_the_same_end():
    decision = decide(site(falling(DOWN), op(), falling(DOWN)))
    assert decision.ends is Ends.SAME
    assert len(decision.sunk) == 3


def test_what_falls_and_is_cheap_stays_and_what_is_below_it_sinks():
    decision = decide(site(op(), falling(DOWN)))
    assert decision.ends is Ends.SAME
    assert len(decision.sunk) == 1
    assert decision.decline.reason is Reason.DOES_NOT_PAY
    assert "other end" in decision.decline.detail


def test_a_reduction_has_an_opposite_and_needs_no_negations():
    decision = decide(site(falling(DOWN), pool=pool(opposite="min")))
    assert decision.ends is Ends.OTHER


def test_only_a_pool_with_an_opposite_takes_the_other_end_of_integers():
    """-max(-x) of the lowest integer wraps around."""
    chain = (falling(DOWN, is_call=True), op("dequantize", data_dtype="int8"))
    assert decide(site(*chain, pool=pool(opposite="min"))).sunk == chain
    assert decide(site(*chain)).sunk == chain[:1]


def test_a_minimum_that_takes_what_falls_becomes_a_maximum():
    decision = decide(site(falling(DOWN), pool=pool(minimum=True, opposite="max")))
    assert decision.ends is Ends.OTHER


def test_no_maximum_is_made_below_what_could_then_sink_in_a_second_run():
    opposite = pool(minimum=True, opposite="max")
    decision = decide(site(op(), falling(DOWN), op(), falling(BOWL), pool=opposite), ALLOW)
    assert (len(decision.sunk), decision.ends) == (1, Ends.SAME)
    assert decision.decline.reason is Reason.NOT_MONOTONE
    assert decide(site(falling(DOWN), falling(BOWL), pool=opposite), ALLOW).sunk == ()
    assert len(decide(site(falling(DOWN), falling(BOWL), pool=opposite)).sunk) == 1


def test_what_falls_then_rises_is_evaluated_at_both_ends_and_what_is_below_it_once():
    chain = (op(), op("tanh"), falling(BOWL), falling(DOWN), op())
    decision = decide(site(*chain), ALLOW)
    assert (decision.ends, decision.joined) == (Ends.BOTH, 2)
    assert decision.sunk == chain
    assert decision.times == (1, 1, 2, 2, 2)
    assert decision.lent == chain[:2]
    assert decide(site(*chain)).sunk == chain[:2]


def test_what_moves_either_way_is_evaluated_at_both_ends_and_what_falls_below_it_too():
    chain = (op(), falling(DOWN), op("multiply_by_channel"), op("tanh"), falling(DOWN))
    decision = decide(site(*chain))
    assert (decision.ends, decision.joined) == (Ends.BOTH, 1)
    assert decision.sunk == chain


def test_an_addition_is_not_parted_from_a_product_by_the_larger_of_two_results():
    chain = (op(), bias(), op("multiply_by_channel"), op("tanh"))
    decision = decide(site(*chain))
    assert (decision.ends, decision.joined) == (Ends.BOTH, 1)
    assert decision.sunk == chain
    assert decide(site(bias(), *chain[2:])).joined == 0


def test_what_moves_either_way_has_to_save_more_than_the_other_ends_cost():
    chain = (op("multiply_by_channel"), bias())
    assert decide(site(chain[0])).decline.reason is Reason.DOES_NOT_PAY
    assert decide(site(*chain, pool=pool(opposite="min"))).sunk == ()
    few = pool(opposite="min", in_shape=(1, 8, 16, 16), out_shape=(1, 8, 1, 1))
    assert decide(site(*chain, pool=few)).sunk == chain


def test_two_evaluations_a_window_have_to_be_fewer_than_its_elements():
    narrow = pool(strides=(1, 2), out_shape=(1, 8, 16, 8))
    decision = decide(site(falling(BOWL), pool=narrow), ALLOW)
    assert decision.decline.reason is Reason.DOES_NOT_PAY
    thirds = pool(strides=(1, 3), kernel=(1, 3), out_shape=(1, 8, 16, 5))
    assert decide(site(falling(BOWL), pool=thirds), ALLOW).passed


def test_several_pools_take_no_other_end():
    sites = [site(CALLED), site(CALLED, pool=pool(out_shape=(1, 8, 4, 4), strides=(4, 4)))]
    assert [decision.passed for decision in decide_together(sites)] == [False, False]
    alone = decide(site(op(), CALLED), ends=(Ends.SAME,))
    assert len(alone.sunk) == 1
    assert alone.decline.reason is Reason.NOT_MONOTONE
    assert "several pools" in alone.decline.detail


def test_a_whole_chain_sinks():
    chain = (op("clip"), op("leaky_relu"), bias())
    decision = decide(site(*chain))
    assert decision.sunk == chain
    assert decision.decline is None


@pytest.mark.parametrize(
    ("stuck", "reason"),
    [
        (op("sigmoid", consumers=2), Reason.SHARED),
        (op("sigmoid", is_output=True), Reason.OUTPUT),
        (op("leaky_relu", params={"alpha": -1.0}), Reason.NEGATIVE_SLOPE),
        (falling(BOWL), Reason.QUASI_CONVEX),
        (bias((1, 8, 16, 1)), Reason.VARIES_IN_WINDOW),
        (bias((1, 8, 1, 1), nan), Reason.NOT_FINITE),
        (op(shape=(1, 1, 16, 16)), Reason.SHAPE),
        (op("sigmoid", dtype="float16"), Reason.DTYPE),
    ],
)
def test_the_ops_below_one_that_stays_sink(stuck, reason):
    chain = (op(), op("tanh"), stuck, op("clip"))
    decision = decide(site(*chain))
    assert decision.sunk == chain[:2]
    assert decision.passed
    assert decision.decline.reason is reason


def test_nothing_above_a_shared_op_sinks_though_it_could():
    assert decide(site(op(consumers=2), op("tanh"))).sunk == ()


def test_an_addition_below_a_product_stays_and_the_ops_below_it_sink():
    chain = (op(), op("clip"), bias())
    decision = decide(site(*chain, producer=MULTIPLY))
    assert decision.sunk == chain[:2]
    assert decision.decline.reason is Reason.ROUNDING
    assert MULTIPLY.op in decision.decline.detail


def test_an_addition_below_a_product_that_stays_in_the_chain_stays():
    stuck = op("leaky_relu", params={"alpha": -0.5})
    chain = (op(), bias(), stuck)
    decision = decide(site(*chain))
    assert decision.sunk == chain[:1]
    assert decision.decline.reason is Reason.ROUNDING
    assert stuck.op in decision.decline.detail


def test_an_addition_below_a_product_that_sinks_too_sinks():
    chain = (bias(), op("leaky_relu"))
    assert decide(site(*chain)).sunk == chain


def test_an_addition_below_a_rounded_op_that_stays_sinks():
    chain = (bias(), op("tanh", consumers=2))
    decision = decide(site(*chain, producer=MULTIPLY))
    assert decision.sunk == chain[:1]
    assert decision.decline.reason is Reason.SHARED


def test_an_addition_is_not_parted_from_one_that_stays():
    # The upper one could be contracted with the slope; a compiler folds the two into one.
    chain = (bias(), bias(), op("leaky_relu", params={"alpha": -0.5}))
    assert decide(site(*chain)).sunk == ()
    chain = (op(), bias(), bias((1, 8, 16, 16)))
    assert decide(site(*chain)).sunk == chain[:1]


def test_an_addition_that_would_meet_arithmetic_below_the_pool_stays():
    decision = decide(site(bias(), arithmetic_below=("add", "multiply", "add")))
    assert decision.decline.reason is Reason.FOLDING
    assert "the.bias_add would be next to add, multiply" in decision.decline.detail


def test_an_addition_with_an_activation_between_it_and_that_arithmetic_sinks():
    chain = (op(), bias())
    assert decide(site(*chain, arithmetic_below=("multiply",))).sunk == chain


def test_an_addition_is_not_parted_from_a_product_past_a_sign():
    varying = op("multiply", params={"factor": Operand((1, 8, 16, 16))})
    assert decide(site(bias(), op("negative"), varying)).sunk == ()


def test_a_division_by_a_number_that_kernels_share_stays():
    decline = decide(site(op("divide", unsettled=True))).decline
    assert decline.reason is Reason.ROUNDING
    assert "reciprocal" in decline.detail


def test_the_site_is_asked_before_its_ops():
    decision = decide(site(op(consumers=2), pool=pool(selects=False)))
    assert decision.decline.reason is Reason.NOT_SELECTING


def test_a_factor_that_may_be_folded_into_weights_stays():
    chain = (op(), op("multiply"), op("tanh"))
    assert decide(site(*chain)).sunk == chain
    decision = decide(site(*chain, absorbers=("nn.dense", "nn.conv2d", "nn.conv2d")))
    assert decision.sunk == chain[:1]
    assert decision.decline.reason is Reason.FOLDING
    assert "the.multiply" in decision.decline.detail
    assert "nn.conv2d, nn.dense" in decision.decline.detail
    assert decide(site(op(), absorbers=("nn.conv2d",))).passed


def test_an_addend_whose_values_are_unknown_sinks():
    chain = (op(), op("bias_add", params={"bias": Operand((1, 8, 1, 1), None)}))
    assert decide(site(*chain)).sunk == chain


# Several pools that read one activation.

STRIDE_1 = pool(strides=(1, 1), kernel=(3, 3), out_shape=(1, 8, 14, 14))


def together(*pools, chain=()):
    return decide_together([site(*chain, pool=each) for each in pools])


def test_an_activation_sinks_below_all_pools_that_read_it():
    chain = (op(), bias())
    decisions = together(pool(), pool(op="other"), chain=chain)
    assert [decision.sunk for decision in decisions] == [chain, chain]
    assert [decision.site.pool.op for decision in decisions] == ["nn.max_pool2d", "other"]


def test_pools_that_write_no_less_together_keep_it():
    assert decide(site(pool=STRIDE_1)).passed
    for decision in together(STRIDE_1, pool()):
        assert decision.decline.reason is Reason.SHARED
        assert "2 pools" in decision.decline.detail
        assert "no less" in decision.decline.detail


def test_four_quarters_are_no_less():
    assert not any(decision.passed for decision in together(*[pool()] * 4))
    assert all(decision.passed for decision in together(*[pool()] * 3))


def test_where_one_pool_may_not_have_it_none_has():
    first, second = together(pool(), pool(padding=(2, 2, 2, 2)))
    assert first.decline.reason is Reason.SHARED
    assert "not sink below all" in first.decline.detail
    assert second.decline.reason is Reason.EMPTY_WINDOW


def test_what_all_pools_may_have_sinks():
    chain = (op(), bias())
    by_channel = pool(kernel=(), strides=(), padding=(), axes=(1,), out_shape=(1, 1, 16, 16))
    for decision in together(pool(), by_channel, chain=chain):
        assert decision.sunk == chain[:1]
        assert decision.decline.reason is Reason.VARIES_IN_WINDOW


def test_symbolic_extents_are_shared_by_strides():
    symbolic = pool(in_shape=(1, 8, None, 16), out_shape=(1, 8, None, 8))
    chain = (op(shape=symbolic.in_shape),)
    assert all(decision.passed for decision in together(symbolic, symbolic, chain=chain))
    assert not any(decision.passed for decision in together(*[symbolic] * 4, chain=chain))


# Element types that change along a chain.


def test_a_chain_that_changes_its_element_type_sinks_whole():
    chain = (
        op(dtype="int8"),
        op("quantize (relax)", dtype="int8", data_dtype="float32"),
        op("tanh"),
        op("dequantize", dtype="float32", data_dtype="uint8"),
    )
    assert decide(site(*chain, pool=pool(dtype="int8"))).sunk == chain


@pytest.mark.parametrize(
    "wrong",
    [
        op("quantize (relax)", dtype="int8", data_dtype="int32"),
        op("quantize (relax)", dtype="int32", data_dtype="float32"),
        op("dequantize", dtype="int8", data_dtype="uint8"),
    ],
)
def test_other_element_types_of_a_quantization_are_declined(wrong):
    decision = decide(site(wrong, pool=pool(dtype=wrong.dtype)))
    assert decision.decline.reason is Reason.DTYPE


def test_a_dequantization_is_not_contracted_with_what_is_above_it():
    chain = (op("dequantize", dtype="float32", data_dtype="int8"),)
    assert decide(site(*chain, producer=replace(MULTIPLY, op="qnn.mul"))).sunk == chain
    decision = decide(site(*chain, arithmetic_below=("add",)))
    assert decision.decline.reason is Reason.FOLDING


class TestNarrowIntegersThatMayWrapAround:
    """A kernel in C cuts them to their bits where they are stored, which the swap moves."""

    @staticmethod
    def decided(*chain, dtype="int8", producer=CONV):
        return decide(site(*chain, pool=pool(dtype=dtype), producer=producer))

    @pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
    def test_stay_above_the_pool_with_what_reads_them(self, dtype):
        relu, clip = op(dtype=dtype), op("clip", dtype=dtype, params={"low": 0.0, "high": 6.0})
        total = bias(dtype=dtype)
        for chain in ((relu,), (relu, clip), (clip, relu)):
            assert self.decided(*chain, dtype=dtype).sunk == chain
            for producer in (CONV, MULTIPLY):
                decision = self.decided(*chain, total, dtype=dtype, producer=producer)
                assert decision.decline.reason is Reason.ROUNDING, decision.sunk
                assert "add" in decision.decline.detail or producer is MULTIPLY

    def test_are_not_the_wide_ones(self):
        relu, total = op(dtype="int32"), bias(dtype="int32")
        assert self.decided(relu, total, dtype="int32").sunk == (relu,)

    def test_may_come_from_what_no_row_describes(self):
        decision = self.decided(op(dtype="int8"), producer=MULTIPLY)
        assert decision.decline.reason is Reason.ROUNDING
        assert MULTIPLY.op in decision.decline.detail
        whole = replace(MULTIPLY, op="qnn.add")
        assert self.decided(op(dtype="int8"), producer=whole).sunk

    def test_reach_floats_that_are_made_of_them(self):
        dequantize = op("dequantize", dtype="float32", data_dtype="int8")
        total = bias(dtype="int8")
        assert self.decided(dequantize, dtype="float32").sunk == (dequantize,)
        decision = self.decided(dequantize, total, dtype="float32")
        assert decision.decline.reason is Reason.ROUNDING

    def test_above_a_conversion_are_as_large_for_the_pool_as_for_floats(self):
        dequantize = op("dequantize", dtype="float32", data_dtype="int8")
        total, relu = bias(dtype="int8"), op()
        assert self.decided(relu, dequantize, total, dtype="float32").sunk == (relu,)

    def test_are_cut_by_what_makes_narrow_ones_of_others(self):
        relu, half = op(dtype="int8"), op("quantize (relax)", dtype="int8", data_dtype="float16")
        assert self.decided(relu, half).sunk == (relu,)
        wide = op("dequantize", dtype="float32", data_dtype="int16")
        assert self.decided(
            relu, op("quantize (relax)", dtype="int8", data_dtype="float32"), wide
        ).sunk

    def test_do_not_come_from_wide_ones_that_are_not_stored(self):
        chain = (op(dtype="int8"), op("quantize (relax)", dtype="int8", data_dtype="float32"))
        assert self.decided(*chain, producer=MULTIPLY).sunk == chain

    def test_may_be_an_operand(self):
        for stored in (True, False):
            chain = (op("maximum", dtype="int8", params={"bound": replace(ONES, stored=stored)}),)
            assert self.decided(*chain).sunk == (chain if stored else ())


class TestWhatKernelsAreToldOfTheirData:
    """LLVM contracts what it finds out to be a product, from the signs of what sank."""

    CHOICES = (op("abs", op="abs"), op("prelu", op="nn.prelu"), op("relu as a choice"))

    def test_no_op_sinks_into_a_kernel_that_depends_on_it(self):
        decision = decide(site(told_below=("abs", "add")))
        assert decision.decline.reason is Reason.FOLDING
        assert "abs" in decision.decline.detail
        assert not decision.sunk

    @pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.op)
    def test_no_choice_sinks_into_a_kernel_with_sums(self, choice):
        assert decide(site(choice), ALLOW).sunk == (choice,)
        decision = decide(site(choice, sums_below=("add",)), ALLOW)
        assert decision.decline.reason is Reason.FOLDING
        assert "add" in decision.decline.detail
        assert decide(site(op(), sums_below=("add",))).sunk

    @pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.op)
    @pytest.mark.parametrize("above", [op("clip"), op("sigmoid")])
    def test_no_choice_parts_from_what_tells_of_its_data(self, choice, above):
        shared = replace(above, consumers=2)
        assert decide(site(choice, above), ALLOW).sunk == (choice, above)
        decision = decide(site(choice, shared), ALLOW)
        assert decision.decline.reason is Reason.ROUNDING
        assert decide(site(choice, producer=MULTIPLY), ALLOW).decline.reason is Reason.ROUNDING
        assert decide(site(choice, producer=CONV), ALLOW).sunk


class TestWhatRegistersMayHold:
    """Of small results it depends on the whole kernel whether a product is contracted."""

    SHIFT, SCALE, RELU = bias(op="add"), op("multiply"), op()
    RESULTS, DATA = 1000, 3000
    """So large are 512 results not stored; and so large 2048 elements of data, either."""
    AFFINE = (SHIFT, SCALE, RELU)

    def sunk(self, *chain, unstored=RESULTS, **fields):
        return len(decide(site(*chain, unstored=unstored, **fields), ALLOW).sunk)

    def test_no_product_sinks_with_a_sum_of_it(self):
        assert self.sunk(*self.AFFINE, unstored=512) == 3
        decision = decide(site(*self.AFFINE, unstored=513))
        assert decision.decline.reason is Reason.ROUNDING
        assert "8x8x8" in decision.decline.detail
        assert not decision.sunk

    def test_what_is_below_them_sinks(self):
        decision = decide(site(self.RELU, *self.AFFINE, unstored=self.RESULTS))
        assert decision.sunk == (self.RELU,)
        assert "registers" in decision.decline.detail
        assert "the.multiply" in decision.decline.detail

    @pytest.mark.parametrize(
        "between", [op("negative"), op("abs", op="abs"), op("clip", op="clip")]
    )
    def test_what_may_go_hides_no_product(self, between):
        wide = replace(between, params={"low": -inf, "high": inf})
        assert self.sunk(self.SHIFT, wide, self.SCALE) == 0

    def test_a_sum_of_something_else_sinks(self):
        assert self.sunk(self.SHIFT, self.RELU, self.SCALE) == 3
        assert self.sunk(self.SCALE, self.SHIFT) == 2
        assert self.sunk(self.SHIFT, self.SHIFT) == 2
        assert self.sunk(self.SCALE, self.SCALE) == 2
        assert self.sunk(self.SHIFT, op("clip", op="clip"), self.SCALE) == 3
        assert self.sunk(op("abs", op="abs"), self.SCALE) == 2

    def test_functions_with_a_sum_of_a_product(self):
        elu = op("elu as a sum", params={"minus_alpha": MINUS_ONES})
        assert self.sunk(elu, unstored=0) == 1
        assert self.sunk(elu) == 0
        assert self.sunk(op("elu as a choice")) == 1

    def test_extents_that_are_not_known(self):
        shape = (None, 8, 16, 16)
        chain = [replace(each, shape=shape) for each in self.AFFINE]
        symbolic = pool(in_shape=shape, out_shape=(None, 8, 8, 8))
        assert self.sunk(*chain, pool=symbolic) == 3

    def test_nothing_leaves_a_kernel_of_both(self):
        assert self.sunk(self.RELU, *self.AFFINE, unstored=self.DATA) == 0
        assert self.sunk(self.RELU, self.SHIFT, unstored=self.DATA) == 2
        assert self.sunk(self.RELU, unstored=self.DATA, producer=MULTIPLY) == 0
        assert self.sunk(self.RELU, unstored=self.RESULTS, producer=MULTIPLY) == 1

    def test_data_are_counted_where_they_are_computed(self):
        padded = replace(self.RELU, computed=(1, 8, 10, 10))
        assert self.sunk(padded, producer=MULTIPLY) == 0
        assert self.sunk(padded, producer=MULTIPLY, unstored=800) == 1

    @pytest.mark.parametrize(("small", "unstored"), [(False, RESULTS), (True, 100)])
    def test_nothing_comes_into_a_kernel_of_both(self, small, unstored):
        fields = {"small_below": small, "unstored": unstored}
        both = {"sums_below": ("add",), "products_below": ("multiply",)}
        decision = decide(site(**both, **fields))
        assert decision.decline.reason is Reason.FOLDING
        assert "add, multiply" in decision.decline.detail
        shared = decide(site(op(consumers=2), **both, **fields))
        assert shared.decline.reason is Reason.SHARED
        assert self.sunk(sums_below=("add",), **fields) == 1
        assert self.sunk(products_below=("multiply",), **fields) == 1
        assert self.sunk(joined_below=True, **fields) == 0
        assert self.sunk(joined_below=True, unstored=512) == 1
        assert self.sunk(**both, **fields | {"unstored": 0}) == 1
        assert self.sunk(**both, unstored=512) == 1
