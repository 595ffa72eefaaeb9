"""What a supervisor remembers over its own death: who it is, what it was told, whom it started.

    <state>/supervisor.lock       held while a supervisor lives; names its pid
    <state>/supervisor.json       the memory below, replaced as a whole
    <state>/topologies/           homes of the topologies assigned here (see topology.home)
    <state>/logs/<topology>/      output of the workers, worker-<port>.log
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import socket
from pathlib import Path

import msgspec

from rainband.errors import Refused, StateLocked, unwritable
from rainband.records import Assignment
from rainband.supervisor.processes import Identity
from rainband.topology import home

LOCK = "supervisor.lock"
MEMORY = "supervisor.json"


class WorkerRecord(msgspec.Struct, frozen=True):
    """A worker as it was started. `incarnation` is 0 until it has introduced itself."""

    topology: str
    identity: Identity
    incarnation: int = 0
    restarts: int = 0


class Memory(msgspec.Struct):
    """`epoch` is the highest leader epoch heard of; `assignments` are by topology id, `workers` by port."""

    supervisor: str
    token: str
    ports: tuple[int, ...] = ()
    cluster_id: str = ""
    epoch: int = 0
    assignments: dict[str, Assignment] = {}
    workers: dict[int, WorkerRecord] = {}


class Disk:
    """The state directory of one supervisor, locked for as long as this object is open.

    Raises StateLocked when another supervisor holds it, Refused when it cannot be written.
    """

    def __init__(self, state: Path, name: str = "") -> None:
        self.state = state
        self.topologies = state / "topologies"
        self.logs = state / "logs"
        try:
            for directory in (state, self.topologies, self.logs):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = take_lock(state / LOCK, "Stop that supervisor, or use another one")
        except OSError as error:
            raise unwritable(state, error) from None
        self.memory = self._load(name)

    def _load(self, name: str) -> Memory:
        path = self.state / MEMORY
        try:
            memory = msgspec.json.decode(path.read_bytes(), type=Memory)
        except FileNotFoundError:
            host = re.sub("[^A-Za-z0-9_.-]", "-", socket.gethostname())[:48].strip("_.-")
            memory = Memory(name or f"{host or 'host'}-{secrets.token_hex(3)}", secrets.token_hex(16))
        except (OSError, msgspec.DecodeError) as error:
            raise Refused(f"{path} cannot be read: {error}", "Move it away to begin anew") from None
        if name and memory.supervisor != name:
            raise Refused(f"{self.state} belongs to supervisor {memory.supervisor}, not {name}")
        return memory

    def save(self) -> None:
        """Write the memory down. Raises OSError when the disk does not take it; the old memory is then still there."""
        home.write_file(self.state / MEMORY, msgspec.json.encode(self.memory))

    def home(self, topology_id: str) -> Path:
        return home.home_of(self.topologies, topology_id)

    def log(self, topology_id: str, port: int) -> Path:
        return home.home_of(self.logs, topology_id) / f"worker-{port}.log"

    def lease(self) -> float:
        """Until when an earlier supervisor let what is exclusive run, in seconds since boot. Raises OSError."""
        handle = home.open_lease(self.topologies)
        try:
            return home.read_lease(handle)
        finally:
            os.close(handle)

    def remove_home(self, topology_id: str) -> None:
        """Rename first, so that no half-removed home is ever mistaken for a whole one."""
        gone = self.topologies / f".removed-{secrets.token_hex(4)}"
        with contextlib.suppress(OSError):
            self.home(topology_id).rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def homes(self) -> list[str]:
        """Topology ids of all homes that are here."""
        return [entry.name for entry in self.topologies.iterdir() if entry.is_dir() and home.is_id(entry.name)]

    def logs_written(self) -> dict[str, float]:
        """When (wall time) something was last written into the logs of each topology. Raises OSError."""
        return {
            entry.name: max((_written(file) for file in entry.iterdir()), default=0.0)
            for entry in self.logs.iterdir()
            if entry.is_dir() and home.is_id(entry.name)
        }

    def remove_logs(self, topology_id: str) -> None:
        shutil.rmtree(home.home_of(self.logs, topology_id), ignore_errors=True)

    def sweep(self) -> None:
        """Remove what an earlier supervisor left half done."""
        for entry in self.state.glob(f".{MEMORY}.*"):
            entry.unlink(missing_ok=True)
        for entry in self.topologies.iterdir():
            if entry.name.startswith("."):
                shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self._lock)


def _written(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:  # a worker has just moved it
        return 0.0


def take_lock(path: Path, fix: str) -> int:
    """An open, exclusively locked file that names this process. Raises StateLocked naming the holder, or OSError."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(handle, 200).decode(errors="replace").strip() or "another process"
        os.close(handle)
        raise StateLocked(f"{path.parent} is in use by {owner}", fix) from None
    os.ftruncate(handle, 0)
    os.write(handle, _holder(os.getpid()))
    return handle


def inherit_lock(path: Path, pid: int) -> int | None:
    """The lock that process `pid` held until it ended; None when somebody else holds it or held it since."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.read(handle, 200) == _holder(pid):
            return handle
    os.close(handle)
    return None


def _holder(pid: int) -> bytes:
    return f"pid {pid} on {socket.gethostname()}".encode()
