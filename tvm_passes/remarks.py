"""Remarks: what a pass did, or did not do, and why.  They observe; no IR depends on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any

import yaml

from tvm_passes.cost import cost
from tvm_passes.decision import Decision
from tvm_passes.decline import Decline, Ends, Reason

PASS_NAME = "ReorderActivationAfterMaxPool"
PASS_FLAG = "reorder-activation-after-max-pool"


class Kind(Enum):
    """The kinds of LLVM's optimization records that are used here."""

    PASSED = "Passed"
    MISSED = "Missed"
    ANALYSIS = "Analysis"


@dataclass(frozen=True)
class Remark:
    """One record: a site, the op there, why, and the numbers.

    Parameters
    ----------
    kind
        Passed where ops moved, Missed where none did, Analysis for what is only counted.
    function, site, op, location
        Function name, site name, the pool's op name, and its source location (may be empty).
    reason
        One word to search for: ``sunk``, ``cost`` or the value of a `tvm_passes.legality.Reason`.
    message
        One sentence.
    numbers
        Counts by name, in the order in which they are printed.
    """

    kind: Kind
    function: str
    site: str
    op: str
    location: str
    reason: str
    message: str
    numbers: tuple[tuple[str, int | float], ...] = ()

    def __str__(self) -> str:
        """The remark as one line, for people and grep."""
        numbers = "".join(f" {name}={_digits(value)}" for name, value in self.numbers)
        place = f" at {self.location}" if self.location else ""
        line = f"{self.site}: {self.kind.value}: {self.reason}: {self.message}{place}{numbers}"
        return " ".join(line.split())

    def as_dict(self) -> dict[str, Any]:
        """The remark as plain JSON values."""
        return asdict(self) | {"kind": self.kind.value, "numbers": dict(self.numbers)}


def _digits(value: float) -> str:
    """All digits of a count, four of a share."""
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def remarks_of(decision: Decision) -> tuple[Remark, ...]:
    """The remarks of one decision: Passed and Analysis, or Missed."""
    if not decision.passed:
        return (_missed(decision),)
    if decision.decline is None:
        return _passed(decision), _analysis(decision)
    return _passed(decision), _missed(decision), _analysis(decision)


REVISITED = frozenset({Reason.SHARED, Reason.FOLDING, Reason.ROUNDING})
"""Reasons that what sinks elsewhere may remove: who reads a value changes with it.

An addition whose rounding would depend on the cut may go with what stays for one of the others.
"""


def may_go_on(decisions: Sequence[Decision]) -> bool:
    """Whether more may sink once `decisions` are carried out."""
    stays = any(d.decline is not None and d.decline.reason in REVISITED for d in decisions)
    return stays and any(decision.passed for decision in decisions)


@dataclass
class Rounds:
    """The remarks of several rounds of decisions on one function.

    Every site has the name that it has in the first.  Why ops stay is said in the last, as it was
    found where the last op sank, unless another round could remove that reason.

    Parameters
    ----------
    sites
        The name and the op, in the first round, of each pool that the last one left.  A pool that
        selects the other end of another's windows has none: it goes with that one.
    missed
        By the site's name, why ops stay, or None where none does.
    """

    sites: list[tuple[str, str] | None] = field(default_factory=list)
    missed: dict[str, Remark | None] = field(default_factory=dict)

    def remarks(self, decisions: Sequence[Decision], *, last: bool) -> Iterator[Remark]:
        """The remarks of one round, on every pool in the order in which they are computed."""
        sites = self.sites or [(each.site.name, each.site.pool.op) for each in decisions]
        self.sites = []
        for site, decision in zip(sites, decisions, strict=True):
            self.sites += [site, None] if decision.ends is Ends.BOTH else [site]
            if site is None:
                continue
            name, op = site
            found = {each.kind: replace(each, site=name, op=op) for each in remarks_of(decision)}
            missed = found.pop(Kind.MISSED, None)
            if name not in self.missed or decision.passed or _is_open(self.missed[name]):
                self.missed[name] = missed
            said = (found.get(Kind.PASSED), self.missed[name] if last else None)
            yield from filter(None, (*said, found.get(Kind.ANALYSIS)))


def _is_open(missed: Remark | None) -> bool:
    """Whether another round may remove why ops stay."""
    return missed is not None and missed.reason in {reason.value for reason in REVISITED}


