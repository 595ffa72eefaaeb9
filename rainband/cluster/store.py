"""The interface of the truth: a small map with epochs, and the checks that all backends share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rainband.errors import StoreError

KEY = re.compile(r"[a-z_]+(/[A-Za-z0-9][A-Za-z0-9_.-]{0,127})*\Z")
VALUE_BYTES_MAX = 16 << 20
CHANGES_MAX = 10_000
EPOCH_MAX = 1 << 53  # of those that others tell of: there is room above it in every backend


@dataclass(frozen=True, slots=True)
class Put:
    """Set `key` to `value`."""

    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove `key`; fine when it is not there."""

    key: str


Change = Put | Delete


@dataclass(frozen=True, slots=True)
class State:
    """Everything at one instant. `epoch` is the newest that leads, `version` the number of batches written so far.

    `unreadable` says why by key: those that are there and cannot be read, while the others can.
    """

    cluster_id: str
    epoch: int
    version: int
    values: dict[str, bytes]
    unreadable: dict[str, str] = field(default_factory=dict)


class Store(Protocol):
    """Where Nimbus keeps the truth. One user at a time in this process; other processes are kept out by epochs."""

    @property
    def cluster_id(self) -> str:
        """Drawn when the state was made; hexadecimal."""

    def lead(self, above: int = 0) -> int:
        """Start a new epoch, above `above` too, and return it; writes of earlier epochs fail from now on."""

    def read_all(self) -> State:
        """The whole state. Raises StoreError when it cannot be read."""

    def write(self, epoch: int, changes: Sequence[Change]) -> None:
        """All changes or none, on the disk on return. Raises StoreError (stale epoch, disk full, bad key)."""

    def close(self) -> None:
        """Let go of files and locks; a second call does nothing."""


def check_changes(changes: Iterable[Change]) -> tuple[Change, ...]:
    """Refuse, with StoreError, what any backend could trip over: odd keys, huge values, two changes of one key."""
    checked = tuple(changes)
    if len(checked) > CHANGES_MAX:
        raise StoreError(f"{len(checked)} changes in one write are more than {CHANGES_MAX}")
    seen: set[str] = set()
    for change in checked:
        if KEY.match(change.key) is None:
            raise StoreError(f"{change.key!r} is not a key of the store")
        if change.key in seen:
            raise StoreError(f"{change.key} is changed twice in one write")
        seen.add(change.key)
        if isinstance(change, Put) and len(change.value) > VALUE_BYTES_MAX:
            raise StoreError(f"{change.key}: {len(change.value)} bytes are more than {VALUE_BYTES_MAX}")
    return checked


def stale(epoch: int, newest: int) -> StoreError:
    """The error of a leader that was replaced, or that never led."""
    return StoreError(f"epoch {epoch} does not lead, epoch {newest} does", "Another Nimbus took over: stop this one")
