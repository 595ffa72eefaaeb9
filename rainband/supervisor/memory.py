"""Was it the kernel that killed a process, for want of memory? It counts such kills per control group."""

from __future__ import annotations

import contextlib
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
WORDS = "killed by the kernel: out of memory"


class OomKills:
    """Kills in the control group of a process, since this was made. None are seen where the kernel tells nothing."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._file = counter_file(pid)
        self._before = read_kills(self._file)

    def follow(self) -> OomKills:
        """This, or another one where the process has been put into another group."""
        found = counter_file(self.pid)
        return self if found is None or found == self._file else OomKills(self.pid)

    def more(self) -> bool:
        """Whether there were any since."""
        return read_kills(self._file) > self._before


def counter_file(pid: int) -> Path | None:
    """Where the kernel counts for the group of a process: of the second kind of groups, or of the first."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                return GROUPS / "memory" / path.lstrip("/") / "memory.oom_control"
            if number == "0" and (GROUPS / path.lstrip("/") / "memory.events").exists():
                return GROUPS / path.lstrip("/") / "memory.events"
    return None


def read_kills(file: Path | None) -> int:
    """The number beside `oom_kill`; 0 where there is none."""
    with contextlib.suppress(OSError, ValueError):
        for line in file.read_text().splitlines() if file is not None else ():
            name, _, number = line.partition(" ")
            if name == "oom_kill":
                return int(number)
    return 0
