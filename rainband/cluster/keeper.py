"""A connection to ZooKeeper that never waits longer than it was told to, and speaks of trouble in our words.

Nothing here trusts kazoo's recipes, states or retries; its threads only ring bells and fill in results.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from kazoo import exceptions as zk
from kazoo.client import KazooClient
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import KazooState, KeeperState
from kazoo.retry import KazooRetry
from kazoo.security import Permissions, make_digest_acl

from rainband.clock import Clock
from rainband.errors import ClusterUnavailable, NotAllowed, StoreError, UsageError

SCHEME = "zookeeper://"
LABEL = r"[A-Za-z0-9_-]{1,63}"
SERVER = re.compile(rf"(\[[0-9A-Fa-f:.]+\]|{LABEL}(?:\.{LABEL})*\.?):(\d{{1,5}})\Z")
ROOT = re.compile(r"(/[A-Za-z0-9_.-]+)+\Z")
CLOSE_S = 0.6
REQUEST_TIMEOUT, THROTTLED = -122, -127
WRITES = Permissions.WRITE | Permissions.CREATE | Permissions.DELETE | Permissions.ADMIN
QUIET = logging.getLogger("rainband.zookeeper.kazoo")
QUIET.setLevel(logging.ERROR)


class Busy(zk.ZookeeperError):  # type: ignore[misc]
    """The server had no time for us."""


# Codes that this kazoo does not know would end its only thread.
zk.EXCEPTIONS.default_factory = lambda: zk.ZookeeperError
for code in (REQUEST_TIMEOUT, THROTTLED):
    zk.EXCEPTIONS.setdefault(code, Busy)
LOST = (
    zk.ConnectionLoss, zk.SessionExpiredError, zk.ConnectionClosedError, zk.OperationTimeoutError, KazooTimeoutError,
    zk.SessionMovedError, zk.EXCEPTIONS[REQUEST_TIMEOUT], zk.EXCEPTIONS[THROTTLED],
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """Servers as kazoo wants them ("host:port,host:port") and the root node."""

    servers: str
    root: str


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM: the certificates to trust, and our own certificate and key where servers ask for one."""

    ca: str
    cert: str = ""
    key: str = ""

    def options(self) -> dict[str, object]:
        """What kazoo calls it."""
        own = {"certfile": self.cert, "keyfile": self.key} if self.cert else {}
        return {"use_ssl": True, "verify_certs": True, "check_hostname": True, "ca": self.ca, **own}


def parse(url: str) -> Place:
    """`zookeeper://host:port[,host:port]/path`. Raises UsageError."""
    servers, slash, path = url.removeprefix(SCHEME).partition("/")
    named = [SERVER.match(server) for server in servers.split(",")]
    sound = all(match is not None and 0 < int(match[2]) < 65536 for match in named)
    dotted = {".", ".."} & set(path.split("/"))
    if not url.startswith(SCHEME) or not sound or ROOT.match(slash + path) is None or dotted:
        shown = url if "@" not in url else f"{SCHEME}...@{url.rpartition('@')[2]}"
        fix = f"Write {SCHEME}HOST:PORT[,HOST:PORT...]/PATH; credentials go into nimbus.zookeeper.auth.file"
        raise UsageError(f"{shown[:200]!r} is not the address of a ZooKeeper", fix)
    return Place(servers, slash + path)


