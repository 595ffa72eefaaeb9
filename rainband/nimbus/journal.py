"""What the log of Nimbus says: a line for each command that it carried out, and for what happened without one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from rainband.nimbus.rows import Entry
from rainband.records import (
    Activate,
    Deactivate,
    Done,
    Heartbeat,
    Kill,
    Rebalance,
    Request,
    Response,
    Slot,
    Submit,
    TopologySummary,
)

LINES_MAX = 1000


class News:
    """Lines on what happened without a command, until they are taken; the newest ones, where nobody takes them."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=LINES_MAX)

    def take(self) -> list[str]:
        lines = list(self._lines)
        self._lines.clear()
        return lines

    def joined(self, beat: Heartbeat) -> None:
        if not beat.stopping:
            slots = counted(len(beat.ports), "slot")
            self._lines.append(f"supervisor {beat.supervisor} at {beat.host[:80]} joins with {slots}")

    def lost(self, supervisor: str, lease_s: float) -> None:
        self._lines.append(f"supervisor {supervisor} was silent for {lease_s:g} s and counts as lost")

    def late(self, entry: Entry, slot: Slot, launch_s: float) -> None:
        self._lines.append(f"{entry.topology_id}: no worker came up on {words([slot])} within {launch_s:g} s")

    def moved(self, old: Entry | None, new: Entry | None) -> None:
        """Tell of slots that a topology left or got when it was placed again."""
        if old is None or new is None or old.assignment is None or old.where == new.where:
            return
        if began := [task for task in new.leaving if task not in old.leaving]:
            slots = words({task.slot for task in began})
            what = f"{counted(len(began), 'task')} of {new.topology_id}"
            self._lines.append(f"{what}, which is exclusive, must end on {slots} before they begin elsewhere")
        left, got = old.slots - new.slots, new.slots - old.slots
        changes = [f"leaves {words(left)}"] if left else []
        changes += [f"gets {words(got)}"] if got else []
        change = ", ".join(changes) or "on the same slots"
        self._lines.append(f"{new.topology_id} is placed anew: {change}")


def words(slots: Iterable[Slot]) -> str:
    return ", ".join(f"{slot.supervisor}:{slot.port}" for slot in sorted(slots))


def line(request: Request, response: Response, after: Response) -> str:
    """What was done with which topology; '' for what changes none, or was refused.

    `after` is how the topology stands now: a TopologySummary, or a Failure when it is gone already.
    """
    if not isinstance(response, Done):
        return ""
    what = response.topology_id
    left_s = after.due_s if isinstance(after, TopologySummary) else None
    limit = f", within {left_s:.1f} s" if left_s is not None else ""
    match request:
        case Submit() if isinstance(after, TopologySummary):
            size = f"{counted(after.workers, 'worker')}, {counted(after.executors, 'executor')}"
            return f"{what} submitted: {size}, {after.status}" + (f"; {response.note}" if response.note else "")
        case Kill() if response.note:
            return f"{what} killed: {response.note}"
        case Kill():
            return f"{what} killed: ends when nothing is pending{limit}"
        case Rebalance(workers=workers, parallelism=parallelism):
            wanted = [counted(workers, "worker")] if workers is not None else []
            wanted += [f"{component}={count}" for component, count in sorted(parallelism.items())]
            return f"{what} rebalanced to {', '.join(wanted) or 'the same'}: moves when nothing is pending{limit}"
        case Activate():
            return f"{what} activated"
        case Deactivate():
            return f"{what} deactivated"
    return ""


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
