"""The command line: one benchmark on a cluster of its own."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rainband
from benchmarks.catalogue import BENCHMARKS
from benchmarks.harness import Cluster, Wish
from benchmarks.peers.processes import unwind_on_sigterm
from benchmarks.results import Result, WrongCount

UNCOMPILED = "RAINBAND_BENCH_UNCOMPILED"


def main(argv: Sequence[str]) -> int:
    """0, or 1 when what was counted is wrong."""
    given = flags().parse_args(argv)
    if given.uncompiled and UNCOMPILED not in os.environ:
        return uncompiled(argv)
    unwind_on_sigterm()
    settings: dict[str, Any] = {"acking": given.acking}
    for name in ("workers", "seconds", "warm_up_s"):
        if getattr(given, name) is not None:
            settings[name] = getattr(given, name)
    try:
        found = run(given.name, **settings)
    except WrongCount as wrong:
        print(f"error: {wrong}", file=sys.stderr)
        return 1
    print(json.dumps(found, indent=None if given.json else 2))
    return 0


def flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure rainband once.")
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--acking", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seconds", type=float, help="length of the measuring window")
    parser.add_argument("--warm-up", type=float, dest="warm_up_s", metavar="SECONDS")
    parser.add_argument("--uncompiled", action="store_true", help="measure the plain Python files")
    parser.add_argument("--json", action="store_true", help="one line; else indented")
    return parser


def run(name: str, **settings: Any) -> Result:
    """One benchmark on a fresh cluster; what is not in `settings` is the benchmark's own choice."""
    found = BENCHMARKS[name]
    wish = Wish(**{"workers": found.workers, "seconds": found.seconds, **settings})
    with Cluster(slots=wish.workers if found.supervisors else 1, supervisors=found.supervisors) as cluster:
        return found.run(cluster, wish)


def uncompiled(argv: Sequence[str]) -> int:
    """The same on a copy of this rainband without its compiled modules."""
    package = Path(rainband.__file__).parent
    with tempfile.TemporaryDirectory(prefix="rainband-uncompiled-") as directory:
        shutil.copytree(package, Path(directory, "rainband"), ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        paths = os.pathsep.join([directory, *(path for path in sys.path if path)])
        environment = {**os.environ, "PYTHONPATH": paths, UNCOMPILED: "1"}
        return os.spawnve(os.P_WAIT, sys.executable, [sys.executable, "-m", "benchmarks", *argv], environment)
