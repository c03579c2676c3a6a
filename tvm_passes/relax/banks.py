"""Bank conflicts of kernels, told from the accesses to shared memory in their lowered functions.

Shared memory has 32 banks of 4 bytes: what lanes of a warp read or write in one bank at different
addresses takes a turn each (CUDA C++ Programming Guide, section "Shared Memory").  Accesses of 8
and 16 bytes a lane go by half and quarter warps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm.ir import TensorLoad
from tvm.tirx import stmt as statements

from tvm_passes.cuda.kernels import Banks
from tvm_passes.cuda.resources import WARP

BANK = 4
"""Bytes."""
SAMPLES = 3
"""Iterations of a loop that are looked at: the first, the middle and the last."""

NOT_UNROLLED = ("tirx.UnrollLoop", "s_tir.UnrollLoop")
"""Passes that would repeat each access."""

Value = Any
"""An integer or a truth value for all threads, or an array of one for each; None: not known."""


def banks_of(kernels: tvm.IRModule) -> Mapping[str, Banks]:
    """Each kernel's, by its name; of functions lowered without `NOT_UNROLLED`."""
    return {str(gvar.name_hint): _Block().look(func) for gvar, func in kernels.functions.items()}


@dataclass
class _Block:
    """One block of threads, in the middle of the grid."""

    banks: Banks = field(default_factory=Banks)
    values: dict[int, Value] = field(default_factory=dict)

    def look(self, func: Any) -> Banks:
        extents = dict(_threads(func.body))
        axes = [f"threadIdx.{axis}" for axis in "zyx"]
        shape = [extents.get(axis, (None, 1))[1] for axis in axes]
        places = np.indices(shape).reshape(3, -1)
        for tag, (var, extent) in extents.items():
            own = places[axes.index(tag)] if tag in axes else extent // 2
            self.values[hash(var)] = own
        self._visit(func.body, np.ones(prod(shape), bool), 1.0)
        return self.banks

    def _visit(self, node: Any, active: np.ndarray, weight: float) -> None:
        """Look at a statement, which runs `weight` times by the threads that are active."""
        if isinstance(node, statements.SeqStmt):
            for part in node.seq:
                self._visit(part, active, weight)
        elif isinstance(node, statements.For):
            self._loop(node, active, weight)
        elif isinstance(node, statements.IfThenElse):
            self._branch(node, active, weight)
        elif isinstance(node, statements.AttrStmt):
            self._visit(node.body, active, weight)
        elif isinstance(node, statements.Bind):
            self._loads(node.value, active, weight)
            self.values[hash(node.var)] = self.value(node.value)
        elif isinstance(node, statements.BufferStore):
            self._loads(node.value, active, weight)
            self._access(node.buffer, node.indices, active, weight)
        elif isinstance(node, statements.Evaluate):
            self._loads(node.value, active, weight)

    def _loop(self, loop: Any, active: np.ndarray, weight: float) -> None:
        first, extent = self.value(loop.min), self.value(loop.extent)
        if not isinstance(first, int) or not isinstance(extent, int) or extent < 1:
            self.banks.unknown += weight
            return
        numbers = sorted({0, extent // 2, extent - 1})[:SAMPLES]
        for number in numbers:
            self.values[hash(loop.loop_var)] = first + number
            self._visit(loop.body, active, weight * extent / len(numbers))

    def _branch(self, branch: Any, active: np.ndarray, weight: float) -> None:
        self._loads(branch.condition, active, weight)
        holds = self.value(branch.condition)
        taken = active if holds is None else active & holds
        self._visit(branch.then_case, taken, weight)
        if branch.else_case is not None:
            self._visit(branch.else_case, active if holds is None else active & ~taken, weight)

    def _loads(self, expr: Any, active: np.ndarray, weight: float) -> None:
        """Look at what an expression loads."""
        if isinstance(expr, TensorLoad):
            for index in expr.indices:
                self._loads(index, active, weight)
            self._access(expr.source, expr.indices, active, weight)
        elif _name(expr) == "tirx.if_then_else":
            condition, *sides = expr.args
            self._loads(condition, active, weight)
            holds = self.value(condition)
            other = None if holds is None else np.logical_not(holds)
            for side, taken in zip(sides, (holds, other), strict=True):
                self._loads(side, active if taken is None else active & taken, weight)
        else:
            for part in _parts(expr):
                self._loads(part, active, weight)

    def _access(self, buffer: Any, indices: Any, active: np.ndarray, weight: float) -> None:
        if not str(buffer.ty.storage_scope).startswith("shared") or not active.any():
            return
        (index,) = indices
        lanes, base = (int(index.lanes), index.base) if _is_ramp(index) else (1, index)
        at = self.value(base)
        if at is None:
            self.banks.unknown += weight
            return
        size = tvm_ffi.dtype(str(buffer.ty.dtype)).itemsize
        words = np.broadcast_to(at, active.shape) * size // BANK
        for turns in _turns(words, active, max(1, lanes * size // BANK)):
            self.banks.turns += weight
            self.banks.conflicts += weight * (turns - 1)

    def value(self, expr: Any) -> Value:
        """An integer expression's value."""
        kind = type(expr).__name__
        if kind == "IntImm":
            return int(expr.value)
        if kind == "Var":
            return self.values.get(hash(expr))
        operation = OPERATIONS.get(_name(expr) or kind)
        if operation is None:
            return None
        values = [self.value(part) for part in _parts(expr)]
        return None if any(value is None for value in values) else operation(*values)


def _turns(words: np.ndarray, active: np.ndarray, width: int) -> Iterator[int]:
    """How many turns each warp's, or part of a warp's, access takes: words of its fullest bank."""
    together = max(1, WARP // width)
    for start in range(0, len(words), together):
        own = words[start : start + together][active[start : start + together]]
        if len(own):
            touched = np.unique(own[:, None] + np.arange(width))
            yield int(np.bincount(touched % WARP).max())


def _threads(body: Any) -> Iterator[tuple[str, tuple[Any, int]]]:
    """Variable and extent of each axis of blocks and threads, by its tag."""
    found: list[Any] = []
    tvm_ffi.structural_walk(body, [(statements.AttrStmt, found.append)])
    for node in found:
        if str(node.attr_key) == "thread_extent":
            yield str(node.node.thread_tag), (node.node.var, int(node.value))


def _name(expr: Any) -> str:
    """The op that an expression calls, or an empty string."""
    return str(getattr(expr.op, "name", "")) if hasattr(expr, "op") else ""


def _is_ramp(expr: Any) -> bool:
    return type(expr).__name__ == "Ramp"


def _parts(expr: Any) -> list[Any]:
    """What an expression is made of."""
    if hasattr(expr, "args"):
        return [part for part in expr.args if isinstance(part, tvm.ir.Expr)]
    names = ("a", "b", "condition", "true_value", "false_value", "value", "base")
    found = [getattr(expr, name) for name in names if hasattr(expr, name)]
    return [part for part in found if isinstance(part, tvm.ir.Expr)]


def _truncated(a: Value, b: Value) -> Value:
    return np.sign(a) * (np.abs(a) // b) if isinstance(a, np.ndarray) else int(a / b)


OPERATIONS: Mapping[str, Callable[..., Value]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": _truncated,
    "Mod": lambda a, b: a - b * _truncated(a, b),
    "FloorDiv": lambda a, b: a // b,
    "FloorMod": lambda a, b: a % b,
    "Min": np.minimum,
    "Max": np.maximum,
    "LShift": lambda a, b: a << b,
    "RShift": lambda a, b: a >> b,
    "BitwiseAnd": lambda a, b: a & b,
    "BitwiseOr": lambda a, b: a | b,
    "LT": lambda a, b: a < b,
    "LE": lambda a, b: a <= b,
    "GT": lambda a, b: a > b,
    "GE": lambda a, b: a >= b,
    "EQ": lambda a, b: a == b,
    "NE": lambda a, b: a != b,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Not": np.logical_not,
}
