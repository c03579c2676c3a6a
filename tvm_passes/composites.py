"""The rows of functions that front ends spell with several ops, and how they spell them."""

from __future__ import annotations

from math import sqrt

from tvm_passes.conditions import divisor_positive, factor_not_positive, finite_slope_not_negative
from tvm_passes.decline import Condition, Direction
from tvm_passes.kernel_conditions import falls_as_computed
from tvm_passes.pattern import Apply, Data, Number, Pattern
from tvm_passes.rule import Rule

X = Data()
ZERO, ONE = Number(0.0), Number(1.0)


def _op(name: str, *args: Pattern) -> Apply:
    return Apply(name, args)


def _rule(
    name: str,
    direction: Direction,
    source: str,
    patterns: tuple[Apply, ...],
    *conditions: Condition,
    is_call: bool = True,
    is_exact: bool = True,
) -> Rule:
    """A row without an op of its own; it may neither part from arithmetic nor meet any."""
    return Rule(
        name=name,
        direction=direction,
        forms={},
        patterns=patterns,
        conditions=conditions,
        is_arithmetic=True,
        is_call=is_call,
        is_exact=is_exact,
        source=source,
    )


def _choices(other: Pattern) -> tuple[Apply, ...]:
    """The data where they are above 0, else another function, which is 0 there."""
    return (
        *(_op("where", _op(test, X, ZERO), X, other) for test in ("greater", "greater_equal")),
        *(_op("where", _op(test, X, ZERO), other, X) for test in ("less", "less_equal")),
    )


RISES, BOWL = Direction.NON_DECREASING, Direction.QUASI_CONVEX

EXP_1 = _op("subtract", _op("exp", X), ONE)
HALF = _op("multiply", Number(0.5), X)
CELU = _op("subtract", _op("exp", _op("divide", X, Number(name="divisor"))), ONE)
ALPHA = Number(name="alpha")
OVER_ROOT_2 = (
    _op("divide", X, Number(sqrt(2))),
    _op("multiply", X, Number(sqrt(0.5))),
)
ERF = tuple(_op("add", _op("erf", scaled), ONE) for scaled in OVER_ROOT_2)
CUBES = (
    _op("power", X, Number(3.0)),
    _op("multiply", _op("multiply", X, X), X),
)
TANH = tuple(
    _op(
        "add",
        _op(
            "tanh",
            _op(
                "multiply",
                _op("add", X, _op("multiply", cube, Number(0.044715))),
                Number(0.7978845608),
            ),
        ),
        ONE,
    )
    for cube in CUBES
)
FAST_TANH = tuple(
    _op(
        "add",
        _op(
            "tanh",
            _op(
                "add",
                _op("multiply", Number(0.7978845608), X),
                _op("multiply", Number(0.0356774081), cube),
            ),
        ),
        ONE,
    )
    for cube in CUBES
)
HALF_ERF = tuple(
    _op("add", _op("multiply", _op("erf", scaled), Number(0.5)), Number(0.5))
    for scaled in OVER_ROOT_2
)
SOFTPLUS = Apply("softplus", (X,), attrs=(("beta", 1.0), ("threshold", 20.0)))
LOG_EXP = _op("log", _op("add", _op("exp", X), ONE))
STABLE = _op(
    "add",
    _op("maximum", X, Number(0.0)),
    _op("log", _op("add", _op("exp", _op("negative", _op("abs", X))), ONE)),
)
CLIP_6 = _op("clip", _op("add", X, Number(3.0)), Number(0.0), Number(6.0))
HARD = (
    CLIP_6,
    _op("divide", CLIP_6, Number(6.0)),
    _op("multiply", CLIP_6, Number(1 / 6)),
    _op(
        "clip",
        _op("add", _op("multiply", X, Number(1 / 6)), Number(0.5)),
        Number(0.0),
        Number(1.0),
    ),
)

COMPOSITES: tuple[Rule, ...] = (
    # Each of two terms never falls, one of them is 0, and so is the rounded sum.
    _rule(
        "elu as a sum",
        RISES,
        "-a relu(1 - exp(x)) + relu(x), a >= 0",
        (
            _op(
                "add",
                _op(
                    "multiply",
                    _op("relu", _op("subtract", ONE, _op("exp", X))),
                    Number(name="minus_alpha"),
                ),
                _op("relu", X),
            ),
        ),
        factor_not_positive("minus_alpha"),
    ),
    _rule(
        "elu as a choice",
        RISES,
        "x > 0 ? x : exp(x) - 1",
        _choices(EXP_1),
    ),
    _rule(
        "elu of a slope as a choice",
        RISES,
        "x > 0 ? x : a (exp(x) - 1), a >= 0",
        _choices(_op("multiply", EXP_1, ALPHA)),
        finite_slope_not_negative("alpha"),
    ),
    _rule(
        "celu",
        RISES,
        "max(x, 0) + min(a (exp(x / a) - 1), 0), a > 0",
        (
            _op(
                "add",
                _op("maximum", X, ZERO),
                _op("minimum", _op("multiply", CELU, ALPHA), ZERO),
            ),
            _op("add", _op("multiply", _op("minimum", CELU, ZERO), ALPHA), _op("relu", X)),
        ),
        finite_slope_not_negative("alpha"),
        divisor_positive("divisor"),
    ),
    _rule("relu as a choice", RISES, "x > 0 ? x : 0", _choices(ZERO), is_call=False),
    _rule(
        "leaky_relu as a choice",
        RISES,
        "x > 0 ? x : a x, a >= 0",
        _choices(_op("multiply", X, ALPHA)),
        finite_slope_not_negative("alpha"),
        is_call=False,
    ),
    _rule("square as a product", BOWL, "x * x", (_op("multiply", X, X),)),
    _rule(
        "gelu composed",
        BOWL,
        "x / 2 (1 + erf(x / sqrt(2)))",
        (
            *(_op("multiply", half, s) for half in (HALF, X) for s in (*ERF, *TANH)),
            *(_op("multiply", half, s) for half in (HALF, X) for s in FAST_TANH),
            *(_op("multiply", X, gate) for gate in HALF_ERF),
        ),
        is_exact=False,
    ),
    _rule(
        "silu composed",
        BOWL,
        "x sigmoid(x)",
        (_op("multiply", X, _op("sigmoid", X)),),
        is_exact=False,
    ),
    _rule(
        "mish composed",
        BOWL,
        "x tanh(log(1 + exp(x)))",
        tuple(_op("multiply", X, _op("tanh", s)) for s in (LOG_EXP, STABLE, SOFTPLUS)),
        is_exact=False,
    ),
    _rule(
        "hard_swish composed",
        BOWL,
        "x clip(x + 3, 0, 6) / 6",
        tuple(_op("multiply", X, gate) for gate in HARD),
        is_exact=False,
    ),
    # A quotient, and a sum, whose terms round on their own: not monotone as TVM computes them.
    _rule(
        "softsign",
        RISES,
        "x / (1 + |x|)",
        (_op("divide", X, _op("add", _op("abs", X), ONE)),),
        falls_as_computed(),
    ),
    _rule(
        "softplus as a sum",
        RISES,
        "max(x, 0) + log(1 + exp(-|x|))",
        (STABLE,),
        falls_as_computed(),
    ),
)
"""Of scripts/records/monotone-*.json: 0 inversions of both elu, thousands of softsign."""
