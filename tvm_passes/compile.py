"""``tvm-reorder compile``: a model file in, a folder with a shared library and a manifest out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tvm_passes.calibrate import MAX_ERROR, calibrate
from tvm_passes.cuda.compiler import DeviceCode, KernelCompiler, kernel_compiler
from tvm_passes.dialects import TVM, Engine, engine
from tvm_passes.errors import OutputError, TargetError, last_line
from tvm_passes.frontends import load_model
from tvm_passes.input_file import read_samples
from tvm_passes.output import CUBIN, LIBRARY, MANIFEST, PTX, SOURCE, new_folder
from tvm_passes.records import Chosen, chosen, in_scope
from tvm_passes.remarks import Remark
from tvm_passes.schedules.families import Barred
from tvm_passes.target import CUDA, OPENCL, parse_target

Step = Callable[[str], AbstractContextManager[object]]
"""Announces a step that may take long; its context lasts as long as the step."""


def silent(_step: str) -> AbstractContextManager[object]:
    """Announce nothing."""
    return nullcontext()


@dataclass(frozen=True)
class Compiled:
    """A compiled model on disk: its folder, its manifest, and the remarks of the pass.

    Parameters
    ----------
    files
        Names of the files in the folder.
    device_code
        The kernels for a GPU, where the target is one.
    note
        Which tuned records were applied, or why they were not; empty where there are none.
    """

    folder: Path
    files: tuple[str, ...]
    manifest: dict[str, Any]
    remarks: tuple[Remark, ...]
    device_code: DeviceCode | None = None
    note: str = ""


@dataclass(frozen=True)
class Calibration:
    """A file of samples, as `tvm_passes.input_file.read_samples` reads it, and a limit of errors.

    Parameters
    ----------
    samples
        The file.
    max_error
        What an output may be off by, relative to the largest output of its layer.
    """

    samples: Path
    max_error: float = MAX_ERROR


def compile_model(  # noqa: PLR0913 - the options of the command
    model: Path,
    folder: Path,
    *,
    target: str = "llvm",
    dialect: str | None = None,
    reorder: bool = True,
    tuned: Path | None = None,
    fast_math: bool = False,
    allow: Collection[str] = (),
    calibration: Calibration | None = None,
    step: Step = silent,
) -> Compiled:
    """Compile a model file.

    Parameters
    ----------
    model
        A file or folder that `tvm_passes.frontends.load_model` reads.
    folder
        Where ``lib.so`` and ``manifest.json`` go; an earlier result there is replaced at the end.
    target
        As for `tvm_passes.target.parse_target`.
    dialect
        ``relax`` or ``relay``; by default that of the TVM installed.
    reorder
        Whether the pass runs.
    tuned
        A folder of records of `tvm_passes.tune.tune_model`; by default those that ship for the
        target's CPU.  They apply where the reorder does.
    fast_math
        Whether kernels for a GPU may approximate, with which results change.
    allow
        As for the pass, and ``winograd``.
    calibration
        Samples that layers must be exact enough on to be computed by Winograd's filtering.
    step
        Announces the steps.

    Raises
    ------
    TvmPassesError
        If the model, the target, the environment or the output is not as expected.
    """
    tvm_engine = engine(dialect)
    config = parse_target(target)
    require_linker(tvm_engine)
    if config["kind"] == OPENCL:
        raise TargetError(
            "the target opencl is for verify, bench and tune: TVM's wheel runs no "
            "OpenCL, so compile for cuda or llvm"
        )
    kernels = kernels_for(config, fast_math=fast_math)
    found = chosen(tuned, tvm_engine.DIALECT, config) if reorder else Chosen(None, "")
    remarks: list[Remark] = []
    with new_folder(folder) as staged:
        with step(f"reading {model.name}"):
            mod = load_model(model, tvm_engine.DIALECT)
            signature = tvm_engine.signature(mod)
        barred = Barred()
        if calibration is not None:
            with step(f"calibrating on {calibration.samples.name}"):
                samples = read_samples(calibration.samples, signature["inputs"])
                barred = calibrate(
                    tvm_engine, mod, config, samples, calibration.max_error, remarks.append
                )
        with step(f"compiling for {target}"), in_scope(found.records):
            built = tvm_engine.build(
                mod,
                config,
                reorder=reorder,
                on_remark=remarks.append,
                allow=allow,
                barred=barred,
                compile_kernels=kernels,
            )
        if built is not None:
            with step(f"linking {LIBRARY}"):
                export(tvm_engine, built, staged / LIBRARY)
        code = kernels.code if kernels is not None else None
        manifest = {
            "model": {"name": model.name, "sha256": _sha256(model)},
            "dialect": tvm_engine.DIALECT,
            "target": config,
            "versions": {name: version(name) for name in ("tvm-passes", TVM[tvm_engine.DIALECT])},
            "reordered": reorder,
            "allowed": sorted(allow),
            "tuned": None if found.records is None else found.records.page,
            **signature,
            **({} if code is None else {"device": _write_device_code(code, staged)}),
            **({} if built is not None else {"runs": False}),
            "remarks": [remark.as_dict() for remark in remarks],
        }
        (staged / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        files = tuple(sorted(path.name for path in staged.iterdir()))
    return Compiled(folder, files, manifest, tuple(remarks), code, found.note)


def kernels_for(config: Mapping[str, Any], *, fast_math: bool = False) -> KernelCompiler | None:
    """What compiles the kernels of a target of kind cuda; None for others.

    Raises
    ------
    TvmPassesError
        If there is no such compiler, or fast math is asked for without need for one.
    """
    if config["kind"] == CUDA:
        return kernel_compiler(config["arch"], fast_math=fast_math)
    if fast_math:
        raise TargetError("fast math is for the target cuda: leave it out")
    return None


def _write_device_code(code: DeviceCode, folder: Path) -> dict[str, Any]:
    """Write the kernels as files; what the manifest says of them."""
    (folder / SOURCE).write_text(code.source)
    (folder / PTX).write_bytes(code.ptx)
    (folder / CUBIN).write_bytes(code.cubin)
    return {
        "compiler": code.compiler,
        **asdict(code.options),
        "kernels": {name: asdict(taken) for name, taken in sorted(code.resources.items())},
    }


def require_linker(tvm_engine: Engine) -> None:
    """Make sure that shared libraries can be linked.

    Raises
    ------
    OutputError
        If there is no C compiler.
    """
    if tvm_engine.linker() is None:
        raise OutputError(
            f"linking {LIBRARY} needs a C compiler: found none of g++, gcc, clang; "
            "install one or name it in CXX"
        )


def export(tvm_engine: Engine, built: Any, path: Path) -> None:
    """Link a compiled module.

    Raises
    ------
    OutputError
        If the C compiler fails, or is not there.
    """
    try:
        tvm_engine.export(built, path)
    except (RuntimeError, OSError) as err:
        compiler = tvm_engine.linker()
        raise OutputError(f"{compiler} could not link {path.name}: {last_line(str(err))}") from err


def _sha256(model: Path) -> str:
    """Digest of a file, or of a folder's files in the order of their names."""
    files = sorted(p for p in model.rglob("*") if p.is_file()) if model.is_dir() else [model]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
