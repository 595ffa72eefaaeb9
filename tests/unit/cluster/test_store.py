"""What every backend promises. A new one is added to BACKENDS and to nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rainband.cluster.memory import MemoryStore
from rainband.cluster.sqlite import SqliteStore
from rainband.cluster.store import CHANGES_MAX, EPOCH_MAX, VALUE_BYTES_MAX, Change, Delete, Put, Store, check_changes
from rainband.errors import StoreError

Reopen = Callable[[], Store]


def sqlite_opener(directory: Path) -> Reopen:
    opened: list[SqliteStore] = []

    def reopen() -> Store:
        if opened:
            opened.pop().close()
        opened.append(SqliteStore(directory))
        return opened[0]

    return reopen


def memory_opener(directory: Path) -> Reopen:
    store = MemoryStore()
    return lambda: store


BACKENDS = {"memory": memory_opener, "sqlite": sqlite_opener}


@pytest.fixture(params=BACKENDS)
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Reopen:
    """Call it for a store on the same state as the last one, which must not be used any more."""
    return BACKENDS[request.param](tmp_path / "state")


def test_it_begins_empty_with_an_id_that_stays(reopen: Reopen) -> None:
    store = reopen()
    state = store.read_all()
    assert (state.epoch, state.version, state.values) == (0, 0, {})
    assert len(state.cluster_id) == 32
    assert reopen().cluster_id == state.cluster_id


def test_what_was_written_is_there_after_reopening(reopen: Reopen) -> None:
    store = reopen()
    epoch = store.lead()
    store.write(epoch, [Put("topology/wc-1", b"\x00\xff"), Put("counter", b"1")])
    store.write(epoch, [Put("counter", b"2"), Delete("topology/wc-1"), Delete("topology/none")])
    state = reopen().read_all()
    assert state.values == {"counter": b"2"}
    assert (state.epoch, state.version) == (epoch, 2)


def test_every_leader_has_a_larger_epoch(reopen: Reopen) -> None:
    first = reopen().lead()
    store = reopen()
    second = store.lead()
    assert store.lead() > second > first > 0


def test_a_leader_may_ask_for_an_epoch_above_one_it_has_heard_of(reopen: Reopen) -> None:
    store = reopen()
    store.lead()
    assert store.lead(above=EPOCH_MAX) == EPOCH_MAX + 1
    assert store.lead(above=7) == EPOCH_MAX + 2
    store.write(EPOCH_MAX + 2, [Put("counter", b"1")])
    assert reopen().read_all().epoch == EPOCH_MAX + 2


@pytest.mark.parametrize("epoch", ["before", "never", "later"])
def test_only_the_newest_epoch_may_write(reopen: Reopen, epoch: str) -> None:
    store = reopen()
    old = store.lead()
    new = store.lead()
    store.write(new, [Put("counter", b"1")])
    with pytest.raises(StoreError, match="does not lead"):
        store.write({"before": old, "never": 0, "later": new + 1}[epoch], [Put("counter", b"2")])
    assert store.read_all().values == {"counter": b"1"}


BAD_KEYS = ["", "/", "topology/", "topology//x", "topology/../x", "Topology/x", "topology/a b", "topology/x\n"]
BAD_KEYS.append("topology/" + "x" * 129)


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_bad_change_spoils_its_whole_batch(reopen: Reopen, key: str) -> None:
    store = reopen()
    epoch = store.lead()
    with pytest.raises(StoreError, match="not a key"):
        store.write(epoch, [Put("counter", b"1"), Put(key, b"")])
    assert store.read_all().values == {}


def test_limits_are_checked_before_anything_is_written() -> None:
    with pytest.raises(StoreError, match="more than"):
        check_changes([Put("counter", b"x" * (VALUE_BYTES_MAX + 1))])
    with pytest.raises(StoreError, match="more than"):
        check_changes(Delete(f"topology/x{n}") for n in range(CHANGES_MAX + 1))
    with pytest.raises(StoreError, match="twice"):
        check_changes([Put("counter", b""), Delete("counter")])


def test_what_was_read_does_not_change_what_is_stored(reopen: Reopen) -> None:
    store = reopen()
    store.write(store.lead(), [Put("counter", b"1")])
    store.read_all().values.clear()
    assert store.read_all().values == {"counter": b"1"}


def test_it_may_be_used_from_another_thread_than_the_one_that_opened_it(reopen: Reopen) -> None:
    store = reopen()
    thread = threading.Thread(target=lambda: store.write(store.lead(), [Put("counter", b"1")]))
    thread.start()
    thread.join()
    assert store.read_all().values == {"counter": b"1"}


def test_closing_twice_is_fine(reopen: Reopen) -> None:
    store = reopen()
    store.close()
    store.close()


keys = st.sampled_from(["counter", "topology/a", "topology/b", "plan/a"])
change = st.one_of(st.builds(Put, keys, st.binary(max_size=8)), st.builds(Delete, keys))
batches = st.lists(st.lists(change, max_size=4, unique_by=lambda change: change.key), max_size=6)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=25, deadline=None)
@given(batches=batches)
def test_it_behaves_like_a_dict(
    backend: str, batches: list[list[Change]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = BACKENDS[backend](tmp_path_factory.mktemp("state"))()
    epoch = store.lead()
    model: dict[str, bytes] = {}
    for batch in batches:
        store.write(epoch, batch)
        for one in batch:
            if isinstance(one, Put):
                model[one.key] = one.value
            else:
                model.pop(one.key, None)
    assert store.read_all().values == model
    assert store.read_all().version == len(batches)
    store.close()
