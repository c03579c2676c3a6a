"""Each condition of a row on both sides: what it lets pass, and what it says of what it stops."""

from math import inf, nan

import numpy as np
import pytest
from site_builders import MULTIPLY, RULE, assert_declined, bias, op, pool, site

from tvm_passes.conditions import (
    constant_in_window,
    data_within,
    divisor_negative,
    divisor_positive,
    equal_to,
    factor_not_negative,
    factor_not_positive,
    finite_slope_not_negative,
    ordered_bounds,
    signs_differ,
    slope_negative,
)
from tvm_passes.decline import Reason
from tvm_passes.kernel_conditions import (
    between_floats,
    converts_in_range,
    falls_as_computed,
    no_overflow,
    replaced_later,
    rounded_to_bfloat16,
    softplus_as_checked,
)
from tvm_passes.legality import keeps_rounding, not_absorbed, rule_conditions
from tvm_passes.site import Operand

NHWC = pool(layout="NHWC", in_shape=(1, 16, 16, 8), out_shape=(1, 8, 8, 8))


@pytest.mark.parametrize("alpha", [0.0, -0.0, 1e-30, 0.1, 1.0, 2, 1e30])
def test_slope_at_least_0_is_accepted(alpha):
    assert finite_slope_not_negative("alpha")(op(params={"alpha": alpha}), pool()) is None


@pytest.mark.parametrize(
    ("params", "reason", "word"),
    [
        ({"alpha": -0.1}, Reason.NEGATIVE_SLOPE, "alpha=-0.1"),
        ({"alpha": -5e-324}, Reason.NEGATIVE_SLOPE, "train with alpha >= 0"),
        ({"alpha": nan}, Reason.NOT_FINITE, "NaN or infinite"),
        ({"alpha": inf}, Reason.NOT_FINITE, "check the model's weights"),
        ({"alpha": -inf}, Reason.NOT_FINITE, "alpha of the.relu"),
        ({"alpha": None}, Reason.NOT_CONSTANT, "bind the parameters"),
        ({"alpha": Operand((8,), None)}, Reason.NOT_CONSTANT, "alpha of the.relu"),
        ({}, Reason.NOT_CONSTANT, "not known at compile time"),
    ],
)
def test_any_other_slope_is_declined(params, reason, word):
    decline = finite_slope_not_negative("alpha")(op(params=params), pool())
    assert_declined(decline, reason, "the.relu", word)


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 6.0), (-1, 1), (2.0, 2.0), (-inf, 0.0), (0.0, inf), (-inf, inf)]
)
def test_ordered_bounds_are_accepted(low, high):
    clip = op("clip", params={"low": low, "high": high})
    assert ordered_bounds("low", "high")(clip, pool()) is None


@pytest.mark.parametrize(
    ("params", "reason", "words"),
    [
        ({"low": 6.0, "high": 0.0}, Reason.INVERTED_BOUNDS, ["low=6", "high=0", "swap the bounds"]),
        ({"low": nan, "high": 0.0}, Reason.NOT_FINITE, ["low of the.clip"]),
        ({"low": 0.0, "high": nan}, Reason.NOT_FINITE, ["high of the.clip"]),
        ({"low": 0.0}, Reason.NOT_CONSTANT, ["high of the.clip"]),
        ({"high": 0.0}, Reason.NOT_CONSTANT, ["low of the.clip"]),
        ({"low": 0.0, "high": None}, Reason.NOT_CONSTANT, ["high of the.clip"]),
    ],
)
def test_any_other_bounds_are_declined(params, reason, words):
    decline = ordered_bounds("low", "high")(op("clip", params=params), pool())
    assert_declined(decline, reason, "the.clip", *words)


