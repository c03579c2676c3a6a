import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import pytest
from site_builders import op, pool, site

from tvm_passes.site import ElementwiseOp, elements


@pytest.mark.parametrize(
    ("layout", "rank", "axes"),
    [
        ("NCHW", 2, (2, 3)),
        ("NHWC", 2, (1, 2)),
        ("HWCN", 2, (0, 1)),
        ("NCHW16c", 2, (2, 3)),
        ("NHWC4c", 2, (1, 2)),
        ("NCW", 1, (2,)),
        ("NWC", 1, (1,)),
        ("NCW32c", 1, (2,)),
        ("NCDHW", 3, (2, 3, 4)),
        ("NDHWC", 3, (1, 2, 3)),
    ],
)
def test_spatial_axes_are_read_from_the_layout(layout, rank, axes):
    assert pool(layout=layout, kernel=(2,) * rank).spatial_axes() == axes


@pytest.mark.parametrize(
    ("layout", "rank"),
    [("NCHW4h", 2), ("NCHW2w", 2), ("NCHW2h2w", 2), ("NC", 2), ("", 2), ("NCW", 2), ("NCHW", 3)],
)
def test_a_layout_that_splits_or_lacks_a_pooled_axis_has_none(layout, rank):
    assert pool(layout=layout, kernel=(2,) * rank).spatial_axes() is None


def test_a_split_axis_that_is_not_pooled_does_not_matter():
    # A one-dimensional pool over W in a layout that splits H.
    assert pool(layout="NHW2h", kernel=(2,)).spatial_axes() == (2,)


@pytest.mark.parametrize("axes", [(1,), (0, 1), None])
def test_without_a_kernel_the_axes_are_those_given(axes):
    assert pool(layout="NCHW", kernel=(), axes=axes).spatial_axes() == axes


def test_the_name_is_unique_in_a_module():
    one = site()
    others = [
        replace(one, index=1),
        replace(one, function="other"),
        replace(one, pool=pool(op="nn.max_pool3d")),
    ]
    assert one.name == "main/nn.max_pool2d#0"
    assert len({one.name, *(other.name for other in others)}) == 4


@pytest.mark.parametrize(
    ("shape", "count"),
    [((), 1), ((2, 3, 4), 24), ((None, 3, 4), 12), ((None, None), 1), ((0, 4), 0)],
)
def test_elements_counts_a_symbolic_extent_as_one(shape, count):
    assert elements(shape) == count


def test_descriptions_are_immutable():
    for value, field in ((site(), "index"), (pool(), "op"), (op(), "shape")):
        with pytest.raises(FrozenInstanceError):
            setattr(value, field, None)


def test_an_op_without_parameters_has_an_immutable_mapping():
    usual = op()
    plain = ElementwiseOp(usual.op, usual.rule, usual.shape, usual.dtype)
    assert dict(plain.params) == {}
    with pytest.raises(TypeError):
        plain.params["alpha"] = 1.0


def test_the_core_imports_no_tvm():
    modules = "cost, decision, decline, describe, legality, remarks, rules, site"
    code = f"import sys; from tvm_passes import {modules}; sys.exit('tvm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
