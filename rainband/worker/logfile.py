"""The log file of one worker: all that its process prints, bounded in size whatever user code does.

The supervisor starts the worker with stdout and stderr on the file. `capture` then takes over: what Python code writes
is counted, and the file is turned over as soon as it is full; what C code and child processes write to the same
descriptors is noticed by `check`, called about once a second. One old file is kept beside the new one, as `<name>.1`.
A disk that is full costs log lines, which are counted, never an exception in user code.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path

LOG_BYTES_MAX = 32 * 1024 * 1024


class LogFile(io.RawIOBase):
    """The shared end of stdout and stderr. `dropped` counts bytes that the disk did not take."""

    def __init__(self, path: Path, bytes_max: int = LOG_BYTES_MAX) -> None:
        self.path = path
        self.bytes_max = bytes_max
        self.dropped = 0
        self._size = 0
        self.check()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1

    def isatty(self) -> bool:
        return False

    def write(self, data: object) -> int:
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        size = len(view)
        try:
            written = 0
            while written < size:
                written += os.write(1, view[written:])
        except OSError:
            self.dropped += size - written
        self._size += size
        if self._size >= self.bytes_max:
            self.check()
        return size

    def check(self) -> None:
        """Turn the file over if it is full by now."""
        with contextlib.suppress(OSError):
            self._size = os.fstat(1).st_size
            if self._size >= self.bytes_max:
                self._turn()

    def _turn(self) -> None:
        self.path.replace(self.path.with_name(f"{self.path.name}.1"))
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.close(handle)
        self._size = 0


def capture(path: Path, bytes_max: int = LOG_BYTES_MAX) -> LogFile:
    """Let sys.stdout and sys.stderr write to descriptor 1 through one LogFile, line by line."""
    log = LogFile(path, bytes_max)
    for name in ("stdout", "stderr"):
        stream = io.TextIOWrapper(_Lines(log), "utf-8", "backslashreplace", line_buffering=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    return log


class _Lines(io.BufferedWriter):
    """A buffer in front of the LogFile whose end does not close it: two streams share it."""

    def __init__(self, log: LogFile) -> None:
        super().__init__(log, 8192)

    def close(self) -> None:
        with contextlib.suppress(ValueError):
            self.flush()
