"""Relay functions computed by a scheduled PrimFunc, through TVM's external code generators.

Such a function carries the attributes of a partition (BYOC): ``Compiler``, ``Primitive`` and
``global_symbol``.  Its body says in Relay's own ops what it computes; the PrimFunc that computes it
is an attribute as well, and ``relay.ext.tvm_passes`` compiles that.  They are called in place, as
TVM's Inline leaves a partition's: that pass itself fails where one is called more than once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import tvm
from tvm import relay, te

from tvm_passes.namespaces import dlight
from tvm_passes.relay.nodes import key, nodes_of
from tvm_passes.schedules.rules import cpu_rules

COMPILER = "tvm_passes"
KERNEL = "tvm_passes.kernel"
"""The attribute that holds the PrimFunc, which is scheduled when it is compiled."""

CODEGEN = f"relay.ext.{COMPILER}"

Compute = Callable[..., te.Tensor]


@dataclass
class Kernels:
    """The kernels of a module, each for all calls of what it computes.

    Parameters
    ----------
    target
        What they are compiled for.
    taken
        Names that they must not have.
    """

    target: tvm.target.Target
    taken: frozenset[str] = frozenset()
    count: int = 0
    _by_hash: dict[int, list[tuple[relay.Function, relay.Function]]] = field(default_factory=dict)
    _sources: dict[str, tuple[relay.Function, Compute]] = field(default_factory=dict)

    def call(
        self,
        meaning: relay.Function,
        compute: Compute,
        args: Sequence[relay.Expr],
    ) -> relay.Call:
        """Call the kernel that computes a function of tensors.

        Parameters
        ----------
        meaning
            The function, its parameters typed.
        compute
            Makes the same computation of placeholders.
        args
            The operands.
        """
        return relay.Call(self._kernel(meaning, compute), list(args))

    def call_both(
        self, first: relay.Function, then: relay.Function, args: Sequence[relay.Expr]
    ) -> relay.Call:
        """Call one kernel for two of these, the second of which takes the result of the first."""
        (meaning, compute), (behind, compute_behind) = (
            self._sources[str(kernel.attrs["global_symbol"])] for kernel in (first, then)
        )
        params = [relay.Var(param.name_hint, param.type_annotation) for param in meaning.params]
        body = relay.bind(meaning.body, dict(zip(meaning.params, params, strict=True)))
        both = relay.Function(params, relay.bind(behind.body, {behind.params[0]: body}))
        return self.call(both, lambda *tensors: compute_behind(compute(*tensors)), args)

    def _kernel(self, meaning: relay.Function, compute: Compute) -> relay.Function:
        alike = self._by_hash.setdefault(tvm.ir.structural_hash(meaning), [])
        for known, kernel in alike:
            if tvm.ir.structural_equal(known, meaning):
                return kernel
        name = self._name()
        kernel = meaning.with_attr("Primitive", tvm.tir.IntImm("int32", 1))
        kernel = kernel.with_attr("Compiler", COMPILER).with_attr("global_symbol", name)
        kernel = kernel.with_attr(KERNEL, self._kernel_of(meaning, compute, name))
        alike.append((meaning, kernel))
        self._sources[name] = meaning, compute
        return kernel

    def _name(self) -> str:
        while (name := f"{COMPILER}_{self.count}") in self.taken:
            self.count += 1
        self.count += 1
        return name

    def _kernel_of(self, meaning: relay.Function, compute: Compute, name: str) -> Any:
        types = [param.type_annotation for param in meaning.params]
        operands = [te.placeholder(ty.shape, ty.dtype, f"p{n}") for n, ty in enumerate(types)]
        func = te.create_prim_func([*operands, compute(*operands)])
        func = func.with_attr("global_symbol", name).with_attr("tir.noalias", True)
        return func.with_attr("target", self.target)


def kernels_of(mod: tvm.IRModule) -> list[Any]:
    """The PrimFuncs of a module's kernels, not scheduled yet."""
    nodes = (expr for func in mod.functions.values() for expr, _ in nodes_of(func.body))
    kernels = (expr for expr in nodes if is_kernel(expr))
    return [kernel.attrs[KERNEL] for kernel in {key(expr): expr for expr in kernels}.values()]


def is_kernel(expr: relay.Expr) -> bool:
    """Whether an expression is a function that a kernel computes."""
    return isinstance(expr, relay.Function) and bool(expr.attrs) and KERNEL in expr.attrs


def register_codegen() -> None:
    """Let TVM compile the kernels; a second call does nothing."""
    if tvm.get_global_func(CODEGEN, allow_missing=True) is None:
        tvm.register_func(CODEGEN, _compile)


def _compile(func: relay.Function) -> tvm.runtime.Module:
    kernel = func.attrs[KERNEL]
    target = kernel.attrs["target"]
    mod = tvm.IRModule({kernel.attrs["global_symbol"]: kernel})
    with target:
        mod = dlight.ApplyDefaultSchedule(*cpu_rules())(mod)
    return tvm.build(mod, target=target)
