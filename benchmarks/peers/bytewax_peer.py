"""bytewax 0.21.1 as a peer: a Rust engine that calls Python functions. It has no acks, so acking is refused.

    python -m benchmarks.peers.bytewax_peer --bench word-count --workers 1 --seconds 10 --json

A worker is a process, joined by bytewax's own cluster over loopback: threads of one process would share one
interpreter lock. Install, start and stop are here; the dataflow is in bytewax_flow.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path

from benchmarks.peers import meters
from benchmarks.peers.command import main, parser
from benchmarks.peers.corpus import corpus, lines_file
from benchmarks.peers.processes import Group, free_ports
from benchmarks.peers.rows import row
from benchmarks.peers.venvs import python_with

VERSION = "0.21.1"
BENCHES = ("word-count", "chain")
COUNTS = ("each", "batch")
FLOW = Path(__file__).with_name("bytewax_flow.py")


def run(
    bench: str,
    *,
    workers: int = 1,
    acking: bool = False,
    seconds: float = 20.0,
    warm_up_s: float = 3.0,
    count: str = "each",
) -> dict[str, object]:
    """One run from an empty state; raises WrongCount if the totals do not add up."""
    if count not in COUNTS:
        raise ValueError(f"count is one of {COUNTS}, not {count!r}")
    if acking:
        raise ValueError("bytewax has no acks")
    python = python_with("bytewax", VERSION)
    lines = lines_file()
    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)] if workers > 1 else []
    with tempfile.TemporaryDirectory(prefix="bytewax-peer-") as root, contextlib.ExitStack() as stack:
        directory = Path(root, "meters")
        directory.mkdir()
        groups: list[Group] = []
        for index in range(workers):
            duration = str(seconds + warm_up_s + 2)
            command = [str(python), str(FLOW), bench, count, str(lines), str(directory), duration]
            groups.append(Group([*command, ",".join(addresses), str(index)], Path(root, f"{index}.log")))
            stack.callback(groups[-1].stop)
        meters.wait_started(directory, lambda: all(group.running for group in groups), timeout_s=60)
        time.sleep(warm_up_s)
        window = meters.measure(
            directory, seconds, acking=False, cpu_of=lambda: [group.pid for group in groups]
        )
        meters.wait_until(
            lambda: not any(group.running for group in groups), lambda: True, 60, "the flow did not end"
        )
        for group in groups:
            if group.process.returncode:
                raise RuntimeError(
                    f"bytewax ended with {group.process.returncode}:\n{group.log.read_text()[-2000:]}"
                )
        text = corpus()
        distinct = text.distinct if bench == "word-count" else None
        meters.check_drained(meters.read(directory), acking=False, distinct=distinct, lines=len(text.lines))
    settings = {"processes": workers, "count": count, "warm_up_s": warm_up_s}
    return row(bench, "bytewax", VERSION, workers, window, settings)


if __name__ == "__main__":
    flags = parser("bytewax_peer", BENCHES)
    flags.add_argument(
        "--count", choices=COUNTS, default="each", help="a Python call per word, or per word and batch"
    )
    raise SystemExit(main(flags, run))
