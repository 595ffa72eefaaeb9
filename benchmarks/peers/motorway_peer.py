"""motorway 3.1.4 as a peer: Python processes, ZeroMQ and JSON between them, XOR acks like Storm's.

    python -m benchmarks.peers.motorway_peer --bench word-count --acking --seconds 20 --json

Its tracking cannot be switched off, so a run without acking is refused; its processes are as many as the
components have (a ramp, two to split, two to count) and its controller, whatever `workers` says, so only 1 is
taken.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.peers import meters
from benchmarks.peers.command import main, parser
from benchmarks.peers.corpus import corpus, lines_file
from benchmarks.peers.processes import Group, free_ports
from benchmarks.peers.rows import row
from benchmarks.peers.venvs import python_with

VERSION = "3.1.4"
BENCHES = ("word-count",)
PIPELINE = Path(__file__).with_name("motorway_pipeline.py")


def run(
    bench: str,
    *,
    workers: int = 1,
    acking: bool = True,
    seconds: float = 20.0,
    warm_up_s: float = 5.0,
    pending: int = 2000,
) -> dict[str, object]:
    """One run; `pending` lines may be unacked at a time. Raises WrongCount if the totals do not add up."""
    if bench not in BENCHES or not acking or workers != 1:
        raise ValueError(
            "motorway is measured as the word count, with acks, with workers=1 for its whole pipeline"
        )
    python = python_with("motorway", VERSION)
    lines = lines_file()
    text = corpus()
    with tempfile.TemporaryDirectory(prefix="motorway-peer-") as root:
        directory = Path(root, "meters")
        directory.mkdir()
        command = [
            str(python),
            str(PIPELINE),
            str(lines),
            str(directory),
            str(free_ports(1)[0]),
            str(pending),
        ]
        group = Group(command, Path(root, "log"), cwd=Path(root))
        try:
            meters.wait_started(directory, lambda: group.running, timeout_s=90)
            time.sleep(warm_up_s)
            group_pids = group.members()
            window = meters.measure(directory, seconds, acking=True, cpu_of=lambda: [group.pid])
            (directory / "stop").touch()
            totals = meters.wait_quiet(directory, timeout_s=60, quiet_s=4.0)
            meters.check_drained(totals, acking=True, distinct=text.distinct, lines=len(text.lines))
        except BaseException as problem:
            problem.add_note(f"motorway's log ends:\n{group.log.read_text()[-2000:]}")
            raise
        finally:
            group.stop(grace_s=1.0)
    window = replace(window, extra={"repeated_acks": meters.total(totals, "repeated")})
    settings = {"pending": pending, "warm_up_s": warm_up_s, "processes": len(group_pids)}
    return row(bench, "motorway", VERSION, workers, window, settings)


if __name__ == "__main__":
    flags = parser("motorway_peer", BENCHES)
    flags.add_argument("--pending", type=int, default=2000, help="unacked lines at a time")
    raise SystemExit(main(flags, run))
