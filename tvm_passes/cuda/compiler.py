"""CUDA C to PTX and machine code, by the first compiler at hand: no GPU is needed.

NVCC of the machine, else the NVCC that comes as a Python package, else NVRTC.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tvm_passes.cuda.arch import virtual
from tvm_passes.cuda.resources import Resources, check_limits, read_resources
from tvm_passes.errors import DeviceCompilerError, how_to_install, last_line
from tvm_passes.output import PTX, SOURCE

MACHINE, PACKAGE, NVRTC = "nvcc", "nvcc package", "nvrtc"
"""Where a compiler is looked for, in this order."""

USUAL_PLACES = ("/usr/local/cuda/bin/nvcc",)
"""Where NVIDIA's own installers put NVCC, for a PATH without it."""

FATBIN = "kernels.fatbin"

HEADERS = {
    "cuda/std/cstdint": """
        namespace cuda { namespace std {
        typedef signed char int8_t; typedef short int16_t; typedef int int32_t;
        typedef long long int64_t; typedef unsigned char uint8_t; typedef unsigned short uint16_t;
        typedef unsigned int uint32_t; typedef unsigned long long uint64_t;
        } }""",
    "cuda/std/type_traits": """
        namespace cuda { namespace std {
        template <class A, class B> struct is_same { static constexpr bool value = false; };
        template <class A> struct is_same<A, A> { static constexpr bool value = true; };
        template <class A, class B> constexpr bool is_same_v = is_same<A, B>::value;
        template <class A> struct is_integral {
          static constexpr bool value = A(1) / A(2) == A(0); };
        template <class A> struct is_signed { static constexpr bool value = A(-1) < A(0); };
        template <class A> struct is_unsigned { static constexpr bool value = A(-1) > A(0); };
        template <class A> struct is_floating_point {
          static constexpr bool value = A(1) / A(2) != A(0); };
        template <bool, class A = void> struct enable_if {};
        template <class A> struct enable_if<true, A> { typedef A type; };
        template <bool, class A, class B> struct conditional { typedef A type; };
        template <class A, class B> struct conditional<false, A, B> { typedef B type; };
        } }""",
}
"""What TVM's CUDA C includes under NVRTC, which brings no headers."""

ERROR = re.compile(r"(?:error|fatal)\s*:\s*(.*)|ptxas error\s*:\s*(.*)")


@dataclass(frozen=True)
class Options:
    """How device code is compiled.

    Parameters
    ----------
    arch
        A real architecture, such as ``sm_90``.
    fast_math
        Approximate exp, division and the like, flush denormals: faster, and other results.
    """

    arch: str
    fast_math: bool = False


@dataclass(frozen=True)
class DeviceCode:
    """Compiled kernels.

    Parameters
    ----------
    source
        The CUDA C.
    ptx
        For any later GPU.
    cubin
        Machine code of one architecture.
    binary
        What TVM's runtime loads: both of them if the compiler can put them together.
    resources
        What each kernel takes, by its name.
    compiler
        Which compiler made it, for people.
    options
        How.
    """

    source: str
    ptx: bytes
    cubin: bytes
    binary: bytes
    resources: Mapping[str, Resources]
    compiler: str
    options: Options


@dataclass(frozen=True)
class Nvcc:
    """An NVCC and where it is."""

    path: Path
    origin: str

    def describe(self) -> str:
        """Its version and place."""
        found = re.search(r"V(\d+\.\d+\.\d+)", self._run("--version").stdout)
        return f"nvcc {found[1] if found else 'of unknown version'} ({self.origin})"

    def archs(self) -> Sequence[str]:
        """The architectures that it compiles for."""
        return self._run("--list-gpu-code").stdout.split()

    def compile(self, source: str, options: Options) -> DeviceCode:
        """Compile; the fat binary holds machine code and PTX."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / SOURCE).write_text(source)
            code = f"arch={virtual(options.arch)},code=[{options.arch},{virtual(options.arch)}]"
            args = ["--fatbin", "-O3", "-gencode", code, "-Xptxas", "-v", "--keep", "--keep-dir"]
            fast = ["--use_fast_math"] if options.fast_math else []
            done = self._run(*args, name, *fast, "-o", FATBIN, SOURCE, cwd=folder)
            log = done.stdout + done.stderr
            if done.returncode:
                raise DeviceCompilerError(f"{self.describe()} refuses a kernel: {_reason(log)}")
            ptx = (folder / PTX).read_bytes()
            (cubin,) = folder.glob("*.cubin")
            fat = (folder / FATBIN).read_bytes()
            return DeviceCode(
                source,
                ptx,
                cubin.read_bytes(),
                fat,
                read_resources(log, source),
                self.describe(),
                options,
            )

    def _run(self, *args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(self.path), *args]
        return subprocess.run(  # noqa: S603 - the compiler that was found
            command, cwd=cwd, check=False, capture_output=True, text=True, errors="replace"
        )


@dataclass(frozen=True)
class Nvrtc:
    """NVIDIA's run-time compiler, which is a library."""

    version: str

    def describe(self) -> str:
        """Its version."""
        return f"NVRTC {self.version}"

    def archs(self) -> Sequence[str]:
        """The architectures that it compiles for."""
        from cuda.bindings import nvrtc

        _, archs = nvrtc.nvrtcGetSupportedArchs()
        return [f"sm_{number}" for number in archs]

    def compile(self, source: str, options: Options) -> DeviceCode:
        """Compile twice, for NVRTC makes PTX or machine code, and no fat binary."""
        from cuda.bindings import nvrtc

        ptx, _ = self._program(source, options, virtual(options.arch), nvrtc.nvrtcGetPTXSize)
        cubin, log = self._program(source, options, options.arch, nvrtc.nvrtcGetCUBINSize)
        found = read_resources(log, source)
        return DeviceCode(source, ptx, cubin, cubin, found, self.describe(), options)

    def _program(
        self, source: str, options: Options, arch: str, size_of: Callable[..., tuple[object, int]]
    ) -> tuple[bytes, str]:
        """Compile for one architecture; the result and the compiler's log."""
        from cuda.bindings import nvrtc

        flags = [f"-arch={arch}", "-default-device", "--ptxas-options=-v"]
        flags += ["--use_fast_math"] if options.fast_math else []
        texts, names = ([text.encode() for text in side] for side in zip(*_headers(), strict=True))
        _, program = nvrtc.nvrtcCreateProgram(
            source.encode(), SOURCE.encode(), len(names), texts, names
        )
        try:
            encoded = [flag.encode() for flag in flags]
            (status,) = nvrtc.nvrtcCompileProgram(program, len(encoded), encoded)
            _, size = nvrtc.nvrtcGetProgramLogSize(program)
            log = bytearray(size)
            nvrtc.nvrtcGetProgramLog(program, log)
            text = log.decode(errors="replace").rstrip("\0")
            if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
                raise DeviceCompilerError(f"{self.describe()} refuses a kernel: {_reason(text)}")
            _, size = size_of(program)
            result = bytearray(size)
            fetch = nvrtc.nvrtcGetPTX if size_of is nvrtc.nvrtcGetPTXSize else nvrtc.nvrtcGetCUBIN
            fetch(program, result)
            return bytes(result), text
        finally:
            nvrtc.nvrtcDestroyProgram(program)


