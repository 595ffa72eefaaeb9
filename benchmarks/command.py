"""The command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.harness import Cluster
from benchmarks.peers.processes import unwind_on_sigterm
from benchmarks.results import Result
from benchmarks.throughput import chain, word_count


def main(argv: Sequence[str]) -> int:
    flags = argparse.ArgumentParser(prog="python -m benchmarks")
    flags.add_argument("name")
    flags.add_argument("--workers", type=int, default=1)
    flags.add_argument("--acking", action=argparse.BooleanOptionalAction, default=True)
    flags.add_argument("--seconds", type=float, default=10.0)
    flags.add_argument("--warm-up", type=float, default=None)
    flags.add_argument("--json", action="store_true")
    given = flags.parse_args(argv)
    unwind_on_sigterm()
    run: Callable[..., Result] = {"word-count": word_count, "chain": chain}[given.name]
    more: dict[str, Any] = {} if given.warm_up is None else {"warm_up_s": given.warm_up}
    with Cluster(slots=given.workers) as cluster:
        found = run(cluster, workers=given.workers, acking=given.acking, seconds=given.seconds, **more)
    print(json.dumps(found, indent=None if given.json else 2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