class Keeper:
    """Connects in the background to `place`. Any thread may call.

    `lost` is called on kazoo's thread when the session has ended. `session_s` is what the server grants, 0 until known.
    """

    def __init__(
        self,
        place: Place,
        credentials: str,
        session_s: float,
        clock: Clock,
        lost: Callable[[], None],
        tls: Tls | None = None,
    ) -> None:
        user, _, password = credentials.partition(":")
        if not user or not password:
            raise NotAllowed("the credentials for ZooKeeper are not of the form user:password")
        self.place = place
        self.clock = clock
        self.session_s = 0.0
        self._lost = lost
        self._closed = False
        self._acl = [make_digest_acl(user, password, all=True)]
        self._client = KazooClient(
            place.servers,
            timeout=session_s,
            default_acl=self._acl,
            auth_data=[("digest", credentials)],
            connection_retry=KazooRetry(max_tries=-1, delay=0.1, backoff=2, max_jitter=0.2, max_delay=1.0),
            command_retry=KazooRetry(max_tries=0),
            logger=QUIET,
            **(tls.options() if tls is not None else {}),
        )
        self._note_session()
        self._client.add_listener(self._hear)
        self._client.start_async()

    def _note_session(self) -> None:
        """Learn what session the server grants: kazoo tells only its own connection loop (two thirds, in ms).

        And be let in by servers that know less than we have seen: else we would never learn that their data was wiped.
        What has to be fresh is read after a sync.
        """
        connection = self._client._connection
        connect = connection._connect

        def noting(*arguments: Any) -> tuple[float, float]:
            self._client.last_zxid = 0
            read_ms, connect_ms = connect(*arguments)
            self.session_s = read_ms * 1.5 / 1000
            return read_ms, connect_ms

        connection._connect = noting

    def _hear(self, state: str) -> None:
        if state == KazooState.LOST:
            self._lost()

    def path(self, *parts: str) -> str:
        """Of a node under the root."""
        return "/".join((self.place.root, *parts))

    # Calls: the first part sends, `wait` gets the result, so that many can be under way.

    def up(self, until: float) -> KazooClient:
        """The client once it is connected; KazooTimeoutError at monotonic `until`.

        What it is given before waits in a queue that grows for as long as ZooKeeper is away. It would all be sent one
        day, and after some hundred calls the next ones do not return until then.
        """
        client = self._client
        if self._closed:
            raise zk.ConnectionClosedError("closed")
        if not client._live.wait(max(0.0, until - self.clock.now())):
            raise zk.AuthFailedError if client._state == KeeperState.AUTH_FAILED else KazooTimeoutError("not connected")
        return client

    def ask(self, *parts: str, until: float) -> Any:
        return self.up(until).get_async(self.path(*parts))

    def wait(self, result: Any, until: float) -> Any:
        """The result of a call. Raises what it raises, KazooTimeoutError at monotonic `until`."""
        return result.get(timeout=max(0.0, until - self.clock.now()))

    def get(self, *parts: str, until: float) -> tuple[bytes, int]:
        """(content, version) of a node."""
        data, stat = self.wait(self.ask(*parts, until=until), until)
        return data, int(stat.version)

    def get_held(self, *parts: str, until: float) -> tuple[bytes, bool]:
        """(content of a node, whether it ends with a session)."""
        data, stat = self.wait(self.ask(*parts, until=until), until)
        return data, bool(stat.ephemeralOwner)

    def get_synced(self, *parts: str, until: float) -> tuple[bytes, int]:
        """The same, with everything that was written before included."""
        self.wait(self.up(until).sync_async(self.place.root), until)
        return self.get(*parts, until=until)

    def children(self, *parts: str, until: float, watch: Callable[[object], None] | None = None) -> list[str]:
        found: list[str] = self.wait(self.up(until).get_children_async(self.path(*parts), watch=watch), until)
        return found

    def create(self, *parts: str, data: bytes, until: float, candidate: bool = False) -> None:
        """Make a node; a candidate's ends with the session and gets a number appended."""
        made = self.up(until).create_async(
            self.path(*parts), data, acl=self._acl, ephemeral=candidate, sequence=candidate
        )
        self.wait(made, until)

    def set(self, *parts: str, data: bytes, until: float) -> None:
        self.wait(self.up(until).set_async(self.path(*parts), data), until)

    def delete(self, *parts: str) -> Any:
        return self._client.delete_async(self.path(*parts))

    def make_root(self, until: float) -> None:
        """The root and what is above it; those that are there stay as they are, also where we may make none."""
        names = self.place.root.split("/")
        for depth in range(2, len(names) + 1):
            path = "/".join(names[:depth])
            try:
                self.wait(self.up(until).create_async(path, b"", acl=self._acl), until)
            except zk.NodeExistsError:
                continue
            except zk.NoAuthError:
                if self.wait(self.up(until).exists_async(path), until) is None:
                    what = f"ZooKeeper does not let these credentials make {path}"
                    fix = f"Have {self.place.root} made, with all rights for digest:{self._acl[0].id.id}"
                    raise NotAllowed(what, fix) from None

    def check_acl(self, until: float) -> None:
        """Raises NotAllowed when anyone may write to the root."""
        acls, _ = self.wait(self.up(until).get_acls_async(self.place.root), until)
        if any(acl.id.scheme == "world" and acl.perms & WRITES for acl in acls):
            fix = "Set an ACL on it, or choose a path that is not there yet"
            raise NotAllowed(f"anyone may write to {self.place.root} in ZooKeeper", fix)

    def batch(self) -> Batch:
        return Batch(self, self._client.transaction(), self._acl)

    def pause(self, until: float) -> None:
        """Let the connection come back; raises KazooTimeoutError when there is no time left."""
        left = until - self.clock.now()
        if left <= 0 or self._closed:
            raise KazooTimeoutError("no answer in time")
        self._client._live.wait(min(left, 0.5))
        threading.Event().wait(min(left, 0.02))

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """What kazoo raises, in our words."""
        place = self.place
        try:
            yield
        except zk.NoAuthError as error:
            fix = "Give every Nimbus the same credentials"
            where = error.args[0] if error.args else place.root
            raise NotAllowed(f"ZooKeeper keeps {where} for other credentials", fix) from None
        except zk.AuthFailedError:
            raise NotAllowed("ZooKeeper refused the credentials") from None
        except LOST as error:
            raise unavailable(f"ZooKeeper at {place.servers} does not answer ({type(error).__name__})") from None
        except zk.KazooException as error:
            raise StoreError(f"ZooKeeper at {place.servers}: {type(error).__name__} {error}") from None
        except msgspec.DecodeError as error:
            raise StoreError(f"{place.root} in ZooKeeper holds what rainband did not write: {error}") from None

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        # kazoo waits for its connection, which may be waiting for a server that is not there.
        ending = threading.Thread(target=self._end, name="zookeeper-end", daemon=True)
        ending.start()
        ending.join(CLOSE_S)

    def _end(self) -> None:
        with contextlib.suppress(Exception):
            self._client.stop()
            self._client.close()