def _remark(decision: Decision, kind: Kind, reason: str, message: str, **numbers: Any) -> Remark:
    site = decision.site
    known = tuple((name, value) for name, value in numbers.items() if value is not None)
    return Remark(
        kind, site.function, site.name, site.pool.op, site.location, reason, message, known
    )


def _passed(decision: Decision) -> Remark:
    ops = ", ".join(op.op for op in reversed(decision.sunk))
    where = f"{ops} below {decision.site.pool.op}"
    if decision.ends is Ends.OTHER:
        where += ", which selects the other end of each window"
    elif decision.ends is Ends.BOTH:
        where += ", at both ends of each window"
    same = "same values where no NaN or infinity occurs"
    if not all(op.rule.is_exact for op in decision.sunk):
        same = "same values in real numbers, some ulp apart in floating point"
    return _remark(decision, Kind.PASSED, "sunk", f"{where}, {same}")


def _missed(decision: Decision) -> Remark:
    decline = decision.decline
    if decline is None:
        raise ValueError(f"{decision.site.name} was not declined")
    return _remark(
        decision, Kind.MISSED, decline.reason.value, f"{decline.detail}; {decline.suggestion}"
    )


def _analysis(decision: Decision) -> Remark:
    numbers = asdict(cost(decision))
    message = "activation evaluations, tensor bytes, share of the layer's arithmetic"
    return _remark(decision, Kind.ANALYSIS, "cost", message, **numbers)


def to_yaml(remarks: Iterable[Remark]) -> str:
    """The remarks as LLVM's optimization records, which its opt-viewer and editors read."""
    return yaml.dump_all(
        [_Record(remark) for remark in remarks],
        Dumper=_RecordDumper,
        sort_keys=False,
        explicit_start=True,
        explicit_end=False,
    )


@dataclass(frozen=True)
class _Record:
    remark: Remark


class _RecordDumper(yaml.SafeDumper):
    """Writes `_Record` as a mapping tagged with its kind, ``!Passed`` and so on."""


def _represent(dumper: _RecordDumper, record: _Record) -> yaml.Node:
    remark = record.remark
    args: list[dict[str, Any]] = [{"Site": remark.site}, {"Op": remark.op}]
    args += [{"String": remark.message}]
    args += [{name: value} for name, value in remark.numbers]
    body: dict[str, Any] = {"Pass": PASS_FLAG, "Name": remark.reason}
    if remark.location:
        body["DebugLoc"] = {"File": remark.location, "Line": 0, "Column": 0}
    body |= {"Function": remark.function, "Args": args}
    return dumper.represent_mapping(f"!{remark.kind.value}", body)


_RecordDumper.add_representer(_Record, _represent)


@dataclass
class ChosenKernels:
    """Says of each convolution of a function why it stays as it is, or in which order it sums.

    Parameters
    ----------
    function
        The function's name.
    op
        The op that stays.
    on_remark
        Called with each remark, if given.
    """

    function: str
    op: str
    on_remark: Callable[[Remark], object] | None
    count: int = 0

    def declined(self, decline: Decline) -> None:
        """Number a convolution, and say why it stays."""
        message = f"{decline.detail}; {decline.suggestion}"
        self._say(Kind.MISSED, decline.reason.value, message)

    def apart(self, decline: Decline | None) -> None:
        """Say why a convolution's max-pool, if it has one, stays a kernel of its own."""
        if decline is not None:
            message = f"{decline.detail}; {decline.suggestion}"
            self._say(Kind.MISSED, decline.reason.value, message)
            self.count -= 1

    def computed(self, family: str, bounds: Mapping[str, float], instead: str = "") -> None:
        """Number a convolution, and say of one in other sums than those written what they are.

        Parameters
        ----------
        family
            The sums' name; empty where they are those written.
        bounds
            How far results may be off, by name.
        instead
            Why they are those written, where others were allowed.
        """
        if family:
            message = f"{self.op} by {family}, which may be off by a share of the largest input"
            self._say(Kind.PASSED, "winograd", message, **bounds)
        elif instead:
            message = f"{self.op} as it is written, not by Winograd's filtering: {instead}"
            self._say(Kind.ANALYSIS, "written-sums", message)
        else:
            self.count += 1

    def _say(self, kind: Kind, reason: str, message: str, **numbers: float) -> None:
        if self.on_remark is not None:
            site = f"{self.function}/{self.op}#{self.count}"
            known = tuple(numbers.items())
            self.on_remark(Remark(kind, self.function, site, self.op, "", reason, message, known))
        self.count += 1
