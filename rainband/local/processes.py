"""The real daemons and workers on loopback, for LocalCluster(processes=True)."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rainband.errors import UsageError
from rainband.messaging.rpc import TIMEOUT_S, RpcClient
from rainband.nimbus.client import submit
from rainband.nimbus.running import pause_really
from rainband.records import GetStatistics, GetTopology, Request, Response, Slot, Statistics, TopologySummary
from rainband.supervisor.embedded import EmbeddedCluster, kill_process
from rainband.topology.graph import Topology
from rainband.topology.secrets import Secrets

SLOTS = 4


class ProcessCluster:
    """A Nimbus, `supervisors` supervisors of `slots` slots, in a directory that is removed at the end."""

    def __init__(
        self,
        supervisors: int,
        slots: int | None,
        settings: Mapping[str, object],
        secrets: Mapping[str, str] | Path | str | None = None,
    ) -> None:
        found = Secrets.here(secrets)
        self.directory = Path(tempfile.mkdtemp(prefix="rainband-local-"))
        count = SLOTS if slots is None else slots
        try:
            if secrets is not None:
                settings = {**settings, "supervisor.secrets.dir": str(found.stored(self.directory / "secrets"))}
            self.cluster = EmbeddedCluster(self.directory, supervisors=supervisors, slots=count, settings=settings)
            self.cluster.start()
        except BaseException:
            shutil.rmtree(self.directory, ignore_errors=True)
            raise
        self.client = RpcClient([self.cluster.address], TIMEOUT_S)
        self.names: list[str] = []

    def submit(self, topology: Topology, active: bool) -> str:
        """Send the topology with its code; returns its name."""
        submit(self.client, topology, active=active)
        self.names.append(topology.name)
        return topology.name

    def call(self, request: Request) -> Response:
        return self.client.call(request)

    def pause(self, seconds: float) -> None:
        pause_really(seconds)

    def kill_worker(self, component: str | None, port: int | None, topology: str | None) -> Slot:
        """kill -9 the process of the first worker that fits."""
        for name in [topology] if topology is not None else self.names:
            summary, statistics = self.call(GetTopology(name)), self.call(GetStatistics(name))
            assert isinstance(summary, TopologySummary)
            assert isinstance(statistics, Statistics)
            pids = {worker.port: worker.pid for worker in statistics.workers}
            for placement in summary.assignment.placements if summary.assignment is not None else ():
                slot = placement.slot
                fits = component in (None, placement.executor.component) and port in (None, slot.port)
                if fits and slot.port in pids:
                    kill_process(pids[slot.port])
                    return slot
        wanted = f"runs {component!r}" if component is not None else "is on that port" if port else "is there"
        raise UsageError(f"no worker {wanted}")

    def close(self) -> None:
        self.client.close()
        try:
            self.cluster.stop()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)
