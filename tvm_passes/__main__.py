"""Where ``tvm-reorder`` and ``python -m tvm_passes`` begin."""

import signal
import sys


def main() -> int:
    """Run the command; Ctrl-C while its modules are imported ends it without a traceback."""
    try:
        from tvm_passes.cli import main as run
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return run()


if __name__ == "__main__":
    sys.exit(main())
