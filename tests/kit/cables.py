"""Hosts (network namespaces) on a switch that this process plays: it delays frames, loses some, lets others overtake.

For kernels without netem. Needs root, iproute2 and /dev/net/tun.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import os
import random
import select
import struct
import threading
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from kit.chaos_host import Hosts, run

TUN = Path("/dev/net/tun")
TUNSETIFF = 0x400454CA
TAP, NO_PI = 0x0002, 0x1000
FRAME_BYTES_MAX = 1 << 16
MACS = 12
IDLE_S = 0.2

needs_tun = pytest.mark.skipif(not TUN.exists(), reason="needs /dev/net/tun")


@dataclass(frozen=True)
class Trouble:
    """What befalls frames on their way: `delay_s` ± `jitter_s` each, so that they overtake; a share is lost.

    More than `rate` bits a second wait their turn, up to `queue_s`; what would wait longer is lost.
    """

    delay_s: float = 0.5
    jitter_s: float = 0.1
    loss: float = 0.05
    rate: float = 1e6
    queue_s: float = 1.0


class Switch(threading.Thread):
    """Carries frames between taps. `troubles` by the tap that a frame comes from."""

    def __init__(self, taps: list[int]) -> None:
        super().__init__(name="switch", daemon=True)
        self.troubles: dict[int, Trouble] = {}
        self.carried = self.lost = self.overtaken = 0
        self._taps = taps
        self._draw = random.Random(1)
        self._where: dict[bytes, int] = {}
        self._free_at = [0.0] * len(taps)
        self._last_due = [0.0] * len(taps)
        self._due: list[tuple[float, int, int, bytes]] = []
        self._serial = count()
        self._ended = False

    def end(self) -> None:
        self._ended = True
        self.join(5)

    def run(self) -> None:
        while not self._ended:
            wait_s = IDLE_S if not self._due else min(IDLE_S, max(0.0, self._due[0][0] - time.monotonic()))
            for tap in select.select(self._taps, [], [], wait_s)[0]:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        self._take(self._taps.index(tap), os.read(tap, FRAME_BYTES_MAX))
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                _, _, target, frame = heapq.heappop(self._due)
                with contextlib.suppress(OSError):  # its host has no room, or is not up
                    os.write(self._taps[target], frame)
                    self.carried += 1

    def _take(self, source: int, frame: bytes) -> None:
        self._where[frame[6:MACS]] = source
        known = self._where.get(frame[:6])
        due = self._when(source, len(frame), time.monotonic())
        if due is None:
            self.lost += 1
            return
        for target in range(len(self._taps)) if known is None else [known]:
            if target != source:
                heapq.heappush(self._due, (due, next(self._serial), target, frame))

    def _when(self, source: int, size: int, now: float) -> float | None:
        trouble = self.troubles.get(source)
        if trouble is None:
            return now
        start = max(now, self._free_at[source])
        if self._draw.random() < trouble.loss or start - now > trouble.queue_s:
            return None
        self._free_at[source] = start + size * 8 / trouble.rate
        due = self._free_at[source] + trouble.delay_s + self._draw.uniform(-trouble.jitter_s, trouble.jitter_s)
        self.overtaken += due < self._last_due[source]
        self._last_due[source] = due
        return due


class Cables(Hosts):
    """`Hosts` whose cables end in a `switch` of ours. A context manager."""

    switch: Switch

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self._taps: list[int] = []

    def __enter__(self) -> Cables:
        try:
            for number in range(len(self.names) + 1):
                self._taps.append(open_tap(card := f"{self.tag}t{number}"))
                if number == 0:
                    run("ip", "addr", "add", f"{self.here}/24", "dev", card)
                    run("ip", "link", "set", card, "up")
                    continue
                name = self.names[number - 1]
                run("ip", "netns", "add", name)
                run("ip", "link", "set", card, "netns", name)
                run("ip", "-n", name, "link", "set", card, "name", "eth0")
                run("ip", "-n", name, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
                run("ip", "-n", name, "link", "set", "eth0", "up")
                run("ip", "-n", name, "link", "set", "lo", "up")
            self.switch = Switch(self._taps)
            self.switch.start()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        if hasattr(self, "switch"):
            self.switch.end()
        for tap in self._taps:
            os.close(tap)  # and the card is gone
        self._taps.clear()
        super().close()


def open_tap(name: str) -> int:
    """A network card whose cable end is the descriptor."""
    descriptor = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), TAP | NO_PI))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
