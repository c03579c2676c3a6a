"""The table is well formed, and each row's function is what the row says."""

import math
import re
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from site_builders import RULE, op, pool

from tvm_passes.decline import Direction, Reason
from tvm_passes.describe import vocabulary
from tvm_passes.errors import AllowError, RuleError
from tvm_passes.legality import rule_conditions
from tvm_passes.pattern import Apply, Data
from tvm_passes.rules import (
    INTEGERS,
    POOLS,
    PRODUCERS,
    RELAX,
    RELAY,
    RULES,
    SELECTED,
    Form,
    Rule,
    Windows,
)
from tvm_passes.site import Operand

F32 = np.float32


def exp(x):
    """Rounded once from double precision, as a good expf is."""
    with np.errstate(over="ignore", under="ignore"):
        return np.exp(x.astype(np.float64)).astype(F32)


def tanh(x):
    """The way TVM's llvm target computes it."""
    e = exp(-2 * np.abs(x))
    return np.where(x >= 0, (1 - e) / (1 + e), (e - 1) / (e + 1))


def double(f):
    """f in double precision, rounded once."""

    def rounded(x):
        with np.errstate(all="ignore"):
            return f(x.astype(np.float64)).astype(F32)

    return rounded


def selu(x):
    return F32(1.0507009) * np.where(x > 0, x, F32(1.6732632) * (exp(x) - F32(1)))


def softplus(x, beta, threshold):
    scaled = F32(beta) * x
    with np.errstate(over="ignore"):
        curve = double(np.log)(F32(1) + exp(scaled)) / F32(beta)
    return np.where(scaled > F32(threshold), x, curve)


def sinh(x):
    with np.errstate(over="ignore"):
        return F32(0.5) * (exp(x) - exp(-x))


def gelu(x):
    """0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""
    inner = F32(0.7978845608) * (x + F32(0.044715) * x * x * x)
    return F32(0.5) * x * (F32(1) + tanh(inner))


FUNCTIONS = {
    "relu": lambda x: np.maximum(x, F32(0)),
    "clip": lambda x, low, high: np.maximum(np.minimum(x, F32(high)), F32(low)),
    "leaky_relu": lambda x, alpha: np.where(x > 0, x, F32(alpha) * x),
    "sigmoid": lambda x: F32(1) / (F32(1) + exp(-x)),
    "tanh": tanh,
    "bias_add": lambda x, bias: x + bias.value.reshape(()),
    "subtract": lambda x, bias: x - bias.value.reshape(()),
    "multiply": lambda x, factor: x * factor.value.reshape(()),
    "divide": lambda x, divisor: x / divisor.value.reshape(()),
    "maximum": lambda x, bound: np.maximum(x, bound.value.reshape(())),
    "minimum": lambda x, bound: np.minimum(x, bound.value.reshape(())),
    "prelu": lambda x, alpha: np.where(x > 0, x, alpha.value.reshape(()) * x),
    "selu": selu,
    "softplus": softplus,
    "erf": double(np.vectorize(math.erf)),
    "exp": exp,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "trunc": np.trunc,
    "sign": np.sign,
    "atan": double(np.arctan),
    "asinh": double(np.arcsinh),
    "sinh": sinh,
    "log": double(np.log),
    "log2": double(np.log2),
    "log10": double(np.log10),
    "sqrt": np.sqrt,
    "acosh": double(np.arccosh),
    "asin": double(np.arcsin),
    "atanh": double(np.arctanh),
    "negative": np.negative,
    "subtract_from": lambda x, bias: bias.value.reshape(()) - x,
    "multiply_negative": lambda x, factor: x * factor.value.reshape(()),
    "divide_negative": lambda x, divisor: x / divisor.value.reshape(()),
    "divide_into": lambda x, dividend: dividend.value.reshape(()) / x,
    "rsqrt": lambda x: F32(1) / np.sqrt(x),
    "acos": double(np.arccos),
    "multiply_by_channel": lambda x, factor: x * factor.value.reshape(()),
    "divide_by_channel": lambda x, divisor: x / divisor.value.reshape(()),
    "square as a power": lambda x, exponent: x ** exponent.value.reshape(()),
    "abs": np.abs,
    "square": lambda x: x * x,
    "leaky_relu_negative": lambda x, alpha: np.where(x > 0, x, F32(alpha) * x),
    "prelu_negative": lambda x, alpha: np.where(x > 0, x, alpha.value.reshape(()) * x),
    "gelu": lambda x: F32(0.5) * x * (F32(1) + FUNCTIONS["erf"](x * F32(0.70710678))),
    "gelu_tanh": gelu,
    "silu": lambda x: x * FUNCTIONS["sigmoid"](x),
}
"""Each row's function on float32 arrays, its parameters by their names in the row."""

