"""What a row of the rule table is: one function of one variable, and when it may move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from tvm_passes.decline import Condition, Direction, FixedPoint
from tvm_passes.errors import RuleError
from tvm_passes.fixed_points import nothing
from tvm_passes.pattern import Apply
from tvm_passes.ranges import Image, anything

RELAY = "relay"
RELAX = "relax"

FLOATS = frozenset({"float16", "float32", "float64"})
SELECTED = FLOATS | {"bfloat16"}
"""Where each result is an input or a bound: TVM computes bfloat16 in float32 and rounds where a
kernel ends, which only such functions do not feel."""
INTEGERS = frozenset({"int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"})
NARROW = frozenset({"int8", "uint8", "int16", "uint16"})
"""Integers that C computes with in more bits than they have."""


@dataclass(frozen=True)
class Form:
    """How one dialect spells an op.

    Parameters
    ----------
    op
        Name of the op in the dialect.
    attrs
        Parameters that are attributes of the call: parameter name to attribute name.
    args
        Parameters that are arguments of the call: parameter name to argument index.
    data
        Index of the argument that the chain goes on through.
    commutes
        Whether the data may also be the other one of two arguments.
    axis
        Attribute that names the data axis which a one-dimensional argument runs along; None where
        arguments are broadcast by NumPy's rule.
    """

    op: str
    attrs: Mapping[str, str] = field(default_factory=dict)
    args: Mapping[str, int] = field(default_factory=dict)
    data: int = 0
    commutes: bool = False
    axis: str | None = None


@dataclass(frozen=True)
class Rule:
    """A function of one variable, elementwise, and when it may move past a selecting pool.

    Parameters
    ----------
    name
        The function's usual name.
    direction
        How the function moves as its input grows, where `conditions` hold.
    forms
        Spellings, by dialect name.
    patterns
        Spellings that take several ops, alike in both dialects; see `tvm_passes.composites`.
    dtypes
        Element types for which the rule holds as TVM computes it.
    results
        Element types of its results, where they are not those of its data.
    conditions
        Predicates on the parameters; see `tvm_passes.conditions`.
    image
        Bounds of its results, from those of its data.
    is_arithmetic
        Whether it is an addition or a multiplication, or a compiler may move one past it: it may
        be contracted with a multiplication above it, or folded with arithmetic below it.  Rows with
        `patterns` count as arithmetic.
    is_sign
        Whether it changes the sign alone: a compiler contracts a product above it with an addition
        below it.
    is_call
        Whether it calls the math library, or computes as much: many times what a negation takes.
    is_scale
        Whether it multiplies: a compiler may fold it into the weights of a layer.
    is_exact
        Whether the rewrite is exact for the function as TVM computes it, not only in real numbers.
    rounds_result
        Whether its result is never a sum or a product that arithmetic below could be contracted
        or folded with.
    fixes
        Which numbers it is sure to map to themselves: padding with one of them commutes with it.
    nan, negative_zero, infinity
        What TVM's kernel gives for these inputs.
    source
        Where the monotonicity comes from.
    """

    name: str
    direction: Direction
    forms: Mapping[str, tuple[Form, ...]]
    dtypes: frozenset[str] = FLOATS
    patterns: tuple[Apply, ...] = ()
    results: frozenset[str] = frozenset()
    conditions: tuple[Condition, ...] = ()
    image: Image = anything
    is_arithmetic: bool = False
    is_sign: bool = False
    is_call: bool = False
    is_scale: bool = False
    is_exact: bool = True
    rounds_result: bool = False
    fixes: FixedPoint = nothing
    nan: str = ""
    negative_zero: str = ""
    infinity: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        """Refuse what would match nothing, or fail where it is used.

        Raises
        ------
        RuleError
            If a field is not what it has to be.
        """
        if not isinstance(self.direction, Direction):
            self._refuse("direction", "a tvm_passes.Direction", self.direction)
        for dialect, spellings in self.forms.items():
            if dialect not in (RELAY, RELAX):
                self._refuse("forms", f"the keys {RELAY!r} and {RELAX!r}", dialect)
            if not _are(Form, spellings):
                self._refuse(f"forms[{dialect!r}]", "a tuple of Form", spellings)
        if not _are(Apply, self.patterns):
            self._refuse("patterns", "a tuple of Apply", self.patterns)
        for name in sorted(frozenset().union(*(pattern.ops for pattern in self.patterns))):
            if "." in name:
                plain = name.rpartition(".")[2]
                self._refuse("patterns", f"ops as in Relay, without nn.: {plain!r}", name)
        if not (self.forms or self.patterns):
            self._refuse("forms", "a spelling, there or in patterns", self.forms)

    def _refuse(self, field: str, expected: str, found: object) -> NoReturn:
        raise RuleError(f"rule {self.name!r}: {field}: expected {expected}, found {found!r}")


def _are(kind: type, values: object) -> bool:
    """Whether something is a tuple of a kind."""
    return isinstance(values, tuple) and all(isinstance(value, kind) for value in values)


def forms(relay: str | Form, relax: str | Form) -> Mapping[str, tuple[Form, ...]]:
    """One spelling for each dialect."""
    return {
        RELAY: (Form(relay) if isinstance(relay, str) else relay,),
        RELAX: (Form(relax) if isinstance(relax, str) else relax,),
    }