@pytest.mark.parametrize("value", [None, 0.0, -3.5, 3e38])
@pytest.mark.parametrize(
    ("shape", "where"),
    [
        ((1, 8, 1, 1), pool()),
        ((1, 1, 1, 1), pool()),
        ((4, 8, 1, 1), pool()),
        ((1, 1, 1, 8), NHWC),
        ((1, 2, 1, 1, 4), pool(layout="NCHW4c")),
        ((None, 8, 1, 1), pool()),
    ],
)
def test_an_operand_that_is_constant_over_the_window_is_accepted(shape, where, value):
    known = [1 if extent is None else extent for extent in shape]
    data = None if value is None else np.full(known, value, np.float32)
    one = op("bias_add", params={"bias": Operand(shape, data)})
    assert constant_in_window("bias")(one, where) is None


@pytest.mark.parametrize(
    ("shape", "where"),
    [
        ((1, 8, 16, 1), pool()),
        ((1, 8, 1, 16), pool()),
        ((1, 8, 16, 16), pool()),
        ((1, 8, 1, 1), NHWC),
        ((1, 1, 16, 1), NHWC),
        ((1, 2, 1, 2, 4), pool(layout="NCHW4c")),
        ((1, 8, None, 1), pool()),
    ],
)
def test_an_operand_that_varies_over_the_window_is_declined(shape, where):
    one = op("bias_add", params={"bias": Operand(shape, None)})
    shown = "x".join("?" if extent is None else str(extent) for extent in shape)
    decline = constant_in_window("bias")(one, where)
    assert_declined(decline, Reason.VARIES_IN_WINDOW, "the.bias_add", shown, where.layout)


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_one_addend_that_is_not_finite_is_declined(value):
    one = bias(value=0.0)
    one.params["bias"].value[0, 3] = value
    decline = constant_in_window("bias")(one, pool())
    assert_declined(decline, Reason.NOT_FINITE, "bias of the.bias_add", "NaN or infinite")


@pytest.mark.parametrize("params", [{}, {"bias": None}, {"bias": "a name"}])
def test_an_operand_of_which_nothing_is_known_is_declined(params):
    decline = constant_in_window("bias")(op("bias_add", params=params), pool())
    assert_declined(decline, Reason.NOT_CONSTANT, "bias of the.bias_add", "bind the parameters")


def test_an_operand_that_is_computed_is_declined():
    computed = op("bias_add", params={"bias": Operand((1, 8, 1, 1), None, stored=False)})
    decline = constant_in_window("bias")(computed, pool())
    assert_declined(decline, Reason.ROUNDING, "bias of the.bias_add", "fold constants")


@pytest.mark.parametrize(
    ("reads", "scale", "zero_point", "out", "accepted"),
    [
        ("int32", 0.5, 0, 0, True),
        ("int32", 0.51, 0, 0, False),
        ("int32", 0.5, 1, 0, False),
        ("int32", 0.5, 0, 2**30, False),
        ("int8", 40.0, 7, 100, True),
        ("int8", 1e12, 7, 0, False),
        ("int8", 40.0, 7, 2**31 - 1, False),
        ("uint8", 40.0, -(2**31), 0, False),
    ],
)
def test_a_requantization_that_may_wrap_around_is_declined(reads, scale, zero_point, out, accepted):
    numbers = {"z": zero_point, "s": scale, "t": 1.0, "y": out}
    params = {name: Operand((1, 1), np.array([[value]])) for name, value in numbers.items()}
    one = op("requantize", params=params, data_dtype=reads, dtype="int8")
    decline = no_overflow(*numbers)(one, pool())
    assert (decline is None) is accepted
    if not accepted:
        assert_declined(decline, Reason.DTYPE, "the.requantize", "wrap around")


@pytest.mark.parametrize(("zero_point", "accepted"), [(-128, True), (2**31 - 1, False)])
def test_a_difference_that_may_wrap_around_is_declined(zero_point, accepted):
    params = {"zero_point": Operand((1,), np.array([zero_point]))}
    one = op("dequantize", params=params, data_dtype="int8", dtype="float32")
    assert (no_overflow("zero_point")(one, pool()) is None) is accepted


