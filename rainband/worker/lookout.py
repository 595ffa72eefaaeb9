"""Whether this worker is still wanted, asked of Nimbus itself while no supervisor is there to say so.

A worker outlives its supervisor; its topology may be killed meanwhile, or placed elsewhere. Only a Nimbus of this very
cluster that leads is believed, and only when it says that the topology is gone, or gives an assignment newer than the
worker's without its slot: all else, silence too, means to work on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from rainband.errors import RainbandError, TopologyNotFound
from rainband.messaging.keys import Keys
from rainband.messaging.rpc import RpcClient
from rainband.records import (
    Assignment,
    ClusterSummary,
    GetCluster,
    GetTopology,
    Request,
    Response,
    Slot,
    TopologySummary,
)
from rainband.topology.home import read_nimbus

SILENT_S = 5.0
KILLED = "the topology was killed"
MOVED = "what ran here was placed elsewhere"


class Lookout:
    """`unwanted` says why once Nimbus has said so, '' before. Asks on a thread, for an answer takes its time."""

    def __init__(self, topologies: Path, keys: Keys | None, name: str, slot: Slot, wake: Callable[[], None]) -> None:
        self.unwanted = ""
        self._topologies = topologies
        self._keys = keys
        self._name = name
        self._slot = slot
        self._wake = wake
        self._asking = False
        self._ask_at = 0.0

    def look(self, now: float, heard: bool, assignment: Assignment) -> None:
        """Call it now and then. `heard`: a supervisor takes what this worker says; it works by `assignment`."""
        if heard or self._ask_at == 0.0:
            self._ask_at = now + SILENT_S
        elif now >= self._ask_at and not self._asking:
            self._ask_at = now + SILENT_S
            known = read_nimbus(self._topologies)
            if known is not None:
                self._asking = True
                threading.Thread(target=self._ask, args=(*known, assignment), name="lookout", daemon=True).start()

    def _ask(self, cluster_id: str, seeds: tuple[str, ...], assignment: Assignment) -> None:
        try:
            client = RpcClient(seeds, keys=self._keys)
            try:
                self.unwanted = why_unwanted(client.call, cluster_id, self._name, self._slot, assignment)
            finally:
                client.close()
        except RainbandError:
            pass  # no word is no order
        finally:
            self._asking = False
            self._wake()


def why_unwanted(
    call: Callable[[Request], Response], cluster_id: str, name: str, slot: Slot, assignment: Assignment
) -> str:
    """Why a Nimbus of that cluster does not want the worker on `slot` any more, or ''. Raises what `call` raises."""
    cluster = call(GetCluster())
    if not isinstance(cluster, ClusterSummary) or cluster.cluster_id != cluster_id:
        return ""
    try:
        found = call(GetTopology(name))
    except TopologyNotFound:
        return KILLED
    if not isinstance(found, TopologySummary):
        return ""
    if found.topology_id != assignment.topology_id:
        return KILLED
    newest = found.assignment
    if newest is None or (newest.epoch, newest.version) <= (assignment.epoch, assignment.version):
        return ""
    return "" if newest.on(slot) else MOVED
