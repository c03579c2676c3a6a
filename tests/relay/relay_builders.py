"""Relay modules for the tests, and what must hold of every run of the pass."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relay

from tvm_passes.relay import ReorderActivationAfterMaxPool
from tvm_passes.remarks import Kind

SHAPE = (1, 8, 16, 16)


def data(shape=SHAPE, dtype="float32", name="x"):
    return relay.var(name, shape=shape, dtype=dtype)


def const(value, dtype="float32"):
    return relay.const(np.asarray(value, dtype))


def per_channel(shape, dtype="float32"):
    """A constant that differs everywhere."""
    return const(np.linspace(-1, 1, int(np.prod(shape))).reshape(shape), dtype)


def positive(shape, dtype="float32"):
    """A constant that differs everywhere and is above 0."""
    return const(np.linspace(0.3, 2, int(np.prod(shape))).reshape(shape), dtype)


def max_pool(x, kernel=2, stride=2, **attrs):
    return relay.nn.max_pool2d(x, (kernel, kernel), (stride, stride), **attrs)


def conv(x, channels=8, kernel=3, **attrs):
    weight = relay.var("w", shape=(channels, 8, kernel, kernel))
    return relay.nn.conv2d(x, weight, channels=channels, kernel_size=(kernel, kernel), **attrs)


def function(body, *params):
    return relay.Function(list(params) or relay.analysis.free_vars(body), body)


def typed(mod):
    return relay.transform.InferType()(mod)


def module(body, *params):
    """A typed module with one function, ``main``, over the given or all free variables."""
    return typed(tvm.IRModule.from_expr(function(body, *params)))


def run_pass(mod, **options):
    """The module that the pass returns, and its remarks."""
    remarks = []
    after = ReorderActivationAfterMaxPool(on_remark=remarks.append, **options)(mod)
    return after, remarks


def reasons(remarks):
    return [remark.reason for remark in remarks]


def assert_sinks(before, expected, declined=None, **options):
    """The pass turns `before` into `expected`; `declined` is why no more ops sink, if any stay."""
    remarks = assert_becomes(before, expected, **options)
    missed = [remark.reason for remark in remarks if remark.kind is Kind.MISSED]
    assert missed == ([] if declined is None else [declined.value])


def assert_becomes(before, expected, **options):
    """The pass turns `before` into `expected`, once, and leaves its input alone.

    Returns
    -------
    The remarks of the run.
    """
    functions, text = dict(before.functions.items()), before.astext()
    after, remarks = run_pass(before, **options)
    assert all(before[gvar].same_as(func) for gvar, func in functions.items())
    assert before.astext() == text
    tvm.ir.assert_structural_equal(after, expected)
    assert "sunk" in reasons(remarks)
    assert_types_equal(after, expected)
    tvm.ir.assert_structural_equal(ReorderActivationAfterMaxPool(**options)(before), after)
    again, later = run_pass(after, **options)
    tvm.ir.assert_structural_equal(again, after)
    assert Kind.PASSED not in {remark.kind for remark in later}
    return remarks


def assert_untouched(before, *declined):
    """The pass returns every function of `before` itself, and says why."""
    after, remarks = run_pass(before)
    tvm.ir.assert_structural_equal(after, before)
    assert all(returned(func, before).same_as(func) for func in before.functions.values())
    assert reasons(remarks) == [reason.value for reason in declined]
    assert all(remark.kind is Kind.MISSED for remark in remarks)


def returned(func, mod):
    """What the pass itself returns; TVM's pass manager infers types after it, on a copy."""
    reorder = ReorderActivationAfterMaxPool()
    return reorder.transform_function(func, mod, tvm.transform.PassContext.current())


def assert_types_equal(after, expected):
    """Every node carries the type that inference on fresh nodes gives it."""
    for gvar, func in expected.functions.items():
        if isinstance(func, relay.Function):
            assert types(after[gvar.name_hint]) == types(func)


def types(func):
    """The types of all nodes but constants, of which copies of an op have their own."""
    found = []

    def note(node):
        if not isinstance(node, tvm.ir.Op | relay.Constant):
            found.append(str(node.checked_type))

    relay.analysis.post_order_visit(func.body, note)
    return found
