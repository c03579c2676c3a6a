"""Put compiled kernels, not their source, into what TVM's CUDA code generator makes.

Without a GPU, TVM keeps the CUDA C and leaves its compilation, with fast math, to the machine
that loads it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tvm_ffi

from tvm_passes.errors import OutputError

POSTPROCESS = "tvm_callback_cuda_postproc"
FORCE_FALLBACK = "TVM_COMPILE_FORCE_FALLBACK"
"""TVM's switch to keep what `POSTPROCESS` returns, where it could load it, too."""

KIND = b"cuda"
COMPILED = b"fatb"
"""What the library says of its device code: anything but ``cuda``, which stands for source.

The CUDA driver tells PTX, machine code and fat binaries apart by itself.
"""


@contextmanager
def compiled_by(compile_source: Callable[[str], bytes]) -> Iterator[None]:
    """While the context lasts, TVM's CUDA code generator yields what `compile_source` returns.

    Parameters
    ----------
    compile_source
        From CUDA C to what a driver loads.
    """
    before = _registered(POSTPROCESS)
    forced = os.environ.get(FORCE_FALLBACK)

    def compile_kernels(source: str, _target: Any) -> bytes:
        return compile_source(source)

    tvm_ffi.register_global_func(POSTPROCESS, compile_kernels, override=True)
    os.environ[FORCE_FALLBACK] = "1"
    try:
        yield
    finally:
        if forced is None:
            del os.environ[FORCE_FALLBACK]
        else:
            os.environ[FORCE_FALLBACK] = forced
        if before is None:
            tvm_ffi.remove_global_func(POSTPROCESS)
        else:
            tvm_ffi.register_global_func(POSTPROCESS, before, override=True)


def mark_compiled(library: Path) -> None:
    """Make a library say that its device code is compiled already.

    It holds the module as TVM serialises it: the kind, the size, then the format, each string
    after its length in 64 bits.

    Raises
    ------
    OutputError
        If the library holds no such module.
    """
    data = bytearray(library.read_bytes())
    text = len(KIND).to_bytes(8, "little") + KIND
    at = data.find(text)
    while at >= 0:
        form = at + len(text) + 8
        if data[form : form + len(text)] == text:
            data[form + 8 : form + len(text)] = COMPILED
            library.write_bytes(data)
            return
        at = data.find(text, at + 1)
    raise OutputError(f"{library.name} holds no CUDA module where one was expected: update TVM")


def _registered(name: str) -> Any:
    with suppress(ValueError):
        return tvm_ffi.get_global_func(name)
    return None
