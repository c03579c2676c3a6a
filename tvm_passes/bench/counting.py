"""What a PrimFunc executes: evaluations of activations by kind, and arithmetic.

Counted in the code as it is scheduled or lowered, iteration by iteration: loops multiply, and
conditions on loop variables are solved by trying all values of those variables.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

TRY_AT_MOST = 4_000_000
"""Iterations for which a condition is tried; beyond it counts as true."""

ARITHMETIC = ("Add", "Sub", "Mul", "Div")
NO_EVALUATION = frozenset(
    {"if_then_else", "likely", "reinterpret", "address_of", "tvm_access_ptr", "tvm_struct_get"}
)
"""Intrinsics of floating-point type that compute nothing."""

NumPy = Callable[..., Any]
OPERATORS: Mapping[str, NumPy] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "FloorDiv": np.floor_divide,
    "FloorMod": np.mod,
    "Div": np.floor_divide,  # of loop variables, which are not negative
    "Mod": np.mod,
    "Min": np.minimum,
    "Max": np.maximum,
    "LT": np.less,
    "LE": np.less_equal,
    "GT": np.greater,
    "GE": np.greater_equal,
    "EQ": np.equal,
    "NE": np.not_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
}
"""TIR's integer expressions, as NumPy computes them."""


OPERANDS = {
    "Select": ("condition", "true_value", "false_value"),
    "Let": ("value", "body"),
    "Cast": ("value",),
    "Broadcast": ("value",),
    "BufferLoad": (),
    "TensorLoad": (),
}
"""Fields that hold an expression's operands, where they are not ``a`` and ``b``."""


@dataclass
class Counts:
    """What one call of a kernel executes.

    Parameters
    ----------
    evaluations
        Scalar evaluations by kind: maximum with a constant (relu), minimum with one (the other
        half of a clip), selection by value (leaky relu), and intrinsics by name.
    arithmetic
        Additions, subtractions, multiplications and divisions of floating-point numbers.
    maxima
        Elements that a max-pool or the like looks at.
    exact
        Whether every condition was solved; if not, the numbers are upper bounds.
    """

    evaluations: Counter[str] = field(default_factory=Counter)
    arithmetic: int = 0
    maxima: int = 0
    exact: bool = True


@dataclass(frozen=True)
class Domain:
    """Loops around a statement, what blocks bind, and conditions that hold or do not hold."""

    loops: tuple[tuple[Any, int, int], ...] = ()
    bound: tuple[tuple[Any, Any], ...] = ()
    conditions: tuple[tuple[Any, bool], ...] = ()


class UnsolvedError(Exception):
    """A condition on more than loop variables."""


def count(func: Any) -> Counts:
    """Count what a PrimFunc with constant loop extents executes."""
    counter = _Counter()
    counter.statement(func.body, Domain())
    return counter.counts


def _kind(node: Any) -> str:
    """Name of a node's class, which both TVMs share but for the S of SBlock."""
    name = type(node).__name__
    return name.removeprefix("S") if "Block" in name else name


class _Counter:
    """A walk over statements and expressions."""

    def __init__(self) -> None:
        self.counts = Counts()

    def statement(self, node: Any, domain: Domain) -> None:
        """Count a statement in its domain."""
        match _kind(node):
            case "For":
                self.statement(node.body, _with_loop(domain, node.loop_var, node.min, node.extent))
            case "BlockRealize":
                values = zip(node.block.iter_vars, node.iter_values, strict=True)
                bound = tuple((axis.var, value) for axis, value in values)
                inner = replace(domain, bound=domain.bound + bound)
                self.statement(node.block.body, _with_condition(inner, node.predicate))
            case "SeqStmt":
                for inner_node in node.seq:
                    self.statement(inner_node, domain)
            case "IfThenElse":
                self.statement(node.then_case, _with_condition(domain, node.condition))
                if node.else_case is not None:
                    unmet = _with_condition(domain, node.condition, holds=False)
                    self.statement(node.else_case, unmet)
            case "BufferStore":
                self._store(node, domain)
            case "LetStmt" | "Bind" | "Evaluate":
                self.expression(node.value, domain)
        if _kind(node) not in ("For", "BlockRealize") and getattr(node, "body", None) is not None:
            self.statement(node.body, domain)

    def _store(self, node: Any, domain: Domain) -> None:
        if _kind(node.value) == "Max" and _accumulates(node):
            self.counts.maxima += self._points(domain) * _lanes(node.value)
            for operand in _operands(node.value):
                self.expression(operand, domain)
        else:
            self.expression(node.value, domain)

    def expression(self, node: Any, domain: Domain) -> None:
        """Count an expression's floating-point work in its domain."""
        kind = _kind(node)
        if kind in ("Ramp", "Var", "FloatImm", "IntImm", "StringImm"):
            return
        what = _evaluation(node, kind) if _is_float(node) else None
        if what:
            self.counts.evaluations[what] += self._points(domain) * _lanes(node)
        elif _is_float(node) and kind in ARITHMETIC:
            self.counts.arithmetic += self._points(domain) * _lanes(node)
        if kind == "Call" and _name(node) == "if_then_else" and not _has_load(node.args[0]):
            self.expression(node.args[1], _with_condition(domain, node.args[0]))
            self.expression(node.args[2], _with_condition(domain, node.args[0], holds=False))
            return
        for operand in _operands(node):
            self.expression(operand, domain)

    def _points(self, domain: Domain) -> int:
        """How often a statement runs."""
        extents = [extent for _, _, extent in domain.loops]
        if not domain.conditions:
            return math.prod(extents)
        try:
            return _solve(domain)
        except UnsolvedError:
            self.counts.exact = False
            return math.prod(extents)


