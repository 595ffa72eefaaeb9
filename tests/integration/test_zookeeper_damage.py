"""Somebody else's hand in the root: nodes deleted, garbled, locked or copied back, on a real ZooKeeper."""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kazoo.client import KazooClient
from kazoo.security import make_acl, make_digest_acl

from kit import zookeeper
from kit.nimbuses import wait
from kit.stores import CLOCK, CREDENTIALS, opened, raw, stand, standing
from kit.zookeeper import Ensemble
from rainband.cluster.election import Standing
from rainband.cluster.keeper import parse
from rainband.cluster.store import Delete, Put
from rainband.errors import NotAllowed, StoreError

zookeeper.require()
ROOTS = itertools.count()


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ensemble]:
    with zookeeper.ensemble(tmp_path_factory.mktemp("zookeeper")) as made:
        yield made


@pytest.fixture
def url(ensemble: Ensemble) -> str:
    return ensemble.url(f"/damaged-{next(ROOTS)}")


def wrong_acl(client: KazooClient, root: str) -> None:
    client.set_acls(f"{root}/entries/plan:a", [make_digest_acl("another", "user", all=True)])


def no_pointer(client: KazooClient, root: str) -> None:
    client.set(f"{root}/entries/plan:a", b"Lost")


def lost_piece(client: KazooClient, root: str) -> None:
    client.delete(f"{root}/large/{client.get_children(f'{root}/large')[0]}")


def other_piece(client: KazooClient, root: str) -> None:
    client.set(f"{root}/large/{client.get_children(f'{root}/large')[0]}", b"other")


@pytest.mark.parametrize("damage", [wrong_acl, no_pointer, lost_piece, other_piece])
def test_an_entry_that_cannot_be_read_keeps_nobody_from_the_others(
    url: str, damage: Callable[[KazooClient, str], None]
) -> None:
    """A10: and it can still be removed."""
    with opened(url) as store:
        epoch = store.lead()
        store.write(epoch, [Put("plan/a", b"x" * 600_000), Put("topology/a", b"1"), Put("topology/b", b"2")])
        damage(store._keeper._client, parse(url).root)
        pieces = len(store._keeper.children("large", until=CLOCK.now() + 5))
    with opened(url) as store:
        epoch = store.lead()
        state = store.read_all()
        assert state.values == {"topology/a": b"1", "topology/b": b"2"}
        assert list(state.unreadable) == ["plan/a"]
        assert len(store._keeper.children("large", until=CLOCK.now() + 5)) == pieces
        store.write(epoch, [Delete("topology/a"), Delete("plan/a"), Put("topology/b", b"3")])
        store.lead()
        state = store.read_all()
        assert (state.values, state.unreadable) == ({"topology/b": b"3"}, {})
        wait(lambda: store._keeper.children("large", until=CLOCK.now() + 5) == [], 5)


def test_the_loss_of_all_entries_is_said(url: str) -> None:
    with opened(url) as store:
        store.lead()
        store._keeper._client.delete(f"{parse(url).root}/entries", recursive=True)
    with opened(url) as store, pytest.raises(StoreError, match=r"entries in ZooKeeper is gone.*Restore ZooKeeper"):
        store.lead()


@pytest.mark.parametrize("gone", ["is-*", "large", "election"])
def test_nodes_that_hold_no_topology_are_made_again(url: str, gone: str) -> None:
    """What a copy of the data without empty nodes lacks."""
    with opened(url) as store:
        store.write(store.lead(), [Put("topology/a", b"1")])
        root, client = parse(url).root, store._keeper._client
        (name,) = fnmatch.filter(client.get_children(root), gone)
        client.delete(f"{root}/{name}")
    with opened(url) as store:
        stand(store, "127.0.0.1:1")
        standing(store, lambda s: s.leads)
        epoch = store.lead()
        store.write(epoch, [Put("plan/a", b"x" * 600_000)])
        assert set(store.read_all().values) == {"topology/a", "plan/a"}
        assert store._keeper.children(name, until=CLOCK.now() + 5) is not None


def test_entries_that_somebody_deleted_or_made_do_not_stop_the_leader(url: str) -> None:
    with opened(url) as store:
        epoch = store.lead()
        store.write(epoch, [Put("topology/a", b"1"), Put("topology/b", b"1"), Put("plan/b", b"1")])
        root, client = parse(url).root, store._keeper._client
        for name in ("topology:a", "topology:b"):
            client.delete(f"{root}/entries/{name}")
        client.create(f"{root}/entries/topology:c", b"?")
        store.write(epoch, [Delete("topology/a"), Delete("plan/a"), Put("topology/b", b"2"), Put("topology/c", b"2")])
        assert store.read_all().values == {"topology/b": b"2", "topology/c": b"2", "plan/b": b"1"}
        client.delete(f"{root}/is-{store.cluster_id}")
        store.write(epoch, [Put("topology/b", b"3")])
        assert store.read_all().values["topology/b"] == b"3"


