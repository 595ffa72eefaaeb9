"""Stores on a real ZooKeeper, as a Nimbus opens them, and plain connections past them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from kazoo.client import KazooClient

from kit.nimbuses import wait
from rainband.clock import SystemClock
from rainband.cluster.election import Standing
from rainband.cluster.keeper import parse
from rainband.cluster.zookeeper import ZooKeeperStore

CLOCK = SystemClock()
CREDENTIALS = "rainband:a secret of the tests"


@contextlib.contextmanager
def opened(url: str, credentials: str = CREDENTIALS, **options: Any) -> Iterator[ZooKeeperStore]:
    with contextlib.closing(ZooKeeperStore(url, credentials, **{"session_s": 4.0, **options})) as store:
        yield store


@contextlib.contextmanager
def raw(url: str, **options: Any) -> Iterator[KazooClient]:
    """A plain connection, as anyone could have."""
    client = KazooClient(parse(url).servers, timeout=4.0, **options)
    client.start()
    try:
        yield client
    finally:
        client.stop()
        client.close()


def standing(store: ZooKeeperStore, want: Callable[[Standing], object], timeout_s: float = 10.0) -> Standing:
    """What the store says once that is as wanted."""
    found: list[Standing] = []

    def as_wanted() -> object:
        found.append(store.standing(CLOCK.now()))
        return want(found[-1])

    wait(as_wanted, timeout_s)
    return found[-1]


def stand(store: ZooKeeperStore, address: str) -> None:
    store.stand(address, lambda: None)
