"""What runs inside motorway: the word count as a pipeline of processes. Started by motorway_peer in
motorway's own venv.

`python motorway_pipeline.py LINES METERS PORT PENDING` runs until it is stopped. One ramp reads the lines,
two intersections split by RandomGrouper, two count by HashRingGrouper; motorway adds its controller (which
holds the XOR books) and its connection process; its web page is left out. The ramp counts what it emits and
what came back, each counter what it counted, into METERS/PID.json in the form that `meters` reads; it stops
when METERS/stop exists.
"""

# its package lives in a venv of its own
# mypy: disable-error-code="import-not-found, misc"
from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from motorway.connection import ConnectionIntersection
from motorway.grouping import HashRingGrouper, RandomGrouper
from motorway.intersection import Intersection
from motorway.messages import Message
from motorway.pipeline import Pipeline
from motorway.ramp import Ramp

LINES, METERS = Path(sys.argv[1]), Path(sys.argv[2])
PORT, PENDING = int(sys.argv[3]), int(sys.argv[4])
SNAPSHOT_PERIOD_S = 0.2
HOLD_S = 15.0
"""The ramp waits as long before its first line: the controller drops acks until it has heard of the ramp, and
the processes hear of each other every 5 s."""


class Meter:
    """This process's totals, written a few times a second by a thread."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        self.latency_us: Counter[int] = Counter()
        self.stopped = False
        threading.Thread(target=self._loop, daemon=True).start()

    def _loop(self) -> None:
        file = METERS / f"{os.getpid()}.json"
        while True:
            partial = file.with_suffix(".tmp")
            totals = {
                "time_ns": time.monotonic_ns(),
                **self.totals,
                "latency_us": dict(list(self.latency_us.items())),
            }
            partial.write_text(json.dumps(totals))
            partial.replace(file)
            self.stopped = (METERS / "stop").exists()
            time.sleep(SNAPSHOT_PERIOD_S)


class Lines(Ramp):
    """The lines round and round, so many unacked at a time: motorway itself sets no limit."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lines = LINES.read_text(encoding="utf-8").split("\n")[:-1]
        self.words = [len(line.split()) for line in self.lines]
        self.meter = Meter()
        self.roots = 0
        self.started: dict[int, float] = {}
        self.hold_until = time.monotonic() + HOLD_S

    def next(self) -> Iterator[Message]:
        """As many as may be pending now."""
        held = time.monotonic() < self.hold_until
        for _ in range(64):
            if held or self.meter.stopped or len(self.started) >= PENDING:
                time.sleep(0.001)
                return
            root = self.roots
            self.roots += 1
            at = root % len(self.lines)
            self.started[root] = time.monotonic()
            self.meter.totals.update({"roots": 1, "emitted": self.words[at]})
            yield Message(root, self.lines[at])

    def success(self, _id: int) -> None:
        """The whole tree of a line was acked. A second ack of it is only counted."""
        began = self.started.pop(_id, None)
        if began is None:
            self.meter.totals["repeated"] += 1
            return
        took = time.monotonic() - began
        self.meter.totals["acked"] += self.words[_id % len(self.words)]
        self.meter.latency_us[round(took * 1000) * 1000] += 1

    def failed(self, _id: int) -> None:
        """Some of it was not."""
        self.started.pop(_id, None)
        self.meter.totals["failed"] += 1


class Split(Intersection):
    """A line into words, anchored to the line."""

    def process(self, message: Message) -> Iterator[Message]:
        """Emit every word, then ack the line."""
        for word in message.content.split():
            yield Message.new(message, word, grouping_value=word)
        self.ack(message)


class Count(Intersection):
    """How often each word came."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.counts: dict[str, int] = {}
        self.meter = Meter()

    def process(self, message: Message) -> Iterator[None]:
        """Count one word."""
        word = message.content
        self.counts[word] = self.counts.get(word, 0) + 1
        self.meter.totals["reached"] += 1
        self.meter.totals["distinct"] = len(self.counts)
        self.ack(message)
        yield None


class Discovery(ConnectionIntersection):
    """motorway's own, on a port of our choice: Pipeline tells the others about its port, but not this one."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(bind_address=f"tcp://127.0.0.1:{PORT}", **kwargs)


class Page(Intersection):
    """In place of the web page: the controller connects to ramps only once it has someone to report to."""

    send_control_messages = False

    def process(self, message: Message) -> Iterator[None]:
        """Forget the report."""
        yield None


class WordCount(Pipeline):
    """lines -> split -> count."""

    def definition(self) -> None:
        """As in motorway's own example."""
        self.add_ramp(Lines, "line")
        self.add_intersection(Split, "line", "word", processes=2, grouper_cls=RandomGrouper)
        self.add_intersection(Count, "word", processes=2, grouper_cls=HashRingGrouper)
        self.add_intersection(Page, "_web_server")
        self.add_intersection(Discovery, "_update_connections")


if __name__ == "__main__":
    address = f"127.0.0.1:{PORT}"
    WordCount(controller_bind_address=address, run_webserver=False, run_connection_discovery=False).run()
