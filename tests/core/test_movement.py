"""What lies between an activation and its pool: operands below it, and numbers it fills in."""

import itertools
from math import nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from site_builders import assert_declined, bias, op, pool, site

from tvm_passes.decline import Reason
from tvm_passes.legality import commutes_with_moves, pays
from tvm_passes.movement import axis_of, carried, carried_past, lowered, respelled
from tvm_passes.site import Move, Operand

TO_NCHW = Move("transpose", (1, 16, 16, 8), (1, 8, 16, 16), axes=(0, 3, 1, 2))
PAD = Move("pad", (1, 8, 14, 14), (1, 8, 16, 16), padded=(2, 3), fills=True, fill=0.0)


def reshape(before, after):
    return Move("reshape", before, after)


@pytest.mark.parametrize(
    ("move", "shape", "expected"),
    [
        (TO_NCHW, (1, 1, 1, 8), (1, 8, 1, 1)),
        (TO_NCHW, (1, 1, 1, 1), (1, 1, 1, 1)),
        (TO_NCHW, (1, 16, 1, 1), (1, 1, 16, 1)),
        (TO_NCHW, (1, 16, 1, 8), None),  # its elements would have to be moved
        (PAD, (1, 8, 1, 1), (1, 8, 1, 1)),
        (PAD, (1, 8, 14, 1), None),
        (reshape((1, 8, 4, 4), (1, 8, 16)), (1, 8, 1, 1), (1, 8, 1)),
        (reshape((1, 8, 4, 4), (1, 8, 16)), (1, 8, 4, 4), (1, 8, 16)),
        (reshape((1, 8, 4, 4), (1, 8, 16)), (1, 8, 4, 1), None),
        (reshape((1, 8, 1, 4), (1, 8, 4)), (1, 8, 1, 1), (1, 8, 1)),
        (reshape((2, 8), (2, 1, 8, 1)), (1, 8), (1, 1, 8, 1)),
        (reshape((2, 6, 5), (2, 2, 3, 5)), (1, 6, 1), (1, 2, 3, 1)),
        (reshape((2, 6, 5), (3, 4, 5)), (1, 6, 1), None),
        (reshape((2, 6, 5), (3, 4, 5)), (1, 1, 5), (1, 1, 5)),
        (reshape((None, 8, 4), (None, 8, 2, 2)), (1, 8, 1), (1, 8, 1, 1)),
        (reshape((None, 8, None), (None, None, 8)), (1, 8, 1), None),
        (reshape((None, 8, 4), (4, 8, 4)), (1, 8, 1), None),
        (reshape((None, 8, 4), (None, 16, 4)), (1, 8, 1), None),
        (reshape((0, 8), (0, 8, 1)), (1, 8), None),
        (reshape((4, 8), (32,)), (None, 8), None),
    ],
)
def test_an_operand_below_a_move(move, shape, expected):
    assert carried(shape, move) == expected


@st.composite
def reshapes(draw):
    """A reshape, and an operand of the data."""
    primes = draw(st.lists(st.sampled_from([1, 2, 2, 3, 5]), min_size=1, max_size=6))

    def shape():
        cuts = sorted(draw(st.lists(st.integers(0, len(primes)), max_size=4)))
        edges = [0, *cuts, len(primes)]
        return tuple(int(np.prod(primes[a:b])) for a, b in itertools.pairwise(edges))

    before, after = shape(), shape()
    operand = tuple(draw(st.sampled_from([1, extent])) for extent in before)
    return reshape(before, after), operand


@given(reshapes())
def test_the_operand_that_is_found_gives_the_same_sums(case):
    move, shape = case
    below = carried(shape, move)
    if below is None:
        return
    operand = np.arange(np.prod(shape)).reshape(shape)
    above = np.broadcast_to(operand, move.in_shape).reshape(move.out_shape)
    assert np.array_equal(above, np.broadcast_to(operand.reshape(below), move.out_shape))


def test_several_moves_are_passed_from_the_top():
    flat = reshape((1, 8, 16, 16), (1, 8, 256))
    assert carried_past((1, 1, 1, 8), [flat, TO_NCHW]) == (1, 8, 1)
    assert carried_past((1, 1, 1, 8), [TO_NCHW]) == (1, 8, 1, 1)
    assert carried_past((1, 16, 1, 8), [flat, TO_NCHW]) is None


@pytest.mark.parametrize(
    ("own", "aligned", "expected"),
    [
        ((8,), (1, 1, 8), False),
        ((8, 1, 1), (1, 8, 1, 1), False),
        ((), (1, 1, 1), False),
        ((8,), (1, 8, 1), True),
        ((1, 8, 1, 1), (8, 1), True),
        ((1, 1, 1, 8), (1, 8), True),  # of more axes than the data
    ],
)
def test_an_operand_is_reshaped_only_if_it_must_be(own, aligned, expected):
    assert respelled(own, aligned) is expected


