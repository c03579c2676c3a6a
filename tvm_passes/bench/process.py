"""The parent's end of a worker: start it, stop it while others are measured, ask it, end it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tvm_passes.errors import last_line

PACKAGE = Path(__file__).parent.parent


class WorkerError(Exception):
    """A worker that cannot start, died, or answered with an error: one line."""


class Process:
    """A worker process, stopped except while it answers.

    Parameters
    ----------
    command
        What to run; `worker_command` gives it.
    threads
        Threads that the runtime may use.
    log
        Where its stderr goes.

    Raises
    ------
    WorkerError
        If the command's interpreter is not there.
    """

    def __init__(self, command: Sequence[str], threads: int, log: Path) -> None:
        self.log = log
        if not Path(command[0]).exists():
            raise WorkerError(f"no {command[0]}")
        with log.open("w") as stderr:
            self.child = subprocess.Popen(  # noqa: S603 - our own module
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment(threads),
                start_new_session=True,
                cwd=log.parent,
            )
        self.pending = b""

    @property
    def ended(self) -> bool:
        """Whether the process is no more."""
        return self.child.poll() is not None

    def ask(self, do: str, timeout: float = 600, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its reply; the process runs for that long only.

        Raises
        ------
        WorkerError
            If the process dies, takes longer than `timeout` seconds, or reports an error.
        """
        line = json.dumps({"do": do, **request}).encode() + b"\n"
        self._signal(signal.SIGCONT)
        try:
            self._write(line)
            reply = json.loads(self._read_line(time.monotonic() + timeout, timeout))
        finally:
            self._signal(signal.SIGSTOP)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return dict(reply)

    def kill(self) -> None:
        """Kill the process and what it started; who waits for a reply gets a `WorkerError`."""
        if not self.ended:
            self._signal(signal.SIGKILL)
            self.child.wait()

    def end(self) -> None:
        """Kill the process and what it started; a second call does nothing."""
        self.kill()
        for pipe in (self.child.stdin, self.child.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, number)

    def _write(self, line: bytes) -> None:
        assert self.child.stdin is not None  # noqa: S101 - it is a pipe
        try:
            self.child.stdin.write(line)
            self.child.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._last_words()) from None

    def _read_line(self, deadline: float, timeout: float) -> bytes:
        assert self.child.stdout is not None  # noqa: S101 - it is a pipe
        pipe = self.child.stdout.fileno()
        while b"\n" not in self.pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                self.end()
                raise WorkerError(f"no answer in {timeout:.0f} s")
            data = os.read(pipe, 1 << 16)
            if not data:
                raise WorkerError(self._last_words())
            self.pending += data
        line, _, self.pending = self.pending.partition(b"\n")
        return line

    def _last_words(self) -> str:
        code = self.child.wait()
        words = last_line(self.log.read_text(errors="replace"))
        died = f"died of signal {-code}" if code < 0 else f"ended with code {code}"
        return f"{died}: {words}" if words else died


def worker_command(python: Path, runtime: str, threads: int) -> list[str]:
    """The command that serves a runtime of `tvm_passes.bench.worker.BACKENDS`."""
    return [str(python), "-m", "tvm_passes.bench.worker", runtime, str(threads)]


def environment(threads: int) -> Mapping[str, str]:
    """Variables for a worker: thread counts, this package to import, no messages of TensorFlow."""
    count = str(threads)
    path = [str(PACKAGE.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return os.environ | {
        "TVM_NUM_THREADS": count,  # set later, TVM's pool of two runs as one
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TOPHUB_LOCATION": "NONE",
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
    }
