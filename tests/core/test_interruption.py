import subprocess
import sys

import pytest

HEEDED = """
signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells ignore in the background
for number in (signal.SIGTERM, signal.SIGHUP):  # which nohup ignores
    signal.signal(number, signal.SIG_DFL)
"""


def ran(source):
    command = [sys.executable, "-c", source.replace("HEEDED", HEEDED)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


LOST = """
import ctypes, signal
from tvm_passes.interruption import leaving_on_signals

@ctypes.CFUNCTYPE(None)
def called_from_c():
    signal.raise_signal(signal.{name})

HEEDED
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


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_signal_is_not_raised_again_after_the_end(name, code):
    source = LOST.replace("{name}", name).replace("while True", "while False")
    done = ran(f"from tvm_passes import interruption\ninterruption.LATER = 3\n{source}")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"cleaned up {code}\n", "")


def test_other_errors_of_a_callback_are_still_printed():
    source = LOST.replace("signal.raise_signal(signal.{name})", "1 / 0").replace("True", "False")
    done = ran(source)
    assert "ZeroDivisionError" in done.stderr
    assert done.returncode == 0


CONVERTED = """
import signal, sys
from tvm_passes import cli

def compile_model(*_args, **_options):
    try:
        signal.raise_signal(signal.{name})
    except BaseException as stop:
        raise {error}(str(stop)) from None  # as TVM 0.27 does, and we of some of its errors

HEEDED
cli.compile_model = compile_model
sys.argv = ["tvm-reorder", "compile", "model.onnx", "-o", "out"]
sys.exit(cli.main())
"""


@pytest.mark.parametrize("error", ["RuntimeError", "cli.TvmPassesError", "cli.click.UsageError"])
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_an_error_that_a_signals_exception_became_is_not_shown(name, code, error):
    done = ran(CONVERTED.replace("{name}", name).replace("{error}", error))
    assert done.returncode == code
    said = "tvm-reorder: interrupted; what was there before is untouched\n"
    assert done.stderr == (said if name == "SIGINT" else "")


def test_an_error_without_a_signal_is_a_bug_and_shown():
    source = CONVERTED.replace("signal.raise_signal(signal.{name})", "1 / 0")
    done = ran(source.replace("{error}", "RuntimeError"))
    assert done.returncode == 1
    assert "RuntimeError: division by zero" in done.stderr


IGNORED = """
import signal
from tvm_passes.interruption import leaving_on_signals

signal.signal(signal.{name}, signal.SIG_IGN)
with leaving_on_signals() as asked:
    signal.raise_signal(signal.{name})
print(asked.code, signal.getsignal(signal.{name}) is signal.SIG_IGN)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_that_is_ignored_stays_so(name):
    done = ran(IGNORED.replace("{name}", name))
    assert (done.returncode, done.stdout) == (0, "None True\n")


IMPORTING = """
import sys

class Stop:
    def find_spec(self, name, *_):
        if name == "click":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Stop())
from tvm_passes.__main__ import main
sys.exit(main())
"""


def test_ctrl_c_while_modules_are_imported():
    done = ran(IMPORTING)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
