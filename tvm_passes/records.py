"""Tuned schedules on disk: MetaSchedule's JSON database, and a page of how it was made."""

from __future__ import annotations

import json
import lzma
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tvm_passes.bench.environment import environment
from tvm_passes.dialects import TVM
from tvm_passes.errors import RecordsError
from tvm_passes.measure_trials import Trial
from tvm_passes.output import write_text, writing
from tvm_passes.target import GPUS, targets_folder

PAGE = "tuned.json"
FILES = ("database_workload.json", "database_tuning_record.json")
"""MetaSchedule's own names."""

PACKED = ".xz"
"""Ending of the files of records that ship: a kernel's text shrinks to a twentieth."""

EVERY = 1 << 20
"""More records than a kernel has candidates."""


@dataclass(frozen=True)
class TaskGain:
    """What tuning a kernel gained: mean seconds of the first guess and of the best record."""

    name: str
    trials: int
    untuned_s: float
    tuned_s: float

    @property
    def gain(self) -> float:
        """How many times as fast."""
        return self.untuned_s / self.tuned_s


class Records:
    """A database that is open, and its page.

    Parameters
    ----------
    folder
        Where both are.
    page
        The machine, target, TVM, date and command.
    """

    def __init__(self, folder: Path, page: dict[str, Any]) -> None:
        from tvm_passes.namespaces import meta_schedule
        from tvm_passes.schedules import exponential

        exponential.register()  # kernels in the database may call its functions
        self.folder, self.page = folder, page
        self.database = _opened(meta_schedule.database.JSONDatabase, folder)

    def samples(self, workload: Any) -> dict[str, list[float]]:
        """Seconds of the candidates of a kernel that have run, by the text of their traces."""
        if not self.database.has_workload(workload):
            return {}
        records = self.database.get_top_k(self.database.commit_workload(workload), EVERY)
        return {str(record.trace): [float(s) for s in record.run_secs] for record in records}

    def measured(self, workload: Any) -> dict[str, float]:
        """Mean seconds of those candidates: by that MetaSchedule tells which is the best."""
        found = self.samples(workload)
        return {trace: statistics.fmean(seconds) for trace, seconds in found.items()}

    def add(self, trial: Trial, seconds: float) -> None:
        """Append a trial that has run."""
        from tvm_passes.namespaces import meta_schedule

        (func,) = trial.workload.functions.values()
        self.database.commit_tuning_record(
            meta_schedule.database.TuningRecord(
                trial.schedule.trace,
                self.database.commit_workload(trial.workload),
                [seconds],
                trial.target,
                meta_schedule.arg_info.ArgInfo.from_prim_func(func),
            )
        )

    def correct(self, workload: Any, samples: Mapping[str, Sequence[float]]) -> None:
        """Put other samples of candidates of a kernel in the place of theirs.

        Parameters
        ----------
        workload
            The kernel.
        samples
            Seconds, by the text of the candidates' traces.
        """
        from tvm_passes.namespaces import meta_schedule

        workload = self.database.commit_workload(workload)
        with tempfile.TemporaryDirectory() as folder:
            copied = [Path(folder) / name for name in FILES]
            copied[0].write_bytes((self.folder / FILES[0]).read_bytes())  # so that numbers stay
            database = meta_schedule.database.JSONDatabase(*map(str, copied))
            for record in self.database.get_all_tuning_records():
                seconds = record.run_secs
                if record.workload.same_as(workload):
                    seconds = samples.get(str(record.trace), seconds)
                copy_record(record, database, seconds)
            write_text(self.folder / FILES[1], copied[1].read_text())
        self.database = _opened(meta_schedule.database.JSONDatabase, self.folder)

    def gain(self, name: str, workload: Any, first: Any) -> TaskGain | None:
        """What was gained over the candidate `first`, by those that were measured again.

        None before it has run.
        """
        samples = self.samples(workload)
        untuned = samples.get(str(first.trace))
        if untuned is None:
            return None
        sure = [statistics.fmean(times) for times in samples.values() if len(times) > 1]
        untuned_s = statistics.fmean(untuned)
        return TaskGain(name, len(samples), untuned_s, min([untuned_s, *sure]))

    def summarise(self, gains: Sequence[TaskGain]) -> None:
        """Write on the page what was gained."""
        self.page["trials"] = self.page["records"] = len(self.database)
        self.page["kernels"] = [{**asdict(gain), "gain": round(gain.gain, 3)} for gain in gains]
        if gains:
            mean = statistics.geometric_mean(gain.gain for gain in gains)
            self.page["gain"] = round(mean, 3)
        self.write_page()

    def write_page(self) -> None:
        """Write the page whole."""
        write_text(self.folder / PAGE, json.dumps(self.page, indent=2) + "\n")


def copy_record(record: Any, database: Any, seconds: Sequence[Any]) -> None:
    """Append a record to another database, with these samples."""
    from tvm_passes.namespaces import meta_schedule

    database.commit_tuning_record(
        meta_schedule.database.TuningRecord(
            record.trace,
            database.commit_workload(record.workload.mod),
            [float(s) for s in seconds],
            record.target,
            record.args_info,
        )
    )


