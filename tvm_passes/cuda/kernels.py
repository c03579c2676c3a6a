"""What a version of a model becomes on a GPU: kernels, and how they are started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Dimensions = tuple[int, int, int]


@dataclass(frozen=True)
class Launch:
    """One start of a kernel.

    Parameters
    ----------
    function
        Whose.
    name
        The kernel's.
    buffers
        What it gets, by name.
    grid, block
        Blocks, and threads of a block.
    unique_bytes
        Of all its buffers.
    """

    function: str
    name: str
    buffers: tuple[str, ...]
    grid: Dimensions
    block: Dimensions
    unique_bytes: int


@dataclass
class Banks:
    """What a block of threads does to its shared memory, each loop as often as it runs.

    Parameters
    ----------
    turns
        That accesses take at least.
    conflicts
        Turns that they take besides.
    unknown
        Accesses whose addresses are not known.
    """

    turns: float = 0.0
    conflicts: float = 0.0
    unknown: float = 0.0

    @property
    def share(self) -> float:
        """Turns lost to conflicts, of those that it takes at least."""
        return self.conflicts / self.turns if self.turns else 0.0


@dataclass(frozen=True)
class Kernels:
    """What a version of a module becomes.

    Parameters
    ----------
    source
        CUDA C.
    launches
        Each start of a kernel by a function.
    calls
        How often ``main`` calls each function.
    banks
        What a block of each kernel does to shared memory.
    """

    source: str
    launches: Sequence[Launch]
    calls: Mapping[str, int]
    banks: Mapping[str, Banks]
