"""Count what one thread of a kernel executes: integers are computed, all else is unknown.

Loops of known trip counts are followed as often as they run.  A branch on an unknown condition is
not taken, unless it skips a call: those are the slow paths of divisions and the like.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tvm_passes.cuda.sass import Code, Instruction

MASK = 0xFFFFFFFF
LONGEST = 2_000_000
"""Instructions after which a thread is given up: some ten seconds."""

REGISTER = re.compile(r"(-|~)?\|?(U?R(?:\d+|Z))(?:\.\w+)*\|?")
NUMBER = re.compile(r"-?(?:0x[0-9a-f]+|\d+)")
PREDICATE = re.compile(r"!?U?P(?:\d+|T)")
WIDTHS = {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}
COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "LT": lambda a, b: a < b,
    "LE": lambda a, b: a <= b,
    "GT": lambda a, b: a > b,
    "GE": lambda a, b: a >= b,
    "EQ": lambda a, b: a == b,
    "NE": lambda a, b: a != b,
}

Word = int | None


@dataclass
class Counts:
    """What a thread executed.

    Parameters
    ----------
    instructions
        By kind.
    loaded, stored
        Bytes of global memory.
    unknown
        Branches whose condition was not known, those round calls aside.
    finished
        Whether the thread came to its end.
    """

    instructions: Counter[str] = field(default_factory=Counter)
    loaded: int = 0
    stored: int = 0
    unknown: int = 0
    finished: bool = False


@dataclass(frozen=True)
class Place:
    """Which thread of which block."""

    block: tuple[int, int, int]
    thread: tuple[int, int, int] = (0, 0, 0)

    def special(self, name: str) -> Word:
        """The value of a special register."""
        for prefix, values in (("SR_CTAID", self.block), ("SR_TID", self.thread)):
            for axis, value in zip("XYZ", values, strict=True):
                if name == f"{prefix}.{axis}":
                    return value
        return 0 if name == "SRZ" else None


def execute(code: Code, place: Place) -> Counts:
    """Follow one thread through a kernel."""
    return _Thread(code, place).run()


class _Thread:
    def __init__(self, code: Code, place: Place) -> None:
        self.code = code
        self.place = place
        self.words: dict[str, Word] = {}
        self.flags: dict[str, bool | None] = {}
        self.counts = Counts()
        self.results: dict[int, tuple[Sequence[str], Sequence[str]]] = {}

    def run(self) -> Counts:
        at, counts = 0, self.counts
        instructions = self.code.instructions
        for _ in range(LONGEST):
            if at >= len(instructions):
                return counts
            found = instructions[at]
            at += 1
            holds = True if found.guard is None else self._guard(*found.guard)
            counts.instructions[found.kind] += 1
            if holds is False:
                continue
            if found.kind == "EXIT" and holds:
                counts.finished = True
                return counts
            if found.kind == "BRA" or (found.kind == "CALL" and _jumps(found)):
                at = self._branch(found, holds, at)
            else:
                self._step(found, holds)
        return counts

    def _guard(self, name: str, negated: bool) -> bool | None:
        value = self._flag(name)
        return None if value is None else value != negated

    def _branch(self, found: Instruction, holds: bool | None, after: int) -> int:
        label = found.operands[-1].strip("`()")
        target = self.code.labels.get(label, after)
        for operand in found.operands[:-1]:
            if PREDICATE.fullmatch(operand):
                taken = self._flag(operand)
                holds = None if taken is None or holds is None else holds and taken
        if holds is None:
            skipped = self.code.instructions[after:target]
            holds = any(item.kind == "CALL" for item in skipped)
            self.counts.unknown += not holds
        return target if holds else after

    def _step(self, found: Instruction, holds: bool | None) -> None:
        """Take the effect of an instruction; under an unknown guard its results are unknown."""
        if found.kind in ("LDG", "STG"):
            width = next((WIDTHS[m] for m in found.opcode.split(".") if m in WIDTHS), 4)
            if found.kind == "LDG":
                self.counts.loaded += width
            else:
                self.counts.stored += width
        compute = SEMANTICS.get(found.kind)
        if found.kind in PREDICATE_OPS:
            self._set_flags(found, holds)
        elif compute is not None and holds:
            compute(self, found)
        else:
            self._forget(found)

    def _forget(self, found: Instruction) -> None:
        """Make the results unknown."""
        key = id(found)
        if key not in self.results:
            self.results[key] = _results(found)
        words, flags = self.results[key]
        for name in words:
            self.words[name] = None
        for name in flags:
            self.flags[name] = None

    def _flag(self, operand: str) -> bool | None:
        name = operand.lstrip("!")
        value = True if name in ("PT", "UPT") else self.flags.get(name)
        return value if value is None or not operand.startswith("!") else not value

    def word(self, operand: str) -> Word:
        """The value of an operand as 32 bits, or None."""
        if NUMBER.fullmatch(operand):
            return int(operand, 0) & MASK
        found = REGISTER.fullmatch(operand)
        if found is None or "|" in operand:
            return None
        value = 0 if found[2].endswith("RZ") else self.words.get(found[2])
        if value is None:
            return None
        return {"-": -value, "~": ~value}.get(found[1] or "", value) & MASK

    def put(self, operand: str, value: Word) -> None:
        """Set the register of an operand."""
        self.words[operand] = None if value is None else value & MASK

    def _set_flags(self, found: Instruction, holds: bool | None) -> None:
        value = PREDICATE_OPS[found.kind](self, found) if holds else None
        name = found.operands[0]
        if found.kind == "LOP3" and not PREDICATE.fullmatch(name):
            self.put(name, value)
            return
        self.flags[name] = None if value is None else bool(value)
        second = found.operands[1]
        if PREDICATE.fullmatch(second) and second not in ("PT", "UPT"):
            self.flags[second] = None
        elif found.kind == "LOP3":
            self.put(second, value)


def _results(found: Instruction) -> tuple[Sequence[str], Sequence[str]]:
    """Registers and predicates that an instruction may write."""
    flags = [operand for operand in found.operands[:3] if PREDICATE.fullmatch(operand)]
    register = REGISTER.fullmatch(found.operands[0]) if found.operands else None
    if register is None or found.kind in NO_RESULT or register[2].endswith("Z"):
        return (), flags
    prefix, number = register[2].rstrip("0123456789"), int(register[2].lstrip("UR"))
    wide = 4 if ".128" in found.opcode else 2 if _is_wide(found) else 1
    return [f"{prefix}{number + more}" for more in range(wide)], flags


def _jumps(found: Instruction) -> bool:
    """Whether a call is how ptxas leaves a long loop, not one of a function."""
    return found.operands[-1].strip("`()").startswith(".L")


def _is_wide(found: Instruction) -> bool:
    return any(mark in found.opcode for mark in (".64", ".WIDE")) or found.kind == "CS2R"


def _signed(value: int) -> int:
    return value - (1 << 32) if value >> 31 else value


def _total(words: Sequence[Word]) -> Word:
    known = [word for word in words if word is not None]
    return sum(known) if len(known) == len(words) else None


def _move(thread: _Thread, found: Instruction) -> None:
    thread.put(found.operands[0], thread.word(found.operands[1]))


def _multiply_add(thread: _Thread, found: Instruction) -> None:
    operands = found.operands
    if len(operands) != 4 or ".X" in found.opcode:
        thread._forget(found)  # noqa: SLF001 - part of the same machine
        return
    a, b, c = (thread.word(operand) for operand in operands[1:])
    zero = 0 in (a, b)
    product = 0 if zero else None if a is None or b is None else _product(a, b, found.opcode)
    if ".WIDE" in found.opcode:
        _put_wide(thread, operands[0], product, operands[3])
        return
    if ".HI" in found.opcode:
        total = _total([product, _pair(thread, operands[3])])
        thread.put(operands[0], None if total is None else total >> 32)
        return
    thread.put(operands[0], _total([product, c]))


def _product(a: int, b: int, opcode: str) -> int:
    if ".U32" in opcode:
        return a * b
    return _signed(a) * _signed(b)


def _pair(thread: _Thread, operand: str) -> Word:
    """The 64 bits of a register and the one after it."""
    low = thread.word(operand)
    base = re.fullmatch(r"(U?R)(\d+|Z)(?:\.\w+)*", operand)
    if base is None or low is None:
        return low if NUMBER.fullmatch(operand) else None
    high = 0 if base[2] == "Z" else thread.words.get(f"{base[1]}{int(base[2]) + 1}")
    return None if high is None else high << 32 | low


def _put_wide(thread: _Thread, target: str, product: Word, addend: str) -> None:
    number = int(target[1:]) if target[1:].isdigit() else None
    value = _total([product, _pair(thread, addend)])
    thread.put(target, value)
    if number is not None:
        thread.put(f"R{number + 1}", None if value is None else value >> 32)


def _add(thread: _Thread, found: Instruction) -> None:
    operands = found.operands
    if ".X" in found.opcode or any(PREDICATE.fullmatch(operand) for operand in operands[1:]):
        thread._forget(found)  # noqa: SLF001
        return
    thread.put(operands[0], _total([thread.word(operand) for operand in operands[1:]]))


def _shift_add(thread: _Thread, found: Instruction) -> None:
    operands = found.operands
    words = [thread.word(operand) for operand in operands[1:]]
    if any(PREDICATE.fullmatch(operand) for operand in operands[1:]) or None in words:
        thread._forget(found)  # noqa: SLF001
        return
    values = [word for word in words if word is not None]
    if ".HI" not in found.opcode and len(values) == 3:
        thread.put(operands[0], (values[0] << values[2]) + values[1])
    elif ".HI.SX32" in found.opcode and len(values) == 3:
        thread.put(operands[0], (_signed(values[0]) >> (32 - values[2])) + values[1])
    elif ".HI" in found.opcode and len(values) == 4:
        whole = values[2] << 32 | values[0]
        thread.put(operands[0], (whole >> (32 - values[3])) + values[1])
    else:
        thread._forget(found)  # noqa: SLF001


def _shift(thread: _Thread, found: Instruction) -> None:
    target, low, by, high = found.operands[:4]
    a, shift, b = thread.word(low), thread.word(by), thread.word(high)
    opcode = found.opcode
    if None in (a, shift, b):
        thread.put(target, None)
    elif ".R." in opcode and ".HI" in opcode and a == 0:
        value = _signed(b or 0) if ".S32" in opcode else b or 0
        thread.put(target, value >> (shift or 0))
    elif ".L." in opcode and b == 0:
        thread.put(target, (a or 0) << (shift or 0))
    else:
        thread.put(target, None)


def _select(thread: _Thread, found: Instruction) -> None:
    target, a, b, flag = found.operands[:4]
    value = thread._flag(flag)  # noqa: SLF001
    thread.put(target, None if value is None else thread.word(a if value else b))


def _lesser(thread: _Thread, found: Instruction) -> None:
    target, first, second, flag = found.operands[:4]
    a, b = thread.word(first), thread.word(second)
    least = thread._flag(flag)  # noqa: SLF001
    if a is None or b is None or least is None:
        thread.put(target, None)
        return
    order = sorted((a, b), key=int if ".U32" in found.opcode else _signed)
    thread.put(target, order[0 if least else 1])


def _special(thread: _Thread, found: Instruction) -> None:
    thread.put(found.operands[0], thread.place.special(found.operands[1]))
    if _is_wide(found):
        target = found.operands[0]
        thread.put(f"R{int(target[1:]) + 1}", 0)


def _compare(thread: _Thread, found: Instruction) -> bool | None:
    _, _, left, right, flag, *_ = found.operands
    a, b, other = thread.word(left), thread.word(right), thread._flag(flag)  # noqa: SLF001
    modifiers = found.opcode.split(".")
    if a is None or b is None or other is None or "EX" in modifiers:
        return None
    if "U32" not in modifiers:
        a, b = _signed(a), _signed(b)
    holds = COMPARISONS[modifiers[1]](a, b)
    if "OR" in modifiers:
        return holds or other
    return holds != other if "XOR" in modifiers else holds and other


def _logic(thread: _Thread, found: Instruction) -> Word:
    operands = found.operands
    start = 2 if PREDICATE.fullmatch(operands[0]) else 1
    a, b, c, table = (thread.word(operand) for operand in operands[start : start + 4])
    if a == 0 or b == 0:  # masks and clears need no more to be known
        a, b = (a or 0, b or 0) if table == 0xC0 else (a, b)
    if a is None or b is None or c is None or table is None:
        return None
    return _lookup(a, b, c, table)


def _lookup(a: int, b: int, c: int, table: int) -> int:
    result = 0
    for n in range(8):
        if table >> n & 1:
            term = (a if n & 4 else ~a) & (b if n & 2 else ~b) & (c if n & 1 else ~c)
            result |= term & MASK
    return result


def _flag_logic(thread: _Thread, found: Instruction) -> bool | None:
    first, second, third, table = found.operands[2:6]
    flags = [thread._flag(operand) for operand in (first, second, third)]  # noqa: SLF001
    number = thread.word(table)
    if None in flags or number is None:
        return None
    a, b, c = map(bool, flags)
    return bool(number >> (4 * a + 2 * b + c) & 1)


def _halves(thread: _Thread, found: Instruction) -> None:
    """``HFMA2 R, -RZ, RZ, high, low`` is how integers of few bits are put into a register."""
    target, first, second, high, *low = found.operands
    if not {first.lstrip("-"), second} <= {"RZ"} or len(low) != 1:
        thread.put(target, None)
        return
    bits = [int(np.float16(float(half)).view(np.uint16)) for half in (high, low[0])]
    thread.put(target, bits[0] << 16 | bits[1])


SEMANTICS: dict[str, Callable[[_Thread, Instruction], None]] = {
    "MOV": _move, "UMOV": _move, "R2UR": _move,
    "IMAD": _multiply_add, "UIMAD": _multiply_add,
    "IADD3": _add, "UIADD3": _add, "VIADD": _add, "IADD": _add,
    "LEA": _shift_add, "ULEA": _shift_add,
    "HFMA2": _halves,
    "SHF": _shift, "USHF": _shift,
    "SEL": _select, "USEL": _select,
    "IMNMX": _lesser, "VIMNMX": _lesser, "UIMNMX": _lesser,
    "S2R": _special, "S2UR": _special, "CS2R": _special,
}  # fmt: skip
PREDICATE_OPS: dict[str, Callable[[_Thread, Instruction], Word | bool]] = {
    "ISETP": _compare, "UISETP": _compare,
    "LOP3": _logic, "ULOP3": _logic,
    "PLOP3": _flag_logic, "UPLOP3": _flag_logic,
}  # fmt: skip
NO_RESULT = frozenset(
    {"STG", "STS", "STL", "BAR", "BSSY", "BSYNC", "CALL", "WARPSYNC", "RET", "NOP", "EXIT"}
)
