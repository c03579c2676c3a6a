"""Which TVM is installed, and the one engine that talks to it."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from tvm_passes.decision import Decision
from tvm_passes.errors import DialectError, MissingExtraError
from tvm_passes.remarks import Remark
from tvm_passes.rules import RELAX, RELAY, Rule
from tvm_passes.schedules.families import Barred, Convolution

TVM = {RELAX: "apache-tvm", RELAY: "xtc-tvm-python-bindings"}
"""The distribution that each dialect's TVM comes in."""

DIALECTS = (RELAX, RELAY)

Tensors = Sequence[np.ndarray]


class Runner(Protocol):
    """A loaded model: positional inputs in, outputs out, all NumPy arrays."""

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Run once and fetch the outputs."""

    def prepared(self, *inputs: np.ndarray) -> Callable[[], object]:
        """Bind the inputs; the function returned runs the model and fetches nothing."""


class Engine(Protocol):
    """What a dialect's adapter does for the command line, in plain values where it can."""

    DIALECT: str

    def decisions(
        self, mod: Any, rules: Sequence[Rule] = ..., allow: Collection[str] = ...
    ) -> tuple[Decision, ...]:
        """Decide on every pooling site of a module."""

    def site_module(
        self, mod: Any, name: str, rules: Sequence[Rule] = ..., allow: Collection[str] = ...
    ) -> Any:
        """A passed site by itself: a module whose ``main`` is its ops and pool, in that order."""

    def windows_module(
        self, mod: Any, name: str, rules: Sequence[Rule] = ..., allow: Collection[str] = ...
    ) -> Any:
        """What of a passed site's result something infinite or a NaN goes into.

        A module that takes what `site_module` takes; where a window holds a number that is not
        finite or that an op made such a number of, its result is an infinity, elsewhere finite.
        """

    def feeding_module(
        self,
        mod: Any,
        names: Sequence[str],
        rules: Sequence[Rule] = ...,
        allow: Collection[str] = ...,
    ) -> tuple[tuple[str, ...], Any]:
        """A module that computes what passed sites read, and the names of those it does it for."""

    def reorder(self, mod: Any, allow: Collection[str] = ...) -> Any:
        """The module after the pass."""

    def text(self, mod: Any) -> str:
        """The module's text, constants left out."""

    def signature(self, mod: Any) -> Mapping[str, list[dict[str, Any]]]:
        """``inputs`` and ``outputs`` of ``main``: name, shape and dtype of each."""

    def build(  # noqa: PLR0913 - what a build depends on
        self,
        mod: Any,
        target: Mapping[str, Any],
        *,
        reorder: bool = True,
        kernels: bool | None = None,
        on_remark: Callable[[Remark], object] | None = None,
        allow: Collection[str] = ...,
        barred: Barred = ...,
        compile_kernels: Callable[[str], bytes] | None = None,
    ) -> Any:
        """Compile a module for a target's JSON configuration.

        `reorder` runs `ReorderActivationAfterMaxPool`, and `kernels` `BlockConv2d`, by default
        where the reorder runs; `on_remark` is called with each remark of both.
        `barred` keeps Winograd's filtering from some layers.
        `compile_kernels` turns CUDA C into what TVM's runtime loads.  None where the TVM at hand
        makes kernels for the target, but nothing that runs them.
        """

    def convolutions(self, mod: Any, target: Mapping[str, Any]) -> tuple[list[Convolution], Any]:
        """Those of ``main`` that Winograd may compute, and a module that returns what they read."""

    def unscheduled(
        self, mod: Any, target: Mapping[str, Any], allow: Collection[str] = ...
    ) -> list[Any]:
        """The PrimFuncs that `build` would schedule, as they are before that."""

    def linker(self) -> str | None:
        """The compiler that links shared libraries, or None where there is none."""

    def export(self, built: Any, path: Path) -> None:
        """Write a compiled module as a shared library."""

    def load(self, path: Path, inputs: Sequence[str], kind: str = ...) -> Runner:
        """Load a shared library, with TVM's runtime alone; `inputs` names its inputs in order.

        `kind` is that of the target that it was built for.
        """


def installed() -> str | None:
    """The dialect of the TVM in this environment, or None without one.

    TVM 0.19 has a ``tvm.relax`` too, which is too old; only current TVM has no ``tvm.relay``.
    """
    if importlib.util.find_spec("tvm") is None:
        return None
    return RELAY if importlib.util.find_spec("tvm.relay") is not None else RELAX


def require(dialect: str | None = None) -> str:
    """The dialect asked for, or else the one installed.

    Raises
    ------
    DialectError
        If there is none of that name.
    MissingExtraError
        If its TVM is not installed here.
    """
    found = installed()
    if dialect not in (None, *DIALECTS):
        raise DialectError(f"no dialect {dialect!r}: expected {' or '.join(DIALECTS)}")
    if found is None:
        raise MissingExtraError(dialect or RELAX, "TVM", "this command")
    if dialect not in (None, found):
        raise MissingExtraError(
            dialect or RELAX,
            "an environment of its own",
            f"this environment has the TVM of {found}: {dialect}",
        )
    return found


def engine(dialect: str | None = None) -> Engine:
    """The engine of a dialect, by default of the one installed.

    Raises
    ------
    MissingExtraError
        If its TVM is not installed here.
    """
    return cast(Engine, importlib.import_module(f"tvm_passes.{require(dialect)}.engine"))
