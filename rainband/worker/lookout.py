"""Whether this worker is still wanted, asked of Nimbus itself while no supervisor is there to say so.

A worker outlives its supervisor, and its topology may be killed meanwhile. Only a Nimbus of this very cluster that
leads is believed, and only when it says that the topology is gone: all else, silence too, means to work on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from rainband.errors import RainbandError, TopologyNotFound
from rainband.messaging.keys import Keys
from rainband.messaging.rpc import RpcClient
from rainband.records import ClusterSummary, GetCluster, GetTopology, Request, Response, TopologySummary
from rainband.topology.home import read_nimbus

SILENT_S = 5.0


class Lookout:
    """`unwanted` once Nimbus has said that the topology is gone. Asks on a thread, for an answer takes its time."""

    def __init__(
        self, topologies: Path, keys: Keys | None, name: str, topology_id: str, wake: Callable[[], None]
    ) -> None:
        self.unwanted = False
        self._topologies = topologies
        self._keys = keys
        self._name = name
        self._topology_id = topology_id
        self._wake = wake
        self._asking = False
        self._ask_at = 0.0

    def look(self, now: float, heard: bool) -> None:
        """Call it now and then. `heard`: a supervisor takes what this worker says."""
        if heard or self._ask_at == 0.0:
            self._ask_at = now + SILENT_S
        elif now >= self._ask_at and not self._asking:
            self._ask_at = now + SILENT_S
            known = read_nimbus(self._topologies)
            if known is not None:
                self._asking = True
                threading.Thread(target=self._ask, args=known, name="lookout", daemon=True).start()

    def _ask(self, cluster_id: str, seeds: tuple[str, ...]) -> None:
        try:
            client = RpcClient(seeds, keys=self._keys)
            try:
                self.unwanted = is_gone(client.call, cluster_id, self._name, self._topology_id)
            finally:
                client.close()
        except RainbandError:
            pass  # no word is no order
        finally:
            self._asking = False
            self._wake()


def is_gone(call: Callable[[Request], Response], cluster_id: str, name: str, topology_id: str) -> bool:
    """Whether a Nimbus of that cluster knows no such topology any more. Raises what `call` raises."""
    cluster = call(GetCluster())
    if not isinstance(cluster, ClusterSummary) or cluster.cluster_id != cluster_id:
        return False
    try:
        found = call(GetTopology(name))
    except TopologyNotFound:
        return True
    return isinstance(found, TopologySummary) and found.topology_id != topology_id
