"""When is everything done that came of a topology's spouts? Judged from beats of different moments. Pure.

Every spout must have finished or be paused, with nothing pending: what is tracked is done then. Untracked tuples may
still be queued, or on their way between workers, which no beat shows by itself. Frames between two processes are
numbered and arrive in order, and each beat says how many were sent and received per peer. So there are two proofs:

- Every worker is idle, and between any two as many frames were received as sent: then nothing was under way at that
  (stretched) moment. This is what is found when nothing else goes on.
- Bolts that emit in ticks may never let that happen. But in rounds in each of which every worker was idle once, after
  it had received all that was sent up to the round before, what came of spouts gets one hop further at least per
  round; after as many rounds as the graph has levels it is done, whatever ticks have sent since. Not with cycles.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from rainband.nimbus.rows import Entry
from rainband.records import LinkCount, Slot, WorkerBeat, WorkerState

Sent = dict[Slot, int]


class Rest:
    """Looks at the newest beats of all workers each time some came."""

    def __init__(self) -> None:
        self._key: object = None
        self._rounds = 0
        self._marks: dict[Slot, Sent] = {}
        self._reached: dict[Slot, Sent] = {}
        self._turns: dict[Slot, int] = {}

    def look(self, entry: Entry, beats: Mapping[Slot, WorkerBeat], turns: Mapping[Slot, int]) -> bool:
        """Whether it is proved by now. `beats` of each slot whose worker is there, `turns` grow with each new beat."""
        assignment = entry.assignment
        if assignment is None or assignment.leaving or not beats or beats.keys() != entry.slots:
            return self._begin(None)
        spouts = {name for name, component in entry.plan.components.items() if component.kind == "spout"}
        if not all(is_still(beat, assignment.version, spouts) for beat in beats.values()):
            return self._begin(None)
        key = (assignment.version, sorted((slot, beat.incarnation) for slot, beat in beats.items()))
        if key != self._key:
            self._begin(key)
        addresses = {slot: assignment.address(slot) for slot in beats}
        sent = {slot: sent_by(slot, beats, addresses) for slot in beats}
        received = {slot: received_by(slot, beats, addresses) for slot in beats}
        if all(beat.idle for beat in beats.values()) and is_complete(sent, received):
            return True
        self._take_turns(beats, turns, sent, received)
        cyclic = any(source.cyclic for component in entry.plan.components.values() for source in component.inputs)
        return not cyclic and self._rounds >= entry.plan.levels

    def _begin(self, key: object) -> bool:
        self._key = key
        self._rounds = 0
        self._marks, self._reached, self._turns = {}, {}, {}
        return False

    def _take_turns(
        self,
        beats: Mapping[Slot, WorkerBeat],
        turns: Mapping[Slot, int],
        sent: Mapping[Slot, Sent | None],
        received: Mapping[Slot, Sent],
    ) -> None:
        """Let each worker complete the round that can; the next one begins when all have."""
        for slot, beat in beats.items():
            out = sent[slot]
            if slot in self._reached or not beat.idle or out is None or turns[slot] <= self._turns.get(slot, -1):
                continue
            if all(received[slot].get(peer, 0) >= marks.get(slot, 0) for peer, marks in self._marks.items()):
                self._reached[slot] = out
                self._turns[slot] = turns[slot]
        if len(self._reached) == len(beats):
            self._rounds += 1
            self._marks, self._reached = self._reached, {}


def is_still(beat: WorkerBeat, version: int, spouts: Set[str]) -> bool:
    """Its spouts will emit nothing more, as far as it knows the assignment, and nothing of theirs is pending."""
    if beat.state is not WorkerState.RUNNING or beat.version < version or beat.pending:
        return False
    return beat.paused or all(count.finished for count in beat.tasks if count.component in spouts)


def sent_by(slot: Slot, beats: Mapping[Slot, WorkerBeat], addresses: Mapping[Slot, str]) -> Sent | None:
    """Frames sent to each worker; None when it still talks to one that is no more."""
    counts = links_of(beats[slot])
    found: Sent = {}
    for peer, beat in beats.items():
        count = counts.get(addresses[peer])
        if peer == slot or count is None or count.sent == 0:
            continue
        if count.peer != beat.incarnation:
            return None
        found[peer] = count.sent
    return found


def received_by(slot: Slot, beats: Mapping[Slot, WorkerBeat], addresses: Mapping[Slot, str]) -> Sent:
    """Frames received of each worker as it is now."""
    counts = links_of(beats[slot])
    found: Sent = {}
    for peer, beat in beats.items():
        count = counts.get(addresses[peer])
        if count is not None and count.peer == beat.incarnation:
            found[peer] = count.received
    return found


def is_complete(sent: Mapping[Slot, Sent | None], received: Mapping[Slot, Sent]) -> bool:
    """Whether each worker has received exactly what was sent to it."""
    for slot, taken in received.items():
        for peer, out in sent.items():
            if out is None or (peer != slot and out.get(slot, 0) != taken.get(peer, 0)):
                return False
    return True


def links_of(beat: WorkerBeat) -> dict[str, LinkCount]:
    return {count.address: count for count in beat.links}
