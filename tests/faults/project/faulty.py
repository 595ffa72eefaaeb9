"""A topology full of bad manners: rows that break bolts, values that do not travel, acks that are wrong.

    rows -fields-> tricky -shuffle-> careless -shuffle-> sink        rows.dead_letters -shuffle-> dead

One task each, in a worker of its own: every value travels.
Each does what it should not for the numbers named here, and is well-behaved for all others. What came out is in files.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rainband import Bolt, FailTuple, ManualBolt, ReliableSpout, TopologyBuilder, TopologyContext, Tuple
from rainband.topology.graph import Topology

TOTAL = 400
POISON, ONCE, QUIET, FOREVER_QUIET = 10, 20, 30, 40
MEDIUM, LARGE, OVER = 50, 60, 70
MEBIBYTE = 1 << 20
CAP_BYTES = 8 * MEBIBYTE
REFUSED, FINE, THREAD = 80, 90, 100
ODD = range(200, 206)
TWICE, NEVER, FOREIGN, FAIL_AFTER_ACK, UNANCHORED = 110, 120, 130, 140, 150
TIMEOUT_S = 2.0


class Odd:
    """A type that nobody said may travel."""


def cyclic() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


def deep() -> list[Any]:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    return nested


ODD_VALUES: list[Callable[[], Any]] = [Odd, lambda: print, cyclic, deep, lambda: "\ud800", lambda: {"a": [Odd()]}]
FINE_VALUES: list[Any] = [2**70, -(2**200), float("inf"), "é" * 1000, b"\x00" * 1000, {"a": (1, [2, {3}])}, None, True]


def note(directory: str, name: str, *what: object) -> None:
    """One JSON line into one file, by one write."""
    descriptor = os.open(Path(directory) / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, (json.dumps(what) + "\n").encode())
    os.close(descriptor)


def first_time(directory: str, name: str) -> bool:
    """True once in the life of the directory."""
    try:
        os.close(os.open(Path(directory) / f"seen-{name}", os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return False
    return True


class Rows(ReliableSpout):
    outputs = ("n",)
    max_retries = 2
    retry_delay_s = 0.05

    def open(self, context: TopologyContext) -> None:
        self.n = 0

    def next_tuple(self) -> None:
        if self.n == TOTAL:
            self.finish()
            return
        self.emit([self.n], message_id=self.n)
        self.n += 1


class Tricky(Bolt):
    outputs = ("n", "value")

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def execute(self, tup: Tuple) -> None:
        n = tup["n"]
        if n == POISON:
            raise ValueError("poison")
        if n == ONCE and first_time(self.directory, "once"):
            raise KeyError("only once")
        if (n == QUIET and first_time(self.directory, "quiet")) or n == FOREVER_QUIET:
            raise FailTuple("not today")
        if n == REFUSED:
            self.try_refused()
        if n == THREAD:
            self.emit_from_a_thread()
        if n in ODD:
            self.emit([n, ODD_VALUES[n - ODD.start]()])
            return
        if n == FINE:
            for value in FINE_VALUES:
                self.emit([n, value])
            return
        sizes = {MEDIUM: MEBIBYTE, LARGE: CAP_BYTES - 1024, OVER: CAP_BYTES + 1}
        self.emit([n, b"x" * sizes.get(n, 1)])

    def try_refused(self) -> None:
        for name, values in (("too many", [1, 2, 3]), ("too few", [1]), ("text", "ab")):
            try:
                self.emit(values)
                note(self.directory, "refused", name, "accepted")
            except Exception as error:
                note(self.directory, "refused", name, f"{type(error).__name__}: {error}"[:500])

    def emit_from_a_thread(self) -> None:
        """Once the test says that nothing runs any more: during a callback it could not be told from that."""
        emit, directory = self.emit, self.directory

        def late() -> None:
            while not Path(directory, "drained").exists():
                threading.Event().wait(0.02)
            try:
                emit([THREAD, None])
                note(directory, "late", "accepted")
            except Exception as error:
                note(directory, "late", f"{type(error).__name__}: {error}"[:500])

        threading.Thread(target=late, daemon=True).start()


class Careless(ManualBolt):
    outputs = ("n",)

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def execute(self, tup: Tuple) -> None:
        n, value = tup
        if n == FINE:
            note(self.directory, "fine", repr(value)[:300], FINE_VALUES.index(value))
        if n in (MEDIUM, LARGE, OVER):
            note(self.directory, "sizes", n, len(value))
        if n == NEVER and first_time(self.directory, "never"):
            return
        if n == UNANCHORED:
            self.emit([n], anchors=())
        else:
            self.emit([n], anchors=tup)
        if n == FOREIGN:
            try:
                self.ack("not a tuple")  # type: ignore[arg-type]
                note(self.directory, "foreign", "accepted")
            except Exception as error:
                note(self.directory, "foreign", f"{type(error).__name__}: {error}"[:500])
        self.ack(tup)
        if n == TWICE:
            self.ack(tup)
            self.ack(tup)
        if n == FAIL_AFTER_ACK:
            self.fail(tup)


class Sink(Bolt):
    def __init__(self, directory: str) -> None:
        self.directory = directory

    def execute(self, tup: Tuple) -> None:
        note(self.directory, "sunk", tup["n"])


class Dead(Bolt):
    def __init__(self, directory: str) -> None:
        self.directory = directory

    def execute(self, tup: Tuple) -> None:
        message_id, stream, values, retries, reason = tup
        note(self.directory, "dead", message_id, stream, list(values), retries, reason)


def faulty(name: str, directory: str, config: dict[str, object]) -> Topology:
    limits: dict[str, object] = {"topology.message.timeout.secs": TIMEOUT_S, "topology.max.value.bytes": CAP_BYTES}
    builder = TopologyBuilder(name, config={"topology.workers": 5, **limits, **config})
    builder.set_spout("rows", Rows())
    builder.set_bolt("tricky", Tricky(directory)).fields_grouping("rows", ["n"])
    builder.set_bolt("careless", Careless(directory)).shuffle_grouping("tricky")
    builder.set_bolt("sink", Sink(directory)).shuffle_grouping("careless")
    builder.set_bolt("dead", Dead(directory)).shuffle_grouping("rows", stream="dead_letters")
    return builder.create_topology()
