"""The supervisors: who is alive, what each said last, which slots that gives. Pure.

`changed` is set when something happened that scheduling should look at; a heartbeat like the last one sets nothing.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from rainband.cluster.store import EPOCH_MAX
from rainband.errors import Refused, SupervisorReplaced
from rainband.nimbus.admission import fits
from rainband.nimbus.liveness import Liveness
from rainband.nimbus.rows import Entry
from rainband.records import Assignment, Heartbeat, Leaving, Slot, SupervisorSummary
from rainband.topology.streams import NAME_RULE, is_name

SUPERVISORS_MAX = 10_000
PORTS_MAX = 10_000
REMEMBER_DEAD_S = 3600.0
AVOID_S = 600.0
REPLACED_MAX = 4
REPLACED_SHARE = 0.5


class Roster:
    """Heartbeats by supervisor id, with the times of the first and the newest one."""

    def __init__(self, liveness: Liveness) -> None:
        self.liveness = liveness
        self.changed = True
        self._newest: dict[str, Heartbeat] = {}
        self._first: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._avoided: dict[Slot, float] = {}
        self._replaced: dict[str, tuple[int, ...]] = {}
        self._ever: set[str] = set()

    def hear(self, beat: Heartbeat, now: float) -> bool:
        """Take a heartbeat; True for the first one of a supervisor's process.

        Raises Refused when it makes no sense, or there are too many supervisors; SupervisorReplaced when it comes from
        a process in whose place another one speaks.
        """
        name = beat.supervisor
        if not is_name(name):
            raise Refused(f"{name[:80]!r} cannot name a supervisor", f"A name must match {NAME_RULE}")
        if len(beat.ports) > PORTS_MAX or any(not 0 < port < 65536 for port in beat.ports):
            raise Refused(f"supervisor {name}: its ports must be from 1 to 65535, {PORTS_MAX} at most")
        if name not in self._newest and len(self._newest) >= SUPERVISORS_MAX and not self._forget_one():
            raise Refused(f"{SUPERVISORS_MAX} supervisors are alive already")
        before = self._newest.get(name)
        restarted = before is None or before.incarnation != beat.incarnation
        if before is not None and restarted:
            self._replace(before, beat, now)
        if restarted:
            self._first[name] = now
            self._avoided = {slot: since for slot, since in self._avoided.items() if slot.supervisor != name}
        self._newest[name] = beat
        self._last[name] = now
        if len(self._ever) < SUPERVISORS_MAX:
            self._ever.add(name)
        if beat.stopping:
            self.changed |= self.liveness.stop(name)
        else:
            revived = self.liveness.hear(name, now)
            self.changed |= revived or before is None or offer(before) != offer(beat)
        return restarted

    def _replace(self, before: Heartbeat, beat: Heartbeat, now: float) -> None:
        """A process takes the place of another, unless it was replaced itself by one that was heard a moment ago."""
        name = beat.supervisor
        replaced = self._replaced.get(name, ())
        recent = now < self._last[name] + self.liveness.lease_s * REPLACED_SHARE
        if beat.incarnation in replaced and recent and self.liveness.alive(name):
            raise SupervisorReplaced(
                f"two supervisors are called {name}: the one at {before.host[:80]} has taken the place of "
                f"the one at {beat.host[:80]}",
                "Start each with its own state directory and supervisor.id",
            )
        others = [one for one in replaced if one != beat.incarnation]
        self._replaced[name] = (*others, before.incarnation)[-REPLACED_MAX:]

    def knows(self, name: str) -> bool:
        """Whether it was ever heard here; nobody counts as new once there were very many."""
        return name in self._ever or len(self._ever) >= SUPERVISORS_MAX

    def awaits(self) -> bool:
        """Whether somebody who is expected was not heard yet: there may be more slots than are known."""
        return any(name not in self._newest for name in self.liveness.names())

    def expire(self, now: float) -> list[str]:
        """Those that just died of silence; the long dead are forgotten."""
        dead = self.liveness.expire(now)
        over = [slot for slot, since in self._avoided.items() if now > since + AVOID_S]
        for slot in over:
            del self._avoided[slot]
        self.changed |= bool(over)
        self.changed |= bool(dead)
        for name in [name for name, last in self._last.items() if now > last + REMEMBER_DEAD_S]:
            if not self.liveness.alive(name):
                self._forget(name)
        return dead

    def _forget(self, name: str) -> None:
        for known in (self._newest, self._first, self._last, self._replaced):
            known.pop(name, None)

    def _forget_one(self) -> bool:
        """Make room: forget one of the dead. False when there is none."""
        dead = next((name for name in self._newest if not self.liveness.alive(name)), None)
        if dead is not None:
            self._forget(dead)
        return dead is not None

    def take_changed(self) -> bool:
        changed, self.changed = self.changed, False
        return changed

    def alive_heartbeats(self) -> list[Heartbeat]:
        """What each living supervisor said last, by name."""
        return [beat for name, beat in sorted(self._newest.items()) if self.liveness.alive(name)]

    def usable(self, entry: Entry, taken: set[Slot]) -> set[Slot]:
        """Slots this topology may use: free ones with the right interpreter, and its own that are alive.

        A supervisor that is expected but was not heard yet has the slots the assignment gives it.
        """
        slots = set()
        for beat in self.alive_heartbeats():
            own = {slot.port for slot in entry.slots if slot.supervisor == beat.supervisor}
            fitting = fits(entry.plan, beat)
            slots |= {Slot(beat.supervisor, port) for port in beat.ports if fitting or port in own}
        for slot in entry.slots:
            if slot.supervisor not in self._newest and self.liveness.alive(slot.supervisor):
                slots.add(slot)
        return slots - taken - self._avoided.keys()

    def has_ended(self, assignment: Assignment, left: Leaving) -> bool:
        """Whether a task that `assignment` took from a slot surely runs there no more.

        The supervisor there knows of it, and so does its worker, or its lease is over. What it knows from an earlier
        leader may be of a time that the store has lost.
        """
        if not self.liveness.alive(left.slot.supervisor):
            return True
        beat = self._newest.get(left.slot.supervisor)
        if beat is None or left.slot.port in beat.behind.get(assignment.topology_id, ()):
            return False
        known = beat.known.get(assignment.topology_id, (0, 0))
        return known[0] == assignment.epoch and known >= left.since

    def still_there(self, assignment: Assignment) -> list[Leaving]:
        """What the assignment took away and has not surely ended."""
        return [left for left in assignment.leaving if not self.has_ended(assignment, left)]

    def held(self, topology_ids: Container[str]) -> set[Slot]:
        """Slots whose workers are of these topologies, as their supervisors say."""
        return {
            Slot(beat.supervisor, worker.port)
            for beat in self.alive_heartbeats()
            for worker in beat.workers
            if worker.topology_id in topology_ids
        }

    def avoid(self, slot: Slot, now: float) -> None:
        """Do not use this slot for a while: nothing comes up there. A restarted supervisor gets another chance."""
        self._avoided[slot] = now
        self.changed = True

    def addresses(self, slots: Iterable[Slot], old: Assignment | None) -> tuple[dict[str, str], dict[str, str]]:
        """(host, public key) of the supervisors of `slots`; of one not heard yet, as they were."""
        hosts: dict[str, str] = {}
        keys: dict[str, str] = {}
        for name in sorted({slot.supervisor for slot in slots}):
            beat = self._newest.get(name)
            if beat is not None:
                hosts[name] = beat.host
                key = beat.public_key
            else:
                hosts[name] = old.hosts.get(name, "") if old is not None else ""
                key = old.keys.get(name, "") if old is not None else ""
            if key:
                keys[name] = key
        return hosts, keys

    def summaries(self, used: Mapping[str, Iterable[int]], now: float) -> tuple[SupervisorSummary, ...]:
        """One row per supervisor; `used` are the ports in use by supervisor."""
        return tuple([
            SupervisorSummary(
                supervisor=name,
                host=beat.host,
                ports=tuple(sorted(beat.ports)),
                used=tuple(sorted(used.get(name, ()))),
                alive=self.liveness.alive(name),
                uptime_s=now - self._first[name],
                heard_s=now - self._last[name],
            )
            for name, beat in sorted(self._newest.items())
        ])


def check_cluster(beat: Heartbeat, cluster_id: str, epoch: int) -> None:
    """Raises Refused when the supervisor belongs to another cluster, or has heard of a leader that cannot be."""
    if beat.cluster_id not in ("", cluster_id):
        raise Refused(
            f"cluster id mismatch: {beat.supervisor[:80]} runs workers of {beat.cluster_id[:80]}, "
            f"this Nimbus belongs to {cluster_id}",
            "Bring back that Nimbus's state, or stop the workers before the supervisor joins",
        )
    heard_at, heard = beat.leader
    if heard_at == cluster_id and heard > max(epoch, EPOCH_MAX):
        raise Refused(
            f"supervisor {beat.supervisor[:80]} has heard of epoch {heard}, more than there can be",
            "Stop it and its workers, and move its state directory away",
        )


def offer(beat: Heartbeat) -> tuple[object, ...]:
    """What a supervisor offers: when it changes, scheduling has to look again."""
    return (frozenset(beat.ports), beat.host, beat.python, beat.packages, beat.public_key)
