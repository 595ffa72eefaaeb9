"""The promises of every store, kept by a real ZooKeeper, and what only several Nimbuses can meet."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from kazoo.exceptions import EXCEPTIONS, BadVersionError, ConnectionLoss, NoAuthError, ZookeeperError

from kit import zookeeper
from kit.nimbuses import wait
from kit.stores import CLOCK, CREDENTIALS, opened, raw, stand, standing
from kit.zookeeper import Ensemble
from rainband.cluster.election import Standing, lasts_s
from rainband.cluster.keeper import Batch, parse
from rainband.cluster.store import Change, Delete, Put
from rainband.cluster.zookeeper import ZooKeeperStore
from rainband.errors import ClusterUnavailable, NotAllowed, Refused, StoreError, UsageError

zookeeper.require()


def contract() -> ModuleType:
    """The suite every backend passes."""
    file = Path(__file__).resolve().parents[1] / "unit" / "cluster" / "test_store.py"
    spec = importlib.util.spec_from_file_location("store_contract", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["store_contract"] = module
    spec.loader.exec_module(module)
    return module


suite = contract()
ROOTS = itertools.count()
SERVER: list[Ensemble] = []


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ensemble]:
    with zookeeper.ensemble(tmp_path_factory.mktemp("zookeeper")) as made:
        SERVER.append(made)
        yield made
        SERVER.clear()


def zookeeper_opener(directory: Path) -> suite.Reopen:  # type: ignore[name-defined]
    url = SERVER[0].url(f"/contract-{next(ROOTS)}/rainband")
    opened: list[ZooKeeperStore] = []

    def reopen() -> ZooKeeperStore:
        if opened:
            opened.pop().close()
        opened.append(ZooKeeperStore(url, CREDENTIALS, session_s=4.0))
        return opened[0]

    return reopen


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[object]:
    opener = zookeeper_opener(tmp_path)
    yield opener
    opener().close()


suite.BACKENDS.clear()
suite.BACKENDS["zookeeper"] = zookeeper_opener
LAWS = {name: law for name, law in vars(suite).items() if name.startswith("test_") and "like_a_dict" not in name}
globals().update(LAWS)


@settings(max_examples=8, deadline=None)
@given(batches=suite.batches)
def test_it_behaves_like_a_dict(batches: list[list[Change]], tmp_path_factory: pytest.TempPathFactory) -> None:
    suite.test_it_behaves_like_a_dict.hypothesis.inner_test("zookeeper", batches, tmp_path_factory)


@pytest.fixture
def url() -> str:
    return SERVER[0].url(f"/own-{next(ROOTS)}")


def test_an_old_leader_writes_nothing_whatever_it_reads(url: str) -> None:
    """A1: neither at once, nor after reading what the new one wrote."""
    with opened(url) as old, opened(url) as new:
        first = old.lead()
        old.write(first, [Put("counter", b"1")])
        second = new.lead()
        assert second == first + 1
        old.read_all()
        with pytest.raises(StoreError, match=f"epoch {first} does not lead, epoch {second} does"):
            old.write(first, [Put("counter", b"2")])
        new.write(second, [Put("topology/a", b"new")])
        old.read_all()
        with pytest.raises((StoreError, ClusterUnavailable)):
            old.write(first, [Put("counter", b"3")])
        assert new.read_all().values == {"counter": b"1", "topology/a": b"new"}


def test_a_batch_that_lay_in_a_queue_fails_when_it_arrives_late(url: str) -> None:
    with opened(url) as old, opened(url) as new:
        epoch = old.lead()
        late = old._keeper.batch()
        late.set("facts", data=b"{}", version=old._guard)
        late.create("entries", "counter", data=b"Vlate")
        new.lead()
        assert isinstance(late.commit(CLOCK.now() + 5), BadVersionError)
        assert new.read_all().values == {}
        assert new.read_all().epoch == epoch + 1


def test_large_values_are_split_and_their_pieces_swept(url: str) -> None:
    large = os.urandom(3 << 20)
    with opened(url) as store:
        epoch = store.lead()
        store.write(epoch, [Put("plan/a", large), Put("plan/b", large[:400_000]), Put("plan/c", large[:500_000])])
        assert store.read_all().values == {"plan/a": large, "plan/b": large[:400_000], "plan/c": large[:500_000]}
        store.write(epoch, [Put("plan/a", b"small"), Delete("plan/b"), Delete("plan/c")])
        store._keeper.create("large", "f" * 32 + "-000", data=b"of a batch that never came", until=CLOCK.now() + 5)
    with opened(url) as store:
        store.lead()
        assert store.read_all().values == {"plan/a": b"small"}
        wait(lambda: store._keeper.children("large", until=CLOCK.now() + 5) == [], 5)


def test_too_many_changes_for_one_transaction_are_refused(url: str) -> None:
    with opened(url) as store, pytest.raises(StoreError, match="changes take"):
        store.write(store.lead(), [Put(f"topology/{n}", b"x" * 100) for n in range(9_000)])


@pytest.mark.parametrize("taken", [True, False])
def test_an_answer_that_got_lost_is_found_out(url: str, taken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch was taken, or it was not; either way it counts once."""
    commit = Batch.commit
    losses = [ConnectionLoss()]

    def lossy(batch: Batch, until: float) -> Exception | None:
        reason = commit(batch, until) if taken or not losses else None
        if losses:
            raise losses.pop()
        return reason

    with opened(url) as store:
        epoch = store.lead()
        monkeypatch.setattr(Batch, "commit", lossy)
        store.write(epoch, [Put("counter", b"1")])
        state = store.read_all()
        assert not losses
        assert (state.values, state.version) == ({"counter": b"1"}, 1)