Compiler = Nvcc | Nvrtc


def find_compiler(places: Sequence[str] = (MACHINE, PACKAGE, NVRTC)) -> Compiler:
    """The first compiler that is here.

    Parameters
    ----------
    places
        Where to look, in order.

    Raises
    ------
    DeviceCompilerError
        If there is none.
    """
    finders = {MACHINE: _machine_nvcc, PACKAGE: _package_nvcc, NVRTC: _nvrtc}
    for place in places:
        found = finders[place]()
        if found is not None:
            return found
    raise DeviceCompilerError(
        "the target cuda needs a CUDA compiler: found no nvcc, no nvcc package and no NVRTC; "
        f"{how_to_install('cuda')}, or put nvcc on PATH"
    )


def require_arch(compiler: Compiler, arch: str) -> None:
    """Make sure that a compiler knows an architecture.

    Raises
    ------
    DeviceCompilerError
        If it does not.
    """
    known = compiler.archs()
    if arch.rstrip("af") not in known:
        raise DeviceCompilerError(
            f"{compiler.describe()} compiles for no GPU architecture {arch!r}: "
            f"expected one of {', '.join(known)}"
        )


def compile_device_code(compiler: Compiler, source: str, options: Options) -> DeviceCode:
    """Compile CUDA C, and check that a GPU could start each kernel.

    Raises
    ------
    DeviceCompilerError
        If the compiler refuses it, or a kernel takes more than a GPU has.
    """
    code = compiler.compile(with_registers(source), options)
    for name, taken in code.resources.items():
        check_limits(name, taken, options.arch)
    return code


def with_registers(source: str) -> str:
    """CUDA C whose kernels may take as many registers as a block can have.

    TVM bounds the threads alone, for which ptxas aims at more blocks a multiprocessor, and spills.
    """
    return re.sub(r"__launch_bounds__\((\d+)\)", r"__launch_bounds__(\1, 1)", source)


@dataclass
class KernelCompiler:
    """A compiler for one target, which keeps what it last compiled.

    Parameters
    ----------
    compiler, options
        What compiles, and how.
    """

    compiler: Compiler
    options: Options
    code: DeviceCode | None = None

    def __call__(self, source: str) -> bytes:
        """Compile CUDA C to what TVM's runtime loads."""
        self.code = compile_device_code(self.compiler, source, self.options)
        return self.code.binary


def kernel_compiler(arch: str, *, fast_math: bool = False) -> KernelCompiler:
    """The first compiler that is here, for an architecture.

    Raises
    ------
    DeviceCompilerError
        If there is none, or it does not know the architecture.
    """
    compiler = find_compiler()
    require_arch(compiler, arch)
    return KernelCompiler(compiler, Options(arch, fast_math))


def package_folders() -> list[Path]:
    """Where NVIDIA's Python packages keep their tools, the newest first."""
    spec = importlib.util.find_spec("nvidia")
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    return sorted((folder for root in roots for folder in root.glob("cu[0-9]*")), reverse=True)


def _machine_nvcc() -> Nvcc | None:
    toolkit = os.environ.get("CUDA_PATH") or os.environ.get("CUDA_HOME")
    places = ([f"{toolkit}/bin/nvcc"] if toolkit else []) + ["nvcc", *USUAL_PLACES]
    for place in places:
        found = shutil.which(place)
        if found is not None:
            return Nvcc(Path(found).absolute(), f"at {found}")
    return None


def _package_nvcc() -> Nvcc | None:
    for folder in package_folders():
        path = folder / "bin" / "nvcc"
        if path.is_file():
            return Nvcc(path, "from the package nvidia-cuda-nvcc")
    return None


def _nvrtc() -> Nvrtc | None:
    if importlib.util.find_spec("cuda") is None:
        return None
    try:
        from cuda.bindings import nvrtc

        _, major, minor = nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError):
        return None
    return Nvrtc(f"{major}.{minor}")


def _headers() -> Iterable[tuple[str, str]]:
    """Texts and names of `HEADERS`."""
    return [(text, name) for name, text in HEADERS.items()]


def _reason(log: str) -> str:
    """The first error of a compiler's log."""
    found = ERROR.search(log)
    return (found[1] or found[2]).strip() if found else last_line(log)
