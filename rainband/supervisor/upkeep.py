"""What the directory of a supervisor needs now and then: what nobody needs goes, what was removed comes back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from rainband.supervisor.disk import Disk
from rainband.topology.home import CONTROL

logger = logging.getLogger("rainband.supervisor")


class Upkeep:
    """`introduce` writes down where workers find their supervisor, which lies beside their homes. Raises OSError."""

    def __init__(self, disk: Disk, introduce: Callable[[], None]) -> None:
        self._disk = disk
        self._introduce = introduce
        self._trouble = ""

    def look(self, needed: Collection[str]) -> None:
        """Remove what is of other topologies than the `needed`. What the system refuses is logged once, tried again."""
        try:
            self._restore()
            for topology_id in self._disk.homes():
                if topology_id not in needed:
                    self._disk.remove_home(topology_id)
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