ONE_OP = [rule for rule in RULES if not rule.patterns]
FLOATING = [rule for rule in RULES if not rule.results and not rule.patterns]
"""Those that quantize, and those of several ops, have tests of their own."""

any_float = st.floats(width=32)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


def tensor(number):
    """One number, as a tensor of the rank of the data."""
    return Operand((1, 1, 1, 1), np.full((1, 1, 1, 1), number, F32))


a_number = any_float.map(tensor)
both_signs = st.tuples(any_float, any_float).map(
    lambda pair: Operand((1, 2, 1, 1), np.array(pair, F32).reshape(1, 2, 1, 1))
)
PARAMS = {
    **{
        name: st.fixed_dictionaries({param: a_number})
        for name, param in (
            ("bias_add", "bias"),
            ("subtract", "bias"),
            ("multiply", "factor"),
            ("divide", "divisor"),
            ("maximum", "bound"),
            ("minimum", "bound"),
            ("prelu", "alpha"),
            ("subtract_from", "bias"),
            ("multiply_negative", "factor"),
            ("divide_negative", "divisor"),
            ("divide_into", "dividend"),
            ("prelu_negative", "alpha"),
        )
    },
    "square as a power": st.fixed_dictionaries(
        {"exponent": st.sampled_from((2, 2, 3)).map(tensor)}
    ),
    "multiply_by_channel": st.fixed_dictionaries({"factor": both_signs}),
    "divide_by_channel": st.fixed_dictionaries({"divisor": both_signs}),
    "softplus": st.fixed_dictionaries(
        {
            "beta": st.sampled_from((0.25, 0.5, 1.0, 2.0, 4.0, 3.0, -1.0)),
            "threshold": st.sampled_from((20.0, 20.0, 20.0, 19.0)),
        }
    ),
    "clip": st.fixed_dictionaries({"low": any_float, "high": any_float}),
    "leaky_relu_negative": st.fixed_dictionaries({"alpha": any_float}),
    "leaky_relu": st.fixed_dictionaries({"alpha": any_float}),
}
"""Parameters, also such as the row must not accept."""


@cache
def samples():
    """Float32 values in order: every 40,009th of all finite ones, and dense runs."""
    coarse = np.arange(0, 0x7F800000, 40_009, dtype=np.uint32)
    around = np.array([0.0, 1e-38, 0.1, 0.5, 1.0, 6.0, 9.0, 17.0, 88.0], F32).view(np.uint32)
    dense = (around[:, None] + np.arange(2000, dtype=np.uint32)).ravel()
    positive = np.unique(np.concatenate([coarse, dense])).view(F32)
    return np.concatenate([-positive[::-1], positive])


def falls(f, low=-np.inf, high=np.inf):
    """Where f falls between neighbouring samples of [low, high]."""
    x = samples()
    x = x[(low <= x) & (x <= high)]
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        y = f(x)
    assert y.dtype == F32
    return x[:-1][~(y[:-1] <= y[1:])]


def test_every_row_has_a_function_here():
    assert {rule.name for rule in FLOATING} == set(FUNCTIONS)


def function(name, channel=0):
    """The function of a row, with parameters of one channel that the row accepts."""
    params = of_channel(op(name).params, channel)
    if name != "square as a power":
        scaled = {n: p for n, p in params.items() if isinstance(p, Operand)}
        params |= {n: replace(p, value=F32(0.3) * p.value) for n, p in scaled.items()}
    return lambda x: FUNCTIONS[name](x, **params)


def of_channel(params, channel):
    """The same with one number of each tensor."""
    return {
        name: Operand((1,), p.value.ravel()[channel % p.value.size :][:1])
        if isinstance(p, Operand)
        else p
        for name, p in params.items()
    }


@pytest.mark.parametrize("rule", FLOATING, ids=lambda rule: rule.name)
def test_the_function_of_each_row_moves_as_the_row_says(rule):
    f, bounds = function(rule.name), op(rule.name).bounds
    if rule.direction is Direction.NON_DECREASING:
        assert falls(f, *bounds).size == 0
    elif rule.direction is Direction.NON_INCREASING:
        assert falls(lambda x: -f(x), *bounds).size == 0
    elif rule.direction is Direction.BY_CHANNEL:
        falling = function(rule.name, channel=1)
        assert falls(f).size == falls(lambda x: -falling(x)).size == 0
    elif rule.is_exact:
        assert falls(lambda x: -f(x), -np.inf, 0.0).size == falls(f, 0.0).size == 0