@pytest.mark.parametrize(
    ("row", "params", "reason"),
    [
        ("dequantize", {"zero_point": 2**31 - 1}, Reason.DTYPE),
        ("square as a power", {"exponent": 3}, Reason.NO_RULE),
    ],
)
def test_rows_ask_what_they_have_to(row, params, reason):
    tensors = {name: Operand((1, 1, 1, 1), np.full((1, 1, 1, 1), n)) for name, n in params.items()}
    one = op(row, params=op(row).params | tensors, data_dtype="int8" if row[0] == "d" else "")
    assert rule_conditions(one, pool()).reason is reason


def test_a_requantization_of_unknown_scale_is_declined():
    one = op("requantize", params={"in_scale": Operand((1, 1))}, data_dtype="int32")
    decline = no_overflow("in_scale")(one, pool())
    assert_declined(decline, Reason.NOT_CONSTANT, "in_scale of the.requantize")


@pytest.mark.parametrize(("beta", "threshold"), [(None, 20.0), (1.0, None), ("a name", 20.0)])
def test_a_softplus_of_unknown_parameters_is_declined(beta, threshold):
    one = op("softplus", params={"beta": beta, "threshold": threshold})
    decline = softplus_as_checked("beta", "threshold")(one, pool())
    assert_declined(decline, Reason.NOT_CONSTANT, "of the.softplus", "bind the parameters")


def operand(values):
    return Operand((1, len(values), 1, 1), np.array(values, np.float32))


SIGNS = [
    (factor_not_negative, [[0.0, 2.0]], [[-1.0, 2.0]], Reason.NEGATIVE_SLOPE),
    (factor_not_positive, [[0.0, -2.0]], [[-1.0, 2.0]], Reason.POSITIVE_SLOPE),
    (divisor_positive, [[0.5, 2.0]], [[-1.0, 2.0]], Reason.NEGATIVE_SLOPE),
    (divisor_negative, [[-0.5, -2.0]], [[-1.0, 2.0], [-1.0, 0.0]], Reason.POSITIVE_SLOPE),
    (slope_negative, [[-0.5, 2.0], [-1.0]], [[0.0, 2.0]], Reason.POSITIVE_SLOPE),
    (signs_differ, [[-0.5, 2.0], [1.0, 0.0, -1.0]], [[0.0, 2.0], [0.0]], Reason.POSITIVE_SLOPE),
    (signs_differ, [[-0.5, 2.0]], [[-2.0, 0.0], [-1.0]], Reason.NEGATIVE_SLOPE),
    (finite_slope_not_negative, [[0.0, 2.0]], [[-0.1, 2.0]], Reason.NEGATIVE_SLOPE),
]


@pytest.mark.parametrize(
    ("condition", "accepted", "declined", "reason"), SIGNS, ids=lambda v: getattr(v, "__name__", "")
)
def test_signs_of_every_channel(condition, accepted, declined, reason):
    check = condition("p")
    for values in accepted:
        assert check(op(params={"p": operand(values)}), pool()) is None
    for values in declined:
        assert_declined(check(op(params={"p": operand(values)}), pool()), reason, "the.relu", "p=")
    for bad in (nan, inf, -inf):
        found = check(op(params={"p": operand([accepted[0][0], bad])}), pool())
        assert_declined(found, Reason.NOT_FINITE, "p of the.relu")
    for unknown in ({}, {"p": None}, {"p": Operand((1, 8, 1, 1), None)}):
        assert_declined(check(op(params=unknown), pool()), Reason.NOT_CONSTANT, "p of the.relu")


