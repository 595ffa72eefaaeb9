"""`python -m benchmarks NAME`: one benchmark, one JSON object on stdout."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)


def installed_first() -> None:
    """Let an installed rainband, which is compiled, come before the source tree we were started in."""
    sys.path[:] = [path for path in sys.path if path not in ("", ROOT)] + [ROOT]


if __name__ == "__main__":
    installed_first()
    from benchmarks.command import main

    sys.exit(main(sys.argv[1:]))
