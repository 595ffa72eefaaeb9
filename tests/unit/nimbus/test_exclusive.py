"""Tasks of an exclusive topology are taken from one place before they get another, whatever happens in between."""

from __future__ import annotations

from copy import deepcopy
from random import Random

import pytest

from kit.clusters import WALL, beat, word_count
from rainband.cluster.blobs import MemoryBlobs
from rainband.cluster.memory import MemoryStore
from rainband.nimbus.core import Nimbus
from rainband.records import (
    Assignment,
    Done,
    GetTopology,
    Heartbeat,
    HeartbeatReply,
    Rebalance,
    Request,
    Response,
    Status,
    Submit,
    TopologySummary,
)

LEASE_S = 30.0
TASKS = set(range(1, 8))


class House:
    """A supervisor. Its workers go by the assignment in `applied` (by port); `known` is what it was told itself."""

    def __init__(self, name: str, ports: tuple[int, ...]) -> None:
        self.name = name
        self.ports = ports
        self.known: Assignment | None = None
        self.applied: dict[int, Assignment] = {}
        self.leased_until = 0.0

    def running(self, now: float) -> list[int]:
        """Tasks whose code runs here."""
        if now >= self.leased_until:
            return []
        return [
            task
            for port, assignment in self.applied.items()
            for task, placement in assignment.homes().items()
            if (placement.slot.supervisor, placement.slot.port) == (self.name, port)
        ]

    def apply(self, port: int) -> None:
        """The worker on `port` begins, goes on by what the supervisor knows, or ends."""
        if self.known is not None and (self.name, port) in places(self.known):
            self.applied[port] = self.known
        else:
            self.applied.pop(port, None)

    def beat(self) -> Heartbeat:
        known = self.known
        workers = tuple(beat(a.topology_id, port, version=a.version) for port, a in self.applied.items())
        behind: dict[str, tuple[int, ...]] = {}
        for port, assignment in self.applied.items():
            if known is None or assignment.version != known.version:
                behind[assignment.topology_id] = (*behind.get(assignment.topology_id, ()), port)
        knows = {known.topology_id: (known.epoch, known.version)} if known is not None else {}
        return Heartbeat(self.name, "127.0.0.1", 1, self.ports, workers, knows, behind=behind)


def places(assignment: Assignment) -> set[tuple[str, int]]:
    return {(placement.slot.supervisor, placement.slot.port) for placement in assignment.placements}


class Street:
    """A Nimbus, houses, and the law: no task runs in two places."""

    def __init__(self, **houses: tuple[int, ...]) -> None:
        self.now = 0.0
        self.store = MemoryStore()
        self.houses = {name: House(name, ports) for name, ports in houses.items()}
        self.restart()

    def restart(self) -> None:
        self.nimbus = Nimbus(self.store, MemoryBlobs(), {}, self.now, require_bundle=False)

    def ask(self, request: Request) -> Response:
        return self.nimbus.handle(request, self.now, WALL)

    def submit(self, workers: int) -> None:
        config: dict[str, object] = {"topology.exclusive": True}
        answer = self.ask(Submit("wc", word_count("wc", workers).encode(), config))
        assert isinstance(answer, Done), answer

    def look(self) -> TopologySummary:
        answer = self.ask(GetTopology("wc"))
        assert isinstance(answer, TopologySummary)
        return answer

    def placed(self) -> set[int]:
        assignment = self.look().assignment
        assert assignment is not None
        return set(assignment.homes())

    def hear(self, *names: str) -> None:
        for name in names:
            house = self.houses[name]
            answer = self.ask(house.beat())
            assert isinstance(answer, HeartbeatReply), answer
            house.leased_until = self.now + 0.9 * LEASE_S
            for assignment in answer.assignments:
                house.known = assignment
            if not answer.wanted:
                house.known = None

    def apply(self, name: str) -> None:
        house = self.houses[name]
        if self.now < house.leased_until:
            for port in house.ports:
                house.apply(port)
        self.check()

    def settle(self, *names: str) -> None:
        for _ in range(4):
            for name in names or self.houses:
                self.hear(name)
                self.apply(name)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.nimbus.tick(self.now)
        for house in self.houses.values():
            if self.now >= house.leased_until:
                house.applied.clear()

    def check(self) -> None:
        running = [task for house in self.houses.values() for task in house.running(self.now)]
        assert len(running) == len(set(running)), sorted(running)


@pytest.fixture
def street() -> Street:
    """All runs in one house, and some of it was just taken away there for the other."""
    street = Street(a=(6700,), b=(6700,))
    street.hear("a")
    street.submit(workers=1)
    street.settle("a")
    street.hear("b")
    assert isinstance(street.ask(Rebalance("wc", 0.0, workers=2)), Done)
    return street


def test_the_log_says_what_is_waited_for(street: Street) -> None:
    began = street.nimbus.news.take()[-2:]
    waiting = len(TASKS - street.placed())
    topology_id = street.look().topology_id
    assert began[0] == (
        f"{waiting} tasks of {topology_id}, which is exclusive, must end on a:6700 before they begin elsewhere"
    )
    street.settle()
    assert began[1] == f"{topology_id} is placed anew: gets b:6700"


