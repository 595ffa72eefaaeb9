"""What the directory of a supervisor needs now and then: what nobody needs goes, what was removed comes back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping

from rainband.supervisor.disk import Disk
from rainband.topology.home import CONTROL

LOGS_S = 60.0

logger = logging.getLogger("rainband.supervisor")


class Upkeep:
    """`introduce` writes down where workers find their supervisor, which lies beside their homes. Raises OSError.

    Logs of topologies that are gone are kept for `logs_kept_s`.
    """

    def __init__(self, disk: Disk, introduce: Callable[[], None], logs_kept_s: float) -> None:
        self._disk = disk
        self._introduce = introduce
        self._logs_kept_s = logs_kept_s
        self._logs_at = 0.0
        self._trouble = ""

    def look(self, needed: Collection[str], now: float, wall: float) -> None:
        """Remove what is of other topologies than the `needed`. What the system refuses is logged once, tried again."""
        try:
            self._restore()
            for topology_id in self._disk.homes():
                if topology_id not in needed:
                    self._disk.remove_home(topology_id)
            if now >= self._logs_at:
                self._logs_at = now + LOGS_S
                for topology_id in outdated(self._disk.logs_written(), needed, wall - self._logs_kept_s):
                    logger.info("logs of %s are deleted: it is gone, and they are old", topology_id)
                    self._disk.remove_logs(topology_id)
            self._trouble = ""
        except OSError as error:
            trouble = f"{error.filename or self._disk.topologies}: {error.strerror or error}"
            if trouble != self._trouble:
                logger.error("cannot look after %s; the workers go on", trouble)
            self._trouble = trouble

    def _restore(self) -> None:
        topologies = self._disk.topologies
        if not (topologies / CONTROL).exists():
            topologies.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._introduce()
            logger.error("%s was removed by somebody else: it is made again", topologies)


def outdated(written: Mapping[str, float], needed: Collection[str], before: float) -> list[str]:
    """Topologies whose logs may go: those not `needed`, into which nothing was written since `before`."""
    return sorted(name for name, at in written.items() if name not in needed and at < before)
