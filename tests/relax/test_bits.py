"""The rewritten module computes the bits that the original computes."""

import numpy as np
import pytest
from relax_builders import (
    built,
    const,
    data,
    max_pool,
    module,
    per_channel,
    positive,
    reasons,
    run_pass,
)
from relax_runs import TARGETS, bits, cpu, hard_values, outputs
from test_reorder import ACTIVATIONS
from tvm.relax import op

SHAPES = {
    "NCHW": (1, 16, 13, 11),
    "NHWC": (1, 13, 11, 16),
    "NCHW16c": (1, 1, 13, 11, 16),
}
BIAS = {"NCHW": (16, 1, 1), "NHWC": (16,), "NCHW16c": (1, 1, 1, 16)}
POOLS = {
    "2x2/2": {},
    "3x3/2 pad 1": {"kernel": 3, "stride": 2, "padding": (1, 1)},
    "3x3/2 asymmetric": {"kernel": 3, "stride": 2, "padding": (0, 1, 2, 0)},
    "2x2/2 ceil": {"ceil_mode": True},
    "2x2/3 dilated": {"kernel": 2, "stride": 3, "dilation": (2, 2)},
}

FEW = dict(list(POOLS.items())[:2])

BOUNDED = {
    "relu": op.nn.relu,
    "clip": lambda x: op.clip(x, -1.5, 6.0),
    "sigmoid": op.sigmoid,
    "tanh": op.tanh,
}
"""Rules that take -inf to a number above the lowest, where an empty maximum begins."""


FACTOR, SHIFT = positive((8, 1, 1)), per_channel((8, 1, 1))


def values(shape):
    return np.random.default_rng(1).standard_normal(shape)


def chains(layout, dtype):
    """Every rule, and chains of them."""
    b = const(values(BIAS[layout]), dtype)
    return BOUNDED | {
        "add": lambda x: op.add(b, x),
        "scalar": lambda x: op.add(x, const(0.3, dtype)),
        "add relu": lambda x: op.nn.relu(op.add(x, b)),
        "add sigmoid clip": lambda x: op.clip(op.sigmoid(op.add(x, b)), 0.2, 0.7),
        "tanh add": lambda x: op.add(op.tanh(x), b),
    }


def compare(bodies, shape, dtype, *, infinite=False, zeros=False, **options):
    """Build all bodies in one module, before and after the pass, and compare every bit.

    With `zeros` both zeros are one number: of a window that holds both, either is the maximum.
    """
    before = module(lambda x: [body(x) for body in bodies], data(shape, dtype))
    after, remarks = run_pass(before)
    assert reasons(remarks).count("sunk") == len(bodies)
    x = hard_values(shape, dtype, infinite=infinite)
    pairs = zip(outputs(before, x, **options), outputs(after, x, **options), strict=True)
    plus = np.zeros((), dtype) if zeros else -np.zeros((), dtype)
    return [np.array_equal(bits(a + plus), bits(b + plus)) for a, b in pairs]


def sites(functions, layout="NCHW", pools=POOLS):
    return [
        lambda x, f=f, attrs=attrs: max_pool(f(x), layout=layout, **attrs)
        for f in functions
        for attrs in pools.values()
    ]


@pytest.mark.parametrize(
    ("layout", "dtype", "target"),
    [
        *((layout, "float32", target) for layout in SHAPES for target in TARGETS),
        ("NCHW", "float16", TARGETS[-1]),
    ],
    ids=lambda value: value if isinstance(value, str) else cpu(value),
)
def test_every_rule_under_every_pool(layout, dtype, target):
    named, pools = chains(layout, dtype), POOLS if layout == "NCHW" else FEW
    bodies = sites(named.values(), layout, pools)
    same = compare(bodies, SHAPES[layout], dtype, target=target)
    keys = [(chain, pool) for chain in named for pool in pools]
    assert [key for key, equal in zip(keys, same, strict=True) if not equal] == []


@pytest.mark.parametrize("target", TARGETS, ids=cpu)
def test_every_op_of_the_table(target):
    sampled = sites(ACTIVATIONS.values(), pools={"2x2/2": {}})
    affine = [
        lambda x: max_pool(op.nn.relu(op.add(op.multiply(x, FACTOR), SHIFT))),
        lambda x: max_pool(op.tanh(op.subtract(op.divide(x, FACTOR), SHIFT))),
        lambda x: max_pool(op.add(op.multiply(op.add(x, SHIFT), FACTOR), SHIFT)),
    ]
    same = compare([*sampled, *affine], (1, 8, 16, 16), "float32", target=target, zeros=True)
    assert [n for n, equal in enumerate(same) if not equal] == []


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_infinities_where_the_function_is_bounded_below(dtype):
    assert all(compare(sites(BOUNDED.values()), SHAPES["NCHW"], dtype, infinite=True))