def _with_loop(domain: Domain, var: Any, low: Any, extent: Any) -> Domain:
    if _kind(low) != "IntImm" or _kind(extent) != "IntImm":
        raise ValueError(f"loop {var} from {low} over {extent}: expected constants")
    loop = (var, int(low.value), int(extent.value))
    return replace(domain, loops=(*domain.loops, loop))


def _with_condition(domain: Domain, condition: Any, *, holds: bool = True) -> Domain:
    if _kind(condition) == "IntImm" and bool(int(condition.value)) == holds:
        return domain
    return replace(domain, conditions=(*domain.conditions, (condition, holds)))


def _solve(domain: Domain) -> int:
    """Iterations that meet all conditions: those of the loops in them, times the other loops."""
    used: set[int] = set()
    bound = {hash(var): value for var, value in domain.bound}
    for condition, _ in domain.conditions:
        _used_loops(condition, domain, bound, used)
    tried = [loop for n, loop in enumerate(domain.loops) if n in used]
    if math.prod(extent for _, _, extent in tried) > TRY_AT_MOST:
        raise UnsolvedError
    grid = np.meshgrid(
        *(np.arange(low, low + extent) for _, low, extent in tried), indexing="ij", sparse=True
    )
    values = {hash(var): axis for (var, _, _), axis in zip(tried, grid, strict=True)}
    met: Any = True
    for condition, holds in domain.conditions:
        met = np.logical_and(met, np.equal(_evaluate(condition, values, bound), holds))
    shape = tuple(extent for _, _, extent in tried)
    others = [extent for n, (_, _, extent) in enumerate(domain.loops) if n not in used]
    return int(np.count_nonzero(np.broadcast_to(met, shape))) * math.prod(others)


def _used_loops(node: Any, domain: Domain, bound: Mapping[int, Any], used: set[int]) -> None:
    if _kind(node) == "Var":
        if hash(node) in bound:
            _used_loops(bound[hash(node)], domain, bound, used)
        used.update(n for n, (var, _, _) in enumerate(domain.loops) if var.same_as(node))
    for operand in _operands(node):
        _used_loops(operand, domain, bound, used)


def _evaluate(node: Any, values: Mapping[int, Any], bound: Mapping[int, Any]) -> Any:
    kind = _kind(node)
    if kind == "IntImm":
        return int(node.value)
    if kind == "Var":
        if hash(node) in bound:
            return _evaluate(bound[hash(node)], values, bound)
        if hash(node) not in values:
            raise UnsolvedError
        return values[hash(node)]
    operands = [_evaluate(operand, values, bound) for operand in _operands(node)]
    if kind in OPERATORS:
        return OPERATORS[kind](*operands)
    if kind == "Not":
        return np.logical_not(operands[0])
    if kind in ("Cast", "Call") and len(operands) == 1:  # likely(x)
        return operands[0]
    raise UnsolvedError


def _operands(node: Any) -> list[Any]:
    """Sub-expressions, without the indices of loads."""
    if _kind(node) == "Call":
        return list(node.args)
    names = OPERANDS.get(_kind(node), ("a", "b"))
    return [getattr(node, name) for name in names if hasattr(node, name)]


def _evaluation(node: Any, kind: str) -> str | None:
    """The kind of activation that a floating-point node evaluates, if any."""
    if kind in ("Max", "Min") and any(_is_scalar(x) for x in _operands(node)):
        return "maximum with a constant" if kind == "Max" else "minimum with a constant"
    if _selects(node, kind) and _has_load(_operands(node)[0]):
        return "selection by value"
    if kind == "Call" and _name(node) not in NO_EVALUATION:
        return _name(node)
    return None


def _selects(node: Any, kind: str) -> bool:
    return kind == "Select" or (kind == "Call" and _name(node) == "if_then_else")


def _name(call: Any) -> str:
    name = str(getattr(call.op, "name", call.op))
    if "extern" in name:
        name = str(call.args[0].value)
    return name.rpartition(".")[2]


def _has_load(node: Any) -> bool:
    return "Load" in _kind(node) or any(_has_load(operand) for operand in _operands(node))


def _accumulates(store: Any) -> bool:
    """Whether a maximum is that of the buffer itself and of something that varies."""
    operands = _operands(store.value)
    constant = any(_is_constant(operand) for operand in operands)
    return not constant and any(_reads(operand, store.buffer) for operand in operands)


def _reads(node: Any, buffer: Any) -> bool:
    """Whether an expression is a load of a buffer."""
    source = getattr(node, "buffer", getattr(node, "source", None))
    return "Load" in _kind(node) and source is not None and source.same_as(buffer)


def _is_constant(node: Any) -> bool:
    return _kind(node) == "FloatImm" or (_kind(node) == "Broadcast" and _is_constant(node.value))


def _is_scalar(node: Any) -> bool:
    """Whether a value is the same for all elements: a constant, or a parameter of no axes."""
    source = getattr(node, "buffer", getattr(node, "source", None))
    parameter = "Load" in _kind(node) and source is not None and len(source.shape) == 0
    return parameter or _is_constant(node)


def _dtype(node: Any) -> str:
    return str(getattr(node, "dtype", None) or getattr(node, "ty", ""))


def _is_float(node: Any) -> bool:
    return "float" in _dtype(node)


def _lanes(node: Any) -> int:
    return int(_dtype(node).rpartition("x")[2]) if "x" in _dtype(node) else 1