def new_records(folder: Path, dialect: str, config: Mapping[str, Any], command: str) -> Records:
    """Open records to add to, or begin them.

    Raises
    ------
    RecordsError
        If what is there was made for something else, or is no database.
    """
    page = _page(folder) if (folder / PAGE).exists() else None
    if page is not None:
        mismatch = _mismatch(page, dialect, config)
        if mismatch:
            raise RecordsError(f"{folder} holds records {mismatch}: give another folder")
    elif folder.exists() and any(folder.iterdir()):
        raise RecordsError(f"{folder} holds other files, and no {PAGE}: give another folder")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    found = environment()
    machine = {name: found[name] for name in ("cpu", "cores", "caches")}
    records = Records(
        folder,
        {
            "dialect": dialect,
            "tvm": version(TVM[dialect]),
            "tvm-passes": version("tvm-passes"),
            "target": dict(config),
            "machine": machine,
            "date": time.strftime("%Y-%m-%d"),
            "command": command,
        },
    )
    records.write_page()
    return records


@dataclass(frozen=True)
class Chosen:
    """Records to apply, or none; what to tell the user of them."""

    records: Records | None
    note: str


def chosen(folder: Path | None, dialect: str, config: Mapping[str, Any]) -> Chosen:
    """Find the records to compile with.

    Parameters
    ----------
    folder
        A folder of them; by default that which ships for the target's CPU, if one does.
    dialect, config
        What is compiled: records for another CPU, dialect or TVM do not apply.

    Raises
    ------
    RecordsError
        If `folder` holds none, or they are unreadable.
    """
    given = folder is not None
    folder = shipped_folder(dialect, config) if folder is None else folder
    if folder is None:
        return Chosen(None, "")
    page = _page(folder)
    mismatch = _mismatch(page, dialect, config)
    if mismatch:
        return Chosen(None, f"tuned records not applied: {folder} holds those {mismatch}")
    found = _whole(Records(folder, page))
    where = folder if given else f"shipped for {config.get('mcpu')}"
    return Chosen(found, f"tuned records applied: {where}, of {page.get('date', 'no date')}")


def shipped_folder(dialect: str, config: Mapping[str, Any]) -> Path | None:
    """The folder of records that ship for a target's CPU."""
    for path in sorted(targets_folder().glob(f"*/{dialect}/{PAGE}")):
        if processor(_page(path.parent)["target"]) == processor(config):
            return path.parent
    return None


def processor(config: Mapping[str, Any]) -> str:
    """The CPU of a target, or the GPU's architecture, by which records are told apart."""
    if config.get("kind") in GPUS:
        return str(config.get("arch", config["kind"]))
    architecture = str(config.get("mtriple", platform.machine())).partition("-")[0]
    features = sorted(map(str, config.get("mattr", ())))
    return " ".join([architecture, str(config.get("mcpu", "generic")), *features])


def in_scope(records: Records | None) -> AbstractContextManager[Any]:
    """The context in which schedules come from `records`."""
    return nullcontext() if records is None else records.database


def open_records(folder: Path) -> Records:
    """The records of a folder, whatever they were made for.

    Raises
    ------
    RecordsError
        If it holds none, or they are unreadable.
    """
    return _whole(Records(folder, _page(folder)))


def _whole(records: Records) -> Records:
    """The same records, if none is missing that the page tells of."""
    found, told = len(records.database), records.page["records"]
    if found < told:
        raise RecordsError(
            f"{records.folder} holds {found} records of the {told} that its {PAGE} tells of: "
            "copy all of its files, or make some with tvm-reorder tune"
        )
    return records


def _page(folder: Path) -> dict[str, Any]:
    try:
        page = json.loads((folder / PAGE).read_text())
        known = {name: page[name] for name in ("dialect", "tvm", "target")}
        page["records"] = int(page.get("records", 0))
    except OSError as err:
        raise RecordsError(
            f"no tuned records in {folder}: {PAGE}: {err.strerror}: make some with tvm-reorder tune"
        ) from err
    except (ValueError, TypeError, KeyError) as err:
        raise RecordsError(f"{folder / PAGE} is no {PAGE} of tvm-reorder tune") from err
    if not isinstance(known["target"], dict):
        raise RecordsError(f"{folder / PAGE}: expected a target's JSON object")
    return dict(page)


def _mismatch(page: Mapping[str, Any], dialect: str, config: Mapping[str, Any]) -> str:
    """How records differ from what is wanted, or an empty string."""
    wanted = {
        "processor": (processor(page["target"]), processor(config)),
        "dialect": (page["dialect"], dialect),
        "TVM": (page["tvm"], version(TVM[dialect])),
    }
    for what, (has, needs) in wanted.items():
        if has != needs:
            return f"for the {what} {has}, not {needs}"
    if page["target"].get("num-cores") == 1 != config.get("num-cores"):
        return "for one core, with loops on one thread"
    return ""


def _mend(folder: Path) -> None:
    """Drop the line that was being written when `tune` was killed: no other refers to it."""
    for name in FILES:
        path = folder / name
        data = path.read_bytes() if path.exists() else b""
        if data and not data.endswith(b"\n"):
            write_text(path, data[: data.rfind(b"\n") + 1].decode())


def _opened(database: Any, folder: Path) -> Any:
    try:
        if not (folder / f"{FILES[0]}{PACKED}").exists():
            _mend(folder)
            return database(*(str(folder / name) for name in FILES))
        with tempfile.TemporaryDirectory() as unpacked:  # the database reads them when it is made
            for name in FILES:
                data = lzma.decompress((folder / f"{name}{PACKED}").read_bytes())
                (Path(unpacked) / name).write_bytes(data)
            return database(*(str(Path(unpacked) / name) for name in FILES))
    except (OSError, lzma.LZMAError) as err:
        raise RecordsError(f"cannot unpack the records in {folder}: {err}") from err
    except (RuntimeError, ValueError, TypeError, IndexError) as err:
        raise RecordsError(f"{folder} holds no MetaSchedule database that TVM can read") from err
