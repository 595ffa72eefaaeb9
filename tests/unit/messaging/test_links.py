"""Two or three workers joined by a network that loses, repeats, reorders, delays and cuts, all in virtual time."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rainband.messaging import frames
from rainband.messaging.frames import ACKS, CONTROL, CREDIT, DATA, FRAME_BYTES_MAX
from rainband.messaging.link import HELLO_S_MAX, PROBE_S_MAX, RECEIPT_FRAMES, RECEIPT_S
from rainband.messaging.links import FENCED_MAX, LINKS_MAX, Condemned, Gone, Links, PeerReplaced
from rainband.messaging.network import MemoryHub, MemoryNetwork

A, B, C = "a:1", "b:2", "c:3"
TOPOLOGY = 5
STEP_S = 0.01


class World:
    """Workers by address over one MemoryHub. `fate` may be exchanged at any time; `open_ways` are the uncut ones."""

    def __init__(self, seed: int = 0, buffer_bytes: int = 1 << 20) -> None:
        self.rng = random.Random(seed)
        self.loss = self.repeat = self.late = 0.0
        self.cut: set[tuple[str, str]] = set()
        self.hub = MemoryHub(self.fate)
        self.buffer_bytes = buffer_bytes
        self.now = 0.0
        self.links: dict[str, Links] = {}
        self.got: dict[str, list[tuple[int, str, bytes]]] = {}
        self.events: dict[str, list[PeerReplaced | Gone | Condemned]] = {}
        self.networks: dict[str, MemoryNetwork] = {}
        self.frames: list[tuple[str, str, bytes]] = []

    def fate(self, source: str, target: str, frame: bytes) -> Sequence[float]:
        self.frames.append((source, target, frame))
        if (source, target) in self.cut or self.rng.random() < self.loss:
            return ()
        copies = 1 + (self.rng.random() < self.repeat)
        return [self.rng.random() * 0.4 if self.rng.random() < self.late else 0.0 for _ in range(copies)]

    def start(self, address: str, incarnation: int, peers: Sequence[str] = ()) -> Links:
        self.networks[address] = self.hub.network(address)
        self.links[address] = Links(address, incarnation, TOPOLOGY, self.buffer_bytes)
        self.got[address] = []
        self.events[address] = []
        for peer in peers:
            self.links[address].link(peer)
        return self.links[address]

    def stop(self, address: str) -> None:
        self.networks.pop(address).close()
        del self.links[address]

    def take(self, address: str, frame: bytes) -> None:
        for event in self.links[address].receive(frame, self.now):
            if isinstance(event, tuple):
                self.got[address].append(event)
            else:
                self.events[address].append(event)

    def step(self, steps: int = 1) -> None:
        for _ in range(steps):
            for address, links in self.links.items():
                for frame in self.networks[address].receive(1000):
                    self.take(address, frame)
                links.tick(self.now)
                links.flush(self.now, self.networks[address])
            self.now += STEP_S
            self.hub.advance(self.now)

    def settle(self, steps_max: int = 60_000) -> None:
        """Run until every link to a living worker is idle and nothing is under way."""
        for _ in range(steps_max):
            self.step()
            towards_living = [link for w in self.links.values() for link in w.links() if link.address in self.links]
            if self.hub.idle and all(link.idle for link in towards_living):
                return
        raise AssertionError("the links never became idle")

    def payloads(self, address: str, source: str) -> dict[int, list[bytes]]:
        found: dict[int, list[bytes]] = {ACKS: [], CREDIT: [], CONTROL: [], DATA: []}
        for kind, sender, payload in self.got[address]:
            assert sender == source
            found[kind].append(payload)
        return found


def pair(seed: int = 0, buffer_bytes: int = 1 << 20) -> World:
    world = World(seed, buffer_bytes)
    world.start(A, 11, [B])
    world.start(B, 22, [A])
    world.step(5)
    assert world.links[A].link(B).peer == 22
    assert world.links[B].link(A).peer == 11
    return world


rates = st.sampled_from([0.0, 0.02, 0.1, 0.4])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30), rates, rates, rates, st.booleans())
def test_each_message_arrives_once_and_in_order(seed: int, loss: float, repeat: float, late: float, cuts: bool) -> None:
    world = World(seed, buffer_bytes=FRAME_BYTES_MAX * 2)
    world.loss, world.repeat, world.late = loss, repeat, late
    world.start(A, 11, [B])
    world.start(B, 22, [A])
    sent: dict[str, dict[int, list[bytes]]] = {address: {kind: [] for kind in range(1, 5)} for address in (A, B)}
    rng = world.rng
    for number in range(200):
        for source, target in ((A, B), (B, A)):
            for _ in range(rng.choice([0, 1, 1, 4])):
                kind = rng.randint(1, 4)
                size = rng.choice([0, 10, 2000, FRAME_BYTES_MAX * 2 if rng.random() < 0.03 else 1])
                payload = b"%d %d " % (number, len(sent[source][kind])) + bytes(size)
                sent[source][kind].append(payload)
                world.links[source].link(target).send(kind, payload, (source, number))
        if cuts and rng.random() < 0.05:
            world.cut = set(rng.sample([(A, B), (B, A)], rng.randint(1, 2)))
        elif rng.random() < 0.1:
            world.cut = set()
        world.step()
    world.cut = set()
    world.settle()
    assert world.payloads(B, A) == sent[A]
    assert world.payloads(A, B) == sent[B]
    assert world.events == {A: [], B: []}
    assert not world.links[A].link(B).retained_roots


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 30), rates)
def test_a_new_process_at_the_address_hands_back_all_that_the_old_one_did_not_get(seed: int, loss: float) -> None:
    world = pair(seed)
    world.loss = loss
    sent = []
    for number in range(100):
        world.links[A].link(B).send(DATA, b"%d" % number + bytes(world.rng.choice([0, 300_000])), number)
        sent.append(number)
        world.step(world.rng.randint(0, 2))
    had = {int(payload.rstrip(b"\0").split(b" ")[0]) for payload in world.payloads(B, A)[DATA]}
    world.stop(B)
    world.start(B, 33, [A])
    world.loss = 0.0
    world.links[A].link(B).send(CREDIT, b"to the old one", "credit")
    world.settle()
    (event,) = world.events[A]
    assert isinstance(event, PeerReplaced)
    assert (event.address, event.old_incarnation, event.new_incarnation) == (B, 22, 33)
    lost = [root for root in event.lost_roots if root != "credit"]
    assert lost == sent[len(sent) - len(lost) :]
    assert set(sent) - had <= set(lost)
    assert world.got[B] == []
    world.links[A].link(B).send(DATA, b"to the new one")
    world.settle()
    assert world.payloads(B, A)[DATA] == [b"to the new one"]


def test_exactly_what_was_not_receipted_is_lost() -> None:
    world = pair()
    link = world.links[A].link(B)
    for number in range(10):
        link.send(DATA, b"x", number)
    world.settle()
    world.cut = {(B, A)}
    for number in range(10, 20):
        link.send(DATA, b"x", number)
        world.step()
    link.send(DATA, bytes(FRAME_BYTES_MAX * 3), "cut into pieces")
    link.send(ACKS, b"untracked")
    world.step(3)
    assert world.links[A].gone(B, 22) == [*range(10, 20), "cut into pieces"]
    assert link.outstanding_bytes == link.queued_bytes == 0
    assert link.idle


def test_memory_is_bounded_and_full_says_so() -> None:
    world = pair(buffer_bytes=FRAME_BYTES_MAX * 4)
    link = world.links[A].link(B)
    world.cut = {(A, B), (B, A)}
    sent = 0
    while not link.full:
        link.send(DATA, bytes(10_000))
        sent += 1
        world.step()
    world.step(300)
    assert link.outstanding_bytes <= FRAME_BYTES_MAX * 4
    assert sent * 10_000 <= FRAME_BYTES_MAX * 5
    world.cut = set()
    world.settle()
    assert len(world.got[B]) == sent
    assert not link.full


def test_the_window_holds_tuples_back_but_not_acks() -> None:
    world = pair(buffer_bytes=FRAME_BYTES_MAX)
    link = world.links[A].link(B)
    world.cut = {(B, A)}
    for _ in range(10):
        link.send(DATA, bytes(200_000))
    link.send(ACKS, b"an ack")
    world.step(2)
    link.send(ACKS, b"another")
    world.step(2)
    assert [kind for kind, _, _ in world.got[B]] == [ACKS, DATA, ACKS]
    world.cut = set()
    world.settle()
    assert len(world.got[B]) == 12


def test_acks_leave_before_credit_before_control_before_tuples() -> None:
    world = pair()
    for kind in (DATA, CONTROL, CREDIT, ACKS):
        world.links[A].link(B).send(kind, b"x")
    world.step(2)
    assert [kind for kind, _, _ in world.got[B]] == [ACKS, CREDIT, CONTROL, DATA]
    assert world.links[A].link(B).frames_sent == 1


def test_an_ack_does_not_wait_behind_a_large_value() -> None:
    world = pair(buffer_bytes=FRAME_BYTES_MAX * 100)
    link = world.links[A].link(B)
    link.send(DATA, bytes(FRAME_BYTES_MAX * 10))
    first = link.next_frame()
    assert first is not None
    link.taken(world.now)
    link.send(ACKS, b"an ack")
    second = link.next_frame()
    assert second is not None
    assert [kind for kind, _, _ in frames.records(second)] == [ACKS, DATA]
    assert max(len(first), len(second)) <= FRAME_BYTES_MAX


def test_a_link_that_is_idle_sends_nothing() -> None:
    world = pair()
    world.links[A].link(B).send(DATA, b"x")
    world.settle()
    world.step(20)
    world.frames.clear()
    world.step(1000)
    assert world.frames == []
    assert world.links[A].tick(world.now) == float("inf")


def test_receipts_are_few_and_in_time() -> None:
    world = pair()
    world.frames.clear()
    for _ in range(RECEIPT_FRAMES * 4):
        world.links[A].link(B).send(DATA, b"x")
        world.links[A].flush(world.now, world.networks[A])
        for frame in world.networks[B].receive(10):
            world.take(B, frame)
        world.links[B].flush(world.now, world.networks[B])
    assert len([1 for source, _, _ in world.frames if source == B]) == 4
    world.links[A].link(B).send(DATA, b"x")
    world.step(2)
    assert world.links[A].link(B).retained
    world.step(int(RECEIPT_S / STEP_S) + 2)
    assert world.links[A].link(B).idle


def test_receipts_ride_on_frames_the_other_way() -> None:
    world = pair()
    world.frames.clear()
    for _ in range(50):
        world.links[A].link(B).send(DATA, b"x")
        world.links[B].link(A).send(ACKS, b"y")
        world.step()
    world.settle()
    kinds = [frames.parse(frame).kind for _, _, frame in world.frames]
    assert kinds.count(frames.RECEIPT) <= 2
    assert kinds.count(frames.BATCH) == 100


def test_a_lost_tail_is_probed() -> None:
    world = pair()
    world.cut = {(A, B)}
    world.links[A].link(B).send(DATA, b"the last word")
    world.step(5)
    world.cut = set()
    world.step(30)
    assert world.payloads(B, A)[DATA] == [b"the last word"]


def test_a_cut_of_twenty_seconds_loses_nothing_and_costs_little() -> None:
    world = pair()
    world.cut = {(A, B), (B, A)}
    for number in range(50):
        world.links[A].link(B).send(DATA, b"%d" % number)
        world.step()
    world.frames.clear()
    world.step(2000)
    assert len(world.frames) < 60
    world.cut = set()
    world.step(int(PROBE_S_MAX / STEP_S) + 20)
    assert world.payloads(B, A)[DATA] == [b"%d" % number for number in range(50)]


def test_half_a_message_of_a_dead_process_is_not_joined_to_its_successors() -> None:
    world = pair()
    link = world.links[A].link(B)
    link.send(DATA, b"old" * FRAME_BYTES_MAX)
    first = link.next_frame()
    assert first is not None
    world.take(B, first)
    world.stop(A)
    world.start(A, 33, [B])
    world.step(20)
    world.links[A].link(B).send(DATA, b"new")
    world.settle()
    assert world.payloads(B, A)[DATA] == [b"new"]


def test_what_the_network_does_not_take_is_offered_again() -> None:
    world = World()
    world.start(A, 11, [B])
    link = world.links[A].link(B)
    link.send(DATA, b"early")
    world.step(500)
    assert not world.frames
    world.start(B, 22)
    world.step(15)
    assert world.payloads(B, A)[DATA] == [b"early"]


def test_offers_to_nobody_become_rare() -> None:
    world = World()
    links = world.start(A, 11, [B])
    offers = 0

    class Nobody:
        def send(self, address: str, frame: bytes) -> bool:
            nonlocal offers
            offers += 1
            return False

    for _ in range(10_000):
        world.now += 0.001
        links.tick(world.now)
        links.flush(world.now, Nobody())
    assert 90 <= offers <= 120


def test_a_late_hello_of_a_dead_process_does_not_displace_its_successor() -> None:
    world = pair()
    old_hello = frames.build(frames.HELLO, TOPOLOGY, 20, 0, 0, 0, [frames.hello_body(B, True)])
    world.take(A, old_hello)
    world.settle()
    world.step(int(HELLO_S_MAX / STEP_S) * 4)
    assert world.links[A].link(B).peer == 22
    assert world.events[A] == []
    world.links[A].link(B).send(DATA, b"x")
    world.settle()
    assert world.payloads(B, A)[DATA] == [b"x"]
    assert not world.links[A].candidates


def test_a_replaced_process_is_fenced_for_ever() -> None:
    world = pair()
    world.links[B].link(A).send(DATA, b"written before the death")
    world.hub.fate = None
    world.links[B].flush(world.now, world.networks[B])
    (last_words,) = world.networks[A].receive(10)
    world.stop(B)
    world.start(B, 33, [A])
    world.step(20)
    assert world.links[A].link(B).peer == 33
    before = world.links[A].refused
    world.take(A, last_words)
    assert world.got[A] == []
    assert world.links[A].refused == before + 1


def test_a_peer_that_does_not_know_us_any_more_learns_it_from_a_probe() -> None:
    """B came back and was never told of A: A's own hello, sent when probes stay unanswered, finds it."""
    world = pair()
    world.stop(B)
    world.start(B, 33)
    world.links[A].link(B).send(DATA, b"x", "root")
    world.step(400)
    assert world.links[A].link(B).peer == 33
    (event,) = world.events[A]
    assert isinstance(event, PeerReplaced)
    assert event.lost_roots == ["root"]


