"""Inner loops of LLVM's assembly: how many instructions of each kind, and what is spilled."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

FUNCTION = re.compile(r"\s*\.type\s+(\S+),\s*[@%]function")
LABEL = re.compile(r"(\S+):")
BRANCH = re.compile(r"(?:j\w+|b|b\.\w+|cbn?z|tbn?z)$")
LOCAL = re.compile(r"\.L[\w.$]+")
STACK = re.compile(r"\(%[re]sp|\[sp\b")

KINDS = (
    ("multiply-add", r"vfn?m(add|sub)\d*[ps][sdh]|f(n?m(add|sub)|ml[as])"),
    ("maximum or minimum", r"v?(max|min)[ps][sd]|f(max|min)(nm)?p?|[su](max|min)"),
    ("add", r"v?(add|sub)[ps][sd]|f(add|sub)p?"),
    ("multiply", r"v?mul[ps][sd]|fn?mul"),
    ("divide or root", r"v?(div|sqrt|rcp|rsqrt)\d*[ps][sd]|f(div|sqrt)|fr(ecp|sqrt)[es]"),
    ("broadcast", r"v?p?broadcast\w+|ld1r|dup"),
    (
        "shuffle",
        r"v?(perm|shuf|unpck|pshuf|punpck|insert|extract|palignr)\w*|(zip|uzp|trn)\d|ext|tbl",
    ),
    ("compare or select", r"v?(cmp|blend|pcmp|pblend)\w*|fcm\w+|bsl|bi[ft]|fcsel"),
    ("convert", r"v?cvt\w+|[su]cvtf|fcvt\w*|v?round\w+|vrndscale\w+|frint\w"),
    ("call", r"call\w*|bl|blr"),
    ("branch", r"j\w+|b|b\.\w+|cbn?z|tbn?z"),
)
"""Kinds by mnemonic, x86-64 and AArch64; the first that matches."""
_KINDS = tuple((kind, re.compile(f"(?:{pattern})$")) for kind, pattern in KINDS)
_MOVES = re.compile(r"(?:v?mov\w*|v?lddqu|ld[rpu1-4]\w*|st[rpu1-4]\w*)$")
_STORES = re.compile(r"st[rpu1-4]\w*$")


@dataclass(frozen=True)
class Loop:
    """An innermost loop.

    Parameters
    ----------
    instructions
        Their number by kind.
    spills
        Those that touch the stack.
    text
        The lines.
    """

    instructions: Mapping[str, int]
    spills: int
    text: str


def functions(assembly: str) -> dict[str, list[str]]:
    """Lines of each function, labels among them, directives left out."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in assembly.splitlines():
        start = FUNCTION.match(line)
        if start:
            lines = found.setdefault(start[1], [])
            continue
        code = line.partition("#")[0].partition("//")[0].strip()
        if LABEL.fullmatch(code) or (code and not code.startswith(".")):
            lines.append(code)
    return found


def kernel_lines(assembly: str, kernel: str) -> list[list[str]]:
    """The functions that a kernel consists of: its own, and those that they refer to.

    Parameters
    ----------
    assembly
        Of a whole module.
    kernel
        Name of a PrimFunc.
    """
    every = functions(assembly)
    entries = (kernel, f"__tvm_ffi_{kernel}", f"{kernel}_compute_")
    waiting = [name for name in every if name in entries]
    seen: dict[str, list[str]] = {}
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen[name] = every[name]
            words = set(re.findall(r"[\w.$]+", " ".join(every[name])))
            waiting += [other for other in every if other in words]
    return list(seen.values())


def inner_loops(lines: Sequence[str]) -> Iterator[Loop]:
    """The loops of a function that hold no other loop, in the order in which they end."""
    labels = {line[:-1]: n for n, line in enumerate(lines) if line.endswith(":")}
    spans: list[tuple[int, int]] = []
    for end, line in enumerate(lines):
        mnemonic, _, operands = line.partition("\t")
        if BRANCH.match(mnemonic):
            start = min((labels.get(t, end + 1) for t in LOCAL.findall(operands)), default=end + 1)
            if start <= end and not any(start <= s and e <= end for s, e in spans):
                spans.append((start, end))
    for start, end in spans:
        yield _loop(lines[start : end + 1])


def _loop(lines: Sequence[str]) -> Loop:
    code = [line for line in lines if not line.endswith(":")]
    return Loop(
        instructions=dict(Counter(map(kind, code))),
        spills=sum(1 for line in code if STACK.search(line)),
        text="\n".join(lines),
    )


def kind(line: str) -> str:
    """What an instruction does."""
    mnemonic, _, operands = line.partition("\t")
    if _STORES.match(mnemonic):
        return "store"
    if _MOVES.match(mnemonic):
        memory = "(" in operands or "[" in operands
        if not memory:
            return "move"
        x86_store = operands.rstrip().endswith(")")
        return "store" if x86_store else "load"
    return next(
        (name for name, pattern in _KINDS if pattern.match(mnemonic)), "integer and address"
    )


def main_loop(assembly: str, kernel: str) -> Loop | None:
    """The innermost loop of a kernel with the most multiply-adds, or else the longest."""
    loops = [loop for lines in kernel_lines(assembly, kernel) for loop in inner_loops(lines)]
    return max(
        loops,
        key=lambda loop: (
            loop.instructions.get("multiply-add", 0),
            sum(loop.instructions.values()),
        ),
        default=None,
    )
