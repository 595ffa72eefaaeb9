"""The command line: one benchmark on a cluster of its own, all of them, or the comparison with other engines."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import report
from benchmarks.catalogue import BENCHMARKS, measure
from benchmarks.peers.processes import unwind_on_sigterm
from benchmarks.results import WrongCount
from benchmarks.uncompiled import measure_uncompiled


def main(argv: Sequence[str]) -> int:
    """0, or 1 when what was counted is wrong."""
    given = flags().parse_args(argv)
    unwind_on_sigterm()
    if given.name == "all":
        return report.all_of_ours(given.seconds, given.only)
    if given.name == "peers":
        return report.all_peers(given.rounds, given.seconds, given.only, given.pending, given.pyflink)
    try:
        found = measure_uncompiled(without_flag(argv)) if given.uncompiled else measure(given.name, **settings(given))
    except WrongCount as wrong:
        print(f"error: {wrong}", file=sys.stderr)
        return 1
    print(json.dumps(found, indent=None if given.json else 2))
    return 0


def without_flag(argv: Sequence[str]) -> list[str]:
    return [word for word in argv if word not in ("--uncompiled", "--json")]


def settings(given: argparse.Namespace) -> dict[str, Any]:
    """What was typed of a Wish."""
    typed = {name: getattr(given, name) for name in ("workers", "seconds", "warm_up_s", "acking")}
    return {name: value for name, value in typed.items() if value is not None}


def flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure rainband. 'all' runs every benchmark and 'peers' the comparison with other engines; both "
        "write docs/benchmarks.md.",
    )
    parser.add_argument("name", choices=[*BENCHMARKS, "all", "peers"])
    parser.add_argument("--workers", type=int)
    parser.add_argument("--acking", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seconds", type=float, help="length of each measuring window")
    parser.add_argument("--warm-up", type=float, dest="warm_up_s", metavar="SECONDS")
    parser.add_argument("--uncompiled", action="store_true", help="measure the plain Python files")
    parser.add_argument("--json", action="store_true", help="one line; else indented")
    parser.add_argument("--only", default="", metavar="TEXT", help="all, peers: those whose name contains it")
    parser.add_argument("--rounds", type=int, default=5, help="peers: how often each runs")
    parser.add_argument("--pending", type=int, help="peers: Storm's limit of pending trees, instead of a search for it")
    parser.add_argument("--pyflink", action="store_true", help="peers: PyFlink too")
    return parser
