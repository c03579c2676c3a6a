"""Names of GPU architectures, such as ``sm_90``."""

from __future__ import annotations

import re

DEFAULT_ARCH = "sm_80"
"""What ``cuda`` alone stands for: its PTX runs on every GPU from the A100 on."""

ARCH = re.compile(r"sm_(\d{2,3}[af]?)")


def is_arch(text: str) -> bool:
    """Whether a text is written as an architecture is."""
    return ARCH.fullmatch(text) is not None


def virtual(arch: str) -> str:
    """The architecture of the PTX for `arch`: ``compute_90`` for ``sm_90``."""
    return arch.replace("sm_", "compute_")


def arch_number(arch: str) -> int:
    """Its number: 90 for ``sm_90a``."""
    found = ARCH.fullmatch(arch)
    if found is None:
        raise ValueError(f"expected an architecture, found {arch!r}")
    return int(found[1].rstrip("af"))
