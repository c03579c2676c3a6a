"""Each precondition on both sides: what it lets pass, and what it says of what it stops."""

from dataclasses import replace

import pytest
from site_builders import (
    CONV,
    MULTIPLY,
    PARAMETER,
    RULE,
    assert_declined,
    bare_site,
    bias,
    op,
    pool,
    site,
)

from tvm_passes.decline import Decline, Direction, Reason
from tvm_passes.legality import (
    composed,
    direction_allowed,
    dtype_covered,
    has_chain,
    in_dataflow,
    keeps_numbers,
    keeps_rounding,
    keeps_shape,
    layout_known,
    not_output,
    pays,
    rule_conditions,
    selects,
    single_consumer,
)
from tvm_passes.rules import RULES
from tvm_passes.site import Operand

# Preconditions of every op of a chain.


def test_an_output_of_the_function_is_declined():
    assert not_output(op(), pool()) is None
    decline = not_output(op(is_output=True), pool())
    assert_declined(decline, Reason.OUTPUT, "the.relu", "drop that output")


@pytest.mark.parametrize("consumers", [0, 2, 3])
def test_an_op_with_other_consumers_is_declined(consumers):
    assert single_consumer(op(consumers=1), pool()) is None
    decline = single_consumer(op(consumers=consumers), pool())
    assert_declined(decline, Reason.SHARED, f"{consumers} ops", "the.relu", "nn.max_pool2d")


def moving(direction, name="the.op"):
    return replace(op(), op=name, rule=replace(RULE["relu"], direction=direction))


@pytest.mark.parametrize("direction", Direction)
def test_a_function_that_falls_then_rises_has_to_be_allowed(direction):
    one = moving(direction, "nn.gelu")
    assert direction_allowed(one, {"quasi-convex"}) is None
    if direction is not Direction.QUASI_CONVEX:
        assert direction_allowed(one, ()) is None
        return
    decline = direction_allowed(one, ())
    words = ["nn.gelu", "falls, then rises", 'allow={"quasi-convex"}', "--allow quasi-convex"]
    assert_declined(decline, Reason.QUASI_CONVEX, *words)


UP, DOWN, BOWL = Direction.NON_DECREASING, Direction.NON_INCREASING, Direction.QUASI_CONVEX
EITHER = Direction.BY_CHANNEL


@pytest.mark.parametrize(
    ("below", "direction", "together"),
    [
        (UP, UP, UP),
        (UP, DOWN, DOWN),
        (UP, BOWL, BOWL),
        (DOWN, UP, DOWN),
        (DOWN, DOWN, UP),
        (BOWL, UP, BOWL),
        (BOWL, DOWN, BOWL),
        (BOWL, EITHER, BOWL),
        *((below, EITHER, EITHER) for below in (UP, DOWN, EITHER)),
        *((EITHER, direction, EITHER) for direction in (UP, DOWN)),
    ],
)
def test_how_functions_of_functions_move(below, direction, together):
    assert composed(below, moving(direction), pool()) is together


@pytest.mark.parametrize("below", [DOWN, BOWL, EITHER])
def test_a_function_of_one_that_falls_then_rises_is_declined(below):
    decline = composed(below, moving(BOWL, "abs"), pool())
    assert_declined(decline, Reason.NOT_MONOTONE, "abs is quasi-convex", below.value)


def test_the_minimum_of_a_function_that_falls_then_rises_is_declined():
    least = pool(minimum=True)
    assert composed(UP, moving(DOWN), least) is DOWN
    for direction in (BOWL, EITHER):
        decline = composed(UP, moving(direction, "abs"), least)
        assert_declined(decline, Reason.NOT_MONOTONE, f"abs is {direction.value}", "minimum")


def test_an_op_that_keeps_the_shape_is_accepted():
    assert keeps_shape(op(), pool()) is None
    assert keeps_shape(bias(), pool()) is None
    assert keeps_shape(bias((1, 8, 16, 16)), pool()) is None
    batch = pool(in_shape=(None, 8, 16, 16))
    assert keeps_shape(op(shape=batch.in_shape), batch) is None
    assert keeps_shape(bias(shape=(1, 8, 1, 1)), pool()) is None
    assert keeps_shape(replace(bias(), shape=batch.in_shape), batch) is None


@pytest.mark.parametrize(
    ("one", "where", "words"),
    [
        (op(shape=(1, 1, 16, 16)), pool(), ["1x1x16x16", "1x8x16x16"]),
        (op(shape=(16, 16)), pool(), ["16x16", "1x8x16x16"]),
        (op(shape=(None, 8, 16, 16)), pool(), ["?x8x16x16", "1x8x16x16"]),
        (op(), pool(in_shape=(None, 8, 16, 16)), ["1x8x16x16", "?x8x16x16"]),
    ],
)
def test_an_op_that_changes_the_shape_is_declined(one, where, words):
    decline = keeps_shape(one, where)
    assert_declined(decline, Reason.SHAPE, "the.relu", "broadcast the data before", *words)


@pytest.mark.parametrize("extent", [None, 4])
def test_an_operand_that_may_widen_a_symbolic_axis_is_declined(extent):
    where = pool(in_shape=(None, 8, 16, 16))
    widening = op(
        "bias_add", shape=where.in_shape, params={"bias": Operand((extent, 8, 1, 1), None)}
    )
    assert_declined(keeps_shape(widening, where), Reason.SHAPE, "the.bias_add", "?x8x16x16")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int8", "uint8"])
def test_the_element_types_of_the_row_are_accepted(dtype):
    assert dtype_covered(op(dtype=dtype), pool(dtype=dtype)) is None


