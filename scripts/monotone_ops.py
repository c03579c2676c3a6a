"""The functions that check_monotone.py checks, as each dialect spells them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tvm_passes.decline import Direction
from tvm_passes.monotone import FLOAT_BITS, storage
from tvm_passes.pattern import Apply, Data, Number, Pattern
from tvm_passes.rules import RELAX, RELAY, Form, Rule

RISES, FALLS, BOTH = Direction.NON_DECREASING, Direction.NON_INCREASING, Direction.QUASI_CONVEX


def tensor(value: float) -> np.ndarray:
    """A parameter that is a tensor of one element; a plain number is an attribute."""
    return np.array(value)


SAMPLES: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "clip": (
        {"low": 0.0, "high": 6.0},
        {"low": -1.0, "high": 1.0},
        {"low": -0.1, "high": 0.3},
        {"low": 2.0, "high": 2.0},
    ),
    "leaky_relu": tuple({"alpha": a} for a in (0.0, 1e-3, 0.01, 0.1, 0.5, 1.0, 2.0)),
    "bias_add": tuple({"bias": tensor(b)} for b in (0.1, -3.0, 1e-7, 65504.0, -65504.0)),
    "subtract": tuple({"bias": tensor(b)} for b in (0.1, 65504.0)),
    "multiply": tuple({"factor": tensor(m)} for m in (0.0, 0.1, 3.0)),
    "divide": tuple({"divisor": tensor(m)} for m in (0.1, 3.0)),
    "subtract_from": tuple({"bias": tensor(b)} for b in (0.1, -3.0)),
    "multiply_negative": tuple({"factor": tensor(m)} for m in (-0.1, -3.0)),
    "divide_negative": tuple({"divisor": tensor(m)} for m in (-0.1, -3.0)),
    "divide_into": tuple({"dividend": tensor(c)} for c in (0.0, 1.0, 3.0)),
    "leaky_relu_negative": tuple({"alpha": a} for a in (-0.1, -1.0, -2.0)),
    "prelu_negative": tuple({"alpha": tensor(a)} for a in (-0.1, -2.0)),
    "maximum": ({"bound": tensor(0.1)},),
    "minimum": ({"bound": tensor(0.1)},),
    "prelu": tuple({"alpha": tensor(a)} for a in (0.0, 0.25, 2.0)),
    "softplus": tuple({"beta": b, "threshold": 20.0} for b in (0.5, 1.0, 4.0)),
    "elu as a sum": tuple({"minus_alpha": -a} for a in (0.3, 1.0)),
    "elu of a slope as a choice": tuple({"alpha": a} for a in (0.3, 1.0)),
    "celu": tuple({"alpha": a, "divisor": a} for a in (0.3, 1.0)),
    "leaky_relu as a choice": ({"alpha": 0.1},),
    "square as a power": ({"exponent": tensor(2.0)},),
}
"""Parameters to check a row of the table with; a row without parameters needs no entry."""


INF = float("inf")
DOMAINS: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(("log", "log2", "log10", "sqrt", "rsqrt"), (0.0, INF)),
    "divide_into": (1e-7, INF),
    **dict.fromkeys(("asin", "acos", "atanh"), (-1.0, 1.0)),
    "log1p": (-0.875, INF),
    "acosh": (1.0, INF),
}
"""Where functions that are not defined on all reals are checked."""


class Words:
    """Ops by the name that both dialects give them, and constants of the data's type."""

    def __init__(self, dialect: str, dtype: str) -> None:
        import tvm

        self.dialect, self.dtype = dialect, dtype
        if dialect == RELAX:
            self.typed, self.ops, spaces = tvm.relax.const, tvm.relax.op, (tvm.relax.op.nn,)
        else:
            self.typed, self.ops, spaces = tvm.relay.const, tvm.relay, (tvm.relay.nn,)
        self._spaces = (self.ops, *spaces)

    def const(self, value: Any) -> Any:
        """A constant of the data's element type, infinite where it is too large for that."""
        with np.errstate(over="ignore"):
            return self.typed(np.asarray(value, storage(self.dtype)), self.dtype)

    def has(self, name: str) -> bool:
        """Whether the dialect has an op of this name."""
        return any(hasattr(space, name) for space in self._spaces)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return next(getattr(space, name) for space in self._spaces if hasattr(space, name))

    def form(self, form: Form, x: Any, params: Mapping[str, Any]) -> Any:
        """The call that a row of the rule table describes."""
        path = form.op.removeprefix("relax.").split(".")
        function = getattr(self.ops if len(path) == 1 else self._spaces[1], path[-1])
        values = {name: self._param(form, value) for name, value in params.items()}
        positional = {form.data: x} | {n: values[name] for name, n in form.args.items()}
        named = {attr: values[name] for name, attr in form.attrs.items()}
        if form.axis is not None:
            named[form.axis] = 1
        return function(*(positional[n] for n in sorted(positional)), **named)

    def _param(self, form: Form, value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        return self.const(value.reshape((1,) if form.axis is not None else (1, 1, 1, 1)))


def _call(op: str, params: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{name}={float(value):g}" for name, value in params.items())
    return f"{op}({shown})" if shown else op


@dataclass(frozen=True)
class Candidate:
    """A function to check: which way it must move, how it is built, and where it is defined.

    `reads` are the element types that it is for.
    """

    name: str
    direction: Direction
    build: Callable[[Words, Any], Any]
    domain: tuple[float, float] | None = None
    dialects: tuple[str, ...] = (RELAX, RELAY)
    out_dtype: str | None = None
    fast_math: bool = False
    reads: tuple[str, ...] = tuple(FLOAT_BITS)


def single(
    name: str,
    direction: Direction = RISES,
    dialects: tuple[str, ...] = (RELAX, RELAY),
    **attrs: Any,
) -> Candidate:
    """A candidate that is one op, spelled alike in both dialects."""
    return Candidate(
        _call(name, attrs),
        direction,
        lambda o, x: getattr(o, name)(x, **attrs),
        DOMAINS.get(name),
        dialects,
    )


def composed(
    name: str, expression: Callable[[Words, Any], Any], direction: Direction = RISES, **rest: Any
) -> Candidate:
    """A candidate that front ends spell with several ops, or one with a constant."""
    return Candidate(name, direction, expression, **rest)


def _elu(o: Words, x: Any, alpha: float) -> Any:
    """As the ONNX and TFLite importers of both dialects spell it."""
    return o.const(-alpha) * o.relu(o.const(1) - o.exp(x)) + o.relu(x)


def _selu(o: Words, x: Any) -> Any:
    return o.const(1.0507009873554805) * _elu(o, x, 1.6732632423543772)


def _elu_where(o: Words, x: Any) -> Any:
    return o.where(o.greater(x, o.const(0)), x, o.exp(x) - o.const(1))


def _softplus_stable(o: Words, x: Any) -> Any:
    """As Relax's ONNX importer spells it."""
    return o.maximum(x, o.const(0)) + o.log(o.const(1) + o.exp(o.negative(o.abs(x))))


def _hard_swish(o: Words, x: Any) -> Any:
    return x * o.clip(x + o.const(3), 0.0, 6.0) / o.const(6)


def _gelu(o: Words, x: Any) -> Any:
    return o.const(0.5) * x * (o.const(1) + o.erf(x / o.const(2**0.5)))


def _mish(o: Words, x: Any) -> Any:
    return x * o.tanh(o.log(o.const(1) + o.exp(x)))


def _cast(dtype: str, domain: tuple[float, float] | None = None) -> Candidate:
    def build(o: Words, x: Any) -> Any:
        return o.astype(x, dtype) if o.dialect == RELAX else o.cast(x, dtype)

    return Candidate(f"cast({dtype})", RISES, build, domain, out_dtype=dtype)


CANDIDATES: tuple[Candidate, ...] = (
    composed("elu(alpha=1)", lambda o, x: _elu(o, x, 1.0)),
    composed("elu(alpha=0.3)", lambda o, x: _elu(o, x, 0.3)),
    composed("elu_where", _elu_where),
    composed("selu_composed", _selu),
    composed("hard_sigmoid", lambda o, x: o.clip(o.const(0.2) * x + o.const(0.5), 0.0, 1.0)),
    composed("hard_tanh", lambda o, x: o.clip(x, -1.0, 1.0)),
    single("softplus", dialects=(RELAX,), beta=3.0, threshold=20.0),
    composed("softplus_log_exp", lambda o, x: o.log(o.exp(x) + o.const(1))),
    composed("softplus_stable", _softplus_stable),
    composed("softsign", lambda o, x: x / (o.const(1) + o.abs(x))),
    composed("expm1", lambda o, x: o.exp(x) - o.const(1)),
    composed("log1p", lambda o, x: o.log(o.const(1) + x), domain=DOMAINS["log1p"]),
    _cast("float16"),
    _cast("bfloat16"),
    _cast("float32"),
    _cast("int8", (-128.0, 127.0)),
    _cast("int32", (-(2.0**30), 2.0**30)),
    *(composed(f"multiply({m:g})", lambda o, x, m=m: x * o.const(m)) for m in (1e-3, 3.0, 1e5)),
    composed("multiply_add", lambda o, x: x * o.const(0.1) + o.const(0.3)),
    composed("erfc", lambda o, x: o.const(1) - o.erf(x), FALLS),
    composed("gelu_composed", _gelu, BOTH),
    composed("silu_composed", lambda o, x: x * o.sigmoid(x), BOTH),
    composed("mish", _mish, BOTH),
    composed("hard_swish", _hard_swish, BOTH),
    composed("square_composed", lambda _o, x: x * x, BOTH),
    *(
        composed(f"fast_{name}", lambda o, x, name=name: getattr(o, name)(x), fast_math=True)
        for name in ("tanh", "exp", "erf")
    ),
)
"""Functions beside the rule table's: for coming rows, and some that must not become one.

``fast_`` ones are those functions after the FastMath pass of their dialect.
"""


def row_candidates(rule: Rule, dialect: str) -> list[Candidate]:
    """Every spelling of a row with every sample of its parameters.

    None of the rows that quantize: see `monotone_quantized`.  Nor of those whose channels move in
    different ways: what each does is another row.
    """
    if rule.results or rule.direction is Direction.BY_CHANNEL:
        return []
    single_ops = [
        Candidate(
            _call(form.op, params),
            rule.direction,
            partial(_form, form=form, params=params),
            DOMAINS.get(rule.name),
        )
        for form in rule.forms.get(dialect, ())
        for params in SAMPLES.get(rule.name, ({},))
    ]
    several_ops = [
        Candidate(
            _call(f"{rule.name} {n}", params),
            rule.direction,
            partial(_pattern, pattern=pattern, params=params),
        )
        for n, pattern in enumerate(rule.patterns, 1)
        if all(map(Words(dialect, "float32").has, _names(pattern)))
        for params in SAMPLES.get(rule.name, ({},))
    ]
    return single_ops + several_ops


def _form(o: Words, x: Any, form: Form, params: Mapping[str, Any]) -> Any:
    return o.form(form, x, params)


def _pattern(o: Words, x: Any, pattern: Pattern, params: Mapping[str, float]) -> Any:
    """The ops of a pattern, as one of the importers writes them."""
    if isinstance(pattern, Data):
        return x
    if isinstance(pattern, Number):
        return o.const(params[pattern.name] if pattern.value is None else pattern.value)
    if pattern.op == "clip":  # its bounds are no tensors
        bounds = [arg.value for arg in pattern.args if isinstance(arg, Number)]
        return o.clip(_pattern(o, x, pattern.args[0], params), *bounds)
    return getattr(o, pattern.op)(*(_pattern(o, x, arg, params) for arg in pattern.args))


def _names(pattern: Pattern) -> set[str]:
    if not isinstance(pattern, Apply):
        return set()
    return {pattern.op}.union(*map(_names, pattern.args))