@pytest.mark.parametrize(
    ("shape", "data", "axis"),
    [
        ((1, 8, 1), (2, 8, 4), 1),
        ((1, 1), (2, 1), 1),
        ((1, 1), (2, 2), None),
        ((2, 8), (2, 8), None),
    ],
)
def test_the_axis_that_an_operand_runs_along(shape, data, axis):
    assert axis_of(shape, data) == axis


def test_an_op_is_described_on_the_axes_that_the_pool_reads():
    params = {"bias": Operand((1, 1, 1, 8))}
    above = op("bias_add", params=params, shape=(1, 16, 16, 8))
    below = lowered(above, [TO_NCHW], (1, 16, 16, 8), (1, 8, 16, 16))
    assert below.params["bias"].shape == (1, 8, 1, 1)
    assert (below.shape, below.computed) == ((1, 8, 16, 16), (1, 16, 16, 8))
    assert (below.crosses, below.stuck) == ((TO_NCHW,), "")
    assert lowered(above, [], (), ()) is above


def test_an_op_that_broadcasts_above_a_move_keeps_its_shape():
    above = op(shape=(1, 1, 1, 8))
    assert lowered(above, [TO_NCHW], (1, 16, 16, 8), (1, 8, 16, 16)).shape == (1, 1, 1, 8)


def test_an_operand_that_cannot_be_carried_is_declined():
    above = op("bias_add", params={"bias": Operand((1, 16, 1, 8))})
    below = lowered(above, [TO_NCHW], (1, 16, 16, 8), (1, 8, 16, 16))
    assert below.stuck == "bias"
    assert_declined(commutes_with_moves(below, pool()), Reason.LAYOUT, "bias", "transpose")


def bounded(name, *values):
    shape = (1, len(values), 1, 1)
    bound = Operand(shape, np.array(values, "float32").reshape(shape))
    return op(name, params={"bound": bound})


FIXED = [
    (bounded("maximum", 0.0), 0.0, True),
    (bounded("maximum", -1.0, 0.1), 0.1, True),  # as it is rounded to float32
    (bounded("maximum", -1.0, 0.5), 0.0, False),
    (bounded("maximum", -0.0), 0.0, False),  # which of both zeros, the order decides
    (bounded("maximum", nan), 0.0, False),
    (bounded("minimum", 6.0, 0.0), 0.0, True),
    (bounded("minimum", 6.0, -1.0), 0.0, False),
    (op("maximum", params={"bound": Operand((1, 1, 1, 1))}), 0.0, False),
    (op(), 0.0, True),
    (op(), 3.0, True),
    (op(), -1.0, False),
    (op(), -0.0, False),  # a zero of the other sign
    (op("tanh"), -0.0, False),
    (op(), nan, False),
    (op("leaky_relu"), 0.0, True),
    (op("leaky_relu"), -1.0, False),
    (op("prelu"), 0.0, True),
    (op("prelu"), -1.0, False),
    (op("tanh"), 0.0, True),
    (op("tanh"), 1.0, False),
    (op("clip"), 6.0, True),
    (op("clip"), 7.0, False),
    (op("clip", params={}), 0.0, False),
    (op("sigmoid"), 0.0, False),
    (bias(value=0.0), 0.0, False),
    (op(), None, False),
]


@pytest.mark.parametrize(("one", "fill", "fixed"), FIXED)
def test_padding_commutes_with_what_maps_its_number_to_itself(one, fill, fixed):
    pad = Move("nn.pad", (), (), padded=(2,), fills=True, fill=fill)
    decline = commutes_with_moves(op(one.rule.name, params=one.params, crosses=(pad,)), pool())
    assert (decline is None) is fixed
    if not fixed:
        shown = "unknown" if fill is None else f"{fill:g}"
        assert_declined(decline, Reason.PAD_VALUE, "nn.pad", shown, one.op)


def test_padding_with_copies_commutes_with_everything():
    pad = Move("nn.mirror_pad", (), (), padded=(2,))
    assert commutes_with_moves(op("sigmoid", crosses=(pad,)), pool()) is None


def test_what_is_padded_is_not_evaluated_above_the_pool():
    tiny = Move("nn.pad", (1, 8, 4, 4), (1, 8, 16, 16), padded=(2, 3), fills=True, fill=0.0)
    above = op(crosses=(tiny,), computed=(1, 8, 4, 4))
    assert pays(site(above)).reason is Reason.DOES_NOT_PAY
    assert pays(site(op(crosses=(PAD,), computed=(1, 8, 14, 14)))) is None
