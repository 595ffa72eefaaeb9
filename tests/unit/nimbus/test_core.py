"""Requests to Nimbus, one at a time. The longer stories are in the transcripts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kit.clusters import WALL, beat, heartbeat, word_count
from rainband.cluster.blobs import DirectoryBlobs, MemoryBlobs
from rainband.cluster.memory import MemoryStore
from rainband.cluster.store import EPOCH_MAX, Change, State
from rainband.errors import StoreError
from rainband.nimbus.core import Nimbus
from rainband.records import (
    Activate,
    Assignment,
    ClusterSummary,
    Deactivate,
    Done,
    Download,
    ErrorRecord,
    Errors,
    Failure,
    GetCluster,
    GetErrors,
    GetStacks,
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
from rainband.topology.plan import ComponentPlan, InputPlan, Plan

BUNDLE = b"a bundle"
DIGEST = hashlib.sha256(BUNDLE).hexdigest()


class FailingStore(MemoryStore):
    """Fails the writes after the first `good` ones, until told otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.good = 1_000_000

    def write(self, epoch: int, changes: Sequence[Change]) -> None:
        if self.good <= 0:
            raise StoreError("disk full")
        self.good -= 1
        super().write(epoch, changes)


def make(store: MemoryStore | None = None, now: float = 0.0, **options: Any) -> Nimbus:
    options.setdefault("require_bundle", False)
    return Nimbus(store or MemoryStore(), MemoryBlobs(), {}, now, **options)


def ask(nimbus: Nimbus, request: Request, now: float = 0.0) -> Response:
    return nimbus.handle(request, now, WALL)


def submit(nimbus: Nimbus, name: str = "wc", workers: int = 1, now: float = 0.0) -> str:
    answer = ask(nimbus, Submit(name, word_count(name, workers).encode()), now)
    assert isinstance(answer, Done), answer
    return answer.topology_id


def refusal(answer: Response) -> str:
    assert isinstance(answer, Failure), answer
    return f"{answer.code}: {answer.message}"


def look(nimbus: Nimbus, name: str = "wc") -> TopologySummary:
    answer = ask(nimbus, GetTopology(name))
    assert isinstance(answer, TopologySummary)
    return answer


def names(nimbus: Nimbus) -> list[str]:
    answer = ask(nimbus, ListTopologies())
    assert isinstance(answer, Topologies)
    return [topology.name for topology in answer.topologies]


