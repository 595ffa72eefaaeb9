"""Says at a fixed rate that tuples are due, from a process of its own. See topologies/due.py for what it sends.

    python generator.py ADDRESS RATE
"""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

BATCH = struct.Struct("<QQQQ")
TICK_NS = 200_000
TUPLES_MAX = 4096


@contextlib.contextmanager
def generating(address: str, rate: float) -> Iterator[None]:
    """A process that generates until the block ends."""
    process = subprocess.Popen([sys.executable, "-I", str(Path(__file__).resolve()), address, str(rate)])
    try:
        yield
        if process.poll() is not None:
            raise RuntimeError(f"the generator ended with {process.returncode}")
    finally:
        process.kill()
        process.wait()


def generate(address: str, rate: float) -> None:
    """What is due is sent at most 0.2 ms late, together; what the receiver is slow to take stays due when it was."""
    out = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    connect(out, address)
    interval = round(1e9 / rate)
    begin = time.monotonic_ns()
    sent = 0
    while True:
        due = (time.monotonic_ns() - begin) // interval + 1
        while sent < due:
            count = min(TUPLES_MAX, due - sent)
            out.send(BATCH.pack(sent, count, begin + sent * interval, interval))
            sent += count
        wait_ns = max(begin + sent * interval - time.monotonic_ns(), TICK_NS if interval < TICK_NS else 0)
        time.sleep(wait_ns / 1e9)


def connect(out: socket.socket, address: str) -> None:
    until = time.monotonic() + 30.0
    while True:
        try:
            out.connect(address)
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


if __name__ == "__main__":
    with contextlib.suppress(ConnectionError, BrokenPipeError):
        generate(sys.argv[1], float(sys.argv[2]))
