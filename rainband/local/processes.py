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

SLOTS = 4


class ProcessCluster:
    """A Nimbus, `supervisors` supervisors of `slots` slots, in a directory that is removed at the end."""

    def __init__(self, supervisors: int, slots: int | None, settings: Mapping[str, object]) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="rainband-local-"))
        count = SLOTS if slots is None else slots
        self.cluster = EmbeddedCluster(self.directory, supervisors=supervisors, slots=count, settings=settings)
        try:
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
            statistics = self.call(GetStatistics(name))
            assert isinstance(statistics, Statistics)
            for worker in statistics.workers:
                runs = {task.component for task in worker.tasks}
                if (component is None or component in runs) and port in (None, worker.port):
                    kill_process(worker.pid)
                    return self._slot(name, worker.port)
        wanted = f"runs {component!r}" if component is not None else "is on that port" if port else "is there"
        raise UsageError(f"no worker {wanted}")

    def _slot(self, name: str, port: int) -> Slot:
        summary = self.call(GetTopology(name))
        assert isinstance(summary, TopologySummary)
        slots = summary.assignment.slots() if summary.assignment is not None else []
        return next((slot for slot in slots if slot.port == port), Slot("", port))

    def close(self) -> None:
        self.client.close()
        try:
            self.cluster.stop()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)
