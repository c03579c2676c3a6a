"""How scripts end: a user's error in one line, and an interruption without a traceback."""

from __future__ import annotations

import sys

import click

from tvm_passes.errors import TvmPassesError
from tvm_passes.interruption import leaving_on_signals


def run_script(name: str, command: click.Command) -> None:
    """Run a script's command; a user's error is one line, an interruption keeps what there is."""
    with leaving_on_signals() as asked:
        try:
            command.main(standalone_mode=False)
        except click.ClickException as err:
            err.show()
            sys.exit(err.exit_code)
        except TvmPassesError as err:
            sys.exit(f"{name}: error: {err}" if asked.code is None else asked.code)
        except (click.Abort, KeyboardInterrupt):
            sys.exit(f"{name}: interrupted; what was measured before is in the output")