def test_gone_by_frame_and_by_word_is_believed_once() -> None:
    world = pair()
    world.cut = {(A, B)}
    world.links[A].link(B).send(DATA, b"x", "root")
    world.step()
    notice = frames.gone(TOPOLOGY, 99, B, 22)
    world.take(A, notice)
    (event,) = world.events[A]
    assert isinstance(event, Gone)
    assert (event.address, event.incarnation, event.lost_roots) == (B, 22, ["root"])
    world.links[A].link(B).send(DATA, b"for the successor", "kept")
    world.take(A, notice)
    assert world.links[A].gone(B, 22) is None
    assert len(world.events[A]) == 1
    world.cut = set()
    world.stop(B)
    world.start(B, 33)
    world.step(300)
    assert world.payloads(B, A)[DATA] == [b"for the successor"]
    assert len(world.events[A]) == 1


def test_who_died_before_this_process_took_or_sent_anything_took_nothing_of_it() -> None:
    """Of workers killed at once: the word of one's death may come to another's successor, which runs already."""
    world = World()
    links = world.start(A, 11, [B])
    links.born_at = world.now
    links.link(B).send(DATA, b"x", "root")
    world.take(A, frames.gone(TOPOLOGY, 99, B, 22, age_s=0.5))
    assert world.events[A] == []
    assert 22 in links.fenced
    world.take(A, frames.gone(TOPOLOGY, 99, B, 33, age_s=0.0))
    (event,) = world.events[A]
    assert isinstance(event, Gone)
    assert (event.incarnation, event.lost_roots, event.died_at) == (33, ["root"], world.now)


