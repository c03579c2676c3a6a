import subprocess
import sys

import pytest


def ran(source):
    command = [sys.executable, "-c", source]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


LOST = """
import ctypes, signal
from tvm_passes.interruption import leaving_on_signals

@ctypes.CFUNCTYPE(None)
def called_from_c():
    signal.raise_signal(signal.{name})

signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells ignore in the background
with leaving_on_signals() as asked:
    called_from_c()
    try:
        while True:
            pass
    finally:
        print("cleaned up", asked.code)
"""


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_signal_that_a_callback_swallows_is_raised_again(name, code):
    source = LOST.replace("{name}", name)
    done = ran(source)
    assert done.stdout.split() == ["cleaned", "up", str(code)]
    assert done.returncode in (code, -code + 128)  # Python ends by the signal itself on SIGINT


def test_other_errors_of_a_callback_are_still_printed():
    source = LOST.replace("signal.raise_signal(signal.{name})", "1 / 0").replace("True", "False")
    done = ran(source)
    assert "ZeroDivisionError" in done.stderr
    assert done.returncode == 0
