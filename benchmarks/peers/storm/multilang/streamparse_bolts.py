"""Split and Count as a streamparse project has them: bolts of pystorm, the library that streamparse runs.

Started by a ShellBolt as `python streamparse_bolts.py split` or `... count`, as streamparse's own `streamparse_run`
does with the name of a class.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bolts import Tally
from pystorm import Bolt


class Split(Bolt):  # type: ignore[misc]
    """A line into words; pystorm anchors them and acks the line."""

    def process(self, tup: Any) -> None:
        """Emit every word of the line."""
        for word in tup.values[0].split():
            self.emit([word])


class Count(Bolt):  # type: ignore[misc]
    """How often each word came."""

    def initialize(self, storm_conf: dict[str, Any], context: dict[str, Any]) -> None:
        """Begin with nothing counted."""
        self.tally = Tally(Path(storm_conf["rainband.meter.dir"]))

    def process(self, tup: Any) -> None:
        """Count one word."""
        self.tally.add(tup.values[0])

    def send_message(self, message: dict[str, Any]) -> None:
        """As pystorm's own; the answer to a heartbeat is the time to write the totals, also when no word comes."""
        if message.get("command") == "sync":
            self.tally.report()
        super().send_message(message)


if __name__ == "__main__":
    {"split": Split, "count": Count}[sys.argv[1]]().run()