@pytest.mark.parametrize(
    ("rule", "dtype", "pool_dtype"),
    [
        ("bias_add", "int8", "int8"),
        ("bias_add", "int32", "int32"),
        ("sigmoid", "int8", "int8"),
        ("leaky_relu", "int8", "int8"),
        ("relu", "bool", "bool"),
        ("relu", "float8_e4m3fn", "float8_e4m3fn"),
        ("relu", "float32", "float16"),
    ],
)
def test_other_element_types_are_declined(rule, dtype, pool_dtype):
    decline = dtype_covered(op(rule, dtype=dtype), pool(dtype=pool_dtype))
    assert_declined(decline, Reason.DTYPE, f"rule {rule}", dtype, "the rule table")


def test_a_number_that_kernels_may_divide_by_is_declined():
    assert keeps_numbers(op("divide"), pool()) is None
    decline = keeps_numbers(op("divide", unsettled=True), pool())
    assert_declined(decline, Reason.ROUNDING, "the.divide", "a constant of its own")


def test_the_conditions_of_a_row_are_asked_in_order():
    def says(word):
        return lambda _op, _pool: Decline(Reason.DTYPE, word, "suggestion") if word else None

    def asked(*words):
        row = replace(RULE["relu"], conditions=tuple(says(word) for word in words))
        return rule_conditions(replace(op(), rule=row), pool())

    assert asked() is None
    assert asked("", "") is None
    assert asked("", "second").detail == "second"
    assert asked("first", "second").detail == "first"


# Preconditions of a site.


def test_a_pool_that_mixes_its_inputs_is_declined():
    assert selects(site()) is None
    decline = selects(site(pool=pool(op="nn.avg_pool2d", selects=False)))
    assert_declined(decline, Reason.NOT_SELECTING, "nn.avg_pool2d", "select one of their inputs")


def test_a_pool_among_what_may_have_effects_is_declined():
    assert in_dataflow(site()) is None
    decline = in_dataflow(site(in_dataflow=False))
    assert_declined(decline, Reason.NOT_DATAFLOW, "nn.max_pool2d", "ConvertToDataflow")


def test_a_pool_with_nothing_above_it_is_declined():
    assert has_chain(site()) is None
    assert_declined(has_chain(bare_site(CONV)), Reason.NO_ACTIVATION, "nn.conv2d", "nothing to do")
    assert_declined(has_chain(bare_site(MULTIPLY)), Reason.NO_RULE, "multiply", "rules=RULES +")


@pytest.mark.parametrize(
    ("layout", "shape"),
    [("NCHW", (1, 8, 16, 16)), ("NHWC", (1, 16, 16, 8)), ("NCHW4c", (1, 2, 16, 16, 4))],
)
@pytest.mark.parametrize("keeps", [True, False])
def test_a_layout_that_keeps_the_pooled_axes_is_accepted(layout, shape, keeps):
    where = pool(layout=layout, in_shape=shape, out_layout=layout if keeps else "")
    assert layout_known(site(pool=where)) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layout": "NCHW4h"}, ["reads NCHW4h of rank 4"]),
        ({"layout": "NCHW", "out_layout": "NHWC"}, ["reads NCHW", "writes NHWC"]),
        ({"in_shape": ()}, ["rank 0"]),
        ({"in_shape": (1, 8, 16)}, ["rank 3"]),
    ],
)
def test_any_other_layout_is_declined(changes, words):
    decline = layout_known(site(pool=pool(**changes)))
    assert_declined(decline, Reason.LAYOUT, "nn.max_pool2d", "NCHW, NHWC or NCHW16c", *words)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"in_shape": (None, 8, 16, 16), "out_shape": (None, 8, 8, 8)},
        {"in_shape": (1, 8, None, 16), "out_shape": (1, 8, None, 8)},
        {"in_shape": (1, 8, None, None), "out_shape": (1, 8, None, None), "strides": (1, 2)},
        {"out_shape": (1, 8, 16, 15)},
    ],
)
def test_a_pool_that_shrinks_its_input_pays(changes):
    assert pays(site(pool=pool(**changes))) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"out_shape": (1, 8, 16, 16)}, ["reads 2048", "writes 2048"]),
        ({"out_shape": (1, 8, 17, 17)}, ["reads 2048", "writes 2312"]),
        ({"in_shape": (1, 8, None, 16), "out_shape": (1, 8, None, 16), "strides": (1, 1)}, ["1"]),
        ({"in_shape": (0, 8, 16, 16), "out_shape": (0, 8, 8, 8)}, ["reads 0"]),
    ],
)
def test_a_pool_that_does_not_shrink_its_input_is_declined(changes, words):
    decline = pays(site(pool=pool(**changes)))
    assert_declined(decline, Reason.DOES_NOT_PAY, "nn.max_pool2d", "shrinks its input", *words)


# Rounding.


@pytest.mark.parametrize("above", [CONV, PARAMETER, op("sigmoid"), op("tanh")])
def test_an_addition_below_a_rounded_value_is_accepted(above):
    assert keeps_rounding(bias(), above) is None


@pytest.mark.parametrize("above", [MULTIPLY, op("leaky_relu"), bias()])
def test_an_addition_below_what_may_be_a_product_is_declined(above):
    decline = keeps_rounding(bias(), above)
    assert_declined(decline, Reason.ROUNDING, "the.bias_add", above.op, "last bit")


@pytest.mark.parametrize("rule", [row.name for row in RULES if not row.is_arithmetic])
def test_an_op_that_is_no_arithmetic_is_never_contracted(rule):
    assert keeps_rounding(op(rule), MULTIPLY) is None
