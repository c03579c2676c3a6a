"""Leave on a signal by an exception, so that what is half written is removed on the way out."""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

INTERRUPTED = 128 + signal.SIGINT
"""The exit code after Ctrl-C."""

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

LATER = 0.01
"""Seconds after which a signal is raised again that was lost in a callback."""


@dataclass
class Asked:
    """`code` is the exit code that a signal asked for, if one did."""

    code: int | None = None


@contextlib.contextmanager
def leaving_on_signals() -> Iterator[Asked]:
    """Leave on SIGTERM and SIGHUP by SystemExit, on SIGINT by KeyboardInterrupt; note the code.

    Python calls a handler between any two instructions, also those of a function that TVM called
    from C++. Its exception cannot cross the C++ then. TVM 0.27 makes a RuntimeError of it, which
    callers tell from others by the code noted. ctypes prints it and goes on: so the signal is
    raised again a little later, until its exception reaches us.

    A signal that this process was started to ignore, as by nohup, stays ignored.
    """
    asked = Asked()
    timers: list[threading.Timer] = []

    def leave(number: int, _frame: object) -> None:
        asked.code = 128 + number
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(asked.code)

    def again(lost: sys.UnraisableHookArgs) -> None:
        if asked.code is None or not isinstance(lost.exc_value, SystemExit | KeyboardInterrupt):
            hook(lost)
            return
        timer = threading.Timer(LATER, _thread.interrupt_main, [asked.code - 128])
        timers.append(timer)
        timer.start()

    hook, sys.unraisablehook = sys.unraisablehook, again
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    handlers = {number: signal.signal(number, leave) for number in heard}
    try:
        yield asked
    finally:
        for number in handlers:
            signal.signal(number, signal.SIG_IGN)
        for timer in timers:  # else it would raise in what comes after us
            timer.cancel()
            timer.join()
        sys.unraisablehook = hook
        for number, handler in handlers.items():
            signal.signal(number, handler)
