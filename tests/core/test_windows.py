"""The geometry of pooling windows against counting their taps one by one."""

from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from site_builders import pool, site

from tvm_passes.decline import Reason
from tvm_passes.legality import windows_touch_data


class Axis(NamedTuple):
    """The geometry of a pool along one axis."""

    extent: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    ceil_mode: bool


def outputs(axis):
    """Number of windows, as TVM's pool2d type relation counts them."""
    free = axis.extent + axis.before + axis.after - (axis.kernel - 1) * axis.dilation - 1
    return (free + (axis.stride - 1 if axis.ceil_mode else 0)) // axis.stride + 1


def empty_windows(axis):
    """The windows that have no tap in [0, extent)."""
    starts = (n * axis.stride - axis.before for n in range(outputs(axis)))
    taps = range(0, axis.kernel * axis.dilation, axis.dilation)
    return [start for start in starts if not any(0 <= start + t < axis.extent for t in taps)]


def decline_of(axis, *, symbolic=False):
    """What the predicate says of a one-dimensional pool with this geometry."""
    one_axis = pool(
        layout="NCW",
        kernel=(axis.kernel,),
        strides=(axis.stride,),
        dilation=(axis.dilation,),
        padding=(axis.before, axis.after),
        in_shape=(1, 8, None if symbolic else axis.extent),
        out_shape=(1, 8, None if symbolic else outputs(axis)),
        ceil_mode=axis.ceil_mode,
    )
    return windows_touch_data(site(pool=one_axis))


geometries = st.builds(
    Axis,
    st.integers(0, 12),  # extent
    st.integers(1, 5),  # kernel
    st.integers(1, 6),  # stride
    st.integers(1, 4),  # dilation
    st.integers(0, 7),  # padding before
    st.integers(0, 7),  # padding after
    st.booleans(),  # ceil_mode
)


@given(geometries)
@example(Axis(3, 2, 3, 1, 0, 0, True))  # starts at 3 of 3
@example(Axis(3, 2, 2, 1, 1, 1, True))  # starts at 3 of 3, in padding
@example(Axis(1, 2, 1, 3, 1, 3, False))  # taps at -1 and 2 step over the one element
@example(Axis(2, 2, 1, 3, 2, 2, False))
@example(Axis(0, 1, 1, 1, 1, 0, False))  # nothing but padding
def test_a_geometry_with_an_empty_window_is_never_accepted(geometry):
    if empty_windows(geometry):
        assert decline_of(geometry).reason is Reason.EMPTY_WINDOW


@given(geometries)
def test_with_dilation_1_and_a_known_extent_nothing_else_is_declined(geometry):
    sound = geometry.extent > 0 and outputs(geometry) > 0 and not empty_windows(geometry)
    if geometry.dilation == 1 and sound:
        assert decline_of(geometry) is None


@given(geometries)
def test_a_symbolic_extent_is_accepted_only_if_every_extent_would_be(geometry):
    if decline_of(geometry, symbolic=True) is None:
        for extent in range(21):
            assert not empty_windows(geometry._replace(extent=extent)), extent


@pytest.mark.parametrize(
    ("geometry", "accepted"),
    [
        (Axis(0, 2, 2, 1, 0, 0, False), True),
        (Axis(0, 3, 2, 1, 1, 1, False), True),  # the usual stem
        (Axis(0, 3, 2, 1, 2, 0, False), True),
        (Axis(0, 3, 2, 1, 0, 2, False), True),
        (Axis(0, 3, 2, 1, 1, 2, False), False),  # three cells of padding, extent 0
        (Axis(0, 2, 2, 1, 0, 0, True), False),
        (Axis(0, 2, 2, 2, 0, 0, False), False),
    ],
)
def test_common_pools_of_symbolic_extent(geometry, accepted):
    decline = decline_of(geometry, symbolic=True)
    assert (decline is None) is accepted


@pytest.mark.parametrize(
    "geometry",
    [
        Axis(16, 3, 2, 2, 3, 3, False),  # taps at -3, -1 and 1
        Axis(2, 2, 1, 3, 0, 2, False),  # taps at 0 and 3
    ],
)
def test_dilated_kernels_that_reach_the_data(geometry):
    assert not empty_windows(geometry)
    assert decline_of(geometry) is None


@pytest.mark.parametrize("known", ["in_shape", "out_shape"])
def test_one_known_side_is_as_good_as_none(known):
    padded = pool(padding=(1, 1, 1, 1), **{known: (1, 8, None, 16)})
    assert windows_touch_data(site(pool=padded)).reason is Reason.EMPTY_WINDOW


@pytest.mark.parametrize(("axis", "padding"), [("H", (2, 0, 0, 0)), ("W", (0, 2, 0, 0))])
def test_the_decline_names_the_axis_and_the_window(axis, padding):
    decline = windows_touch_data(site(pool=pool(padding=padding)))
    assert decline.reason is Reason.EMPTY_WINDOW
    assert f"padding of axis {axis}" in decline.detail
    assert "nn.max_pool2d" in decline.detail
    assert f"kernel 2, padding {padding}" in decline.detail
    assert "pad by less than the kernel" in decline.suggestion


def test_padding_after_an_axis_is_read_from_the_second_half():
    # (top, left, bottom, right): two cells on the right make a seventeenth, empty column's window.
    padded = pool(padding=(0, 0, 0, 2), out_shape=(1, 8, 8, 9))
    assert "axis W" in windows_touch_data(site(pool=padded)).detail
    padded = pool(padding=(0, 0, 2, 0), out_shape=(1, 8, 9, 8))
    assert "axis H" in windows_touch_data(site(pool=padded)).detail


@pytest.mark.parametrize(
    ("shape", "declined"), [((1, 8, 16, 1), False), ((1, 8, None, 1), True), ((1, 8, 1, 0), True)]
)
def test_windows_without_a_kernel_are_empty_only_if_an_axis_is(shape, declined):
    whole = pool(kernel=(), strides=(), padding=(), in_shape=shape, axes=(2, 3))
    decline = windows_touch_data(site(pool=whole))
    assert (decline is not None) is declined
    if declined:
        assert decline.reason is Reason.EMPTY_WINDOW
        assert f"axis {2 if shape[2] is None else 3}" in decline.detail
