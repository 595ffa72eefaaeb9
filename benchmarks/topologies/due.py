"""Tuples that fall due at a fixed rate, whatever the runtime does: latency is counted from when each was due.

They come from another process as datagrams of (first number, how many, due time of the first in ns, interval in ns).
"""

from __future__ import annotations

import os
import socket
import struct
import time
from typing import Any

import chain
import probe

from rainband import Spout, Topology, TopologyBuilder, TopologyContext

BATCH = struct.Struct("<QQQQ")


class Due(Spout):
    """Emits what has fallen due; takes the time until each tuple's tree is acked."""

    outputs = ("value",)

    def __init__(self, directory: str, address: str) -> None:
        self.directory = directory
        self.address = address

    def open(self, context: TopologyContext) -> None:
        self.context = context
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.socket.bind(self.address)
        self.number = self.left = self.due = self.interval = 0
        self.emitted = self.acked = self.failed = 0
        self.latency_us: dict[int, int] = {}
        self.write_at = 0

    def next_tuple(self) -> None:
        if not self.left and not self.receive():
            return
        due = self.due
        self.left -= 1
        self.due = due + self.interval
        self.emitted += 1
        self.emit([due], message_id=(self.emitted, due))

    def receive(self) -> bool:
        try:
            packet = self.socket.recv(BATCH.size)
        except BlockingIOError:
            return False
        self.number, self.left, self.due, self.interval = BATCH.unpack(packet)
        return True

    def ack(self, message_id: Any) -> None:
        now = time.monotonic_ns()
        at = probe.bucket(now - message_id[1])
        self.latency_us[at] = self.latency_us.get(at, 0) + 1
        self.acked += 1
        if now >= self.write_at:
            self.write_at = now + probe.PERIOD_NS
            self.save()

    def fail(self, message_id: object) -> None:
        self.failed += 1

    def save(self) -> None:
        totals = {"emitted": self.emitted, "acked": self.acked, "failed": self.failed, "latency_us": self.latency_us}
        probe.save(self.directory, self.context, totals)

    def close(self) -> None:
        self.save()
        self.socket.close()
        os.unlink(self.address)


class OneByOne(probe.Source):
    """Emits the next tuple when the one before is acked: see topology.max.spout.pending = 1. Times each."""

    def make_rows(self, context: TopologyContext) -> list[list[Any]]:
        return [["some data"]]

    def next_tuple(self) -> None:
        self.emitted += 1
        self.emit(self.rows[0], message_id=time.monotonic_ns())

    def ack(self, message_id: Any) -> None:
        now = time.monotonic_ns()
        self.acked += 1
        at = probe.bucket(now - message_id)
        self.latency_us[at] = self.latency_us.get(at, 0) + 1
        if now >= self.write_at:
            self.write_at = now + probe.PERIOD_NS
            self.save()


def topology(directory: str, address: str) -> Topology:
    """due -> id -> null."""
    return chained("latency", Due(directory, address), directory)


def one_by_one(directory: str) -> Topology:
    return chained("one-by-one", OneByOne(directory, True), directory)


def chained(name: str, source: Spout, directory: str) -> Topology:
    builder = TopologyBuilder(name)
    builder.set_spout("source", source)
    builder.set_bolt("id", chain.Id()).shuffle_grouping("source")
    builder.set_bolt("null", probe.Sink(directory)).shuffle_grouping("id")
    return builder.create_topology()
