"""Targets: a name from ``targets/``, a kind, a JSON object, or a file that holds one."""

from __future__ import annotations

import difflib
import json
import platform
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from tvm_passes.cuda.arch import DEFAULT_ARCH, arch_number, is_arch
from tvm_passes.errors import TargetError

LLVM, CUDA, OPENCL = "llvm", "cuda", "opencl"
HOST = "host"
KINDS = (LLVM, CUDA, OPENCL)
GPUS = (CUDA, OPENCL)
"""Kinds whose kernels are on threads."""

OPENCL_LIMITS = {
    "max_num_threads": 1024,
    "max_threads_per_block": 1024,
    "max_shared_memory_per_block": 48 << 10,
}
"""What TVM takes an NVIDIA GPU to have, so that schedules are those of the target cuda."""


def targets_folder() -> Path:
    """The folder of shipped targets: inside an installed wheel, else beside the sources."""
    package = Path(str(resources.files("tvm_passes")))
    installed = package / "targets"
    return installed if installed.is_dir() else package.parent / "targets"


def shipped_targets() -> tuple[str, ...]:
    """Names of the targets that ship with the package."""
    found = targets_folder().rglob("target.json")
    return tuple(sorted(path.parent.relative_to(targets_folder()).as_posix() for path in found))


def parse_target(text: str) -> dict[str, Any]:
    """Find a target's JSON configuration, one that the installed TVM accepts.

    Parameters
    ----------
    text
        ``llvm`` or ``cuda``, ``host`` for the CPU of this machine, ``opencl`` for the kernels of a
        GPU on its OpenCL device, an architecture of GPUs such as ``sm_90``, a name from
        `shipped_targets`, a JSON object such as ``{"kind": "llvm", "mcpu": "haswell"}``, or the
        path of a file that holds one.

    Raises
    ------
    TargetError
        If it is none of these, or TVM or LLVM does not know what it names.
    """
    import tvm

    config = _config(text)
    kind = config.get("kind")
    if kind not in KINDS:
        raise TargetError(f"target {text!r} is of kind {kind!r}: expected {', '.join(KINDS)}")
    _check_options(config, text)
    if kind == CUDA:
        _check_arch(config, text)
    if kind == OPENCL:
        config = {**OPENCL_LIMITS, **config}
    try:
        target = tvm.target.Target(config)
        if kind == LLVM:
            _let_llvm_look(tvm, config)
    except (ValueError, TypeError, RuntimeError) as err:
        raise TargetError(f"TVM refuses the target {text!r}: {_last_sentence(err)}") from err
    if kind == LLVM:
        _check_cpu(tvm, target, config)
    return config


CHOSEN_BY_LLVM = ("sse", "ssse", "avx", "fma", "f16c", "bmi", "lzcnt", "popcnt", "movbe", "gfni")
"""Beginnings of the names of x86 features whose instructions LLVM emits without being asked."""


def require_device(config: Mapping[str, Any]) -> dict[str, Any]:
    """Make sure that this machine can run what is compiled for a target.

    Parameters
    ----------
    config
        A configuration that `parse_target` has returned.

    Returns
    -------
    dict
        The same, for the GPU of this machine where no architecture was asked for.

    Raises
    ------
    TargetError
        If it cannot.
    """
    if config["kind"] == CUDA:
        return _for_gpu(config)
    if config["kind"] == OPENCL:
        _require_opencl()
    else:
        require_host(config)
    return dict(config)


def _for_gpu(config: Mapping[str, Any]) -> dict[str, Any]:
    """For the GPU of this machine, which runs what is compiled for it and for earlier ones."""
    import tvm

    device = tvm.cuda()
    if not device.exist:
        raise TargetError(
            "the target cuda needs a CUDA GPU that TVM can use, and this machine has none: "
            "bench --static compares its kernels without one, the target opencl runs them "
            "on the CPU"
        )
    here = int(str(device.compute_version).replace(".", ""))
    arch = str(config["arch"])
    if arch_number(arch) > here:
        raise TargetError(f"{arch} is later than this machine's GPU: give sm_{here} or an earlier")
    return {**config, "arch": f"sm_{here}" if arch == DEFAULT_ARCH else arch}


def _require_opencl() -> None:
    """Make sure that there is an OpenCL device, and a TVM whose kernels run on it."""
    from tvm_passes.dialects import installed
    from tvm_passes.rules import RELAX

    if installed() != RELAX:
        raise TargetError(
            "the target opencl is for Relax: from Relay, cuda gives kernels to inspect"
        )
    from tvm_passes.relax.opencl import device

    device()


def require_host(config: Mapping[str, Any]) -> None:
    """Make sure that this machine's CPU can run what is compiled for a target of kind llvm.

    Parameters
    ----------
    config
        A configuration that `parse_target` has returned.

    Raises
    ------
    TargetError
        If it cannot: the code would die of an illegal instruction.
    """
    missing = _missing(config)
    if missing:
        raise TargetError(
            f"expected a target that runs here: this machine lacks {', '.join(missing)}; "
            "give the target of this machine, or run this on one that has them"
        )


