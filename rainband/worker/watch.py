"""What a worker notices with each beat: calls that take too long or do not come back, tuples that nobody settles, peers
that do not answer, frames that cannot be read. Each is told once, or now and then. Pure: times come in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from rainband.messaging.link import Link
from rainband.messaging.links import Links
from rainband.worker.emit import ManualEmitter
from rainband.worker.side import SideBoltTask
from rainband.worker.tasks import SLOW_CALL_S

if TYPE_CHECKING:
    from rainband.worker.wiring import LocalTask

LOOKS = 16
SILENCE_S = 5.0
COMPLAIN_S = 60.0


class Watch:
    """All of it. `timeout_s` is topology.message.timeout.secs."""

    def __init__(self, timeout_s: float) -> None:
        self._slow_calls = SlowCalls()
        self._standstills = Standstills(timeout_s)
        self._leaks = Leaks(timeout_s)
        self._silences = Silences(SILENCE_S)
        self._complaints = Complaints(COMPLAIN_S)

    def lines(self, tasks: Iterable[LocalTask], links: Links, now: float) -> list[str]:
        """For the log."""
        lines = self._slow_calls.look(tasks) + self._silences.look(links.by_address, now)
        return lines + self._complaints.look(links.malformed, links.complaint, now)

    def stuck(self, tasks: Iterable[LocalTask], now: float) -> list[tuple[LocalTask, str]]:
        """Tasks whose stacks say more, with what is to be said of them."""
        return self._standstills.look(tasks, now)

    def leaking(self, tasks: Iterable[LocalTask], now: float) -> list[tuple[LocalTask, str]]:
        """Tasks that hold tuples for too long, with what is to be said of them."""
        return self._leaks.look(tasks, now)


class SlowCalls:
    """Names each component once whose calls keep everything else in their worker waiting."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def look(self, tasks: Iterable[LocalTask]) -> list[str]:
        """A line, with the fix, for each component that had a call over 100 ms and was not named yet."""
        lines = []
        for made in tasks:
            runner = made.bolt or made.spout
            if runner is not None and runner.slow_s > SLOW_CALL_S and made.component not in self._told:
                self._told.add(made.component)
                lines.append(
                    f"component '{made.component}', task {made.task}: a call took {runner.slow_s:.1f} s, in which "
                    "nothing else in its worker ran. Set blocking = True on its class, or make the call async def"
                )
        return lines


class Standstills:
    """Finds the bolts beside the loop none of whose calls comes back: each once, until one does."""

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self._told: dict[int, float] = {}

    def look(self, tasks: Iterable[LocalTask], now: float) -> list[tuple[LocalTask, str]]:
        """Each with what is to be said of it."""
        found = []
        for made in tasks:
            bolt = made.bolt
            if not isinstance(bolt, SideBoltTask) or bolt.in_flight == 0 or now < bolt.back_at + self.patience_s:
                continue
            if self._told.get(made.task) != bolt.back_at:
                self._told[made.task] = bolt.back_at
                calls = f"{bolt.in_flight} calls under way have" if bolt.in_flight > 1 else "a call under way has"
                found.append((made, f"{calls} not come back for {now - bolt.back_at:.0f} s"))
        return found


class Complaints:
    """Tells of frames that could not be read, at most once in `pause_s`."""

    def __init__(self, pause_s: float) -> None:
        self.pause_s = pause_s
        self._told = 0
        self._next_at = float("-inf")

    def look(self, malformed: int, newest: str, now: float) -> list[str]:
        """`malformed` counts them, `newest` is why the last one could not."""
        if malformed == self._told or now < self._next_at:
            return []
        count, self._told, self._next_at = malformed - self._told, malformed, now + self.pause_s
        return [f"{count} frame{'s' if count > 1 else ''} came that could not be read, the newest: {newest}"]


class Leaks:
    """Finds the components that leave tuples neither acked nor failed for longer than `timeout_s`: each once.

    Of the tuples that a task had taken by then, no more can be settled than all that are by now: the rest is held. What
    starts timeouts anew holds its tuples on purpose.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._taken: dict[int, deque[tuple[float, int]]] = {}
        self._told: set[str] = set()

    def look(self, tasks: Iterable[LocalTask], now: float) -> list[tuple[LocalTask, str]]:
        """Each with what is to be said of it."""
        found = []
        for made in tasks:
            emitter = made.bolt.emitter if made.bolt is not None else None
            if made.bolt is None or not isinstance(emitter, ManualEmitter) or made.component in self._told:
                continue
            taken = self._taken.setdefault(made.task, deque())
            if taken and made.bolt.executed < taken[-1][1]:
                taken.clear()  # the task was elsewhere meanwhile
            if not taken or now >= taken[-1][0] + self.timeout_s / LOOKS:
                taken.append((now, int(made.bolt.executed)))
            while len(taken) > 1 and taken[1][0] <= now - self.timeout_s:
                taken.popleft()
            at, before = taken[0]
            held = before - int(emitter.acked + emitter.failed)
            if at <= now - self.timeout_s and held > 0 and emitter.resets == 0:
                self._told.add(made.component)
                tuples = "tuples were" if held > 1 else "tuple was"
                text = f"{held} {tuples} neither acked nor failed within {self.timeout_s:g} s"
                found.append((made, f"{text}: a ManualBolt does so with each"))
        return found


class Silences:
    """Tells of peers that do not answer while something waits for them, and of their return: a line each."""

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self._heard: dict[str, tuple[int, float]] = {}
        self._silent: dict[str, float] = {}

    def look(self, links: Mapping[str, Link], now: float) -> list[str]:
        """What has changed since the last look. `links` by address."""
        lines = []
        for address, link in links.items():
            frames, since = self._heard.get(address, (-1, now))
            if frames != link.frames_received or not (link.retained or link.queued):
                self._heard[address] = link.frames_received, now
                if address in self._silent:
                    lines.append(f"the worker at {address} answers again after {now - self._silent.pop(address):.0f} s")
            elif now >= since + self.patience_s and address not in self._silent:
                self._silent[address] = since
                waiting = link.outstanding_bytes + link.queued_bytes
                lines.append(
                    f"the worker at {address} has not answered for {now - since:.0f} s: "
                    f"{waiting:,} bytes for it are kept until it does, or is replaced"
                )
        for known in (self._heard, self._silent):
            for address in known.keys() - links.keys():
                del known[address]
        return lines