def test_a_death_before_the_first_answer_hands_back_what_was_queued() -> None:
    world = World()
    links = world.start(A, 11, [B])
    links.link(B).send(DATA, b"x", "root")
    assert links.gone(B, 22) == ["root"]
    links.link(B).send(DATA, b"x", "another")
    assert links.gone(B, 22) is None


def test_word_of_our_own_death_is_not_believed() -> None:
    world = pair()
    world.take(A, frames.gone(TOPOLOGY, 99, A, 11))
    assert world.events[A] == []
    assert world.links[A].refused == 1


def test_a_process_that_was_dropped_and_is_wanted_again_learns_that_it_must_begin_anew() -> None:
    world = pair()
    world.links[A].drop(B)
    world.links[A].link(B).send(DATA, b"for the successor")
    world.step(100)
    assert any(isinstance(event, Condemned) for event in world.events[B])
    assert world.payloads(B, A)[DATA] == []
    world.stop(B)
    world.start(B, 33, [A])
    world.step(300)
    assert world.payloads(B, A)[DATA] == [b"for the successor"]
    assert world.events[B] == []


def test_a_dropped_peer_is_forgotten_and_fenced() -> None:
    world = pair()
    link = world.links[A].link(B)
    world.cut = {(A, B)}
    link.send(DATA, b"x", "root")
    assert world.links[A].drop(B) == ["root"]
    assert world.links[A].links() == []
    link.send(DATA, b"into the void")
    world.cut = set()
    world.links[B].link(A).send(DATA, b"y")
    world.step(100)
    assert world.got[A] == []
    assert world.links[A].refused > 0
    assert world.links[A].drop(B) == []