class Batch:
    """One transaction: all of it or nothing."""

    def __init__(self, keeper: Keeper, transaction: Any, acl: Sequence[object]) -> None:
        self._keeper = keeper
        self._transaction = transaction
        self._acl = acl

    def create(self, *parts: str, data: bytes) -> None:
        self._transaction.create(self._keeper.path(*parts), data, acl=self._acl)

    def set(self, *parts: str, data: bytes, version: int = -1) -> None:
        """Only at `version`, unless that is -1."""
        self._transaction.set_data(self._keeper.path(*parts), data, version=version)

    def delete(self, *parts: str) -> None:
        self._transaction.delete(self._keeper.path(*parts))

    def check(self, *parts: str, version: int = -1) -> None:
        """Only if this node is there, at `version` unless that is -1."""
        self._transaction.check(self._keeper.path(*parts), version)

    def commit(self, until: float) -> Exception | None:
        """None when it was taken; else the reason, and nothing changed. Raises one of LOST when that is not known."""
        self._keeper.up(until)
        results = self._keeper.wait(self._transaction.commit_async(), until)
        reasons = [result for result in results if isinstance(result, Exception)]
        for operation, result in zip(self._transaction.operations, results, strict=False):
            if isinstance(result, Exception):
                result.args = (operation.path,)
        real = [reason for reason in reasons if not isinstance(reason, (zk.RolledBackError, zk.RuntimeInconsistency))]
        return next(iter([*real, *reasons]), None)


def unavailable(reason: str) -> ClusterUnavailable:
    """The error of a store that does not answer."""
    return ClusterUnavailable(
        f"state store unavailable: {reason}", "What runs goes on; look with `rainband list` once ZooKeeper answers"
    )
