"""Inputs that are hard on a maximum, and those of a user's file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Signature = Sequence[Mapping[str, Any]]
"""A function's inputs in order: ``name``, ``shape`` and ``dtype`` of each."""

Shape = Sequence[int]
Maker = Callable[[Shape, np.dtype, np.random.Generator], np.ndarray]

DTYPES = frozenset({"float16", "float32", "float64", "bool"}) | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
"""Element types that arrays can be made of."""


@dataclass(frozen=True)
class Sample:
    """Arrays for every input of a function, and what to call them."""

    name: str
    arrays: tuple[np.ndarray, ...]

    @property
    def has_nan(self) -> bool:
        """Whether a NaN is among them."""
        return any(a.dtype.kind == "f" and bool(np.isnan(a).any()) for a in self.arrays)

    @property
    def has_infinity(self) -> bool:
        """Whether an infinity is among them."""
        return any(a.dtype.kind == "f" and bool(np.isinf(a).any()) for a in self.arrays)


@dataclass(frozen=True)
class Draws:
    """How often each generator is drawn from, and the seed: the same one gives the same samples."""

    rounds: int
    seed: int


DRAWS = Draws(rounds=3, seed=0)


@dataclass(frozen=True)
class Generator:
    """A way to fill arrays.

    Parameters
    ----------
    name
        What it is called in reports.
    floats, integers
        How it fills an array of such elements; None where it has nothing special to offer.
    extreme
        Whether it is for the first input of a site alone: in a whole model such values soon
        overflow, and infinities of both signs add up to NaN; an integer may be an index.
    """

    name: str
    floats: Maker | None = None
    integers: Maker | None = None
    extreme: bool = False

    def maker(self, dtype: np.dtype) -> Maker | None:
        """How it fills arrays of a dtype, or None."""
        return {"f": self.floats, "i": self.integers, "u": self.integers}.get(dtype.kind)


def _random(shape: Shape, dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
    return (3 * rng.standard_normal(shape)).astype(dtype)


def _ties(shape: Shape, dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
    """Whole numbers of one digit; adding 0 leaves no -0."""
    return (np.rint(3 * rng.standard_normal(shape)) + 0.0).astype(dtype)


def _saturation(shape: Shape, dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
    """Around and past log(max), where exp overflows: sigmoid and tanh are at their bounds."""
    bound = np.log(float(np.finfo(dtype).max))
    return _mixed(shape, dtype, rng, [s * k * bound for s in (1, -1) for k in (0.5, 1, 2, 100)])


def _denormals(shape: Shape, dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
    """Zeros and the numbers next to them, up to the least normal number.

    The first half has none above 0: the maximum is there of numbers whose products vanish to -0.
    """
    limits = np.finfo(dtype)
    least, normal = float(limits.smallest_subnormal), float(limits.smallest_normal)
    sizes = [0.0, least, 2 * least, 3 * least, 8 * least, normal - least, normal]
    array = _mixed(shape, dtype, rng, [sign * size for sign in (1, -1) for size in sizes], 0.9)
    half = array.reshape(-1)[: array.size // 2]
    half[half > 0] *= -1
    return array


def _zeros(shape: Shape, dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
    """Both zeros, and negatives, so that a window's maximum is often a zero."""
    return rng.choice(np.array([0.0, -0.0, -1.0], dtype), shape)


def _large(shape: Shape, dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
    limits = np.finfo(dtype)
    most = float(limits.max)
    below = float(np.nextafter(limits.max, dtype.type(0)))
    values = [sign * value for sign in (1, -1) for value in (most, below, most / 2, most**0.5)]
    return _starting_with(-most, _mixed(shape, dtype, rng, values))


def _infinities(shape: Shape, dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
    return _starting_with(-np.inf, _mixed(shape, dtype, rng, [np.inf, -np.inf]))


def _random_integers(shape: Shape, dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
    """The whole range; 0 and 1 alone from 32 bits on, since a model may use them as indices."""
    return _whole_range(shape, dtype, rng) if dtype.itemsize <= 2 else _bits(shape, dtype, rng)


def _few_integers(shape: Shape, dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
    few = rng.integers(0, 3, shape, dtype, endpoint=True)
    few = few - dtype.type(2) if dtype.kind == "i" else few
    return few if dtype.itemsize <= 2 else _bits(shape, dtype, rng)


def _limits(shape: Shape, dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
    """The whole range, the least and the greatest number often."""
    info = np.iinfo(dtype)
    ends = rng.choice(np.array([info.min, info.max], dtype), shape)
    return np.where(rng.random(shape) < 0.3, ends, _whole_range(shape, dtype, rng))


def _whole_range(shape: Shape, dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True)


def _bits(shape: Shape, dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 1, shape, "u1", endpoint=True).astype(dtype)


def _mixed(
    shape: Shape,
    dtype: np.dtype,
    rng: np.random.Generator,
    values: Sequence[float],
    share: float = 0.5,
) -> np.ndarray:
    """The share of the elements are one of `values`, the rest are random."""
    special = rng.choice(np.array(values, dtype), shape)
    return np.where(rng.random(shape) < share, special, _random(shape, dtype, rng))


def _starting_with(value: float, array: np.ndarray) -> np.ndarray:
    """The array's first quarter all of one value, so that whole windows hold nothing else."""
    array.reshape(-1)[: array.size // 4] = value
    return array


RANDOM = Generator("random", _random, _random_integers)

GENERATORS: tuple[Generator, ...] = (
    RANDOM,
    Generator("ties", _ties, _few_integers),
    Generator("saturation", _saturation),
    Generator("denormals", _denormals),
    Generator("zeros", _zeros),
    Generator("large", _large, _limits, extreme=True),
    Generator("infinities", _infinities, extreme=True),
)


def generated(inputs: Signature, draws: Draws, *, extreme: bool = False) -> Iterator[Sample]:
    """Samples from every generator that has something for one of the inputs.

    Parameters
    ----------
    inputs
        What the arrays are for.  None of them holds a NaN.
    draws
        How many samples of each generator, and their seed.
    extreme
        Whether the extreme generators take part; they fill the first input.
    """
    for generator in GENERATORS:
        filled = 1 if generator.extreme else len(inputs)
        if (extreme or not generator.extreme) and _offers(generator, inputs[:filled]):
            for number in range(draws.rounds):
                yield _sample(generator, inputs, filled, (draws.seed, number))


def _offers(generator: Generator, inputs: Signature) -> bool:
    dtypes = [np.dtype(tensor["dtype"]) for tensor in inputs]
    return generator is RANDOM or any(generator.maker(dtype) for dtype in dtypes)


def _sample(generator: Generator, inputs: Signature, filled: int, seed: tuple[int, int]) -> Sample:
    """A sample with the first `filled` inputs from a generator and the others at random."""
    rng = np.random.default_rng([*seed, *generator.name.encode()])
    arrays = [_fill(generator, tensor, rng) for tensor in inputs[:filled]]
    arrays += [_fill(RANDOM, tensor, rng) for tensor in inputs[filled:]]
    return Sample(f"{generator.name} #{seed[1]}", tuple(arrays))


def _fill(generator: Generator, tensor: Mapping[str, Any], rng: np.random.Generator) -> np.ndarray:
    dtype = np.dtype(tensor["dtype"])
    make = generator.maker(dtype) or RANDOM.maker(dtype) or _bits
    return np.asarray(make(tensor["shape"], dtype, rng), dtype)
