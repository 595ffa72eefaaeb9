"""What Nimbuses keep on disks that forget what was not synced: the state of a lone one, and bundles."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rainband.cluster.blobs import MemoryBlobs
from rainband.cluster.store import Change, Put, State, check_changes, stale
from rainband.errors import StoreError

if TYPE_CHECKING:
    from simulation.chief import NimbusProcess


class Crash(BaseException):
    """The process dies in the middle of a write."""


class Disk:
    """`values` as programs see them, `durable` as they are after a crash of the machine's one user of them."""

    def __init__(self, cluster_id: str) -> None:
        self.cluster_id = cluster_id
        self.values: dict[str, bytes] = {}
        self.durable: dict[str, bytes] = {}
        self.epoch = 0
        self.version = 0
        self.full = self.failing = False

    def sync(self) -> None:
        self.durable = dict(self.values)

    def crash(self) -> None:
        self.values = dict(self.durable)


class SimStore:
    """A Store on a Disk: each write is one transaction, synced before it returns."""

    def __init__(self, process: NimbusProcess, disk: Disk) -> None:
        self.process = process
        self.disk = disk
        self.cluster_id = disk.cluster_id

    def lead(self, above: int = 0) -> int:
        self.disk.epoch = max(self.disk.epoch, above) + 1
        return self.disk.epoch

    def read_all(self) -> State:
        disk = self.disk
        return State(disk.cluster_id, disk.epoch, disk.version, dict(disk.values))

    def write(self, epoch: int, changes: Sequence[Change]) -> None:
        checked = check_changes(changes)
        disk = self.disk
        self.check_epoch(epoch)
        if disk.failing:
            raise StoreError("input/output error", "Replace the disk")
        if disk.full:
            raise StoreError("no space left", "Make some")
        if self.process.dies == "before":
            raise Crash
        before = dict(disk.values)
        for change in checked:
            if isinstance(change, Put):
                disk.values[change.key] = bytes(change.value)
            else:
                disk.values.pop(change.key, None)
        disk.version += 1
        self.commit()
        world = self.process.world
        world.laws.written(self.process, epoch, before, dict(disk.values), world.time)
        if self.process.dies == "after":
            raise Crash

    def check_epoch(self, epoch: int) -> None:
        if epoch == 0 or epoch != self.disk.epoch:
            raise stale(epoch, self.disk.epoch)

    def commit(self) -> None:
        self.disk.sync()

    def close(self) -> None:
        """Nothing to let go of."""


class SimBlobs(MemoryBlobs):
    """Bundles of one machine. A whole one is synced before it is shown; uploads under way end with the process."""

    def __init__(self) -> None:
        super().__init__()
        self.durable: dict[str, bytes] = {}
        self.wiped_at = float("-inf")
        self.failing = self.flipping = False

    def _check(self) -> None:
        if self.failing:
            raise StoreError("input/output error", "Replace the disk")

    def read(self, digest: str, offset: int, length: int) -> tuple[bytes, int]:
        self._check()
        data, whole = super().read(digest, offset, length)
        if self.flipping and data:
            data = bytes([data[0] ^ 1]) + data[1:]
        return data, whole

    def add_piece(self, digest: str, offset: int, data: bytes, done: bool, now: float) -> None:
        self._check()
        super().add_piece(digest, offset, data, done, now)
        if done:
            self.sync()

    def delete(self, digest: str) -> None:
        super().delete(digest)
        self.durable.pop(digest, None)

    def sync(self) -> None:
        self.durable = dict(self._blobs)

    def crash(self) -> None:
        self._blobs = dict(self.durable)
        self._incoming.clear()

    def wipe(self, now: float) -> None:
        """The disk is replaced."""
        self.wiped_at = now
        self._blobs.clear()
        self.durable.clear()

    def holds(self, digest: str) -> bool:
        """For sure: whole, right and on the disk."""
        return hashlib.sha256(self.durable.get(digest, b"")).hexdigest() == digest