@pytest.mark.parametrize(
    "f",
    [
        gelu,
        lambda x: -x,
        lambda x: FUNCTIONS["leaky_relu"](x, alpha=-0.01),
        lambda x: x / (F32(1) + np.abs(x)),  # softsign: its quotient is not monotone once rounded
    ],
    ids=["gelu", "neg", "leaky_relu of negative slope", "softsign"],
)
def test_that_check_finds_functions_that_fall(f):
    assert falls(f).size > 0


@pytest.mark.parametrize("rule", FLOATING, ids=lambda rule: rule.name)
@settings(max_examples=60, suppress_health_check=[HealthCheck.filter_too_much])
@given(data=st.data(), window=hnp.arrays(F32, st.integers(1, 9), elements=finite))
def test_the_maximum_of_f_is_at_the_ends_that_the_row_says_where_it_accepts(rule, data, window):
    params = data.draw(PARAMS.get(rule.name, st.just({})))
    assume(rule_conditions(op(rule.name, params=params), pool()) is None)
    params = of_channel(params, data.draw(st.integers(0, 1)))
    window = np.clip(window, *np.array(op(rule.name).bounds, F32))
    with np.errstate(all="ignore"):
        of_each = FUNCTIONS[rule.name](window, **params)
        of_least, of_most = (
            FUNCTIONS[rule.name](end(window, keepdims=True), **params) for end in (np.min, np.max)
        )
    # The contract is of finite values: 0 times what has overflowed is NaN.
    assume(np.all(np.isfinite(of_each)))
    expected = {
        Direction.NON_DECREASING: of_most,
        Direction.NON_INCREASING: of_least,
        Direction.QUASI_CONVEX: np.maximum(of_least, of_most),
        Direction.BY_CHANNEL: np.maximum(of_least, of_most),
    }[rule.direction]
    wavers = 0 if rule.is_exact else 2 * np.finfo(F32).eps
    assert abs(of_each.max() - expected[0]) <= wavers


@pytest.mark.parametrize(
    ("name", "params", "window"),
    [
        ("leaky_relu", {"alpha": -0.5}, [-3.0, 1.0]),  # max(1.5, 1) is not 1
        ("leaky_relu", {"alpha": np.inf}, [-1.0, 0.0]),  # inf * 0 is NaN
    ],
)
def test_the_property_does_fail_for_parameters_that_the_row_declines(name, params, window):
    window = np.array(window, F32)
    with np.errstate(all="ignore"):
        of_each = FUNCTIONS[name](window, **params)
        of_maximum = FUNCTIONS[name](window.max(keepdims=True), **params)
    assert of_each.max() != of_maximum[0]
    assert rule_conditions(op(name, params=params), pool()) is not None


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32"])
def test_integer_rows_hold_on_every_value_and_addition_does_not(dtype):
    info = np.iinfo(dtype)
    x = np.linspace(info.min, info.max, 256).astype(dtype)
    zero = x.dtype.type(0)
    assert np.all(np.diff(np.maximum(x, zero).astype(np.int64)) >= 0)
    assert np.all(np.diff(np.clip(x, zero, x.dtype.type(6)).astype(np.int64)) >= 0)
    wrapped = x + x.dtype.type(100)
    assert any(a > b for a, b in pairwise(wrapped))
    assert dtype in RULE["relu"].dtypes & RULE["clip"].dtypes
    assert dtype not in RULE["bias_add"].dtypes


# The table.


@pytest.mark.parametrize("dialect", [RELAY, RELAX])
def test_an_op_is_in_several_rows_only_where_its_parameters_decide(dialect):
    names = Counter(form.op for rule in RULES for form in rule.forms.get(dialect, ()))
    several = {name.removeprefix("relax.") for name, count in names.items() if count > 1}
    spelled = ("nn.leaky_relu", "cast") if dialect == RELAY else ("nn.leakyrelu", "astype")
    assert several == {"multiply", "divide", "subtract", "nn.prelu", *spelled}


@pytest.mark.parametrize("rule", ONE_OP, ids=lambda rule: rule.name)
def test_a_row_is_complete(rule):
    assert set(rule.forms) <= {RELAY, RELAX}
    assert rule.forms
    assert all(rule.forms.values())
    assert rule.dtypes
    assert rule.dtypes <= SELECTED | INTEGERS
    assert "" not in (rule.name, rule.nan, rule.negative_zero, rule.infinity, rule.source)
    assert rule.is_exact or rule.direction is Direction.QUASI_CONVEX


@pytest.mark.parametrize("rule", ONE_OP, ids=lambda rule: rule.name)
@pytest.mark.parametrize("dialect", [RELAY, RELAX])
def test_every_parameter_that_a_condition_reads_is_spelled(rule, dialect):
    for form in rule.forms.get(dialect, ()):
        spelled = set(form.attrs) | set(form.args)
        assert spelled == set(op(rule.name).params)
        assert form.data not in form.args.values()


