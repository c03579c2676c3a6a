"""Rows of Winograd's matrices times columns of values, as expressions that share what they can."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import reduce
from typing import Any

from tvm_passes.namespaces import tir

DTYPE = "float32"


def choose(index: Any, values: Sequence[Any]) -> Any:
    """The value at an index, which the schedule makes a constant."""
    *others, last = enumerate(values)
    return reduce(lambda rest, at: tir.Select(index == at[0], at[1], rest), others[::-1], last[1])


def by_parity(row: Sequence[Fraction], values: Sequence[Any]) -> Any:
    """A row of B^T times a column: even powers and odd ones apart.

    The rows of p and -p then differ in one sign, and share the rest.
    """
    terms = [(c, value) for c, value in zip(row, values, strict=True)]
    even, odd = ([(c, v) for c, v in terms[at::2] if c] for at in (0, 1))
    if not even or not odd:
        return _sum(even or odd)
    if odd[0][0] > 0:
        return _sum(even) + _sum(odd)
    return _sum(even) - _sum((-c, v) for c, v in odd)


def by_pairs(row: Sequence[Fraction], values: Sequence[Any]) -> Any:
    """A row of A^T times a column: what stands at p and at -p is added, or subtracted, first."""
    terms = [(row[0], values[0])]
    for at in range(1, len(row) - 1, 2):
        plus, minus = values[at], values[at + 1]
        terms.append((row[at], plus + minus if row[at] == row[at + 1] else plus - minus))
    return _sum([*terms, (row[-1], values[-1])])


def _sum(terms: Iterable[tuple[Fraction, Any]]) -> Any:
    """The sum of products with constants, without those of 0 and 1; positive ones come first."""
    total = None
    for c, value in sorted((term for term in terms if term[0]), key=lambda term: term[0] < 0):
        product = value if abs(c) == 1 else value * tir.const(float(abs(c)), DTYPE)
        if total is None:
            total = product if c > 0 else tir.const(0, DTYPE) - product
        else:
            total = total + product if c > 0 else total - product
    return total