@pytest.mark.parametrize("code", [-118, -122, -127])
def test_a_server_that_has_no_time_for_us_is_asked_again(
    url: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that moves, a request that waited too long, a server that throttles: no reason to end a Nimbus."""
    with opened(url) as store:
        with pytest.raises(ClusterUnavailable), store._keeper.guarded():
            raise EXCEPTIONS[code]
        epoch = store.lead()
        commit = Batch.commit
        busy = [EXCEPTIONS[code](), EXCEPTIONS[code]()]

        def at_last(batch: Batch, until: float) -> Exception | None:
            if busy:
                raise busy.pop()
            return commit(batch, until)

        monkeypatch.setattr(Batch, "commit", at_last)
        store.write(epoch, [Put("counter", b"1")])
        assert store.read_all().values == {"counter": b"1"}


def test_an_answer_that_kazoo_does_not_know_is_an_error_and_no_end() -> None:
    assert issubclass(EXCEPTIONS[-9999], ZookeeperError)


@pytest.mark.parametrize("taken", [True, False])
def test_whether_a_batch_was_taken_is_not_known_once_others_wrote(
    url: str, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused is only what surely was not: whoever asked would do it again at the next leader."""
    commit = Batch.commit
    with opened(url) as store, opened(url) as other:
        epoch = store.lead()

        def lossy(batch: Batch, until: float) -> Exception | None:
            monkeypatch.setattr(Batch, "commit", commit)
            if taken:
                commit(batch, until)
            other.lead()
            raise ConnectionLoss

        monkeypatch.setattr(Batch, "commit", lossy)
        error, match = (ClusterUnavailable, "does not answer") if taken else (StoreError, "does not lead")
        with pytest.raises(error, match=match):
            store.write(epoch, [Put("counter", b"1")])
        assert store._epoch == 0


def test_nobody_else_may_read_or_write(url: str) -> None:
    """A25: every node has the digest's ACL and no other."""
    with opened(url) as store:
        store.write(store.lead(), [Put("plan/a", b"x" * 300_000), Put("counter", b"1")])
        stand(store, "127.0.0.1:1")
        standing(store, lambda s: s.leads)
        own = store._keeper._client
        nodes = [parse(url).root]
        for node in nodes:
            nodes += [f"{node}/{child}" for child in own.get_children(node)]
            acls = own.get_acls(node)[0]
            assert [acl.id.scheme for acl in acls] == ["digest"], node
        assert len(nodes) >= 9
        with raw(url) as anyone:
            for node in nodes:
                with pytest.raises(NoAuthError):
                    anyone.get(node)
                with pytest.raises(NoAuthError):
                    anyone.set(node, b"")
        with opened(url, "rainband:another") as stranger, pytest.raises(NotAllowed, match="other credentials"):
            stranger.lead()


def test_a_root_that_anyone_may_write_to_is_refused(url: str) -> None:
    with raw(url) as anyone:
        anyone.create(parse(url).root, b"")
    with opened(url) as store, pytest.raises(NotAllowed, match="anyone may write to /own-"):
        store.lead()


def test_a_wiped_root_is_not_begun_anew(url: str, tmp_path: Path) -> None:
    """F19, for a Nimbus that runs and for one that starts."""
    memory = tmp_path / "cluster.id"
    with opened(url, identity_file=memory) as store:
        epoch = store.lead()
        assert memory.read_text() == store.cluster_id
        own = store._keeper._client
        own.delete(parse(url).root, recursive=True)
        with pytest.raises(Refused, match=f"cluster id mismatch: this Nimbus belongs to {store.cluster_id}"):
            store.write(epoch, [Put("counter", b"1")])
        with opened(url) as other:
            other.lead()
            with pytest.raises(Refused, match=f"cluster id mismatch.* to {other.cluster_id}"):
                store.write(epoch, [Put("counter", b"1")])
    with opened(url, identity_file=memory) as store, pytest.raises(Refused, match="cluster id mismatch"):
        store.lead()


def test_one_leads_and_the_next_one_takes_over_at_once(url: str) -> None:
    with opened(url) as first, opened(url) as second:
        stand(first, "127.0.0.1:1")
        standing(first, lambda s: s.leads)
        stand(second, "127.0.0.1:2")
        seen = standing(second, lambda s: len(s.members) == 2)
        assert seen == Standing(False, "127.0.0.1:1", ("127.0.0.1:1", "127.0.0.1:2"))
        first.resign()
        assert not first.standing(CLOCK.now()).leads
        standing(second, lambda s: s.leads)
        standing(first, lambda s: s.leader == "127.0.0.1:2")
        at = CLOCK.now()
        second.close()
        standing(first, lambda s: s.leads)
        assert CLOCK.now() - at < 1.0


def test_an_expired_session_costs_the_lead_and_nothing_else(url: str) -> None:
    """F18: somebody else ends our session with its own id."""
    with opened(url) as store:
        stand(store, "127.0.0.1:1")
        standing(store, lambda s: s.leads)
        epoch = store.lead()
        store.write(epoch, [Put("counter", b"1")])
        at = CLOCK.now()
        with raw(url, client_id=store._keeper._client.client_id):
            pass
        standing(store, lambda s: not s.leads)
        standing(store, lambda s: s.leads)
        assert CLOCK.now() - at < 5.0
        assert len(store._keeper.children("election", until=CLOCK.now() + 5)) == 1
        again = store.lead()
        assert again > epoch
        store.write(again, [Put("counter", b"2")])


def test_a_lost_answer_to_standing_leaves_one_place_in_the_queue(url: str) -> None:
    with opened(url) as store:
        store.lead()
        for _ in range(2):
            place = f"{store._campaign._identity}-"
            store._keeper.create("election", place, data=b"x", until=CLOCK.now() + 5, candidate=True)
        stand(store, "127.0.0.1:1")
        standing(store, lambda s: s.leads)
        assert len(store._keeper.children("election", until=CLOCK.now() + 5)) == 1


def test_the_lease_ends_by_the_clock_without_a_word_from_the_server(tmp_path: Path) -> None:
    """A2: the server stands still, connections stay open, kazoo says nothing."""
    with zookeeper.ensemble(tmp_path) as ensemble, opened(ensemble.url(), session_s=2.0) as store:
        stand(store, "127.0.0.1:1")
        standing(store, lambda s: s.leads)
        epoch = store.lead()
        at = CLOCK.now()
        ensemble.servers[0].send(signal.SIGSTOP)
        standing(store, lambda s: not s.leads)
        assert CLOCK.now() - at <= lasts_s(2.0) + 0.1
        with pytest.raises(ClusterUnavailable, match="state store unavailable"):
            store.write(epoch, [Put("counter", b"1")])
        ensemble.servers[0].send(signal.SIGCONT)
        standing(store, lambda s: s.leads)
        store.lead()


def test_calls_end_in_time_however_long_zookeeper_is_away(tmp_path: Path) -> None:
    """A thousand calls are less than an hour of standing for election."""
    ended: list[Exception] = []

    def look(store: ZooKeeperStore) -> None:
        for _ in range(1000):
            try:
                with store._keeper.guarded():
                    store._keeper.get("facts", until=CLOCK.now() + 0.001)
            except ClusterUnavailable as error:
                ended.append(error)

    with zookeeper.ensemble(tmp_path) as ensemble, opened(ensemble.url()) as store:
        stand(store, "127.0.0.1:1")
        standing(store, lambda s: s.leads)
        ensemble.kill()
        wait(lambda: not store._keeper._client.connected, 10.0)
        looking = threading.Thread(target=look, args=(store,), daemon=True)
        looking.start()
        looking.join(20.0)
        assert len(ended) == 1000
        assert not store._keeper._client._queue
        ensemble.start()
        standing(store, lambda s: s.leads)


@pytest.mark.faults
def test_an_ensemble_loses_its_leader_and_the_state_goes_on(tmp_path: Path) -> None:
    """F16."""
    with zookeeper.ensemble(tmp_path, 3) as ensemble, opened(ensemble.url()) as store:
        stand(store, "127.0.0.1:1")
        standing(store, lambda s: s.leads)
        epoch = store.lead()
        store.write(epoch, [Put("counter", b"0")])
        for number in (1, 2):
            victim = ensemble.leader()
            at = CLOCK.now()
            victim.kill()
            epoch = write_again(store, epoch, b"%d" % number)
            print(f"ZooKeeper's leader killed, written again after {CLOCK.now() - at:.2f} s")
            assert CLOCK.now() - at < 8.0
            assert store.read_all().values == {"counter": b"%d" % number}
            victim.start()
            victim.wait_serving()


@pytest.mark.faults
def test_of_many_leaders_each_write_has_one_epoch_and_epochs_grow(tmp_path: Path) -> None:
    """A1: everybody takes the lead from everybody, and the server is killed in between."""
    taken: list[tuple[int, int, int]] = []
    over = threading.Event()

    def usurp(number: int, url: str) -> None:
        with opened(url) as store:
            while not over.is_set():
                with contextlib.suppress(ClusterUnavailable, StoreError):
                    epoch = store.lead()
                    for turn in range(4):
                        store.write(epoch, [Put("counter", b"%d %d" % (epoch, turn))])
                        taken.append((store._last.version, epoch, number))

    with zookeeper.ensemble(tmp_path) as ensemble:
        threads = [threading.Thread(target=usurp, args=(number, ensemble.url())) for number in range(3)]
        for thread in threads:
            thread.start()
        try:
            wait(lambda: len(taken) > 100, 20)
            ensemble.kill()
            before = len(taken)
            ensemble.start()
            wait(lambda: len(taken) > before + 100, 20)
        finally:
            over.set()
            for thread in threads:
                thread.join(20)
        with opened(ensemble.url()) as store:
            state = store.read_all()
    versions = [version for version, _, _ in sorted(taken)]
    epochs = [epoch for _, epoch, _ in sorted(taken)]
    assert len(set(versions)) == len(versions)
    assert epochs == sorted(epochs)
    writers: dict[int, set[int]] = {}
    for _, epoch, number in taken:
        writers.setdefault(epoch, set()).add(number)
    assert all(len(who) == 1 for who in writers.values())
    assert len({number for _, _, number in taken}) == 3
    assert state.version >= versions[-1]


def write_again(store: ZooKeeperStore, epoch: int, value: bytes) -> int:
    """Write as a Nimbus would: whoever lost the lead stands again."""
    until = CLOCK.now() + 20
    while True:
        assert CLOCK.now() < until
        try:
            store.write(epoch, [Put("counter", value)])
            return epoch
        except (ClusterUnavailable, StoreError):
            standing(store, lambda s: s.leads, 20)
            with contextlib.suppress(ClusterUnavailable):
                epoch = store.lead()


URLS = [
    "zookeeper://", "zookeeper://host", "zookeeper://host:2181", "zookeeper://host:2181/", "zookeeper://host:0/a",
    "zookeeper://host:99999/a", "zookeeper://a:b@host:2181/a", "zookeeper://host:2181/a/../b", "zookeeper://,/a",
    "zookeeper://host:2181/a b", "http://host:2181/a", "zookeeper://host:2181//a", "zookeeper://host..com:2181/a",
    "zookeeper://.host:2181/a", f"zookeeper://{'h' * 64}.com:2181/a",
]  # fmt: skip


GOOD_URLS = ["host:1/a", "a-b.c_d.e.:65535/a/b", "10.0.0.1:2181,[::1]:2181,host:1/a", f"{'h' * 63}.com:2181/a"]


@pytest.mark.parametrize("good", GOOD_URLS)
def test_an_address_names_hosts_and_a_root(good: str) -> None:
    assert "".join((parse(f"zookeeper://{good}").servers, parse(f"zookeeper://{good}").root)) == good


@pytest.mark.parametrize("bad", URLS)
def test_an_address_that_is_none_is_refused_without_its_password(bad: str) -> None:
    with pytest.raises(UsageError, match="is not the address of a ZooKeeper") as caught:
        parse(bad)
    assert "a:b" not in str(caught.value)
