"""What a word of Nimbus changes here, decided from the memory alone. Pure.

An older leader's word is ignored: the epoch grows with every leader. A Nimbus with another cluster id knows nothing of
the workers that run here; obeying it would kill them all, so it is refused for as long as there is something to lose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rainband.records import Assignment, HeartbeatReply


@dataclass(frozen=True, slots=True)
class Orders:
    """`refused` says why the reply is ignored ('' = it is not). `newer` and `dropped` are the changes it brings."""

    refused: str = ""
    newer: tuple[Assignment, ...] = ()
    dropped: tuple[str, ...] = ()


def weigh(known: Mapping[str, Assignment], cluster_id: str, epoch: int, reply: HeartbeatReply) -> Orders:
    """The orders in a reply, for a supervisor that belongs to `cluster_id` ('' = none yet) and has heard `epoch`."""
    if cluster_id not in ("", reply.cluster_id):
        if known:
            return Orders(f"cluster id mismatch: this supervisor belongs to {cluster_id}, Nimbus to {reply.cluster_id}")
    elif reply.epoch < epoch:
        return Orders(f"a Nimbus of epoch {reply.epoch} speaks, but epoch {epoch} leads")
    wanted = set(reply.wanted)
    newer = tuple([a for a in reply.assignments if a.topology_id in wanted and is_newer(a, known.get(a.topology_id))])
    return Orders("", newer, tuple(sorted(known.keys() - wanted)))


def is_newer(assignment: Assignment, known: Assignment | None) -> bool:
    return known is None or (known.epoch, known.version) < (assignment.epoch, assignment.version)


def wanted_by_port(known: Mapping[str, Assignment], supervisor: str) -> dict[int, str]:
    """Which topology belongs on which port of this supervisor."""
    return {
        slot.port: topology_id
        for topology_id, assignment in sorted(known.items())
        for slot in assignment.slots()
        if slot.supervisor == supervisor
    }
