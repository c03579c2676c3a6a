"""How front ends spell one function with several ops, as a pattern."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Data:
    """The value that the function is of, the same wherever it stands in a pattern."""


@dataclass(frozen=True)
class Number:
    """A constant of one element: a certain one, or any, called `name`."""

    value: float | None = None
    name: str = ""


@dataclass(frozen=True)
class Apply:
    """An op of arguments that match, called as in Relay, without ``nn.``.

    Parameters
    ----------
    op
        The op's name.
    args
        Patterns of its arguments.
    attrs
        Attributes that it must have, each with its value.
    """

    op: str
    args: tuple[Pattern, ...]
    attrs: tuple[tuple[str, float], ...] = ()

    @property
    def computed(self) -> int:
        """How many of the arguments are no numbers."""
        return sum(not isinstance(arg, Number) for arg in self.args)

    @property
    def ops(self) -> frozenset[str]:
        """The names of all its ops."""
        inner = (arg.ops for arg in self.args if isinstance(arg, Apply))
        return frozenset({self.op}).union(*inner)

    @property
    def adds_products(self) -> bool:
        """Whether a sum in it is one of a product."""
        inner = [arg for arg in self.args if isinstance(arg, Apply)]
        is_sum = self.op in ADDING and any(arg.op in MULTIPLYING for arg in inner)
        return is_sum or any(arg.adds_products for arg in inner)


ADDING = frozenset({"add", "subtract"})
MULTIPLYING = frozenset({"multiply", "divide", "power"})

Pattern = Data | Number | Apply
"""A tree of ops whose leaves are the data and numbers."""