@pytest.mark.parametrize("condition", [divisor_positive("p"), signs_differ("p", divides=True)])
def test_a_divisor_of_0_is_declined(condition):
    declined = condition(op(params={"p": operand([1.0, 0.0, -1.0])}), pool())
    assert_declined(declined, Reason.NOT_FINITE, "the.relu divides by 0")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([2.0], None),
        ([2.0, 2.0], None),
        ([3.0], Reason.NO_RULE),
        ([2.0, 3.0], Reason.NO_RULE),
        ([nan], Reason.NOT_FINITE),
    ],
)
def test_a_parameter_of_one_number_alone(values, reason):
    decline = equal_to("p", 2)(op(params={"p": operand(values)}), pool())
    assert decline is None if reason is None else decline.reason is reason
    assert_declined(equal_to("p", 2)(op(), pool()), Reason.NOT_CONSTANT, "p of the.relu")


@pytest.mark.parametrize(
    ("reads", "dtype", "bounds", "holds"),
    [
        ("float32", "float16", (-inf, inf), True),
        ("int64", "float32", (-inf, inf), True),
        ("float32", "int8", (-128.9, 127.9), True),
        ("float32", "int8", (-129.0, 127.0), False),
        ("float32", "int8", (-128.0, 128.0), False),
        ("float32", "int32", (0.0, 2.0**31), False),
        ("float32", "uint8", (-0.9, 255.0), True),
        ("float32", "uint8", (0.0, inf), False),
        ("uint8", "int16", (-inf, inf), True),
        ("uint8", "int8", (-inf, inf), False),
        ("uint8", "int8", (-inf, 127.0), True),
        ("int8", "uint8", (0.0, inf), True),
    ],
)
def test_a_cast_to_integers_is_of_what_they_hold(reads, dtype, bounds, holds):
    one = op("cast", data_dtype=reads, dtype=dtype, bounds=bounds)
    decline = converts_in_range()(one, pool())
    assert (decline is None) is holds
    if not holds:
        assert_declined(decline, Reason.DOMAIN, f"makes {dtype} of {reads}", "clip its input")


@pytest.mark.parametrize(
    ("reads", "dtype", "holds"),
    [
        ("float16", "float32", True),
        ("float32", "float32", True),
        ("float32", "float16", True),
        ("int8", "float32", False),
        ("float32", "int32", False),
        ("bfloat16", "float32", False),
    ],
)
def test_a_cast_between_floats(reads, dtype, holds):
    decline = between_floats()(op("cast", data_dtype=reads, dtype=dtype), pool())
    assert (decline is None) is holds
    if not holds:
        assert_declined(decline, Reason.DTYPE, f"makes {dtype} of {reads}")


@pytest.mark.parametrize(
    ("bounds", "ends", "holds"),
    [
        ((0.0, 1.0), {}, True),
        ((0.0, 1.0), {"above": True}, False),
        ((0.0, 1.0), {"below": True}, False),
        ((0.1, 0.9), {"above": True, "below": True}, True),
        ((-0.1, 1.0), {}, False),
        ((0.0, 1.1), {}, False),
        ((-inf, inf), {}, False),
    ],
)
def test_data_inside_the_domain_are_accepted(bounds, ends, holds):
    decline = data_within(0.0, 1.0, **ends)(op(bounds=bounds), pool())
    if holds:
        assert decline is None
    else:
        assert_declined(decline, Reason.DOMAIN, "the.relu is defined on", "clip its input")


@pytest.mark.parametrize(
    ("beta", "threshold", "reason"),
    [
        (1.0, 20.0, None),
        (0.25, 20, None),
        (3.0, 20.0, Reason.NOT_MONOTONE),
        (-1.0, 20.0, Reason.NOT_MONOTONE),
        (1.0, 19.0, Reason.NOT_MONOTONE),
        (nan, 20.0, Reason.NOT_MONOTONE),
        (None, 20.0, Reason.NOT_CONSTANT),
        (1.0, None, Reason.NOT_CONSTANT),
    ],
)
def test_a_softplus_is_accepted_as_it_was_checked(beta, threshold, reason):
    one = op("softplus", params={"beta": beta, "threshold": threshold})
    decline = softplus_as_checked("beta", "threshold")(one, pool())
    assert decline is None if reason is None else decline.reason is reason


