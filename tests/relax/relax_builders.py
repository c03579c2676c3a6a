"""Relax modules for the tests, and what must hold of every run of the pass."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax
from tvm.relax import op

from tvm_passes.relax import ReorderActivationAfterMaxPool
from tvm_passes.remarks import Kind

SHAPE = (1, 8, 16, 16)
STORED = (64, 8, 16, 16)
"""So large that kernels store what pools give of it."""


def data(shape=SHAPE, dtype="float32", name="x"):
    return relax.Var(name, relax.TensorType(shape, dtype))


def const(value, dtype="float32"):
    return relax.const(np.asarray(value, dtype))


def per_channel(shape, dtype="float32"):
    """A constant that differs everywhere."""
    return const(np.linspace(-1, 1, int(np.prod(shape))).reshape(shape), dtype)


def positive(shape, dtype="float32"):
    """A constant that differs everywhere and is above 0."""
    return const(np.linspace(0.3, 2, int(np.prod(shape))).reshape(shape), dtype)


def max_pool(x, kernel=2, stride=2, **attrs):
    return op.nn.max_pool2d(x, (kernel, kernel), (stride, stride), **attrs)


def conv(x, channels=8, kernel=3, **attrs):
    return op.nn.conv2d(x, per_channel((channels, 8, kernel, kernel)), **attrs)


def module(body, *params):
    """A module whose ``main`` is one dataflow block that computes `body` of its parameters.

    `body` may return a list, of outputs of the block.
    """
    return built(lambda _, *args: body(*args), *params)


def built(body, *params):
    """As `module`; `body` gets the builder too, to bind what more than one op reads."""
    builder, params = relax.BlockBuilder(), params or (data(),)
    with builder.function("main", list(params)):
        with builder.dataflow():
            results = body(builder, *params)
            many = results if isinstance(results, list) else [results]
            outputs = [builder.emit_output(result) for result in many]
        builder.emit_func_output(relax.Tuple(outputs) if len(outputs) > 1 else outputs[0])
    return builder.finalize()


def as_main(func):
    """A module of one function written in TVMScript."""
    return tvm.IRModule({"main": func.with_attr("global_symbol", "main")})


def pooled(x, order, f=op.nn.relu):
    """A site before the pass, or what becomes of it."""
    return max_pool(f(x)) if order == "before" else f(max_pool(x))


def both(build):
    """The module that `build` makes of sites before the pass, and of the same sites after it."""
    return build("before"), build("after")


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
    functions, text = dict(before.functions.items()), before.script()
    after, remarks = run_pass(before, **options)
    assert all(before[gvar].same_as(func) for gvar, func in functions.items())
    assert before.script() == text
    relax.analysis.well_formed(after)
    tvm.ir.assert_structural_equal(after, expected)
    assert types(after) == types(expected)
    assert "sunk" in reasons(remarks)
    tvm.ir.assert_structural_equal(ReorderActivationAfterMaxPool(**options)(before), after)
    again, later = run_pass(after, **options)
    tvm.ir.assert_structural_equal(again, after)
    assert Kind.PASSED not in {remark.kind for remark in later}
    return remarks


def assert_untouched(before, *declined):
    """The pass returns every function of `before` itself, and says why."""
    after, remarks = run_pass(before)
    tvm.ir.assert_structural_equal(after, before)
    for gvar, func in before.functions.items():
        assert after[gvar].same_as(func)
    assert reasons(remarks) == [reason.value for reason in declined]
    assert all(remark.kind is Kind.MISSED for remark in remarks)


def types(mod):
    """The types of all variables and values, in program order."""
    found = []

    def note(expr):
        if isinstance(expr, relax.Var | relax.Call):
            found.append(str(expr.ty))

    for gvar in sorted(mod.functions, key=lambda gvar: gvar.name_hint):
        if isinstance(mod[gvar], relax.Function):
            found.append(str(mod[gvar].ret_ty))
            relax.analysis.post_order_visit(mod[gvar], note)
    return found
