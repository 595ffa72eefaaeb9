"""The truth in this process only: for in-process clusters and tests. Outlives a Nimbus, not the process."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from rainband.cluster.store import Change, Put, State, check_changes, stale


class MemoryStore:
    """A `Store` as a dict."""

    def __init__(self, cluster_id: str = "") -> None:
        self.cluster_id = cluster_id or secrets.token_hex(16)
        self._epoch = 0
        self._version = 0
        self._values: dict[str, bytes] = {}

    def lead(self, above: int = 0) -> int:
        self._epoch = max(self._epoch, above) + 1
        return self._epoch

    def read_all(self) -> State:
        return State(self.cluster_id, self._epoch, self._version, dict(self._values))

    def write(self, epoch: int, changes: Sequence[Change]) -> None:
        checked = check_changes(changes)
        if epoch == 0 or epoch != self._epoch:
            raise stale(epoch, self._epoch)
        for change in checked:
            if isinstance(change, Put):
                self._values[change.key] = bytes(change.value)
            else:
                self._values.pop(change.key, None)
        self._version += 1

    def close(self) -> None:
        """Nothing to let go of."""
