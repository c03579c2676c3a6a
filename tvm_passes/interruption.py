"""Leave on a signal by an exception, so that what is half written is removed on the way out."""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

LATER = 0.01
"""Seconds after which a signal is raised again that was lost in a callback."""


@dataclass
class Asked:
    """`code` is the exit code that a signal asked for, if one did."""

    code: int | None = None


@contextlib.contextmanager
def leaving_on_signals() -> Iterator[Asked]:
    """Exit with 128 + N on signal N: SIGTERM, SIGHUP.

    Python calls a handler between any two instructions, also those of a function that TVM called
    from C++. Its exception cannot cross the C++ then: ctypes prints it and goes on. So the signal
    is raised again a little later, until its exception reaches us. Ctrl-C is treated likewise.
    """
    asked = Asked()

    def leave(number: int, _frame: object) -> None:
        asked.code = 128 + number
        sys.exit(asked.code)

    def again(lost: sys.UnraisableHookArgs) -> None:
        if asked.code is not None and isinstance(lost.exc_value, SystemExit):
            number = asked.code - 128
        elif isinstance(lost.exc_value, KeyboardInterrupt):
            number, asked.code = signal.SIGINT, 128 + signal.SIGINT
        else:
            hook(lost)
            return
        threading.Timer(LATER, _thread.interrupt_main, [number]).start()

    hook, sys.unraisablehook = sys.unraisablehook, again
    handlers = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield asked
    finally:
        sys.unraisablehook = hook
        for number, handler in handlers.items():
            signal.signal(number, handler)
