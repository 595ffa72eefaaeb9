"""An arena whose Nimbuses are several, on one ZooKeeper."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kit import leftovers
from kit.chaos import Arena
from kit.nimbuses import Nimbuses
from rainband.nimbus.client import Client

NODES_S = 8.0  # a candidate's goes with its session


class Shared(Arena):
    """`nimbuses` are started by whoever made them; options as of Arena, for the supervisors."""

    def __init__(self, directory: Path, nimbuses: Nimbuses, *, settings: Mapping[str, object], **options: Any) -> None:
        own: dict[str, object] = {"nimbus.seeds": nimbuses.seeds}
        if nimbuses.keys is not None:
            own["keys.dir"] = nimbuses.settings["keys.dir"]
        super().__init__(directory, settings={**settings, **own}, **options)
        self.nimbuses = nimbuses

    @property
    def client(self) -> Client:
        if self._client is None:
            self._client = Client(*self.nimbuses.seeds, keys=self.nimbuses.keys)
        return self._client

    def start(self, *names: str) -> None:
        super().start(*(name for name in names if name != "nimbus"))

    def log(self, name: str) -> str:
        return self.nimbuses.logs() if name == "nimbus" else super().log(name)

    def empty_shelf(self) -> None:
        """Each Nimbus in turn leads, alone; then all have ended, and ZooKeeper holds nothing of any topology."""
        nimbuses = self.nimbuses
        nimbuses.settings["nimbus.upload.expiry.secs"] = 0.05
        for number in list(nimbuses.processes):
            nimbuses.terminate(number)
        for number in range(len(nimbuses.ports)):
            nimbuses.start(number)
            nimbuses.leader()
            leftovers.wait_none(partial(leftovers.blobs, nimbuses.directory / str(number)), 10.0, "bundles and uploads")
            nimbuses.terminate(number)
        with leftovers.Nodes(nimbuses.url, nimbuses.credentials) as nodes:
            leftovers.wait_none(nodes.left, NODES_S, "nodes in ZooKeeper")

    def ports_of(self, name: str) -> set[int]:
        return set(self.nimbuses.ports) if name == "nimbus" else super().ports_of(name)
