"""Start a process so that it can be stopped with everything it started, and account its CPU time from /proc.

Linux only, like the comparison itself. A group is a session of its own: its children stay in it, whatever
dies first.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Group:
    """One process and its descendants, in their own session."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        talk: bool = False,
    ) -> None:
        """Start it; its stderr goes to `log`, and its stdout too unless we `talk` to it over pipes."""
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                list(command),
                cwd=cwd,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                stderr=file,
                stdin=subprocess.PIPE if talk else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talk else file,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        """stdin and stdout of a process started with talk=True."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        return self.process.stdin, self.process.stdout

    def members(self) -> list[int]:
        """The live processes of the session, zombies apart."""
        return [pid for pid, fields in _stats() if int(fields[3]) == self.pid and fields[0] != "Z"]

    def stop(self, grace_s: float = 5.0) -> None:
        """Ask all of them to end, then make them; returns when none is left."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while self.members() and time.monotonic() < deadline:
            self.process.poll()
            time.sleep(0.05)
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _stats() -> Iterator[tuple[int, list[str]]]:
    """(pid, the fields of /proc/PID/stat from the state on) of every process."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                text = Path(entry.path, "stat").read_text()
                yield int(entry.name), text.rpartition(")")[2].split()


def cpu_seconds(pids: Iterable[int], *, descendants: bool = False) -> float:
    """User plus system time of these processes so far, with their live descendants if wanted."""
    stats = dict(_stats())
    wanted = {pid for pid in pids if pid in stats}
    if descendants:
        grown = True
        while grown:
            more = {pid for pid, fields in stats.items() if int(fields[1]) in wanted} - wanted
            wanted |= more
            grown = bool(more)
    return sum(int(stats[pid][11]) + int(stats[pid][12]) for pid in wanted) * TICK_S


def machine_busy_seconds() -> float:
    """CPU time of everything on this machine since it started, all cores together."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = Path("/proc/stat").read_text().split()[1:9]
    return sum(map(int, (user, nice, system, irq, softirq, steal))) * TICK_S


def free_ports(count: int) -> list[int]:
    """That many TCP ports of loopback that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def unwind_on_sigterm() -> None:
    """Let a SIGTERM leave through `finally` and `with`, so that no child is left behind."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