def test_a_refused_incarnation_gets_nothing_in() -> None:
    world = pair()
    world.links[A].refuse(22)
    world.links[B].link(A).send(DATA, b"x")
    world.step(50)
    assert world.got[A] == []
    assert world.links[A].counters()["frames_refused"] > 0


def test_frames_of_another_topology_and_reflected_ones_are_counted() -> None:
    world = pair()
    other = frames.build(frames.BATCH, TOPOLOGY + 1, 22, 11, 1, 0, [frames.record(DATA, 1, False), b"x"])
    mirrored = frames.build(frames.BATCH, TOPOLOGY, 11, 22, 1, 0, [frames.record(DATA, 1, False), b"x"])
    stranger = frames.build(frames.BATCH, TOPOLOGY, 44, 11, 1, 0, [frames.record(DATA, 1, False), b"x"])
    stale = frames.build(frames.BATCH, TOPOLOGY, 22, 10, 1, 0, [frames.record(DATA, 1, False), b"x"])
    for frame in (other, mirrored, stranger, stale):
        world.take(A, frame)
    links = world.links[A]
    assert (links.foreign, links.refused, links.unknown, links.stale) == (1, 1, 1, 1)
    assert world.got[A] == []


def test_a_replayed_frame_is_dropped() -> None:
    world = pair()
    world.links[A].link(B).send(DATA, b"x")
    world.frames.clear()
    world.settle()
    for _, target, frame in list(world.frames) * 3:
        world.take(target, frame)
    assert world.payloads(B, A)[DATA] == [b"x"]


