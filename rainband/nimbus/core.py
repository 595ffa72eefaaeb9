"""Nimbus, told of requests and of the time: decides, writes, answers. No socket, clock or thread.

`now` is monotonic seconds, `wall` seconds since the epoch (only shown to people and part of topology ids).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial

import msgspec

from rainband.cluster.blobs import Blobs
from rainband.cluster.store import EPOCH_MAX, Change, Put, Store
from rainband.config import Config
from rainband.errors import NotUploaded, RainbandError, Refused, TopologyExists, TopologyUnreadable
from rainband.nimbus import admission, lifecycle, views
from rainband.nimbus.assigning import announced, raised, released, scheduled
from rainband.nimbus.journal import News
from rainband.nimbus.lifecycle import Action, Event
from rainband.nimbus.liveness import Liveness
from rainband.nimbus.roster import Roster, check_cluster
from rainband.nimbus.rows import COUNTER, Entry, TopologyRow, changes, read_counter, read_entries, removal, unreadable
from rainband.nimbus.scheduler import Schedule, place
from rainband.nimbus.shelf import Shelf
from rainband.nimbus.stacks import StackDesk
from rainband.nimbus.statistics import COMPONENT_ERRORS_MAX, Tally
from rainband.records import (
    Activate,
    Deactivate,
    Done,
    Download,
    Errors,
    Failure,
    GetCluster,
    GetErrors,
    GetStacks,
    GetStatistics,
    GetTopology,
    Heartbeat,
    HeartbeatReply,
    Kill,
    ListTopologies,
    Rebalance,
    Request,
    Response,
    Slot,
    Stacks,
    Status,
    Submit,
    Topologies,
    TopologySummary,
    Upload,
)

TOPOLOGIES_MAX = 10_000
SAVE_WAITS_S = 5.0
LAUNCHES_S = 1.0
PLACE_AGAIN_S = 1.0
SEND_TURN_S = 10.0


class Nimbus:
    """The leader. Takes the lead of `store` at once; raises StoreError when that cannot be read or written.

    `require_bundle=False`: workers have the code, as in-process ones do. `errors_max` are kept of each component.
    `above` is an epoch that supervisors have heard of.
    """

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        config: Mapping[str, object],
        now: float,
        *,
        address: str = "in process",
        require_bundle: bool = True,
        errors_max: int = COMPONENT_ERRORS_MAX,
        above: int = 0,
    ) -> None:
        self.config = Config.layer(config)
        self.address = address
        self.members: tuple[str, ...] = (address,)
        self._store = store
        self._shelf = Shelf(blobs, self.config["nimbus.upload.expiry.secs"], now)
        self._require_bundle = require_bundle
        self.epoch = store.lead(above)
        state = store.read_all()
        self._entries, self.damaged = read_entries(state.values, state.unreadable)
        self._counter = read_counter(state.values, self._entries)
        self._new_tally = partial(Tally, errors_max)
        self._tallies = {topology_id: self._new_tally() for topology_id in self._entries}
        self._reached: dict[str, dict[int, bytes]] = {}
        self._missing: dict[str, int] = {}
        self._due = {i: now + e.row.remaining_s for i, e in self._entries.items() if e.row.remaining_s is not None}
        self._heard_since: dict[str, dict[str, float]] = {topology_id: {} for topology_id in self._due}
        expected = {supervisor for entry in self._entries.values() for supervisor in entry.supervisors}
        liveness = Liveness(self.config["nimbus.supervisor.timeout.secs"], expected, now)
        self._roster = Roster(liveness)
        self.stacks = StackDesk()
        self.news = News()
        self._push: set[str] = set()
        self._saved_at = self._watched_at = now
        self.troubles: dict[str, str] = {}
        self._handlers: dict[type, Callable[..., Response]] = {
            Submit: self._submit,
            Kill: self._kill,
            Rebalance: self._rebalance,
            Activate: self._activate,
            Deactivate: self._deactivate,
            Heartbeat: self._heartbeat,
            Upload: lambda piece, now, wall: self._shelf.take(piece, now),
            Download: lambda request, now, wall: self._shelf.give(request, now),
            ListTopologies: self._list,
            GetTopology: self._topology,
            GetStatistics: self._statistics,
            GetErrors: self._errors,
            GetStacks: self._get_stacks,
            GetCluster: self._cluster,
        }

    def handle(self, request: Request, now: float, wall: float) -> Response:
        """Carry out one request. What is refused comes back as Failure and changed nothing."""
        try:
            return self._handlers[type(request)](request, now, wall)
        except RainbandError as error:
            return Failure(error.code, error.message, error.fix)

    def tick(self, now: float) -> list[str]:
        """Do what time brings; the supervisors to push Progress to, sorted.

        What could not be written stays as it was, is named in `troubles`, and is tried again next time.
        """
        self._advance(now)
        self._save_waits(now)
        named = {entry.plan.bundle for entry in self._entries.values()}
        self._attempt("bundles", lambda: self._shelf.clean(named, now))
        pushed, self._push = self._push, set()
        return sorted(pushed)

    def _advance(self, now: float) -> None:
        self.troubles.clear()
        for supervisor in self._roster.expire(now):
            self.news.lost(supervisor, self._roster.liveness.lease_s)
            self._silence(supervisor)
        self._watch_launches(now)
        for topology_id in sorted(self._due):
            entry = self._entries[topology_id]
            if now >= self._due[topology_id] or self._settled(entry, now):
                self._attempt(topology_id, partial(self._elapsed, entry, now))
        if self._roster.take_changed():
            for entry in sorted(self._entries.values(), key=lambda entry: entry.row.number):
                if entry.row.status is Status.KILLED:
                    continue
                if not self._attempt(entry.topology_id, partial(self._reschedule, entry)):
                    self._roster.changed = True

    def _silence(self, supervisor: str) -> None:
        """Nothing is known any more of the workers there."""
        for entry in self._entries.values():
            if supervisor in entry.supervisors:
                tally = self._tallies[entry.topology_id]
                tally.silence({slot for slot in entry.slots if slot.supervisor == supervisor})
                tally.observe(entry)

    def _watch_launches(self, now: float) -> None:
        """Give up slots whose supervisor lives but never reported the worker, where there are others instead."""
        if now < self._watched_at + LAUNCHES_S:
            return
        self._watched_at = now
        for entry in self._entries.values():
            tally = self._tallies[entry.topology_id]
            for slot in tally.overdue(entry.slots, now, self.config["nimbus.task.launch.secs"]):
                enough = len(self._usable(entry) - {slot}) >= len(entry.slots)
                if enough and self._roster.liveness.alive(slot.supervisor):
                    self._roster.avoid(slot, now)
                    self.news.late(entry, slot, self.config["nimbus.task.launch.secs"])

    def _attempt(self, name: str, act: Callable[[], None]) -> bool:
        try:
            act()
        except RainbandError as error:
            self.troubles[name] = str(error)
            return False
        return True

    def paused(self, seconds: float) -> None:
        """The process did not run for that long (stopped, suspended): it does not count against supervisors."""
        self._roster.liveness.pause(seconds)

    def next_deadline(self) -> float:
        """The monotonic time at which `tick` has something to do, if nothing is asked before."""
        soonest = min(self._due.values(), default=float("inf"))
        return min(soonest, self._roster.liveness.deadline(), self._shelf.deadline())

    # Commands: each is one write.

    def _submit(self, request: Submit, now: float, wall: float) -> Response:
        admission.check_name(request.name)
        for entry in self._entries.values():
            if request.token and (request.name, request.token) == (entry.name, entry.row.token):
                return views.accepted(entry, self._missing.get(entry.topology_id, 0))
            if request.name in (entry.name, entry.topology_id):
                fix = f"Kill it first, or submit with another name. It is {entry.shown_status}"
                raise TopologyExists(f"the name {request.name} is in use", fix)
        if damaged := unreadable(self.damaged, request.name):
            raise TopologyExists(f"the name {request.name} is in use", f"Kill it first: {damaged} cannot be read")
        if len(self._entries) >= TOPOLOGIES_MAX:
            raise Refused(f"{TOPOLOGIES_MAX} topologies are there already", "Kill one first")
        plan = admission.admit(request.name, request.plan, request.config)
        if (plan.bundle or self._require_bundle) and not self._shelf.has(plan.bundle):
            what = f"the code bundle {plan.bundle[:12] or '(none)'} was not uploaded"
            raise NotUploaded(what, "Upload it, then submit")
        admission.check_versions(plan, self._roster.alive_heartbeats())
        number = self._counter + 1
        status = Status.ACTIVE if request.active else Status.INACTIVE
        topology_id = f"{request.name}-{number}-{int(wall)}"
        row = TopologyRow(request.name, topology_id, number, status, status, wall, token=request.token)
        schedule = self._schedule(Entry(row, plan), level=False)
        entry = self._scheduled(Entry(row, plan), schedule)
        self._write(None, entry, Put(COUNTER, b"%d" % number))
        self._counter = number
        self._missing[topology_id] = schedule.missing
        return views.accepted(entry, schedule.missing)

    def _kill(self, request: Kill, now: float, wall: float) -> Response:
        try:
            entry = self._find(request.name)
        except TopologyUnreadable:
            return self._remove(unreadable(self.damaged, request.name))
        wait_s = admission.check_wait(request.wait_s, admission.timeout_s(entry))
        self._begin_wait(entry, Event.KILL, wait_s, now)
        return Done(entry.topology_id)

    def _find(self, name: str) -> Entry:
        return views.find(self._entries, self.damaged, name)

    def _remove(self, topology_id: str) -> Done:
        """Remove one that was set aside: nobody knows how to pause it, so at once."""
        self._store.write(self.epoch, removal(topology_id))
        del self.damaged[f"topology/{topology_id}"]
        self._roster.changed = True
        return Done(topology_id, "removed at once, for it cannot be read")

    def _rebalance(self, request: Rebalance, now: float, wall: float) -> Response:
        entry = self._find(request.name)
        wait_s = admission.check_wait(request.wait_s, admission.timeout_s(entry))
        reshape = admission.check_reshape(entry.plan, request.workers, request.parallelism)
        lifecycle.step(entry.name, entry.row.status, entry.row.resume, Event.REBALANCE)
        wanted = views.wanted(replace(entry, plan=admission.reshaped(entry.plan, reshape)))
        usable = len(self._usable(entry))
        if request.workers is not None and usable < wanted and not self._roster.awaits():
            raise Refused(
                f"{entry.name} cannot have {wanted} workers: {views.count_slots(usable)} free or its own",
                "Ask for fewer, or start another supervisor",
            )
        entry = replace(entry, row=msgspec.structs.replace(entry.row, reshape=reshape))
        self._begin_wait(entry, Event.REBALANCE, wait_s, now)
        return Done(entry.topology_id)

    def _activate(self, request: Activate, now: float, wall: float) -> Response:
        return self._set_status(self._find(request.name), Event.ACTIVATE)

    def _deactivate(self, request: Deactivate, now: float, wall: float) -> Response:
        return self._set_status(self._find(request.name), Event.DEACTIVATE)

    def _set_status(self, entry: Entry, event: Event) -> Response:
        status, _ = lifecycle.step(entry.name, entry.row.status, entry.row.resume, event)
        row = msgspec.structs.replace(entry.row, status=status, resume=status)
        self._write(entry, announced(replace(entry, row=row), self.epoch))
        return Done(entry.topology_id)

    def _begin_wait(self, entry: Entry, event: Event, wait_s: float, now: float) -> None:
        """KILLED or REBALANCING from now on; over at once when nothing was ever placed."""
        old = self._entries[entry.topology_id]
        status, action = lifecycle.step(entry.name, entry.row.status, entry.row.resume, event)
        assert action is Action.START_WAIT
        if old.assignment is None:
            wait_s = 0.0
        row = msgspec.structs.replace(entry.row, status=status, remaining_s=wait_s, moving=False)
        self._write(old, announced(replace(entry, row=row), self.epoch))
        self._due[entry.topology_id] = now + wait_s
        self._heard_since[entry.topology_id] = {}
        if wait_s == 0.0:  # the command is accepted, whatever becomes of the second write: `tick` tries that again
            self._attempt(entry.topology_id, partial(self._elapsed, self._entries[entry.topology_id], now))

    def _elapsed(self, entry: Entry, now: float) -> None:
        """The wait is over: remove the topology, or place it anew, or let it go on where it was placed.

        Without any slot everything stays as it is until there is one: a reshaped plan has to come with its places.
        """
        row = entry.row
        if row.moving:
            status, _ = lifecycle.step(row.name, row.status, row.resume, Event.MOVED)
            row = msgspec.structs.replace(row, status=status, remaining_s=None, moving=False)
            self._write(entry, announced(replace(entry, row=row), self.epoch))
            return
        status, action = lifecycle.step(row.name, row.status, row.resume, Event.ELAPSED)
        if action is Action.REMOVE:
            self._write(entry, None)
            return
        assert action is Action.PLACE_ANEW
        plan = admission.reshaped(entry.plan, row.reshape) if row.reshape is not None else entry.plan
        wait_s: float | None = None
        if entry.assignment is not None:
            wait_s = float(self.config["nimbus.task.launch.secs"])
        else:
            status, _ = lifecycle.step(row.name, status, row.resume, Event.MOVED)
        moving = wait_s is not None
        row = msgspec.structs.replace(row, status=status, remaining_s=wait_s, reshape=None, moving=moving)
        new = Entry(row, plan, entry.assignment)
        schedule = self._schedule(new, level=True)
        if moving and not schedule.slots:
            self._due[entry.topology_id] = now + PLACE_AGAIN_S
            self._missing[entry.topology_id] = schedule.missing
            return
        self._write(entry, announced(self._scheduled(new, schedule), self.epoch))
        if wait_s is not None:
            self._due[entry.topology_id] = now + wait_s
        self._missing[entry.topology_id] = schedule.missing

    # Scheduling.

    def _reschedule(self, entry: Entry) -> None:
        """Place what has no place. What runs well is not touched."""
        schedule = self._schedule(entry, level=False)
        new = self._scheduled(entry, schedule)
        if new is not entry:
            self._write(entry, new)
        self._missing[entry.topology_id] = schedule.missing

    def _schedule(self, entry: Entry, *, level: bool) -> Schedule:
        executors, workers = entry.plan.executors(), entry.plan.workers
        spouts = {name for name, component in entry.plan.components.items() if component.kind == "spout"}
        return place(executors, workers, entry.where, self._usable(entry), level=level, reluctant=spouts)

    def _usable(self, entry: Entry) -> set[Slot]:
        """Free slots that fit the topology, and its own that are alive."""
        others = [other for other in self._entries.values() if other.topology_id != entry.topology_id]
        taken = {slot for other in others for slot in other.slots}
        if self.damaged:
            taken |= self._roster.held({key.partition("/")[2] for key in self.damaged})
        return self._roster.usable(entry, taken)

    def _scheduled(self, entry: Entry, schedule: Schedule) -> Entry:
        return scheduled(entry, schedule, self._roster, self._reached.get(entry.topology_id, {}), self.epoch)

    def _write(self, old: Entry | None, new: Entry | None, *also: Change) -> None:
        """Make a decision last, then believe it. Raises StoreError; then nothing was decided."""
        self._store.write(self.epoch, [*changes(old, new), *also])
        known = old or new
        assert known is not None
        topology_id = known.topology_id
        self.news.moved(old, new)
        for before, after in ((old, new), (new, old)):
            if before is not None and (after is None or before.assignment != after.assignment):
                self._push |= before.supervisors
        if new is None:
            for kept in (self._entries, self._tallies, self._missing, self._reached, self._due, self._heard_since):
                kept.pop(topology_id, None)
            self.stacks.forget(topology_id)
            self._roster.changed = True
            return
        self._entries[topology_id] = new
        self._tallies.setdefault(topology_id, self._new_tally()).keep_only(new.slots)
        if new.row.remaining_s is None:
            self._due.pop(topology_id, None)
        if old is not None and old.slots - new.slots:
            self._roster.changed = True

    def _settled(self, entry: Entry, now: float) -> bool:
        if entry.assignment is None:
            return True
        tally = self._tallies[entry.topology_id]
        if entry.row.moving:
            return not entry.leaving and tally.moved(entry)
        heard_s = {name: now - since for name, since in self._heard_since.get(entry.topology_id, {}).items()}
        if not tally.settled(entry, heard_s):
            return False
        running = tally.running(entry)
        missing = running < len(entry.slots) if entry.row.status is Status.KILLED else not running
        return tally.quiet or missing

    def _save_waits(self, now: float) -> None:
        """Store how long the delayed actions still have to wait, so that a restart goes on from there."""
        if not self._due:
            self._saved_at = now
        if now < self._saved_at + SAVE_WAITS_S:
            return
        self._saved_at = now
        for topology_id, due in sorted(self._due.items()):
            entry = self._entries[topology_id]
            row = msgspec.structs.replace(entry.row, remaining_s=max(0.0, due - now))
            self._attempt(topology_id, partial(self._write, entry, replace(entry, row=row)))

    # Heartbeats.

    def outdone_by(self, beat: Heartbeat) -> int:
        """The epoch of another leader of this cluster that a supervisor obeys instead of this one; 0: there is none.

        One with our own epoch is another too when its supervisor was never answered here.
        """
        cluster_id, epoch = beat.leader
        ours = self.epoch + 1 if self._roster.knows(beat.supervisor) else self.epoch
        return epoch if cluster_id == self._store.cluster_id and ours <= epoch <= EPOCH_MAX else 0

    def _heartbeat(self, beat: Heartbeat, now: float, wall: float) -> Response:
        check_cluster(beat, self._store.cluster_id, self.epoch)
        restarted = self._roster.hear(beat, now)
        if restarted:
            self.news.joined(beat)
        self._weigh_known(beat)
        for entry in self._entries.values():
            if beat.supervisor in entry.supervisors:
                self._hear_workers(beat, entry, restarted, now)
        if self._roster.changed:
            self._advance(now)  # a new supervisor gets its work with this very answer
        self._push.discard(beat.supervisor)
        wanted = {i: entry for i, entry in sorted(self._entries.items()) if beat.supervisor in entry.supervisors}
        changed = tuple([
            entry.assignment
            for topology_id, entry in wanted.items()
            if entry.assignment is not None
            and beat.known.get(topology_id) != (entry.assignment.epoch, entry.assignment.version)
        ])
        lacking = self._lacking(beat.supervisor, wanted.values(), now)
        aside = [i for i in beat.known if f"topology/{i}" in self.damaged]
        return HeartbeatReply(changed, tuple(sorted([*wanted, *aside])), self.epoch, self._store.cluster_id, lacking)

    def _weigh_known(self, beat: Heartbeat) -> None:
        """Write anew what a supervisor has in a later version: it would not take ours. And what has ended there."""
        for topology_id, known in beat.known.items():
            entry = self._entries.get(topology_id)
            if entry is None:
                continue
            new = released(raised(entry, known, self.epoch), self._roster, self.epoch)
            if new is not entry:
                self._attempt(topology_id, partial(self._write, entry, new))

    def _lacking(self, supervisor: str, entries: Iterable[Entry], now: float) -> tuple[str, ...]:
        """Bundles that are not here, of topologies whose supervisors have them: each is asked when its turn comes."""
        found = set()
        for entry in entries:
            if self._require_bundle and not self._shelf.has(entry.plan.bundle):
                alive = sorted(filter(self._roster.liveness.alive, entry.supervisors))
                if alive and alive[int(now / SEND_TURN_S) % len(alive)] == supervisor:
                    found.add(entry.plan.bundle)
        return tuple(sorted(found))

    def _hear_workers(self, beat: Heartbeat, entry: Entry, restarted: bool, now: float) -> None:
        tally = self._tallies[entry.topology_id]
        own = {slot for slot in entry.slots if slot.supervisor == beat.supervisor}
        reported = set()
        for worker in beat.workers:
            slot = Slot(beat.supervisor, worker.port)
            if worker.topology_id == entry.topology_id and slot in own:
                tally.hear(slot, worker)
                self._reached.setdefault(entry.topology_id, {}).update(worker.positions)
                reported.add(slot)
        tally.silence(own - reported)
        tally.observe(entry)
        since = self._heard_since.get(entry.topology_id)
        if since is not None:
            since[beat.supervisor] = now if restarted else since.get(beat.supervisor, now)
        self.stacks.hear(entry.topology_id, beat.stacks.get(entry.topology_id, {}))

    # Questions.

    def _list(self, request: ListTopologies, now: float, wall: float) -> Response:
        entries = sorted(self._entries.values(), key=lambda entry: entry.row.number)
        return Topologies(tuple([self._summary(entry, now, wall) for entry in entries]))

    def _topology(self, request: GetTopology, now: float, wall: float) -> Response:
        entry = self._find(request.name)
        summary = self._summary(entry, now, wall)
        return msgspec.structs.replace(summary, plan=entry.plan.encode(), assignment=entry.assignment)

    def _summary(self, entry: Entry, now: float, wall: float) -> TopologySummary:
        due = self._due.get(entry.topology_id) if not entry.row.moving else None
        return views.summary(
            entry,
            missing=self._missing.get(entry.topology_id, 0),
            running=self._tallies[entry.topology_id].running(entry),
            due_s=max(0.0, due - now) if due is not None else None,
            wall=wall,
        )

    def _statistics(self, request: GetStatistics, now: float, wall: float) -> Response:
        entry = self._find(request.name)
        return self._tallies[entry.topology_id].statistics(
            entry,
            missing=self._missing.get(entry.topology_id, 0),
            wanted=views.wanted(entry),
            uptime_s=views.uptime_s(entry, wall),
        )

    def _errors(self, request: GetErrors, now: float, wall: float) -> Response:
        entry = self._find(request.name)
        views.check_component(entry, request.component)
        return Errors(self._tallies[entry.topology_id].errors(request.component))

    def _get_stacks(self, request: GetStacks, now: float, wall: float) -> Response:
        """What has come so far; the first question asks the supervisors, so ask again until all workers answered."""
        entry = self._find(request.name)
        return Stacks(self.stacks.ask(entry.topology_id, entry.supervisors, now))

    def _cluster(self, request: GetCluster, now: float, wall: float) -> Response:
        state = type(self._store).__name__.removesuffix("Store").lower()
        return views.cluster(
            self._entries.values(),
            self._roster,
            now,
            nimbuses=(self.address, *(member for member in self.members if member != self.address)),
            cluster_id=self._store.cluster_id,
            state=state,
        )