@pytest.mark.parametrize("slope", [0.0, 0.1, 1.0, 2.5])
def test_leaky_relu(slope):
    before = module(
        lambda x: [max_pool(op.nn.leakyrelu(x, slope), **attrs) for attrs in POOLS.values()],
        data(SHAPES["NCHW"]),
    )
    after, remarks = run_pass(before)
    assert reasons(remarks).count("sunk") == len(POOLS)
    x = hard_values(SHAPES["NCHW"], "float32")
    for a, b in zip(outputs(before, x), outputs(after, x), strict=True):
        # slope * (smallest denormal) is -0, a tie with +0 that was none before the product:
        # which of the two zeros a window yields depends on the order.  Adding 0 makes both +0.
        assert np.array_equal(bits(a + np.float32(0)), bits(b + np.float32(0)))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32"])
def test_integers(dtype):
    functions = [op.nn.relu, lambda v: op.clip(v, 3, 100)]
    assert all(compare(sites(functions), SHAPES["NCHW"], dtype))


@pytest.mark.parametrize("target", TARGETS, ids=cpu)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_convolutions(layout, target):
    # 1x1 kernels of one channel too: a reduction over nothing that a bias could be fused into.
    along = const(values(BIAS[layout]))

    def convolution(x, size, groups):
        return op.nn.conv2d(
            x,
            const(values((16, 16 // groups, size, size))),
            padding=(1, 1),
            groups=groups,
            data_layout=layout,
            kernel_layout="OIHW",
            out_layout=layout,
        )

    bodies = [
        lambda x, f=f, args=args: max_pool(f(op.add(convolution(x, *args), along)), layout=layout)
        for args in ((3, 1), (1, 1), (1, 16), (3, 16))
        for f in BOUNDED.values()
    ]
    assert all(compare(bodies, SHAPES[layout], "float32", target=target))


@pytest.mark.parametrize("target", TARGETS, ids=cpu)
def test_a_multiplication_contracted_with_an_addition(target):
    def affine(x):
        return op.add(op.multiply(x, const(values((16, 1, 1)))), const(values((16, 1, 1)) + 1))

    bodies = [lambda x, f=f: max_pool(f(affine(x))) for f in BOUNDED.values()]
    assert all(compare(bodies, SHAPES["NCHW"], "float32", target=target))


@pytest.mark.parametrize(
    "reader",
    [
        lambda x: op.add(x, const(0.1)),
        lambda x: op.multiply(x, const(0.3)),
        lambda x: op.multiply(x, const(values((16, 1, 1)))),
        lambda x: op.divide(op.subtract(x, const(0.1)), const(0.3)),
    ],
    ids=["add", "multiply by a scalar", "multiply by channel", "subtract divide"],
)
def test_what_follows_the_pool_is_not_folded_into_what_sank(reader):
    functions = [
        lambda v: op.nn.leakyrelu(v, 0.3),
        lambda v: op.nn.relu(op.add(v, const(0.7))),
        lambda v: op.add(v, const(0.7)),
        lambda v: op.add(v, const(values((16, 1, 1)))),
    ]
    before = module(lambda x: [reader(max_pool(f(x))) for f in functions], data(SHAPES["NCHW"]))
    after, _ = run_pass(before)
    x = np.random.default_rng(4).standard_normal(SHAPES["NCHW"]).astype("float32")
    pairs = zip(
        outputs(before, x, target=TARGETS[-1]), outputs(after, x, target=TARGETS[-1]), strict=True
    )
    assert [np.array_equal(bits(a), bits(b)) for a, b in pairs] == [True] * len(functions)


def test_an_empty_window_would_yield_the_function_of_the_lowest_number():
    # Why such windows are declined: the pool's padding is the lowest finite number.
    before = module(lambda x: max_pool(op.sigmoid(x), padding=(2, 2)))
    sunk = module(lambda x: op.sigmoid(max_pool(x, padding=(2, 2))))
    x = hard_values((1, 8, 16, 16), "float32")
    (a,), (b,) = outputs(before, x), outputs(sunk, x)
    assert a[0, 0, 0, 0] == np.finfo("float32").min
    assert b[0, 0, 0, 0] == 0


def test_the_un_pooled_tensor_is_still_there_for_others():
    def body(builder, x):
        layer = builder.emit(op.add(x, const(0.5)))
        return [max_pool(builder.emit(op.sigmoid(layer))), op.cos(layer)]

    before = built(body, data(SHAPES["NCHW"]))
    x = hard_values(SHAPES["NCHW"], "float32")
    for a, b in zip(outputs(before, x), outputs(run_pass(before)[0], x), strict=True):
        assert np.array_equal(bits(a), bits(b))
