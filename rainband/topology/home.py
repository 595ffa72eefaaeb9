"""A topology's directory on one host: what lies where, and the counter by which a worker shows progress.

    <topologies>/control                  address and token of the supervisor's control channel, one per line
    <topologies>/lease                    until when what is exclusive may run here, in seconds since boot
    <topologies>/<topology id>/           the home, 0700
        bundle.zip                        as it came, for a Nimbus that has lost it
        code/  components/                the same, opened
        plan.msgpack                      written last: a home with a plan is complete
        assignment.msgpack                the newest assignment known here
        positions.sqlite                  how far the spouts of this host have come
        progress-<port>                   passes of that worker's loop, in shared memory
        stacks-<port>                     written by that worker's process on SIGUSR1

The supervisor makes and removes homes; a worker whose home is gone has no reason to run.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import struct
from collections.abc import Sequence
from pathlib import Path

import msgspec

from rainband.errors import Refused
from rainband.records import Assignment, Slot
from rainband.topology.plan import Plan

BUNDLE = "bundle.zip"
CODE = "code"
PLAN = "plan.msgpack"
ASSIGNMENT = "assignment.msgpack"
POSITIONS = "positions.sqlite"
CONTROL = "control"
NIMBUS = "nimbus"
LEASE = "lease"

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_COUNTER = struct.Struct("<QQ")
PROGRESS_BYTES = _COUNTER.size + 8
_LEASE = struct.Struct("<d")


def is_id(name: str) -> bool:
    """Whether a topology could have this id: it is a plain name."""
    return _ID.fullmatch(name) is not None


def home_of(topologies: Path, topology_id: str) -> Path:
    """The home of a topology. Raises Refused for an id that is no plain name."""
    if not is_id(topology_id):
        raise Refused(f"a topology id cannot be {topology_id[:80]!r}")
    return topologies / topology_id


def write_file(path: Path, data: bytes) -> None:
    """Replace a file as a whole, mode 0600, synced: after a crash it holds the old bytes or the new ones."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_assignment(home: Path, assignment: Assignment) -> None:
    write_file(home / ASSIGNMENT, msgspec.msgpack.encode(assignment))


def read_assignment(home: Path) -> Assignment | None:
    """The assignment that lies in a home; None when there is none, or none that can be read."""
    try:
        return msgspec.msgpack.decode((home / ASSIGNMENT).read_bytes(), type=Assignment)
    except (OSError, msgspec.DecodeError):
        return None


def is_placed(home: Path, slot: Slot) -> bool:
    """Whether the assignment that lies in a home has something on the slot.

    True as well while nobody can tell, as without a free descriptor: only a home that is gone says no by itself.
    """
    try:
        data = (home / ASSIGNMENT).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    try:
        return bool(msgspec.msgpack.decode(data, type=Assignment).on(slot))
    except msgspec.DecodeError:
        return False


def read_plan(home: Path) -> Plan | None:
    """The plan of a complete home; None for one that is not complete. Raises InvalidTopology for a damaged plan."""
    try:
        return Plan.decode((home / PLAN).read_bytes())
    except OSError:
        return None


def write_control(topologies: Path, address: str, token: str) -> None:
    write_file(topologies / CONTROL, f"{address}\n{token}\n".encode())


def read_control(topologies: Path) -> tuple[str, str] | None:
    """Address and token of the supervisor that owns these homes now; None when it left no word."""
    try:
        address, token = (topologies / CONTROL).read_text().split()
    except (OSError, ValueError):
        return None
    return address, token


def write_nimbus(topologies: Path, cluster_id: str, seeds: Sequence[str]) -> None:
    """Whom workers may ask while no supervisor is there. Raises OSError."""
    write_file(topologies / NIMBUS, "\n".join((cluster_id, *seeds)).encode())


def read_nimbus(topologies: Path) -> tuple[str, tuple[str, ...]] | None:
    """The id of the cluster that these homes belong to and the addresses of its Nimbuses; None when none is known."""
    try:
        cluster_id, *seeds = (topologies / NIMBUS).read_text().split("\n")
    except OSError:
        return None
    return (cluster_id, tuple(seeds)) if seeds else None


def write_lease(topologies: Path, until: float) -> None:
    """Nimbus has confirmed what runs here until then, in seconds since boot. Raises OSError."""
    handle = os.open(topologies / LEASE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(handle, _LEASE.pack(until), 0)
    finally:
        os.close(handle)


def open_lease(topologies: Path) -> int:
    """A descriptor to read the lease from, also when none is left for another file. Raises OSError."""
    return os.open(topologies / LEASE, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)


def read_lease(handle: int) -> float:
    """What was written last; minus infinity when that is nothing."""
    try:
        (until,) = _LEASE.unpack(os.pread(handle, _LEASE.size, 0))
    except struct.error:
        return float("-inf")
    return float(until)


def stacks_path(home: Path, port: int) -> Path:
    return home / f"stacks-{port}"


def wire_id(topology_id: str) -> int:
    """The 63-bit number that stands for a topology in the frames between its workers."""
    return int.from_bytes(hashlib.sha256(topology_id.encode()).digest()[:8], "little") >> 1


class Progress:
    """What a worker's loop is doing, shared through a file of 24 bytes.

    How many passes it has made, when the last one began (monotonic ns), and in `turn`, which is one number, the task
    whose turn it is.
    """

    def __init__(self, home: Path, port: int, *, write: bool = False) -> None:
        """Raises OSError, also when a reader comes before the first writer."""
        path = home / f"progress-{port}"
        handle = os.open(path, (os.O_RDWR | os.O_CREAT if write else os.O_RDONLY) | os.O_CLOEXEC, 0o600)
        try:
            if write:
                os.write(handle, bytes(PROGRESS_BYTES))  # a page that is on the disk: no write into it can fail later
            self._memory = mmap.mmap(handle, PROGRESS_BYTES, access=mmap.ACCESS_WRITE if write else mmap.ACCESS_READ)
        except ValueError as error:
            raise OSError(str(error)) from None
        finally:
            os.close(handle)
        self.turn = memoryview(self._memory)[_COUNTER.size :].cast("q")

    def write(self, passes: int, at_ns: int) -> None:
        _COUNTER.pack_into(self._memory, 0, passes, at_ns)

    def read(self) -> tuple[int, int]:
        passes, at_ns = _COUNTER.unpack_from(self._memory)
        return passes, at_ns

    def close(self) -> None:
        self.turn.release()
        self._memory.close()