def test_a_write_that_fails_says_where_and_leaves_no_pieces(url: str) -> None:
    with opened(url) as store:
        epoch = store.lead()
        store.write(epoch, [Put("topology/a", b"1"), Put("topology/b", b"1")])
        root, client = parse(url).root, store._keeper._client
        client.create(f"{root}/entries/topology:a/child", b"")
        for _ in range(3):
            with pytest.raises(StoreError, match=r"NotEmptyError .*/entries/topology:a"):
                store.write(epoch, [Put("plan/b", b"x" * 600_000), Delete("topology/a")])
        wait(lambda: store._keeper.children("large", until=CLOCK.now() + 5) == [], 5)
        client.set_acls(f"{root}/entries/topology:b", [make_digest_acl("another", "user", all=True)])
        with pytest.raises(NotAllowed, match=r"ZooKeeper keeps .*/entries/topology:b for other credentials"):
            store.write(epoch, [Put("topology/b", b"2")])
        store.write(epoch, [Delete("topology/b")])
        assert store.read_all().values == {"topology/a": b"1"}


def test_a_root_without_its_facts_is_not_begun_anew(url: str) -> None:
    with opened(url) as store:
        store.write(store.lead(), [Put("topology/a", b"1")])
        store._keeper._client.delete(f"{parse(url).root}/facts")
    at = CLOCK.now()
    with opened(url) as stranger, pytest.raises(StoreError, match=r"/facts is not there. Restore ZooKeeper's data"):
        stranger.lead()
    assert CLOCK.now() - at < 5.0


def test_a_root_that_was_made_for_us_needs_no_rights_above_it(tmp_path: Path) -> None:
    """As administrators who lock '/' do it."""
    theirs = [make_digest_acl("admin", "their secret", all=True), make_acl("world", "anyone", read=True)]
    ours = [make_digest_acl(*CREDENTIALS.split(":"), all=True)]
    with zookeeper.ensemble(tmp_path) as ensemble:
        with raw(ensemble.url(), auth_data=[("digest", "admin:their secret")]) as admin:
            admin.create("/apps", b"", acl=theirs)
            admin.create("/apps/made", b"", acl=ours)
            admin.set_acls("/", theirs)
        with opened(ensemble.url("/apps/made")) as store:
            store.write(store.lead(), [Put("counter", b"1")])
        fix = f"Have /apps/ours made, with all rights for digest:{ours[0].id.id}"
        refused = f"does not let these credentials make /apps/ours. {fix}"
        with opened(ensemble.url("/apps/ours")) as store, pytest.raises(NotAllowed, match=re.escape(refused)):
            store.lead()


@pytest.mark.parametrize("writes", [0, 1])
def test_a_leader_whose_session_outlived_the_return_of_an_old_copy_makes_way(url: str, writes: int) -> None:
    """It holds for true what is stored no more, and would until it wrote."""
    with opened(url) as store:
        stand(store, "127.0.0.1:1")
        standing(store, lambda s: s.leads)
        store.lead()
        facts, client = f"{parse(url).root}/facts", store._keeper._client
        copy, _ = client.get(facts)
        epoch = store.lead()
        for _ in range(writes):
            store.write(epoch, [Put("counter", b"1")])
        store.read_all()
        assert store._epoch == epoch
        client.set(facts, copy)
        store.read_all()
        assert store._epoch == 0
        assert not store.standing(CLOCK.now()).leads
        standing(store, lambda s: s.leads)
        store.write(store.lead(), [Put("counter", b"2")])
        store.read_all()
        assert store._epoch == epoch


def test_a_candidate_that_no_session_holds_is_none(url: str) -> None:
    """A tool that copied the data made a lasting node of it; nobody would ever lead."""
    with opened(url) as store:
        store.lead()
        store._keeper._client.create(f"{parse(url).root}/election/{'a' * 32}-0000000000", b"10.0.0.9:6627")
        stand(store, "127.0.0.1:1")
        assert standing(store, lambda s: s.leads).members == ("127.0.0.1:1",)


def test_a_candidate_that_leaves_while_it_is_looked_at_is_passed_over(url: str) -> None:
    with opened(url) as store:
        stand(store, "127.0.0.1:1")
        standing(store, lambda s: s.leads)
        campaign = store._campaign
        nodes = [f"{'a' * 32}-0000000000", *campaign._nodes(CLOCK.now() + 5)]
        assert campaign._judge(nodes, CLOCK.now() + 5) == Standing(True, "127.0.0.1:1", ("127.0.0.1:1",))
