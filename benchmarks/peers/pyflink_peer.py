"""PyFlink 2.2.0 as a peer, an optional one: it brings most of a gigabyte of packages and needs Java.

    python -m benchmarks.peers.pyflink_peer --bench word-count --seconds 20 --json

Flink has no acks per record (it has checkpoints, which are off here), so acking is refused. Parallelism is 1
per component in one mini cluster: JVM plus, in `process` mode, Python processes.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.peers import meters
from benchmarks.peers.command import main, parser
from benchmarks.peers.corpus import corpus, lines_file
from benchmarks.peers.processes import Group
from benchmarks.peers.rows import row
from benchmarks.peers.venvs import python_with

VERSION = "2.2.0"
BENCHES = ("word-count",)
MODES = ("process", "thread")
JOB = Path(__file__).with_name("pyflink_job.py")


def run(
    bench: str,
    *,
    workers: int = 1,
    acking: bool = False,
    seconds: float = 20.0,
    warm_up_s: float = 15.0,
    mode: str = "process",
) -> dict[str, object]:
    """One run from an empty state; raises WrongCount if the totals do not add up."""
    if bench not in BENCHES or acking or workers != 1 or mode not in MODES:
        raise ValueError("PyFlink is measured as the word count, without acks, with workers=1")
    python = python_with("apache-flink", VERSION)
    text = corpus()
    with tempfile.TemporaryDirectory(prefix="pyflink-peer-") as root:
        directory = Path(root, "meters")
        directory.mkdir()
        command = [str(python), str(JOB), str(lines_file()), str(directory), mode]
        path = f"{python.parent}:/usr/local/bin:/usr/bin:/bin"
        group = Group(command, Path(root, "log"), cwd=Path(root), env={"PATH": path})
        try:
            meters.wait_started(directory, lambda: group.running, timeout_s=120)
            time.sleep(warm_up_s)
            window = meters.measure(directory, seconds, acking=False, cpu_of=lambda: [group.pid])
            (directory / "stop").touch()
            totals = meters.wait_quiet(directory, timeout_s=60, quiet_s=4.0)
            meters.check_drained(totals, acking=False, distinct=text.distinct, lines=len(text.lines))
        except BaseException as problem:
            problem.add_note(f"PyFlink's log ends:\n{group.log.read_text()[-2000:]}")
            raise
        finally:
            group.stop(grace_s=1.0)
    return row(bench, "pyflink", VERSION, workers, window, {"mode": mode, "warm_up_s": warm_up_s})


if __name__ == "__main__":
    flags = parser("pyflink_peer", BENCHES)
    flags.add_argument("--mode", choices=MODES, default="process", help="Flink's python.execution-mode")
    raise SystemExit(main(flags, run))
