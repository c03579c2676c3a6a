"""Windows of a pool on Winograd's tiles, in parts, against their elements one by one."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tvm_passes.schedules.operators import MaxPool2d
from tvm_passes.schedules.winograd_windows import Windows, taken_along
from tvm_passes.winograd import Winograd

F43, F23 = Winograd(4, 3), Winograd(2, 3)


@st.composite
def geometries(draw):
    tile = draw(st.sampled_from((2, 4)))
    stride = draw(st.sampled_from([n for n in (1, 2, 4) if n <= tile]))
    kernel, extent = draw(st.integers(1, 9)), draw(st.integers(1, 23))
    before, after = draw(st.integers(0, kernel)), draw(st.integers(0, kernel))
    assume(extent + before + after >= kernel)
    return Windows(tile, kernel, stride, before, after, extent, draw(st.booleans()))


@given(geometries())
def test_the_parts_of_a_window_are_its_elements(windows):
    for n in range(windows.count):
        first = n * windows.stride - windows.before
        elements = [
            (n // windows.period + away) * windows.tile + at
            for away, part in windows.spans[n % windows.period]
            for at in range(part[0], part[1] + 1)
        ]
        assert elements == list(range(first, first + windows.kernel))
        assert all(part in windows.parts for _, part in windows.spans[n % windows.period])


@pytest.mark.parametrize(
    ("family", "kernel", "stride", "padding", "given_by_a_tile"),
    [
        (F43, 2, 2, 0, (2, 2)),
        (F43, 3, 2, 1, (3, 3)),
        (F43, 3, 2, 0, (3, 3)),
        (F43, 2, 2, 1, (3, 3)),
        (F43, 5, 4, 2, (2, 2)),
        (F43, 3, 3, 0, None),
        (F43, 3, 1, 1, None),
        (F23, 2, 2, 0, (1, 1)),
        (F23, 3, 2, 1, None),
    ],
)
def test_pools_that_a_kernel_takes_along(family, kernel, stride, padding, given_by_a_tile):
    pool = MaxPool2d((kernel, kernel), (stride, stride), (1, 1), (padding,) * 4)
    found = taken_along(pool, family, 13, 18)
    assert (found and found.given) == given_by_a_tile


def test_a_pool_with_dilation_is_not_taken_along():
    pool = MaxPool2d((3, 3), (2, 2), (2, 2), (1, 1, 1, 1))
    assert taken_along(pool, F43, 16, 16) is None