def test_a_kernel_that_falls_is_declined():
    decline = falls_as_computed()(op("softsign"), pool())
    assert_declined(decline, Reason.NOT_MONOTONE, "the.softsign", "by an ulp or two")


def test_an_operand_is_not_computed():
    for stored in (True, False):
        found = op("maximum", params={"bound": Operand((1, 8, 1, 1), None, stored=stored)})
        assert (constant_in_window("bound")(found, pool()) is None) == stored


TENSORS = [
    (name, param)
    for name in RULE
    for param, value in op(name).params.items()
    if isinstance(value, Operand)
]


@pytest.mark.parametrize(("name", "param"), TENSORS)
def test_no_tensor_of_a_row_may_vary_over_the_window(name, param):
    number = op(name).params[param].value.ravel()[0]
    varies = Operand((1, 1, 16, 1), np.full((1, 1, 16, 1), number))
    assert rule_conditions(op(name), pool()) is None
    decline = rule_conditions(op(name, params=op(name).params | {param: varies}), pool())
    assert_declined(decline, Reason.VARIES_IN_WINDOW, f"the.{name}", "1x1x16x1")


SCALES = {f"{op}{sign}" for op in ("multiply", "divide") for sign in ("", "_negative")}
SCALES |= {"quantize (relay)", "dequantize", "multiply_by_channel", "divide_by_channel"}
SQUARES = {"square", "square as a power", "cast between floats"}
SUMS = {"bias_add", "subtract", "subtract_from"}


def test_sums_and_products_round_with_what_is_above_them():
    alone = {name for name, row in RULE.items() if not row.patterns}
    rounded = {name for name in alone if keeps_rounding(op(name), MULTIPLY) is not None}
    assert rounded == SUMS | SCALES | SQUARES | {"selu", "atanh", "cast", "prelu", "prelu_negative"}
    folded = {name for name in alone if not_absorbed(op(name), site(absorbers=("conv",)))}
    assert folded == SCALES


@pytest.mark.parametrize(
    ("bound", "holds"),
    [
        (0.5, True),
        (-6, True),
        (inf, True),
        (0.1, False),
        (float(np.float32(0.1)), False),
        (1.0 + 2.0**-8, False),
        (1.0 + 2.0**-30, False),
        (None, False),
        (Operand((1, 8, 1, 1), None), True),
    ],
)
def test_bounds_of_bfloat16(bound, holds):
    check = rounded_to_bfloat16("low", "high")
    for params in ({"low": bound, "high": inf}, {"low": -inf, "high": bound}):
        assert check(op("clip", params=params, dtype="float32"), pool()) is None
        found = check(op("clip", params=params, dtype="bfloat16"), pool(dtype="bfloat16"))
        if holds:
            assert found is None
        else:
            assert_declined(found, Reason.ROUNDING, "the.clip", "bfloat16")


def test_what_another_pass_replaces_is_declined_whatever_it_is():
    assert_declined(replaced_later(op("tanh"), pool()), Reason.NOT_MONOTONE, "FastMath", "the.tanh")


@pytest.mark.parametrize("condition", [constant_in_window, factor_not_negative, equal_to])
def test_numbers_of_no_elements_are_declined(condition):
    empty = Operand((1, 0, 1, 1), np.zeros((1, 0, 1, 1)))
    check = condition("factor", 1) if condition is equal_to else condition("factor")
    assert check(op("multiply", params={"factor": empty}), pool()).reason is Reason.NOT_CONSTANT


def test_no_condition_looks_at_an_operand_that_is_not_on_the_pool_s_axes():
    stuck = bias((4,), stuck="bias")
    assert rule_conditions(stuck, pool()).reason is Reason.LAYOUT
