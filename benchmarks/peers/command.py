"""The command line that every peer shares: one JSON object on stdout, nothing else there."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.peers.processes import unwind_on_sigterm

Run = Callable[..., dict[str, object]]


def value(text: str) -> Any:
    """A setting's value: JSON if it is, else the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def pair(text: str) -> tuple[str, Any]:
    """KEY=VALUE."""
    key, equals, given = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"write KEY=VALUE, not {text!r}")
    return key, value(given)


def parser(peer: str, benches: Sequence[str]) -> argparse.ArgumentParser:
    """The flags that mean the same for every peer."""
    flags = argparse.ArgumentParser(
        prog=f"python -m benchmarks.peers.{peer}", description=f"Measure {peer} once."
    )
    flags.add_argument("--bench", choices=benches, default=benches[0])
    flags.add_argument("--workers", type=int, default=1)
    flags.add_argument("--acking", action=argparse.BooleanOptionalAction, default=False)
    flags.add_argument("--seconds", type=float, default=20.0, help="length of the measuring window")
    flags.add_argument("--json", action="store_true", help="one line; else indented")
    return flags


def main(flags: argparse.ArgumentParser, run: Run, argv: Sequence[str] | None = None) -> int:
    """Run with what was typed; what the peer cannot do is refused with exit code 2."""
    unwind_on_sigterm()
    typed = vars(flags.parse_args(argv))
    bench, compact = typed.pop("bench"), typed.pop("json")
    try:
        result = run(bench, **typed)
    except ValueError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    print(json.dumps(result, indent=None if compact else 2))
    return 0
