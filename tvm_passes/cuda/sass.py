"""Disassemble machine code of NVIDIA GPUs into instructions."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tvm_passes.cuda.compiler import package_folders
from tvm_passes.errors import DeviceCompilerError, how_to_install, last_line

SECTION = re.compile(r"^\.text\.(\w+):$")
LABEL = re.compile(r"^(\.L_x?_?\w+):$")
INSTRUCTION = re.compile(r"^/\*[0-9a-f]+\*/\s+(?:@(!?)(U?P\w+)\s+)?([A-Z0-9_.]+)\s*(.*?)\s*;")


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Parameters
    ----------
    guard
        The predicate under which it takes effect, and whether that is negated; None: always.
    opcode
        With its modifiers, such as ``LDG.E.128``.
    operands
        As written.
    """

    guard: tuple[str, bool] | None
    opcode: str
    operands: tuple[str, ...]

    @property
    def kind(self) -> str:
        """The opcode without its modifiers."""
        return self.opcode.partition(".")[0]


@dataclass(frozen=True)
class Code:
    """A kernel's instructions, and where its labels point."""

    instructions: tuple[Instruction, ...]
    labels: Mapping[str, int]


def disassemble(cubin: bytes) -> Mapping[str, Code]:
    """The kernels of machine code, by name.

    Raises
    ------
    DeviceCompilerError
        If there is no disassembler, or it refuses the code.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.cubin"
        path.write_bytes(cubin)
        command = [str(_nvdisasm()), "-c", str(path)]
        done = subprocess.run(  # noqa: S603 - the disassembler that was found
            command, check=False, capture_output=True, text=True
        )
    if done.returncode:
        raise DeviceCompilerError(f"nvdisasm refuses the kernels: {last_line(done.stderr)}")
    return parse(done.stdout)


def parse(text: str) -> Mapping[str, Code]:
    """The kernels that nvdisasm prints."""
    kernels: dict[str, Code] = {}
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    for line in map(str.strip, text.splitlines()):
        if section := SECTION.match(line):
            instructions, labels = [], {}
            kernels[section[1]] = Code((), labels)
            name = section[1]
        elif label := LABEL.match(line):
            labels[label[1]] = len(instructions)
        elif found := INSTRUCTION.match(line):
            guard = (found[2], found[1] == "!") if found[2] else None
            operands = tuple(part.strip() for part in found[4].split(",")) if found[4] else ()
            instructions.append(Instruction(guard, found[3], operands))
            kernels[name] = Code(tuple(instructions), labels)
    return kernels


def _nvdisasm() -> Path:
    for folder in package_folders():
        if (folder / "bin" / "nvdisasm").is_file():
            return folder / "bin" / "nvdisasm"
    found = shutil.which("nvdisasm")
    if found is None:
        raise DeviceCompilerError(f"counting instructions needs nvdisasm: {how_to_install('cuda')}")
    return Path(found).absolute()