def test_nobody_else_gets_the_slot_meanwhile(street: Street) -> None:
    for name in ("x", "y"):
        street.ask(Submit(name, word_count(name, 1).encode()))
    street.settle()
    assert street.placed() == TASKS
    assert street.look().slots_missing == 0


def test_what_stays_runs_on_while_the_others_wait(street: Street) -> None:
    waiting = TASKS - street.placed()
    assert waiting
    street.hear("a", "b")
    assert set(street.houses["a"].running(street.now)) == TASKS
    assert street.look().status is Status.REBALANCING
    street.hear("a", "b")  # it knows by now; its worker does not yet
    assert TASKS - street.placed() == waiting
    street.apply("a")
    assert set(street.houses["a"].running(street.now)) == TASKS - waiting
    street.settle()
    street.wait(1.0)
    street.settle()
    assert street.placed() == TASKS
    assert set(street.houses["b"].running(street.now)) == waiting
    assert street.look().status is Status.ACTIVE


def test_a_house_that_is_cut_off_is_waited_for_until_its_lease_is_over(street: Street) -> None:
    waiting = TASKS - street.placed()
    assert waiting
    for _ in range(29):
        street.wait(1.0)
        street.hear("b")
        street.apply("b")
        assert waiting == TASKS - street.placed()
    street.wait(2.0)
    street.settle("b")
    assert street.placed() == TASKS
    assert set(street.houses["b"].running(street.now)) == TASKS


def test_the_next_leader_waits_on(street: Street) -> None:
    waiting = TASKS - street.placed()
    assert waiting
    street.restart()
    street.hear("b")
    assert TASKS - street.placed() == waiting
    street.hear("a", "b")
    assert TASKS - street.placed() == waiting
    street.settle()
    assert street.placed() == TASKS


@pytest.mark.parametrize("other", ["a", "b"])
def test_a_reshape_is_overtaken_by_a_house_that_comes_back(other: str) -> None:
    """Its executor takes tasks of two houses; before both have heard of it, it goes to a third."""
    street = Street(a=(6700,), b=(6700,), c=(6700,))
    street.hear("a", "b", "c")
    street.submit(workers=3)
    street.settle()
    for _ in range(31):
        street.wait(1.0)
        street.settle("a", "b")
    street.ask(Rebalance("wc", 0.0, parallelism={"count": 1}))
    street.hear("c")
    for _ in range(3):
        street.hear(other, "c")
        street.apply(other)
        street.apply("c")
    street.settle()
    assert street.placed() == TASKS


def test_what_a_house_knows_from_before_the_store_was_brought_back_ends_nothing(street: Street) -> None:
    """In versions that the store has lost, all went back to the house that is asked to give it up."""
    street.houses["c"] = House("c", (6700,))
    copy = deepcopy(street.store)
    street.settle()
    street.wait(1.0)
    street.ask(Rebalance("wc", 0.0, workers=1))
    for _ in range(3):
        street.settle()
        street.wait(1.0)
    street.store = copy
    street.restart()
    street.hear("c", "b")
    street.apply("b")
    street.hear("a", "b")
    street.apply("b")
    street.hear("c")
    street.apply("c")
    street.settle()
    assert street.placed() == TASKS


def test_new_executors_wait_for_all_the_tasks_they_take_over() -> None:
    street = Street(a=(6700, 6701), b=(6700, 6701))
    street.hear("a", "b")
    street.submit(workers=4)
    street.settle()
    for count in (1, 4, 2):
        assert isinstance(street.ask(Rebalance("wc", 0.0, workers=count, parallelism={"count": count})), Done)
        street.wait(0.1)
        street.hear("a", "b")
        street.check()
        street.settle()
        street.wait(1.0)
        street.settle()
        assert street.placed() == TASKS
        assert street.look().status is Status.ACTIVE


@pytest.mark.parametrize("seed", range(100))
def test_whatever_happens_no_task_runs_twice_and_in_the_end_all_run(seed: int) -> None:
    random = Random(seed)
    street = Street(a=(6700, 6701), b=(6700, 6701), c=(6700,), d=(6700, 6701, 6702))
    street.hear("a", "b")
    street.submit(workers=random.randint(1, 6))
    for _ in range(200):
        name = random.choice("abcd")
        match random.randrange(12):
            case 0:
                street.ask(Rebalance("wc", 0.0, random.randint(1, 6), {"count": random.randint(1, 4)}))
            case 1:
                street.wait(random.choice((1.0, 5.0, 20.0)))
            case 2 if random.random() < 0.2:
                street.restart()
            case 3 | 4 | 5:
                street.apply(name)
            case _:
                street.hear(name)
        street.check()
    for _ in range(20):
        street.wait(0.5)
        street.settle()
    assert street.placed() == TASKS
    assert sorted(task for house in street.houses.values() for task in house.running(street.now)) == sorted(TASKS)
