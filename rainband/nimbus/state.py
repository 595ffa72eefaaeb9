"""Where this Nimbus keeps the truth, as its settings say: the store, the bundles, and the election if there is one."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rainband.cluster.blobs import Blobs, DirectoryBlobs, MemoryBlobs
from rainband.cluster.depot import Depot
from rainband.cluster.election import Alone, Election
from rainband.cluster.memory import MemoryStore
from rainband.cluster.sqlite import SqliteStore, make_private
from rainband.cluster.store import Store
from rainband.config import Config, expanded
from rainband.errors import NotAllowed, UsageError
from rainband.messaging.keys import cluster_keys

if TYPE_CHECKING:
    from rainband.cluster.keeper import Tls

AUTH_FILE = "zookeeper.auth"
AUTH_BYTES_MAX = 1024
USER = "rainband"
EVERYWHERE = ("0.0.0.0", "::", "[::]", "*")


class NotMadeYet(NotAllowed):
    """The credentials of this user for ZooKeeper, which the first Nimbus makes."""


@dataclass(frozen=True, slots=True)
class Opened:
    """`shared`: other Nimbuses may stand for election on the same store. `depot`: where all of them keep bundles."""

    store: Store
    blobs: Blobs
    election: Election
    shared: bool = False
    depot: Depot | None = None


def open_state(config: Config) -> Opened:
    """As `nimbus.state` and `state.dir` say; what is on this machine lies in the directory `nimbus` there.

    Raises Refused, UsageError or NotAllowed. A ZooKeeper that does not answer is no error: it may come yet.
    """
    kind: str = config["nimbus.state"]
    url: str | None = config["nimbus.bundles.url"]
    if url is not None and kind in ("memory", "sqlite"):
        raise UsageError("nimbus.bundles.url is for Nimbuses that share their state", "Set nimbus.state to a ZooKeeper")
    if kind == "memory":
        return Opened(MemoryStore(), MemoryBlobs(), Alone())
    directory = expanded(config["state.dir"]) / "nimbus"
    if kind == "sqlite":
        store = SqliteStore(directory)
        try:
            return Opened(store, DirectoryBlobs(directory / "blobs"), Alone())
        except BaseException:
            store.close()
            raise
    from rainband.cluster.zookeeper import ZooKeeperStore

    if config["nimbus.host"] in EVERYWHERE:
        fix = "Set nimbus.host to the address under which the others reach this machine"
        raise UsageError(f"several Nimbuses cannot find each other at {config['nimbus.host']}", fix)
    depot = Depot(url) if url is not None else None
    make_private(directory)
    blobs = DirectoryBlobs(directory / "blobs")
    session_s: float = config["nimbus.zookeeper.session.secs"]
    known = directory / "cluster.id"
    shared = ZooKeeperStore(kind, credentials(config), session_s=session_s, identity_file=known, tls=tls(config))
    return Opened(shared, blobs, shared, shared=True, depot=depot)


def tls(config: Config) -> Tls | None:
    """How to speak TLS to ZooKeeper; None: not at all. Raises UsageError or NotAllowed naming the file."""
    from rainband.cluster.keeper import Tls

    names = [f"nimbus.zookeeper.{what}.file" for what in ("ca", "cert", "key")]
    ca, cert, key = (str(expanded(config[name])) if config[name] is not None else "" for name in names)
    if (cert or key) and not (ca and cert and key):
        raise UsageError(f"TLS to ZooKeeper needs {names[0]}, and {names[1]} together with {names[2]}")
    for name, path in zip(names, (ca, cert, key), strict=True):
        if path and not os.access(path, os.R_OK):
            raise UsageError(f"cannot read {path}", f"{name} must name a file in PEM")
    if key and os.stat(key).st_mode & 0o077:
        raise NotAllowed(f"the key {key} is open to other users", f"Run: chmod 600 {key}")
    return Tls(ca, cert, key) if ca else None


def credentials(config: Config, *, make: bool = True) -> str:
    """`user:password` for ZooKeeper: from its file, else made of the cluster's key, else from a file of this user.

    Only the last is made when it is not there, with `make`; else NotMadeYet is raised. It serves Nimbuses of one user
    on one machine.
    """
    named: str | None = config["nimbus.zookeeper.auth.file"]
    if named is not None:
        return read_credentials(expanded(named))
    keys = cluster_keys(config["keys.dir"])
    if keys is not None:
        return f"{USER}:{hmac.new(keys.secret, b'rainband zookeeper', hashlib.sha256).hexdigest()}"
    path = expanded("~/.rainband") / AUTH_FILE
    if not path.exists():
        if not make:
            fix = "The first Nimbus of this user makes them; those elsewhere need the same, as a file or by keys.dir"
            raise NotMadeYet("there are no credentials for ZooKeeper yet", fix)
        make_private(path.parent)
        write_credentials(path, f"{USER}:{secrets.token_hex(32)}")
    return read_credentials(path)


def read_credentials(path: Path) -> str:
    """Raises NotAllowed when the file is not there, not ours, open to others, or holds something else."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW)) as file:
            found = os.fstat(file.fileno())
            text = file.read(AUTH_BYTES_MAX).decode(errors="replace").strip()
    except OSError as error:
        fix = "Write user:password into a file of mode 0600"
        raise NotAllowed(f"cannot read the credentials for ZooKeeper in {path}: {error.strerror}", fix) from None
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise NotAllowed(f"the credentials in {path} are open to other users", f"Run: chmod 600 {path}")
    user, _, password = text.partition(":")
    if not user or not password or "\n" in text:
        raise NotAllowed(f"{path} does not hold credentials for ZooKeeper", "Write one line, user:password")
    return text


def write_credentials(path: Path, text: str) -> None:
    """A new file of mode 0600; one that another process has just made stays."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
    with open(descriptor, "w", closefd=True) as file:
        file.write(text + "\n")
