"""Can this machine work with that ZooKeeper? For `rainband doctor`: looks, and makes nothing."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
from kazoo import exceptions as zk

from rainband.clock import SystemClock
from rainband.cluster.keeper import LOST, Keeper, Tls, parse
from rainband.cluster.zookeeper import Facts
from rainband.errors import RainbandError

CONNECT_S = 1.0
CALL_S = 4.0


class Checked(NamedTuple):
    """`state`: ok, warn or bad. `fix` says what to do about it."""

    state: str
    text: str
    fix: str = ""


def check(url: str, credentials: str, session_s: float, tls: Tls | None) -> Iterator[Checked]:
    """What there is to say of the servers, the session, and the root node with its ACL. Raises UsageError."""
    place = parse(url)
    clock = SystemClock()
    servers = place.servers.split(",")
    silent = [server for server in servers if not _listens(server)]
    for server in silent:
        state = "warn" if len(silent) < len(servers) else "bad"
        yield Checked(state, f"{server} does not answer", "see whether it runs")
    if len(silent) == len(servers):
        return
    with contextlib.closing(Keeper(place, credentials, session_s, clock, lambda: None, tls)) as keeper:
        try:
            with keeper.guarded():
                yield from _look(keeper, clock.now() + CALL_S, tls)
        except RainbandError as error:
            yield Checked("bad", error.message, error.fix)


def _look(keeper: Keeper, until: float, tls: Tls | None) -> Iterator[Checked]:
    root = keeper.place.root
    how = "TLS" if tls is not None else "no TLS"
    try:
        data = _facts(keeper, until)
    except zk.NoNodeError:
        yield Checked("ok", f"{keeper.place.servers} answers ({how})")
        yield from _look_at_root(keeper, until)
        return
    facts = msgspec.json.decode(data, type=Facts)
    yield Checked("ok", f"{keeper.place.servers} answers ({how}), session {keeper.session_s:g} s")
    keeper.check_acl(until)
    yield Checked("ok", f"{root} belongs to cluster {facts.cluster_id[:12]}, is ours and nobody else's")


def _facts(keeper: Keeper, until: float) -> bytes:
    """The node that says whose root it is; the connection is given its time to come up."""
    while True:
        try:
            return keeper.get_synced("facts", until=until)[0]
        except LOST:
            keeper.pause(until)


def _look_at_root(keeper: Keeper, until: float) -> Iterator[Checked]:
    """A root that nothing has been written to yet: is it there, and who may write to it?"""
    try:
        keeper.check_acl(until)
    except zk.NoNodeError:
        yield Checked("ok", f"{keeper.place.root} is not there yet: the first Nimbus makes it")
    else:
        yield Checked("ok", f"{keeper.place.root} is there and empty: the first Nimbus uses it")


def _listens(server: str) -> bool:
    host, _, port = server.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), CONNECT_S):
        return True
    return False