def test_hellos_cannot_fill_the_memory() -> None:
    world = World()
    links = world.start(A, 11)
    for number in range(LINKS_MAX + 100):
        hello = frames.build(frames.HELLO, TOPOLOGY, 1000 + number, 0, 0, 0, [frames.hello_body(f"h{number}:1", True)])
        assert links.receive(hello, 0.0) == []
    assert len(links.links()) == LINKS_MAX
    assert len(links.candidates) <= LINKS_MAX
    for number in range(FENCED_MAX + 100):
        links.refuse(10_000 + number)
    assert len(links.fenced) == FENCED_MAX


def test_a_caller_who_never_answers_is_forgotten() -> None:
    world = World()
    links = world.start(A, 11)
    world.hub.network("h:1")
    world.take(A, frames.build(frames.HELLO, TOPOLOGY, 1000, 0, 0, 0, [frames.hello_body("h:1", True)]))
    assert len(links.links()) == 1
    world.step(2000)
    assert links.links() == []
    assert not links.candidates
    assert links.tick(world.now) == float("inf")


headers = st.tuples(
    st.integers(0, 8),
    st.sampled_from([TOPOLOGY, TOPOLOGY, TOPOLOGY, 6]),
    st.sampled_from([11, 22, 22, 22, 33]),
    st.sampled_from([0, 11, 11, 11, 22]),
    st.one_of(st.integers(0, 6), st.integers(0, frames.ID_MAX)),
    st.one_of(st.integers(0, 6), st.integers(0, frames.ID_MAX)),
)
hostile_bodies = st.one_of(
    st.binary(max_size=60),
    st.builds(
        lambda kind, flags, payload: bytes([kind, flags]) + len(payload).to_bytes(4, "little") + payload,
        st.integers(0, 5), st.integers(0, 2), st.binary(max_size=20),
    ),
    st.builds(lambda text, flag: bytes([flag]) + text.encode(), st.sampled_from([A, B, C, "x"]), st.integers(0, 2)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=80), st.tuples(headers, hostile_bodies)), max_size=30))