BAD_NAMES = ["", "..", "/", "a/b", "a b", "-wc", "wc\n", "x" * 65, "x" * 300, "wc\0", "naïve", "$(x)", "__wc"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_are_checked(name: str) -> None:
    nimbus = make()
    answer = ask(nimbus, Submit(name, word_count().encode()))
    assert "cannot name a topology" in refusal(answer)
    assert names(nimbus) == []


def changed(component: str, **fields: Any) -> Plan:
    plan = word_count()
    new = msgspec.structs.replace(plan.components[component], **fields)
    return msgspec.structs.replace(plan, components={**plan.components, component: new})


BAD_PLANS = [
    (msgspec.structs.replace(word_count(), components={}), "no spout"),
    (changed("lines", kind="bolt"), "no spout"),
    (changed("count", executors=5), "5 executors for 4 tasks"),
    (changed("count", executors=0), "0 executors for 4 tasks"),
    (changed("count", tasks=200_000, executors=1), "more than 100000 tasks"),
    (changed("count", id="counter"), "cannot name a component"),
    (changed("count", inputs=(InputPlan("splitt", "default", "shuffle"),)), "which is no component"),
    (changed("count", inputs=(InputPlan("split", "words", "shuffle"),)), "has no stream 'words'"),
    (changed("count", inputs=(InputPlan("split", "default", "fields", ("line",)),)), "has no field line"),
    (changed("count", config={"topology.max.spout.pending": -1}), "topology.max.spout.pending"),
    (msgspec.structs.replace(word_count(), config={"topology.wrokers": 2}), "topology.wrokers"),
    (msgspec.structs.replace(word_count(), config={"topology.workers": "2"}), "topology.workers"),
    (msgspec.structs.replace(word_count(), config={"nimbus.port": 1}), "setting of the daemons"),
]


@pytest.mark.parametrize(("plan", "problem"), BAD_PLANS, ids=[problem for _, problem in BAD_PLANS])
def test_plans_are_checked_again(plan: Plan, problem: str) -> None:
    nimbus = make()
    answer = ask(nimbus, Submit("wc", plan.encode()))
    assert isinstance(answer, Failure)
    assert answer.code == "invalid_topology"
    assert problem in answer.message
    assert names(nimbus) == []


@pytest.mark.parametrize("data", [b"", b"\x80\x04\x95", b"\xc1", msgspec.msgpack.encode([1, 2])])
def test_what_is_no_plan_is_refused(data: bytes) -> None:
    assert refusal(ask(make(), Submit("wc", data))).startswith("invalid_topology: not a topology plan")


def test_all_problems_come_at_once() -> None:
    plan = changed("count", executors=0, inputs=(InputPlan("none", "default", "shuffle"),))
    message = refusal(ask(make(), Submit("wc", plan.encode())))
    assert "0 executors" in message
    assert "no component" in message


def test_the_bundle_must_be_there_first() -> None:
    nimbus = make(require_bundle=True)
    plan = word_count(bundle=DIGEST)
    assert "was not uploaded" in refusal(ask(nimbus, Submit("wc", plan.encode())))
    assert "was not uploaded" in refusal(ask(nimbus, Submit("wc", word_count().encode())))
    assert refusal(ask(nimbus, Download(DIGEST, 0, 10))).startswith("store: ")
    assert ask(nimbus, Upload(DIGEST, 0, BUNDLE, True)) == Done()
    assert isinstance(ask(nimbus, Submit("wc", plan.encode())), Done)


def test_bundles_nobody_names_are_forgotten() -> None:
    nimbus = make(require_bundle=True)
    other = hashlib.sha256(b"other").hexdigest()
    ask(nimbus, Upload(DIGEST, 0, BUNDLE, True))
    ask(nimbus, Upload(other, 0, b"other", True))
    ask(nimbus, Submit("wc", word_count(bundle=DIGEST).encode()))
    for now in range(0, 800, 60):
        nimbus.tick(float(now))
    assert not isinstance(ask(nimbus, Download(DIGEST, 0, 1)), Failure)
    assert isinstance(ask(nimbus, Download(other, 0, 1)), Failure)


def test_half_an_upload_that_cannot_be_removed_is_told_and_ends_nothing(tmp_path: Path) -> None:
    nimbus = Nimbus(MemoryStore(), DirectoryBlobs(tmp_path), {}, 0.0)
    ask(nimbus, Upload(DIGEST, 0, BUNDLE[:3], False))
    (tmp_path / "incoming" / DIGEST).unlink()
    (tmp_path / "incoming" / DIGEST).mkdir()
    nimbus.tick(1000.0)
    assert str(tmp_path) in nimbus.troubles["bundles"]
    nimbus.tick(2000.0)
    assert nimbus.troubles == {}


def test_a_name_is_used_once_and_so_is_an_id() -> None:
    nimbus = make()
    topology_id = submit(nimbus)
    assert topology_id == "wc-1-1700000000"
    for name in ("wc", topology_id):
        answer = ask(nimbus, Submit(name, word_count().encode()))
        assert refusal(answer).startswith(f"topology_exists: the name {name} is in use")
    ask(nimbus, Kill("wc", 0.0))
    assert submit(nimbus) == "wc-2-1700000000"


def test_other_interpreters_and_packages_are_named() -> None:
    nimbus = make()
    ask(nimbus, heartbeat(python="3.12.1", packages={"rainband": "0.1.0", "cloudpickle": "3.0"}))
    answer = ask(nimbus, Submit("wc", word_count(python="3.11.7").encode()))
    assert refusal(answer) == "version_mismatch: wc cannot run on supervisor a: python 3.11.7 here, 3.12.1 there"
    answer = ask(nimbus, Submit("wc", word_count(packages={"cloudpickle": "3.1", "numpy": "2"}).encode()))
    assert "cloudpickle 3.1 here, 3.0 there" in refusal(answer)
    assert names(nimbus) == []
    assert isinstance(ask(nimbus, Submit("wc", word_count(python="3.12.9").encode())), Done)


def test_only_supervisors_that_fit_get_work() -> None:
    nimbus = make()
    ask(nimbus, heartbeat("a", python="3.12.1"))
    ask(nimbus, heartbeat("b", python="3.11.2"))
    ask(nimbus, Submit("wc", word_count(workers=2, python="3.11.7").encode()))
    assignment = look(nimbus).assignment
    assert assignment is not None
    assert {slot.supervisor for slot in assignment.slots()} == {"b"}


def test_a_submit_is_pushed_to_its_supervisors_at_once() -> None:
    nimbus = make()
    ask(nimbus, heartbeat("a"))
    ask(nimbus, heartbeat("b"))
    nimbus.tick(0.0)
    submit(nimbus, workers=1)
    assert nimbus.tick(0.0) == ["a"]
    assert nimbus.tick(0.0) == []


def test_a_submit_may_begin_inactive() -> None:
    nimbus = make()
    ask(nimbus, heartbeat())
    ask(nimbus, Submit("wc", word_count().encode(), active=False))
    found = look(nimbus)
    assert found.status is Status.INACTIVE
    assert found.assignment is not None
    assert found.assignment.status is Status.INACTIVE


def test_config_given_with_the_submit_wins() -> None:
    nimbus = make()
    ask(nimbus, heartbeat())
    ask(nimbus, Submit("wc", word_count().encode(), {"topology.workers": 2}))
    assert look(nimbus).workers == 2
    assert Plan.decode(look(nimbus).plan).workers == 2


def test_an_answer_repeats_only_what_the_supervisor_does_not_know() -> None:
    nimbus = make()
    topology_id = submit(nimbus)
    first = ask(nimbus, heartbeat())
    assert isinstance(first, HeartbeatReply)
    assert [(a.epoch, a.version) for a in first.assignments] == [(1, 1)]
    assert first.assignments[0].hosts == {"a": "127.0.0.1"}
    again = ask(nimbus, heartbeat(known={topology_id: (1, 1)}))
    assert again == HeartbeatReply((), (topology_id,), 1, first.cluster_id)
    stale = ask(nimbus, heartbeat(known={topology_id: (1, 0)}))
    assert stale == first


def test_a_host_that_changes_is_told_to_everyone() -> None:
    nimbus = make()
    ask(nimbus, heartbeat("a", ports=(6700,)))
    ask(nimbus, heartbeat("b", ports=(6700,)))
    submit(nimbus, workers=2)
    moved = msgspec.structs.replace(heartbeat("b", ports=(6700,), public_key="k"), host="10.0.0.9")
    ask(nimbus, moved)
    assignment = look(nimbus).assignment
    assert assignment is not None
    assert (assignment.version, assignment.hosts) == (2, {"a": "127.0.0.1", "b": "10.0.0.9"})
    assert assignment.keys == {"b": "k"}
    assert {p.number for p in assignment.placements} == {1}
    assert "a" in nimbus.tick(0.0)


@pytest.mark.parametrize("name", ["", "a b", "../a", "x" * 65])
def test_supervisors_with_odd_names_are_refused(name: str) -> None:
    assert "cannot name a supervisor" in refusal(ask(make(), heartbeat(name)))


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_supervisors_with_odd_ports_are_refused(port: int) -> None:
    nimbus = make()
    assert "ports must be" in refusal(ask(nimbus, heartbeat(ports=(port,))))
    cluster = ask(nimbus, GetCluster())
    assert isinstance(cluster, ClusterSummary)
    assert cluster.supervisors == ()


def test_the_cluster_is_described() -> None:
    nimbus = make(address="127.0.0.1:6627")
    ask(nimbus, heartbeat("b"), 1.0)
    ask(nimbus, heartbeat("a"), 2.0)
    submit(nimbus, workers=3, now=2.0)
    ask(nimbus, heartbeat("a"), 5.0)
    nimbus.tick(31.5)
    cluster = ask(nimbus, GetCluster(), 31.5)
    assert isinstance(cluster, ClusterSummary)
    assert (cluster.leader, cluster.nimbuses, cluster.state) == ("127.0.0.1:6627", ("127.0.0.1:6627",), "memory")
    rows = [(s.supervisor, s.ports, s.alive, s.uptime_s, s.heard_s) for s in cluster.supervisors]
    assert rows == [("a", (6700, 6701), True, 29.5, 26.5), ("b", (6700, 6701), False, 30.5, 30.5)]
    assert cluster.supervisors[0].used == (6700, 6701)
    assert cluster.supervisors[1].used == ()


@pytest.mark.parametrize("workers", [-1, 0, 10_001, 100_000])
def test_workers_of_a_rebalance_have_the_range_of_their_setting(workers: int) -> None:
    nimbus = make()
    submit(nimbus)
    before = look(nimbus)
    answer = ask(nimbus, Rebalance("wc", 0.0, workers))
    assert refusal(answer) == f"invalid_config: 'topology.workers' cannot be {workers}"
    assert look(nimbus) == before


def test_a_new_leader_refuses_no_rebalance_for_slots_it_has_not_heard_of_yet() -> None:
    store = MemoryStore()
    nimbus = make(store)
    ask(nimbus, heartbeat())
    submit(nimbus)
    assert "cannot have 3 workers: 2 slots free" in refusal(ask(nimbus, Rebalance("wc", 0.0, 3)))
    nimbus = make(store)
    assert isinstance(ask(nimbus, Rebalance("wc", 0.0, 2)), Done)
    ask(nimbus, heartbeat())
    assignment = look(nimbus).assignment
    assert assignment is not None
    assert len(assignment.slots()) == 2


def test_a_topology_whose_stored_config_is_no_longer_allowed_can_be_killed() -> None:
    store = MemoryStore()
    nimbus = make(store)
    entry = nimbus._entries[submit(nimbus)]
    config = {**entry.plan.config, "topology.workers": 10_001, "topology.gone": 1, "topology.message.timeout.secs": 7}
    nimbus._write(entry, replace(entry, plan=msgspec.structs.replace(entry.plan, config=config)))
    nimbus = make(store)
    assert isinstance(ask(nimbus, Kill("wc")), Done)
    assert names(nimbus) == []


COMMANDS: list[Request] = [
    Submit("other", word_count("other").encode()),
    Kill("wc"),
    Kill("wc", 0.0),
    Rebalance("wc", 5.0, 2, {"count": 3}),
    Rebalance("wc", 0.0, 2),
    Deactivate("wc"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{type(command).__name__}")
def test_a_failed_write_decides_nothing_and_a_crash_leaves_before_or_after(command: Request) -> None:
    """Fail, then crash, at every write of a command in turn."""
    for good in range(10):
        store = FailingStore()
        nimbus = make(store)
        ask(nimbus, heartbeat())
        submit(nimbus)
        nimbus.tick(0.0)
        before = (store.read_all().values, look(nimbus))
        store.good = good
        answer = ask(nimbus, command)
        store.good = 1_000_000
        if not isinstance(answer, Failure):
            assert good > 0
            break
        assert answer.code == "store"
        if good == 0:
            assert (store.read_all().values, look(nimbus)) == before
        survivor = make(store)
        assert survivor.damaged == {}
        assert names(survivor) == names(nimbus)
        if names(survivor) == ["wc"]:
            assert look(survivor).status == look(nimbus).status
            assert look(survivor).assignment == look(nimbus).assignment
        ask(survivor, heartbeat())
        if good == 0:
            assert not isinstance(ask(survivor, command), Failure)
    else:
        pytest.fail("the command never succeeded")


def test_what_time_brings_is_tried_again_after_a_failed_write() -> None:
    store = FailingStore()
    nimbus = make(store)
    ask(nimbus, heartbeat())
    topology_id = submit(nimbus)
    ask(nimbus, Kill("wc", 10.0))
    store.good = 0
    nimbus.tick(10.0)
    assert nimbus.troubles == {topology_id: "disk full"}
    assert names(nimbus) == ["wc"]
    assert isinstance(ask(nimbus, heartbeat("b"), 10.0), HeartbeatReply)
    store.good = 1
    nimbus.tick(11.0)
    assert names(nimbus) == []
    assert nimbus.troubles == {}


@pytest.mark.parametrize("command", [Kill("wc", 0.0), Rebalance("wc", 0.0, 2)])
def test_what_was_accepted_is_not_refused_by_a_failed_second_write(command: Request) -> None:
    """Whoever is told that nothing was done does it again, and is told that it is being done already."""
    store = FailingStore()
    nimbus = make(store)
    ask(nimbus, heartbeat())
    topology_id = submit(nimbus)
    store.good = 1
    assert ask(nimbus, command) == Done(topology_id)
    assert nimbus.troubles == {topology_id: "disk full"}
    store.good = 1
    nimbus.tick(0.5)
    if isinstance(command, Kill):
        assert names(nimbus) == []
    else:
        assignment = look(nimbus).assignment
        assert assignment is not None
        assert len(assignment.slots()) == 2


def test_scheduling_is_tried_again_after_a_failed_write() -> None:
    store = FailingStore()
    nimbus = make(store)
    submit(nimbus)
    store.good = 0
    assert ask(nimbus, heartbeat()) == HeartbeatReply((), (), 1, store.cluster_id)
    store.good = 1
    nimbus.tick(0.5)
    assert look(nimbus).assignment is not None


@pytest.mark.parametrize("damage", [b"", b"\xff" * 10, msgspec.msgpack.encode({"name": "wc"}), None])
@pytest.mark.parametrize("kind", ["topology", "plan", "assignment"])
def test_a_damaged_row_is_set_aside_and_the_others_run_on(kind: str, damage: bytes | None) -> None:
    store = MemoryStore()
    nimbus = make(store)
    ask(nimbus, heartbeat())
    topology_id = submit(nimbus)
    submit(nimbus, "good")
    if damage is None:
        store._values.pop(f"{kind}/{topology_id}")
    else:
        store._values[f"{kind}/{topology_id}"] = damage
    survivor = make(store)
    if damage is None and kind == "assignment":
        assert names(survivor) == ["wc", "good"]
    else:
        assert names(survivor) == ["good"]
        assert list(survivor.damaged) == ([f"topology/{topology_id}"] if damage is not None or kind == "plan" else [])
    assert submit(survivor, "third").startswith("third-3-")


class PartlyUnreadable(MemoryStore):
    """`lost` keys are there, and their values cannot be had."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: set[str] = set()

    def read_all(self) -> State:
        state = super().read_all()
        values = {key: value for key, value in state.values.items() if key not in self.lost}
        return replace(state, values=values, unreadable=dict.fromkeys(self.lost, "pieces are gone"))


@pytest.mark.parametrize("kind", ["topology", "plan", "assignment"])
def test_a_row_whose_value_cannot_be_had_is_set_aside_and_the_others_run_on(kind: str) -> None:
    store = PartlyUnreadable()
    nimbus = make(store)
    ask(nimbus, heartbeat())
    topology_id = submit(nimbus)
    submit(nimbus, "good")
    store.lost = {f"{kind}/{topology_id}"}
    survivor = make(store)
    assert names(survivor) == ["good"]
    assert survivor.damaged == {f"topology/{topology_id}": f"{kind}/{topology_id}: pieces are gone"}
    answer = ask(survivor, heartbeat("a", beat(topology_id, 6700), known={topology_id: (1, 1)}))
    assert isinstance(answer, HeartbeatReply)
    assert topology_id in answer.wanted
    assert isinstance(ask(survivor, Kill("wc")), Done)
    assert not any(topology_id in key for key in store._values)


def with_a_damaged_row() -> tuple[Nimbus, str]:
    """A Nimbus that has just read its store, and the topology it could not read."""
    store = MemoryStore()
    nimbus = make(store)
    ask(nimbus, heartbeat())
    topology_id = submit(nimbus)
    store._values[f"topology/{topology_id}"] = b"?"
    return make(store), topology_id


def test_what_runs_of_a_damaged_row_runs_on_and_keeps_its_slot() -> None:
    nimbus, topology_id = with_a_damaged_row()
    running = heartbeat("a", beat(topology_id, 6700), known={topology_id: (1, 1)})
    other = submit(nimbus, "other", workers=2)
    answer = ask(nimbus, running)
    assert isinstance(answer, HeartbeatReply)
    assert answer.wanted == (topology_id,)
    nimbus.tick(1.0)
    assert look(nimbus, "other").slots_missing == 1
    ask(nimbus, heartbeat("b", ports=(6700,)), 2.0)
    assert look(nimbus, "other").topology_id == other
    assignment = look(nimbus, "other").assignment
    assert assignment is not None
    assert assignment.slots() == [Slot("a", 6701), Slot("b", 6700)]
    nobody = ask(nimbus, heartbeat("c", ports=()))
    assert isinstance(nobody, HeartbeatReply)
    assert nobody.wanted == ()


@pytest.mark.parametrize("by_name", [True, False])
def test_a_damaged_row_keeps_its_name_until_it_is_killed(by_name: bool) -> None:
    nimbus, topology_id = with_a_damaged_row()
    for request in (GetTopology("wc"), Deactivate(topology_id)):
        assert f"topology_unreadable: what is stored of {topology_id} cannot be read" in refusal(ask(nimbus, request))
    assert refusal(ask(nimbus, Submit("wc", word_count().encode()))) == "topology_exists: the name wc is in use"
    answer = ask(nimbus, Kill("wc" if by_name else topology_id))
    assert isinstance(answer, Done)
    assert answer.topology_id == topology_id
    assert nimbus.damaged == {}
    assert not any(topology_id in key for key in nimbus._store.read_all().values)
    reply = ask(nimbus, heartbeat("a", known={topology_id: (1, 1)}))
    assert isinstance(reply, HeartbeatReply)
    assert reply.wanted == ()
    assert refusal(ask(nimbus, Kill("wc"))).startswith("topology_not_found")
    assert submit(nimbus) != topology_id


def test_errors_are_kept_once_each_and_filtered() -> None:
    nimbus = make()
    topology_id = submit(nimbus)
    ask(nimbus, heartbeat())
    first = ErrorRecord("split", 6, "h", 6700, 1.0, "ValueError: x", "Traceback ...", count=1)
    more = msgspec.structs.replace(first, count=3)
    other = ErrorRecord("count", 1, "h", 6700, 0.5, "KeyError: 'y'")
    ask(nimbus, heartbeat("a", beat(topology_id, 6700, 1, errors=(first, other))))
    ask(nimbus, heartbeat("a", beat(topology_id, 6700, 1, errors=(more,))))
    assert ask(nimbus, GetErrors("wc")) == Errors((other, more))
    assert ask(nimbus, GetErrors("wc", "count")) == Errors((other,))
    answer = ask(nimbus, GetErrors("wc", "splt"))
    assert isinstance(answer, Failure)
    assert answer.fix == "Did you mean 'split'?"


def test_stacks_are_asked_for_and_collected() -> None:
    nimbus = make()
    ask(nimbus, heartbeat())
    topology_id = submit(nimbus)
    assert ask(nimbus, GetStacks("wc"), 1.0) == Stacks()
    assert nimbus.stacks.take() == {topology_id: {"a"}}
    assert ask(nimbus, GetStacks("wc"), 1.5) == Stacks()
    assert nimbus.stacks.take() == {}
    ask(nimbus, heartbeat(stacks={topology_id: {"h:6700 pid 1": "File ..."}, "other": {"x": "y"}}), 2.0)
    assert ask(nimbus, GetStacks("wc"), 2.0) == Stacks({"h:6700 pid 1": "File ..."})
    assert ask(nimbus, GetStacks("wc"), 100.0) == Stacks()
    assert nimbus.stacks.take() == {topology_id: {"a"}}


def test_nothing_of_an_old_epoch_is_written() -> None:
    store = MemoryStore()
    old = make(store)
    ask(old, heartbeat())
    submit(old)
    new = make(store, 5.0)
    assert refusal(ask(old, Deactivate("wc"))).startswith("store: epoch 1 does not lead, epoch 2 does")
    assert look(old).status is Status.ACTIVE
    assert ask(new, Activate("wc")) == Done("wc-1-1700000000")
    ask(new, heartbeat())
    ask(new, Deactivate("wc"))
    assignment = look(new).assignment
    assert assignment is not None
    assert (assignment.epoch, assignment.version) == (2, 2)


def test_who_has_heard_a_later_leader_says_so() -> None:
    store = MemoryStore()
    nimbus = make(store)
    ours = store.cluster_id
    assert nimbus.outdone_by(heartbeat(leader=(ours, 4))) == 4
    assert nimbus.outdone_by(heartbeat(leader=("another", 4))) == 0
    assert nimbus.outdone_by(heartbeat(leader=("", 0))) == 0
    assert make(store, above=4).epoch == 5


def test_a_leader_that_nobody_heard_yet_and_whose_epoch_was_heard_is_not_the_first_of_it() -> None:
    store = MemoryStore()
    nimbus = make(store)
    spoken = heartbeat(leader=(store.cluster_id, nimbus.epoch))
    assert nimbus.outdone_by(spoken) == nimbus.epoch
    ask(nimbus, heartbeat())
    assert nimbus.outdone_by(spoken) == 0


@pytest.mark.parametrize("epoch", [EPOCH_MAX + 1, 2**63, 2**64 - 1])
def test_an_epoch_that_cannot_be_is_refused(epoch: int) -> None:
    store = MemoryStore()
    nimbus = make(store)
    beat = msgspec.msgpack.decode(msgspec.msgpack.encode(heartbeat(leader=(store.cluster_id, epoch))), type=Heartbeat)
    assert nimbus.outdone_by(beat) == 0
    assert f"supervisor a has heard of epoch {epoch}" in refusal(ask(nimbus, beat))
    assert isinstance(ask(nimbus, heartbeat("b", leader=("another", epoch))), HeartbeatReply)


def restored(tell: Callable[[Nimbus], object]) -> tuple[Nimbus, str, tuple[int, int]]:
    """A Nimbus on a copy of its store from before `tell`; the topology, and the version its supervisor has come to."""
    store = MemoryStore()
    nimbus = make(store)
    ask(nimbus, heartbeat())
    topology_id = submit(nimbus)
    copy = MemoryStore(store.cluster_id)
    copy._values, copy._epoch = dict(store._values), store._epoch
    tell(nimbus)
    assignment = look(nimbus).assignment
    assert assignment is not None
    return make(copy), topology_id, (assignment.epoch, assignment.version)


def test_a_restored_assignment_is_written_anew_above_what_the_supervisor_knows() -> None:
    nimbus, topology_id, known = restored(lambda nimbus: ask(nimbus, Deactivate("wc")))
    assert known == (1, 2)
    answer = ask(nimbus, heartbeat(known={topology_id: known}))
    assert isinstance(answer, HeartbeatReply)
    assert [(a.epoch, a.version, a.status) for a in answer.assignments] == [(2, 3, Status.ACTIVE)]
    again = ask(nimbus, heartbeat(known={topology_id: (2, 3)}))
    assert isinstance(again, HeartbeatReply)
    assert again.assignments == ()


def test_what_a_supervisor_knows_of_later_leaders_or_impossible_versions_moves_nothing() -> None:
    nimbus, topology_id, _ = restored(lambda nimbus: None)
    for known in ((3, 9), (1, EPOCH_MAX), (1, 2**64 - 1)):
        ask(nimbus, heartbeat(known={topology_id: known, "nothing": known}))
        assignment = look(nimbus).assignment
        assert assignment is not None
        assert (assignment.epoch, assignment.version) == (1, 1)


def test_next_deadline_is_the_soonest_thing_to_do() -> None:
    nimbus = make()
    assert nimbus.next_deadline() == 60.0
    ask(nimbus, heartbeat(), 10.0)
    assert nimbus.next_deadline() == 40.0
    submit(nimbus)
    ask(nimbus, Kill("wc", 7.0), 10.0)
    assert nimbus.next_deadline() == 17.0


def test_system_components_are_placed_like_any_other() -> None:
    plan = word_count(workers=2)
    acker = ComponentPlan("__acker", "system", {}, (), 2, 2, 128)
    plan = msgspec.structs.replace(plan, components={"__acker": acker, **plan.components})
    nimbus = make()
    ask(nimbus, heartbeat())
    assert isinstance(ask(nimbus, Submit("wc", plan.encode())), Done)
    assignment = look(nimbus).assignment
    assert assignment is not None
    assert len({p.slot for p in assignment.placements if p.executor.component == "__acker"}) == 2


def rebalanced_without_slots(nimbus: Nimbus) -> Assignment:
    """A rebalance that has come to its end after the only supervisor was lost; the assignment before."""
    ask(nimbus, heartbeat("a", ports=(6700, 6701)))
    submit(nimbus, workers=1)
    before = look(nimbus).assignment
    assert before is not None
    ask(nimbus, Rebalance("wc", wait_s=5.0, parallelism={"count": 1}), 1.0)
    ask(nimbus, heartbeat("a", stopping=True), 2.0)
    return before


def test_a_rebalance_without_any_slot_changes_nothing_until_there_is_one() -> None:
    nimbus = make()
    before = rebalanced_without_slots(nimbus)
    for now in (7.0, 8.5, 100.0):
        nimbus.tick(now)
        assert nimbus.next_deadline() > now
        seen = look(nimbus)
        assert (seen.status, seen.executors) == (Status.REBALANCING, 5)
        assert seen.assignment is not None
        assert seen.assignment.placements == before.placements
        assert {p.executor for p in seen.assignment.placements} == set(Plan.decode(seen.plan).executors())
    ask(nimbus, heartbeat("b", ports=(6700,)), 110.0)
    nimbus.tick(112.0)
    seen = look(nimbus)
    assert seen.assignment is not None
    assert seen.executors == 4
    assert {p.executor for p in seen.assignment.placements} == set(Plan.decode(seen.plan).executors())
    assert {p.slot for p in seen.assignment.placements} == {Slot("b", 6700)}


def test_a_rebalance_without_any_slot_survives_a_restart_and_can_be_killed() -> None:
    store = MemoryStore()
    rebalanced_without_slots(make(store))
    nimbus = make(store, now=200.0)
    nimbus.tick(300.0)
    assert look(nimbus).status == Status.REBALANCING
    ask(nimbus, Kill("wc", 0.0), 301.0)
    nimbus.tick(302.0)
    assert names(nimbus) == []


def test_bundles_that_were_lost_are_asked_back_from_one_supervisor_at_a_time() -> None:
    store, blobs = MemoryStore(), MemoryBlobs()
    nimbus = Nimbus(store, blobs, {}, 0.0)
    ask(nimbus, Upload(DIGEST, 0, BUNDLE, True))
    for name in ("a", "b"):
        ask(nimbus, heartbeat(name, ports=(6700,)))
    ask(nimbus, Submit("wc", word_count("wc", 2, bundle=DIGEST).encode()))

    def asked(now: float) -> dict[str, tuple[str, ...]]:
        answers = {name: ask(nimbus, heartbeat(name, ports=(6700,)), now) for name in ("a", "b")}
        return {name: reply.lacking for name, reply in answers.items() if isinstance(reply, HeartbeatReply)}

    assert asked(1.0) == {"a": (), "b": ()}
    nimbus = Nimbus(store, MemoryBlobs(), {}, 2.0)
    assert asked(3.0) == {"a": (DIGEST,), "b": ()}
    assert asked(13.0) == {"a": (), "b": (DIGEST,)}
    ask(nimbus, Upload(DIGEST, 0, BUNDLE, True), 14.0)
    assert asked(14.0) == asked(24.0) == {"a": (), "b": ()}


def test_names_that_somebody_invented_keep_nobody_out_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rainband.nimbus.roster.SUPERVISORS_MAX", 3)
    nimbus = make()
    for number in range(3):
        assert isinstance(ask(nimbus, heartbeat(f"invented-{number}", ports=())), HeartbeatReply)
    assert "3 supervisors are alive already" in refusal(ask(nimbus, heartbeat("honest"), 1.0))
    ask(nimbus, heartbeat("invented-1", ports=()), 29.0)
    nimbus.tick(31.0)
    for name in ("honest", "another"):
        assert isinstance(ask(nimbus, heartbeat(name), 31.0), HeartbeatReply)
    assert "3 supervisors" in refusal(ask(nimbus, heartbeat("one-more"), 31.0))
