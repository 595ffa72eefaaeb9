"""`python -m rainband` and the console script: hands over to the command line."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    from rainband.cli.main import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
