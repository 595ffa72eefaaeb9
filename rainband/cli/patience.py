"""Lets `rainband local` end although a call of user code does not: a while after it had to, it leaves, and says why."""

from __future__ import annotations

import os
import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING

from rainband.cli.output import complain
from rainband.errors import NotReached

if TYPE_CHECKING:
    from rainband.local.cluster import LocalCluster
    from rainband.local.engine import Engine

GRACE_S = 3.0


class Patience:
    """Use with `with`, around a cluster in this process: once its end is due, it has GRACE_S for the calls under way.

    Then the process ends at once, whatever its threads do. Without `watch`, or with processes, it never does.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._engine: Engine | None = None
        self._over = threading.Event()

    def __enter__(self) -> Patience:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()

    def watch(self, cluster: LocalCluster) -> None:
        """Ask before it runs anything: it is this cluster's calls that may not return."""
        engines: list[Engine] = []
        cluster.do(engines.append)
        self._engine = engines[0]

    def due(self, seconds: float, code: int, why: str) -> None:
        """In so many seconds the cluster has to end, and if it does not, the process does, with this exit code."""

        def look() -> None:
            if not self._over.wait(seconds + GRACE_S) and self._engine is not None:
                self._leave(self._engine, code, why)

        threading.Thread(target=look, name="rainband-patience", daemon=True).start()

    def _leave(self, engine: Engine, code: int, why: str) -> None:
        try:
            from rainband.testing.completion import call_under_way
            from rainband.testing.watch import entry, frames_of

            call = call_under_way(engine, entry(frames_of(engine.loop.thread)))
            complain(NotReached(f"{call}, {GRACE_S:g} s after {why}", "Left without closing anything"), self.as_json)
            sys.stdout.flush()
        finally:
            os._exit(code)
