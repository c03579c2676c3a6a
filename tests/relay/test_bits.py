"""The rewritten module computes the bits that the original computes."""

import numpy as np
import pytest
from relay_builders import const, data, max_pool, module, per_channel, positive, reasons, run_pass
from relay_runs import HAS_FMA, TARGETS, bits, hard_values, outputs
from test_reorder import ACTIVATIONS
from tvm import relay

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

BOUNDED = {
    "relu": relay.nn.relu,
    "clip": lambda x: relay.clip(x, -1.5, 6.0),
    "sigmoid": relay.sigmoid,
    "tanh": relay.tanh,
}
"""Rules that take -inf to a number above the lowest, where an empty maximum begins."""


FACTOR, SHIFT = positive((8, 1, 1)), per_channel((8, 1, 1))


def bias(layout, dtype):
    values = np.random.default_rng(1).standard_normal(16).astype(dtype)
    return const(values.reshape(BIAS[layout]), dtype)


def chains(layout, dtype):
    """Every rule, and chains of them."""
    b = bias(layout, dtype)
    axis = layout.index("C")
    along = const(b.data.numpy().ravel(), dtype)
    added = {
        "add": lambda x: relay.add(b, x),
        "scalar": lambda x: relay.add(x, const(0.3, dtype)),
        "add relu": lambda x: relay.nn.relu(relay.add(x, b)),
        "add sigmoid clip": lambda x: relay.clip(relay.sigmoid(relay.add(x, b)), 0.2, 0.7),
        "tanh add": lambda x: relay.add(relay.tanh(x), b),
    }
    if "c" not in layout:
        added["bias_add"] = lambda x: relay.nn.bias_add(x, along, axis=axis)
    return BOUNDED | added


def compare(bodies, x, *, zeros=False, **options):
    """Build all bodies in one module, before and after the pass, and compare every bit.

    With `zeros` both zeros are one number: of a window that holds both, either is the maximum.
    """
    before = module(relay.Tuple(bodies))
    after, remarks = run_pass(before)
    assert len({remark.site for remark in remarks if remark.reason == "sunk"}) == len(bodies)
    pairs = zip(outputs(before, x, **options), outputs(after, x, **options), strict=True)
    plus = np.zeros((), x.dtype) if zeros else -np.zeros((), x.dtype)
    return [np.array_equal(bits(a + plus), bits(b + plus)) for a, b in pairs]


@pytest.mark.parametrize(
    ("layout", "dtype", "target"),
    [
        *((layout, "float32", target) for layout in SHAPES for target in TARGETS),
        ("NCHW", "float16", TARGETS[-1]),
    ],
)
def test_every_rule_under_every_pool(layout, dtype, target):
    x = data(SHAPES[layout], dtype)
    named = {
        (chain, pool): max_pool(f(x), layout=layout, **attrs)
        for chain, f in chains(layout, dtype).items()
        for pool, attrs in list(POOLS.items())[: None if layout == "NCHW" else 2]
    }
    same = compare(list(named.values()), hard_values(SHAPES[layout], dtype), target=target)
    assert [key for key, equal in zip(named, same, strict=True) if not equal] == []


@pytest.mark.parametrize("target", TARGETS)
def test_every_op_of_the_table(target):
    x = data((1, 8, 16, 16))
    chains = {
        **ACTIVATIONS,
        "multiply add relu": lambda v: relay.nn.relu(v * FACTOR + SHIFT),
        "divide subtract tanh": lambda v: relay.tanh(v / FACTOR - SHIFT),
        "add multiply add": lambda v: (v + SHIFT) * FACTOR + SHIFT,
    }
    chains["nn.bias_add"] = lambda v: relay.nn.bias_add(v, per_channel((8,)))
    bodies = [max_pool(f(x)) for f in chains.values()]
    same = compare(bodies, hard_values((1, 8, 16, 16), "float32"), target=target, zeros=True)
    assert [name for name, equal in zip(chains, same, strict=True) if not equal] == []


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_infinities_where_the_function_is_bounded_below(dtype):
    x = data(SHAPES["NCHW"], dtype)
    bodies = [max_pool(f(x), **attrs) for f in BOUNDED.values() for attrs in POOLS.values()]
    assert all(compare(bodies, hard_values(SHAPES["NCHW"], dtype, infinite=True)))