def _config(text: str) -> dict[str, Any]:
    shipped = targets_folder() / text / "target.json"
    if text in shipped_targets():
        return _object(shipped.read_text(), text)
    if text.lstrip().startswith("{"):
        return _object(text, text)
    try:
        if Path(text).is_file():
            return _object(Path(text).read_text(errors="replace"), text)
    except OSError as err:
        raise TargetError(f"cannot read the target {text[:80]!r}: {err.strerror}") from err
    if text in KINDS:
        return {"kind": text}
    if text == HOST:
        return _host()
    if is_arch(text):
        return {"kind": CUDA, "arch": text}
    names = ", ".join((*KINDS, HOST, "sm_90 or the like", *shipped_targets()))
    raise TargetError(f"no target {text!r}: expected {names}, a JSON object, or a file with one")


def _host() -> dict[str, Any]:
    """The CPU of this machine, without what a hypervisor hides of it."""
    from tvm_passes.namespaces import host_cpu

    config: dict[str, Any] = {"kind": LLVM, "mcpu": host_cpu()}
    missing = _missing(config)
    return {**config, "mattr": [f"-{name}" for name in missing]} if missing else config


def _missing(config: Mapping[str, Any]) -> list[str]:
    """Features that a target has, LLVM emits unasked, and this machine lacks."""
    import tvm

    from tvm_passes.namespaces import cpu_features

    wanted = cpu_features(tvm.target.Target(dict(config)))
    return sorted(name for name in wanted & _lacks() if name.startswith(CHOSEN_BY_LLVM))


def _lacks() -> frozenset[str]:
    """Features that this machine is known to lack."""
    import tvm

    here = tvm.get_global_func("tvm.codegen.llvm.GetHostCPUFeatures")()
    return frozenset(str(name) for name, has in here.items() if not has)


def _object(source: str, text: str) -> dict[str, Any]:
    try:
        config = json.loads(source)
    except (ValueError, RecursionError) as err:
        raise TargetError(f"target {text[:80]!r} is not JSON: {err}") from err
    if not isinstance(config, dict):
        raise TargetError(f"target {text!r}: expected a JSON object, found {type(config).__name__}")
    return config


INEXACT = ("fast-math", "cl-opt")
"""Beginnings of the names of options that allow LLVM to change results; cl-opt hands it any."""

MOST_CORES = (1 << 31) - 1
"""TVM's loops over cores count in int32."""


def _check_options(config: dict[str, Any], text: str) -> None:
    """Refuse what would break the promise of equal results, or cannot be linked here."""
    fast = [name for name, value in config.items() if name.startswith(INEXACT) and value]
    if fast:
        raise TargetError(
            f"target {text!r} sets {fast[0]}, with which results change: leave it out"
        )
    _check_values(config, text)
    if "host" in config:
        raise TargetError(
            f"target {text!r} names a host: {config['kind']} is its own, leave it out"
        )
    arch = str(config.get("mtriple", platform.machine())).partition("-")[0]
    if arch != platform.machine():
        raise TargetError(
            f"target {text!r} is for {arch}, this machine links for {platform.machine()}: "
            "compile on such a machine"
        )


def _check_values(config: dict[str, Any], text: str) -> None:
    """Refuse values that TVM takes without a look."""
    for name, value in config.items():
        if value is None or (isinstance(value, list) and None in value):  # TVM 0.19 crashes on it
            raise TargetError(f"target {text!r} sets {name} to null: give a value or leave it out")
    cores = config.get("num-cores", 1)
    if type(cores) is not int or not 1 <= cores <= MOST_CORES:  # True is an int to isinstance
        raise TargetError(
            f"target {text!r} sets num-cores to {cores!r}: "
            f"expected a whole number from 1 to {MOST_CORES}"
        )


def _check_arch(config: dict[str, Any], text: str) -> None:
    """Fill in the architecture, for which TVM would ask the GPU of this machine."""
    arch = config.setdefault("arch", DEFAULT_ARCH)
    if not isinstance(arch, str) or not is_arch(arch):
        raise TargetError(
            f"target {text!r} names the GPU architecture {arch!r}: expected sm_90, say"
        )


def _let_llvm_look(tvm: Any, config: Mapping[str, Any]) -> None:
    """Have options read, such as jit, that TVM reads no earlier than when it generates code."""
    from tvm_passes.namespaces import cpu_features

    rest = {name: value for name, value in config.items() if name not in ("mcpu", "mattr")}
    cpu_features(tvm.target.Target(rest))


def _check_cpu(tvm: Any, target: Any, config: dict[str, Any]) -> None:
    """Refuse a CPU or a feature that LLVM does not know: TVM would go on without it."""
    from tvm_passes.namespaces import cpu_features

    mcpu = config.get("mcpu")
    if mcpu is not None:
        _check_known("CPU", mcpu, tvm.get_global_func("target.llvm_get_cpu_archlist")(target))
    if config.get("mattr"):
        whole = {name: value for name, value in config.items() if name != "mattr"}
        known = cpu_features(target) | cpu_features(tvm.target.Target(whole))
        for feature in config["mattr"]:
            if feature[:1] not in "+-" or feature[1:] not in known:
                _check_known("feature", feature.lstrip("+-"), known)


def _check_known(what: str, name: str, known: Iterable[Any]) -> None:
    names = [str(item) for item in known]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3)
        hint = f": did you mean {', '.join(near)}?" if near else ": see llc -mcpu=help"
        raise TargetError(f"LLVM knows no {what} {name!r}{hint}")


def _last_sentence(err: BaseException) -> str:
    """TVM's own message: the last line, without the C++ locations before it."""
    return (
        str(err).strip().rpartition("\n")[2].removeprefix("ValueError: ").removeprefix("TVMError: ")
    )
