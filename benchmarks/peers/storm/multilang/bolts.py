"""Split and Count for Storm's multilang pipes by the shortest possible program.

Started by a ShellBolt as `python bolts.py split` or `python bolts.py count`. The protocol is the one
described in Storm's page "Multi-Lang Protocol": JSON messages on stdin and stdout, each followed by a line
`end`; a handshake that is answered with the pid; `emit` with anchors; `ack`; heartbeats answered with `sync`.
Nothing but the standard library.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SNAPSHOT_PERIOD_S = 0.2


def receive() -> Iterator[Any]:
    """Each message Storm sends, until the pipe closes."""
    lines: list[str] = []
    for line in sys.stdin:
        if line == "end\n":
            yield json.loads("".join(lines))
            lines.clear()
        else:
            lines.append(line)


def send(message: dict[str, object]) -> None:
    """One message to Storm, at once: the other side waits for it."""
    sys.stdout.write(json.dumps(message) + "\nend\n")
    sys.stdout.flush()


def handshake(messages: Iterator[Any]) -> dict[str, Any]:
    """Answer the first message with our pid, also as a file; give the topology's configuration."""
    hello = next(messages)
    Path(hello["pidDir"], str(os.getpid())).touch()
    send({"pid": os.getpid()})
    conf: dict[str, Any] = hello["conf"]
    return conf


class Split:
    """A line into words, anchored to the line."""

    def execute(self, tup: dict[str, Any]) -> None:
        """Emit every word of the line."""
        for word in tup["tuple"][0].split():
            send({"command": "emit", "anchors": [tup["id"]], "tuple": [word], "need_task_ids": False})

    def idle(self) -> None:
        """Nothing to report: words are counted further down."""


class Tally:
    """How often each word came; the totals go to the meter's directory like those of the worker JVMs."""

    def __init__(self, meter_dir: Path) -> None:
        self.counts: dict[str, int] = {}
        self.reached = 0
        self.file = meter_dir / f"{os.getpid()}.json"
        self.report_at = 0.0

    def add(self, word: str) -> None:
        """Count one word."""
        self.counts[word] = self.counts.get(word, 0) + 1
        self.reached += 1
        if self.reached % 64 == 0:
            self.report()

    def report(self) -> None:
        """Write the totals, a few times a second at most."""
        now = time.monotonic()
        if now < self.report_at:
            return
        self.report_at = now + SNAPSHOT_PERIOD_S
        totals = {"time_ns": time.monotonic_ns(), "reached": self.reached, "distinct": len(self.counts)}
        partial = self.file.with_suffix(".tmp")
        partial.write_text(json.dumps(totals))
        partial.replace(self.file)


class Count:
    """Words into a tally."""

    def __init__(self, meter_dir: Path) -> None:
        self.tally = Tally(meter_dir)

    def execute(self, tup: dict[str, Any]) -> None:
        """Count one word."""
        self.tally.add(tup["tuple"][0])

    def idle(self) -> None:
        """The last totals, when no word comes any more."""
        self.tally.report()


def main(kind: str) -> None:
    """Serve one task until Storm closes the pipe."""
    messages = receive()
    conf = handshake(messages)
    makers: dict[str, Callable[[], Split | Count]] = {
        "split": Split,
        "count": lambda: Count(Path(conf["rainband.meter.dir"])),
    }
    bolt = makers[kind]()
    for message in messages:
        if isinstance(message, list):  # task ids of an emit; we ask for none
            continue
        if message["task"] == -1 and message["stream"] == "__heartbeat":
            bolt.idle()
            send({"command": "sync"})
            continue
        bolt.execute(message)
        send({"command": "ack", "id": message["id"]})


if __name__ == "__main__":
    main(sys.argv[1])
