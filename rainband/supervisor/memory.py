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
        self._groups = read_groups(pid)
        self._file = counter_file(self._groups)
        self._before = read_kills(self._file)

    def follow(self) -> OomKills:
        """This, or another one where the process has been put into another group."""
        groups = read_groups(self.pid)
        if groups in ("", self._groups):
            return self
        self._groups = groups
        found = counter_file(groups)
        return self if found is None or found == self._file else OomKills(self.pid)

    def more(self) -> bool:
        """Whether there were any since."""
        return read_kills(self._file) > self._before


def read_groups(pid: int) -> str:
    """The groups of a process, a line each, as the kernel names them; '' where it tells nothing."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cgroup") as file:
        return file.read()
    return ""


def counter_file(groups: str) -> Path | None:
    """Where the kernel counts for a process in `groups`: of the second kind of groups, or of the first."""
    for line in groups.splitlines():
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