@pytest.mark.parametrize("slope", [0.0, 0.1, 1.0, 2.5])
def test_leaky_relu(slope):
    x = data(SHAPES["NCHW"])
    before = module(
        relay.Tuple([max_pool(relay.nn.leaky_relu(x, alpha=slope), **a) for a in POOLS.values()])
    )
    after, remarks = run_pass(before)
    assert reasons(remarks).count("sunk") == len(POOLS)
    value = hard_values(SHAPES["NCHW"], "float32")
    for a, b in zip(outputs(before, value), outputs(after, value), strict=True):
        # slope * (smallest denormal) is -0, a tie with +0 that was none before the product:
        # which of the two zeros a window yields depends on the order.  Adding 0 makes both +0.
        assert np.array_equal(bits(a + np.float32(0)), bits(b + np.float32(0)))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32"])
def test_integers(dtype):
    x = data(SHAPES["NCHW"], dtype)
    functions = [relay.nn.relu, lambda v: relay.clip(v, 3.0, 100.0)]
    bodies = [max_pool(f(x), **attrs) for f in functions for attrs in POOLS.values()]
    assert all(compare(bodies, hard_values(SHAPES["NCHW"], dtype)))


@pytest.mark.parametrize(
    ("layout", "kernel", "target", "opt_level"),
    [
        ("NCHW", "OIHW", TARGETS[0], 3),
        ("NCHW", "OIHW", TARGETS[-1], 3),
        ("NCHW", "OIHW", TARGETS[-1], 1),
        ("NHWC", "HWIO", TARGETS[-1], 3),
    ],
)
def test_convolutions(layout, kernel, target, opt_level):
    # 1x1 kernels of one channel too: a reduction over nothing that a bias could be fused into.
    rng = np.random.default_rng(2)
    shape = SHAPES[layout]
    x = data(shape)
    along = const(rng.standard_normal(16))
    bodies = []
    for size, groups in ((3, 1), (1, 1), (1, 16), (3, 16)):
        extents = {"O": 16, "I": 16 // groups, "H": size, "W": size}
        letters = kernel if groups == 1 or layout == "NCHW" else "HWOI"
        weight = const(rng.standard_normal([extents[letter] for letter in letters]))
        layer = relay.nn.conv2d(
            x,
            weight,
            channels=16,
            groups=groups,
            kernel_size=(size, size),
            padding=(1, 1),
            data_layout=layout,
            kernel_layout=letters,
        )
        biased = relay.nn.bias_add(layer, along, axis=layout.index("C"))
        bodies += [max_pool(f(biased), layout=layout) for f in BOUNDED.values()]
    assert all(compare(bodies, hard_values(shape, "float32"), target=target, opt_level=opt_level))


@pytest.mark.parametrize("target", TARGETS)
def test_a_multiplication_contracted_with_an_addition(target):
    scale, shift = bias("NCHW", "float32"), const(np.linspace(-2, 2, 16).reshape(16, 1, 1))
    x = data(SHAPES["NCHW"])
    affine = relay.add(relay.multiply(x, scale), shift)
    bodies = [max_pool(f(affine)) for f in BOUNDED.values()]
    bodies += [max_pool(relay.nn.relu(relay.add(relay.multiply(x, scale), const(0.1))))]
    assert all(compare(bodies, hard_values(SHAPES["NCHW"], "float32"), target=target))


@pytest.mark.skipif(not HAS_FMA, reason="this CPU has no fused multiply-add")
def test_without_the_rounding_rule_bits_would_change():
    scale, shift = bias("NCHW", "float32"), const(np.linspace(-2, 2, 16).reshape(16, 1, 1))
    x = data(SHAPES["NCHW"])
    before = module(max_pool(relay.add(relay.multiply(x, scale), shift)))
    sunk = module(relay.add(max_pool(relay.multiply(data(SHAPES["NCHW"]), scale)), shift))
    value = np.random.default_rng(3).standard_normal(SHAPES["NCHW"]).astype("float32")
    (a,), (b,) = (outputs(mod, value, target="llvm -mcpu=haswell") for mod in (before, sunk))
    assert not np.array_equal(a, b)
    assert np.allclose(a, b, rtol=1e-5, atol=1e-6)


def test_an_empty_window_would_yield_the_function_of_the_lowest_number():
    # Why such windows are declined: the pool's padding is the lowest finite number.
    before = module(max_pool(relay.sigmoid(data()), padding=(2, 2)))
    sunk = module(relay.sigmoid(max_pool(data(), padding=(2, 2))))
    value = hard_values((1, 8, 16, 16), "float32")
    (a,), (b,) = outputs(before, value), outputs(sunk, value)
    assert a[0, 0, 0, 0] == np.finfo("float32").min
    assert b[0, 0, 0, 0] == 0
