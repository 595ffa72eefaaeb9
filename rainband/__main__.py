"""`python -m rainband` and the console script: hands over to the command line, and ends the process."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import NoReturn

INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line and leave with its exit code."""
    code = INTERRUPTED
    with contextlib.suppress(KeyboardInterrupt):  # one that comes while all is still being imported
        open_streams()
        from rainband.cli.main import run

        code = run(sys.argv[1:])
    leave(code)


def open_streams() -> None:
    """Put /dev/null where the shell has closed stdin, stdout or stderr, before a file or a socket takes its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode))


def leave(code: int) -> NoReturn:
    """End the process when a command is done, whatever threads the user's files have started: nobody waits for them.

    What is registered with `atexit` is run, and stdout and stderr are written out.
    """
    try:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
