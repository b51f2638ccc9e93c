"""`jaxcompress`, and `python -m jaxcompress`: the command line as a process of its own."""

import os
import sys

from jaxcompress.cli import main

__all__ = ["run"]


def run() -> None:
    """Runs a command and ends the process with its exit code.

    Example:
      >>> run()  # doctest: +SKIP
    """
    code = main()
    if code == 130:
        # Threads of XLA may still compute; to take the interpreter down under them crashes it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    run()