def test_no_frame_raises(hostile: list[bytes | tuple[tuple[int, int, int, int, int, int], bytes]]) -> None:
    world = pair()
    world.links[A].link(B).send(DATA, b"x", 1)
    for item in hostile:
        frame = item if isinstance(item, bytes) else frames.build(*item[0], body=[item[1]])
        world.take(A, frame)
        world.step()
    world.step(50)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 30))
def test_damaged_frames_cost_nothing_but_time(seed: int) -> None:
    """One bit of every fifth frame is turned: all is delivered all the same, exactly once and unchanged."""
    world = pair(seed)

    def damaging(source: str, target: str, frame: bytes) -> Sequence[float]:
        if world.rng.random() < 0.2:
            bad = bytearray(frame)
            bad[world.rng.randrange(len(bad))] ^= 1 << world.rng.randrange(8)
            world.take(target, bytes(bad))
            return ()
        return (0.0,)

    world.hub.fate = damaging
    sent = [b"%d" % number for number in range(60)]
    for payload in sent:
        world.links[A].link(B).send(DATA, payload)
        world.step()
    world.settle()
    assert world.payloads(B, A)[DATA] == sent
    assert world.links[B].malformed > 0


def test_three_workers_keep_their_conversations_apart() -> None:
    world = World(seed=3)
    for number, address in enumerate((A, B, C)):
        world.start(address, 11 * (number + 1), [peer for peer in (A, B, C) if peer != address])
    world.loss = 0.1
    for number in range(100):
        for source in (A, B, C):
            for target in (A, B, C):
                if source != target:
                    world.links[source].link(target).send(DATA, f"{source} {target} {number}".encode())
        world.step()
    world.settle()
    for target in (A, B, C):
        for source in (A, B, C):
            mine = [payload for _, sender, payload in world.got[target] if sender == source]
            assert mine == [f"{source} {target} {number}".encode() for number in range(100) if source != target]


@pytest.mark.parametrize(
    "size", [0, 1, FRAME_BYTES_MAX - 54, FRAME_BYTES_MAX - 53, FRAME_BYTES_MAX, 5 * FRAME_BYTES_MAX + 1]
)
def test_messages_of_any_size_arrive(size: int) -> None:
    world = pair()
    payload = random.Random(size).randbytes(size)
    world.links[A].link(B).send(DATA, payload)
    world.links[A].link(B).send(DATA, b"next")
    world.settle()
    assert world.payloads(B, A)[DATA] == [payload, b"next"]


def test_a_message_larger_than_allowed_is_dropped_and_counted() -> None:
    world = World()
    world.start(A, 11, [B])
    world.networks[B] = world.hub.network(B)
    world.links[B] = Links(B, 22, TOPOLOGY, message_bytes_max=FRAME_BYTES_MAX * 2)
    world.got[B], world.events[B] = [], []
    world.links[A].link(B).send(DATA, bytes(FRAME_BYTES_MAX * 3))
    world.links[A].link(B).send(DATA, b"next")
    world.settle()
    assert world.payloads(B, A)[DATA] == [b"next"]
    assert world.links[B].counters()["frames_broken"] == 1


def test_statistics_add_up() -> None:
    world = pair()
    world.links[A].link(B).send(DATA, b"x" * 100)
    world.settle()
    (there,) = world.links[A].statistics()
    (here,) = world.links[B].statistics()
    assert there.frames_sent == 1
    assert there.bytes_sent > 100
    assert here.bytes_received > 100
    assert (there.address, there.peer, there.outstanding, there.queued) == (B, 22, 0, 0)
