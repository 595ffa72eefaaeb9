"""What a program outside the cluster holds: `Client`, and `Running` for each topology."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rainband.errors import ClusterUnavailable, NotCopied, NotUploaded, RainbandError, StoreError, TopologyUnreadable
from rainband.messaging.rpc import TIMEOUT_S, RpcClient
from rainband.nimbus.running import Control, Running
from rainband.records import (
    ClusterSummary,
    Done,
    Download,
    GetCluster,
    GetTopology,
    ListTopologies,
    Request,
    Response,
    Submit,
    Topologies,
    TopologySummary,
    Upload,
)

if TYPE_CHECKING:
    from rainband.messaging.keys import Keys
    from rainband.topology.graph import Topology

__all__ = ["Client", "Control", "Running", "submit"]

PIECE_BYTES = 1 << 20
SUBMIT_TRIES = 4
CHANGE_TRIES = 8
R = TypeVar("R", bound=Response)


class Client:
    """Talks to the Nimbus that leads among `seeds` ("host:port"). Threads may share it. Use with `with`, or `close()`.

    Every method raises ClusterUnavailable when no Nimbus answers within `timeout_s` seconds, NotAllowed when the one
    that is there uses other keys. A submit during which Nimbus goes waits longer, for it or the next one.
    """

    def __init__(self, *seeds: str, keys: Keys | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self._rpc = RpcClient(seeds, timeout_s, keys)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({', '.join(map(repr, self._rpc.seeds))})"

    def submit(
        self,
        topology: Topology,
        *,
        config: Mapping[str, object] | None = None,
        sources: Mapping[str, Sequence[Sequence[object]] | Mapping[str, Any]] | None = None,
        name: str | None = None,
        active: bool = True,
        project: Path | str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Running:
        """Send the topology with its code and start it; returns as soon as it is accepted.

        `config` goes over the topology's own, `sources` puts rows in place of spouts, `project` is the directory whose
        code goes along (default: that of the file it was built in). `progress(sent, total)` is told of bytes.
        Raises InvalidTopology, InvalidConfig, TopologyExists or VersionMismatch.
        """
        from rainband.topology.graph import checked

        topology = checked(topology)
        if sources:
            topology = topology.with_sources(sources)
        changed = {**(config or {}), **({} if name is None else {"topology.name": name})}
        if changed:
            topology = topology.with_config(changed)
        submit(self._rpc, topology, active=active, project=project, progress=progress)
        return Running(topology.name, self._rpc)

    def topology(self, name: str) -> Running:
        """The topology of that name. Raises TopologyNotFound."""
        with contextlib.suppress(TopologyUnreadable):  # it can be killed
            name = self._call(GetTopology(name), TopologySummary).name
        return Running(name, self._rpc)

    def topologies(self) -> tuple[TopologySummary, ...]:
        """All topologies, in the order of their submission."""
        return self._call(ListTopologies(), Topologies).topologies

    def cluster(self) -> ClusterSummary:
        """Nimbus, supervisors and slots."""
        return self._call(GetCluster(), ClusterSummary)

    def close(self) -> None:
        """Disconnect; what runs goes on."""
        self._rpc.close()

    def _call(self, request: Request, kind: type[R]) -> R:
        return expect(self._rpc.call(request), kind)


def submit(
    control: Control,
    topology: Topology,
    *,
    active: bool = True,
    project: Path | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Done:
    """Pack, upload what is not there yet, submit."""
    from rainband.topology.bundle import pack

    plan, bundle = pack(topology, Path(project) if project is not None else topology.project)
    request = Submit(topology.name, plan.encode(), active=active, token=secrets.token_hex(16))
    return deliver(control, request, plan.bundle, bundle, progress)


def deliver(
    control: Control, request: Submit, digest: str, bundle: bytes, progress: Callable[[int, int], None] | None = None
) -> Done:
    """Upload the bundle unless it is there, then submit. A cluster that is not there at all is told of at once.

    Nimbus waits for some seconds until the code is on a second one; one that has just died makes us try again. So does
    a leader that goes meanwhile: what came to it may not be where the next one is.
    """
    uploaded(control, digest)
    steady = Steady(control)
    for _ in range(SUBMIT_TRIES - 1):
        with contextlib.suppress(NotCopied, NotUploaded):
            return _deliver_once(steady, request, digest, bundle, progress)
    return _deliver_once(steady, request, digest, bundle, progress)


class Steady:
    """Asks again while one Nimbus goes and another comes: for what may be asked twice, as a submit with a token may."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def call(self, request: Request) -> Response:
        """Raises ClusterUnavailable after CHANGE_TRIES, each of which takes a second at least."""
        for _ in range(CHANGE_TRIES - 1):
            with contextlib.suppress(ClusterUnavailable):
                return self._control.call(request)
        return self._control.call(request)


def _deliver_once(
    control: Control, request: Submit, digest: str, bundle: bytes, progress: Callable[[int, int], None] | None
) -> Done:
    if not uploaded(control, digest):
        upload(control, digest, bundle, progress)
    return expect(control.call(request), Done)


def uploaded(control: Control, digest: str) -> bool:
    """Whether the blob is there already."""
    try:
        control.call(Download(digest, 0, 0))
    except StoreError:
        return False
    return True


def upload(control: Control, digest: str, data: bytes, progress: Callable[[int, int], None] | None) -> None:
    """Send a blob in pieces; the last one makes it visible."""
    for offset in range(0, max(len(data), 1), PIECE_BYTES):
        end = offset + PIECE_BYTES
        control.call(Upload(digest, offset, data[offset:end], end >= len(data)))
        if progress is not None:
            progress(min(end, len(data)), len(data))


def expect(answer: Response, kind: type[R]) -> R:
    if not isinstance(answer, kind):
        raise RainbandError(f"Nimbus answered with {type(answer).__name__}, not {kind.__name__}")
    return answer