def test_the_rows_that_are_exact_in_real_numbers_alone():
    """scripts/records/monotone-*.json say how far the others' kernels waver: not at all."""
    waver = ("gelu", "silu", "mish", "hard_swish")
    expected = {"gelu", "gelu_tanh", "silu", "square as a power"}
    expected |= {f"{name} composed" for name in waver}
    assert {rule.name for rule in RULES if not rule.is_exact} == expected


def test_row_names_are_unique():
    assert len({rule.name for rule in RULES}) == len(RULES)


def test_every_pool_is_spelled_in_both_dialects():
    for form in POOLS:
        # Relax has no global and adaptive max-pools: its importers write reductions.
        assert form.ops.get(RELAX) in (f"relax.{form.ops[RELAY]}", None)
        assert (RELAX in form.ops) is (form.windows is not Windows.LAYOUT)
        assert form.selects is ("avg" not in form.ops[RELAY])


@pytest.mark.parametrize("dialect", [RELAY, RELAX])
def test_no_op_is_both_an_activation_and_a_pool_or_producer(dialect):
    words = vocabulary(RULES, dialect)
    assert len(words.pools) == len([form for form in POOLS if dialect in form.ops])
    assert len(words.producers) == len(PRODUCERS[dialect])
    assert not set(words.activations) & (set(words.pools) | set(words.producers))


@pytest.mark.parametrize("dialect", [RELAY, RELAX])
def test_a_later_row_is_tried_first(dialect):
    mine = replace(RULE["relu"], name="mine")
    words = vocabulary((*RULES, mine), dialect)
    (form,) = mine.forms[dialect]
    assert words.activations[form.op][0] == (mine, form)
    assert vocabulary((mine, *RULES), dialect).activations[form.op][0][0] is RULE["relu"]


def test_a_row_may_know_one_dialect_only():
    mine = replace(RULE["relu"], forms={RELAY: RULE["relu"].forms[RELAY]})
    assert set(vocabulary((mine,), RELAY).activations) == {"nn.relu"}
    assert vocabulary((mine,), RELAX).activations == {}


@pytest.mark.parametrize("dialect", [RELAY, RELAX])
def test_functions_of_a_gpu_s_math_library_refuse_unless_allowed(dialect):
    name = {RELAY: "tanh", RELAX: "relax.tanh"}[dialect]
    for on_gpu, allow, refuses in (
        (True, (), True),
        (True, ("device-math",), False),
        (False, (), False),
    ):
        ((rule, _),) = vocabulary(RULES, dialect, allow, on_gpu=on_gpu).activations[name]
        found = rule_conditions(replace(op("tanh"), rule=rule), pool())
        assert (found is not None and found.reason is Reason.NOT_MONOTONE) == refuses


FORM = Form("relax.sin")
APPLY = Apply("sin", (Data(),))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"direction": "up"}, "direction: expected a tvm_passes.Direction, found 'up'"),
        (
            {"forms": {"torch": (FORM,)}},
            "forms: expected the keys 'relay' and 'relax', found 'torch'",
        ),
        ({"forms": {RELAX: FORM}}, "forms['relax']: expected a tuple of Form, found Form("),
        (
            {"forms": {RELAX: "relax.sin"}},
            "forms['relax']: expected a tuple of Form, found 'relax.sin'",
        ),
        ({"forms": {}, "patterns": APPLY}, "patterns: expected a tuple of Apply, found Apply("),
        ({"forms": {}}, "forms: expected a spelling, there or in patterns, found {}"),
        (
            {"patterns": (Apply("exp", (Apply("relax.nn.relu", (Data(),)),)),)},
            "patterns: expected ops as in Relay, without nn.: 'relu', found 'relax.nn.relu'",
        ),
    ],
)
def test_what_is_no_row(fields, says):
    usual = {"direction": Direction.NON_DECREASING, "forms": {RELAX: (FORM,)}}
    assert Rule("mine", **usual, patterns=(APPLY,))
    with pytest.raises(RuleError, match=re.escape(f"rule 'mine': {says}")):
        Rule("mine", **usual | fields)


def test_what_is_no_table_and_no_set_of_names():
    with pytest.raises(RuleError, match=re.escape("rules: expected tvm_passes.Rule, found 1")):
        vocabulary((*RULES, 1), RELAX)
    with pytest.raises(RuleError, match="expected several, found the one 'relu'"):
        vocabulary(RULES[0], RELAX)
    with pytest.raises(AllowError, match="quasi-convex, winograd, found 'quasi-convex'"):
        vocabulary(RULES, RELAX, "quasi-convex")
    with pytest.raises(AllowError, match="found 'fft', 'up'"):
        vocabulary(RULES, RELAX, ("up", "fft"))
