"""The truth in ZooKeeper, for several Nimbuses.

    <root>/facts            format, cluster id, epoch, number of batches, token of the last one; its version guards all
    <root>/is-<cluster id>  there for as long as this root belongs to that cluster
    <root>/entries/         one node per key, '/' written as ':'
    <root>/large/           pieces of values too large for one node, named by the entry they belong to
    <root>/election/        one ephemeral sequential node per candidate, `<identity>-<number>`

Every batch is one transaction that also sets `facts`, at the version its writer saw last. So whoever was replaced, and
whatever of it still lies in a queue somewhere, fails. An answer that got lost is not guessed at: `facts` is read again,
and its token says whether the batch was taken. When that cannot be learned in time the writer gives up its lead.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from kazoo import exceptions as zk

from rainband.clock import Clock, SystemClock
from rainband.cluster.campaign import Campaign
from rainband.cluster.election import Standing
from rainband.cluster.keeper import LOST, Keeper, Tls, parse, unavailable
from rainband.cluster.store import Change, Put, State, check_changes, stale
from rainband.errors import RainbandError, Refused, StoreError, UsageError

log = logging.getLogger("rainband.zookeeper")

FORMAT = 1
CALL_S = 2.5
LOAD_S = 10.0
PIECE_BYTES = 512 * 1024
INLINE_BYTES = 256 * 1024
BATCH_BYTES_MAX = 900 * 1024
CHANGE_BYTES = 200


class Facts(msgspec.Struct, frozen=True):
    """The guarding node. `token` names the last batch."""

    format: int
    cluster_id: str
    epoch: int = 0
    version: int = 0
    token: str = ""


class Large(msgspec.Struct, frozen=True):
    """Where the pieces of a large value lie; `digest` is its SHA-256."""

    name: str
    pieces: int
    digest: str

    def names(self) -> list[str]:
        return [f"{self.name}-{number:03d}" for number in range(self.pieces)]


@dataclass(frozen=True, slots=True)
class Step:
    """One node of a batch: its new content, None to delete it, and the large value it names."""

    key: str
    content: bytes | None
    large: Large | None = None


@dataclass(frozen=True, slots=True)
class Entries:
    """All entries: their values, why the others cannot be read, and which large value each of them names."""

    values: dict[str, bytes]
    unreadable: dict[str, str]
    known: dict[str, Large | None]


class ZooKeeperStore:
    """A `Store` and an `Election` at `url`, with the digest `credentials` ("user:password").

    Connects in the background: all methods but `standing` wait up to a few seconds and then raise ClusterUnavailable
    "state store unavailable". `identity_file` remembers the cluster id over restarts: a root that was wiped is refused.
    """

    def __init__(
        self,
        url: str,
        credentials: str,
        *,
        session_s: float = 9.0,
        identity_file: Path | None = None,
        clock: Clock | None = None,
        tls: Tls | None = None,
    ) -> None:
        self._tls = tls
        self._identity_file = identity_file
        self._cluster_id = ""
        self._epoch = 0
        self._guard = -1
        self._last = Facts(FORMAT, "")
        self._known: dict[str, Large | None] = {}
        self._lock = threading.RLock()
        self._clock = clock or SystemClock()
        self._keeper, self._campaign = self._connect(url, credentials, session_s)

    def _connect(self, url: str, credentials: str, session_s: float) -> tuple[Keeper, Campaign]:
        keeper = Keeper(parse(url), credentials, session_s, self._clock, self._session_lost, self._tls)
        return keeper, Campaign(keeper, self._prepare)

    @property
    def cluster_id(self) -> str:
        if not self._cluster_id:
            with self._lock, self._keeper.guarded():
                self._facts(self._clock.now() + CALL_S)
        return self._cluster_id

    def lead(self, above: int = 0) -> int:
        with self._lock, self._keeper.guarded():
            until = self._clock.now() + LOAD_S
            while True:
                facts, self._guard, entries = self._load(until)
                self._known = entries.known
                epoch = max(facts.epoch, above) + 1
                new = msgspec.structs.replace(facts, epoch=epoch, token=secrets.token_hex(16))
                if self._commit(new, [], until):
                    self._epoch = new.epoch
                    if not entries.unreadable:  # the pieces of what may be mended stay
                        self._sweep()
                    return new.epoch

    def read_all(self) -> State:
        last = self._last
        with self._keeper.guarded():  # without the lock: a reader on another thread does not hold up the leader
            facts, _, entries = self._load(self._clock.now() + LOAD_S)
        if self._epoch and (facts.epoch, facts.version) < (last.epoch, last.version):
            self._abdicate("ZooKeeper's data are older than what was written, from a copy")
        return State(facts.cluster_id, facts.epoch, facts.version, entries.values, entries.unreadable)

    def write(self, epoch: int, changes: Sequence[Change]) -> None:
        checked = check_changes(changes)
        with self._lock, self._keeper.guarded():
            until = self._clock.now() + CALL_S
            if epoch == 0 or epoch != self._epoch:
                if epoch != 0 and self._epoch == 0:
                    raise unavailable("this Nimbus gave up its lead")
                raise stale(epoch, self._facts(until)[0].epoch)
            steps = self._plan(checked, until)
            version = self._last.version + 1
            new = msgspec.structs.replace(self._last, version=version, token=secrets.token_hex(16))
            try:
                taken = self._commit(new, steps, until)
            except BaseException:
                if self._epoch:  # it was surely not taken
                    self._drop([name for step in steps if step.large is not None for name in step.large.names()])
                raise
            if not taken:
                newest = self._facts(until)[0].epoch
                self._abdicate(f"stale leader: epoch {epoch} does not lead, epoch {newest} does")
                raise stale(epoch, newest)
            self._replace_known(steps)

    def close(self) -> None:
        self._campaign.close()
        self._keeper.close()

    # The election.

    def stand(self, address: str, wake: Callable[[], None]) -> None:
        self._campaign.begin(address, wake)

    def standing(self, now: float) -> Standing:
        return self._campaign.standing(now)

    def resign(self) -> None:
        self._campaign.resign()

    def _session_lost(self) -> None:
        campaign = getattr(self, "_campaign", None)  # kazoo may be faster than our own making
        if campaign is not None:
            campaign.lost()

    def _abdicate(self, reason: str) -> None:
        self._epoch = 0
        self._campaign.resign()
        log.warning("%s; this Nimbus gives up its lead", reason)

    # Whose root it is.

    def _facts(self, until: float) -> tuple[Facts, int]:
        """(the facts, the version of their node), everything written before included. Made on the first start."""
        while True:
            try:
                data, version = self._keeper.get_synced("facts", until=until)
                break
            except zk.NoNodeError:
                self._make(until)
            except LOST:
                self._keeper.pause(until)
        facts = msgspec.json.decode(data, type=Facts)
        if facts.format != FORMAT:
            root = self._keeper.place.root
            raise StoreError(f"{root} in ZooKeeper has format {facts.format}, this rainband writes {FORMAT}")
        self._recognise(facts.cluster_id, until)
        return facts, version

    def _prepare(self, until: float) -> bool:
        """See that the root is ours, and make again what of it is gone and held no topology. Whether something was."""
        facts, version = self._facts(until)
        missing = {f"is-{facts.cluster_id}", "large", "election"} - set(self._keeper.children(until=until))
        if missing:
            batch = self._keeper.batch()
            batch.check("facts", version=version)
            for name in sorted(missing):
                batch.create(name, data=b"")
            reason = batch.commit(until)
            if reason is not None and not isinstance(reason, (zk.NodeExistsError, zk.BadVersionError)):
                raise reason
            log.warning("made again in ZooKeeper: %s", ", ".join(map(self._keeper.path, sorted(missing))))
        return bool(missing)

    def _make(self, until: float) -> None:
        """Begin anew, unless we know that there was something."""
        known = self._cluster_id or self._remembered()
        if known:
            raise self._mismatch(f"this Nimbus belongs to {known}, and {self._keeper.place.root} in ZooKeeper is empty")
        self._keeper.make_root(until)
        cluster_id = secrets.token_hex(16)
        batch = self._keeper.batch()
        batch.create("facts", data=msgspec.json.encode(Facts(FORMAT, cluster_id)))
        for name in (f"is-{cluster_id}", "entries", "large", "election"):
            batch.create(name, data=b"")
        reason = batch.commit(until)
        if isinstance(reason, zk.NodeExistsError) and "facts" not in self._keeper.children(until=until):
            what = f"{self._keeper.place.root} in ZooKeeper is not empty, and {self._keeper.path('facts')} is not there"
            raise StoreError(what, "Restore ZooKeeper's data, or choose a path of its own")
        if reason is not None and not isinstance(reason, zk.NodeExistsError):
            raise reason

    def _recognise(self, cluster_id: str, until: float) -> None:
        if self._cluster_id == cluster_id:
            return
        known = self._cluster_id or self._remembered()
        if known and known != cluster_id:
            root = self._keeper.place.root
            raise self._mismatch(f"this Nimbus belongs to {known}, {root} in ZooKeeper to {cluster_id}")
        self._keeper.check_acl(until)
        if self._identity_file is not None and not known:
            try:
                self._identity_file.write_text(cluster_id)
            except OSError as error:
                raise UsageError(f"cannot write {self._identity_file}: {error.strerror}") from None
        self._cluster_id = cluster_id

    def _remembered(self) -> str:
        if self._identity_file is None:
            return ""
        try:
            return self._identity_file.read_text(errors="replace").strip()
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise UsageError(f"cannot read {self._identity_file}: {error.strerror}") from None

    def _mismatch(self, what: str) -> Refused:
        fix = "Restore ZooKeeper's data"
        if self._identity_file is not None:
            fix += f", or stop all workers and remove {self._identity_file} to begin anew"
        return Refused(f"cluster id mismatch: {what}", fix)

    # Reading.

    def _load(self, until: float) -> tuple[Facts, int, Entries]:
        """Facts, their version, and the entries, at one instant: no batch came in between.

        What a leader writes with is not touched: reading what a later one wrote must not lend its guard to an old one.
        """
        while True:
            facts, guard = self._facts(until)
            try:
                entries = self._read_entries(until)
                again = self._facts(until)[1]
            except zk.NoNodeError:
                continue
            except LOST:
                self._keeper.pause(until)
                continue
            if again == guard:
                return facts, guard, entries

    def _read_entries(self, until: float) -> Entries:
        names = self._names(until)
        asked = [(name.replace(":", "/"), self._keeper.ask("entries", name, until=until)) for name in names]
        found = Entries({}, {}, {})
        for key, result in asked:
            found.known[key] = None
            try:
                content: bytes = self._keeper.wait(result, until)[0]
                large = msgspec.json.decode(content[1:], type=Large) if content[:1] == b"L" else None
                found.known[key] = large
                found.values[key] = content[1:] if large is None else self._read_large(key, large, until)
            except (zk.NoAuthError, msgspec.DecodeError, StoreError) as error:
                found.unreadable[key] = str(error) or "other credentials are needed for it"
        return found

    def _names(self, until: float) -> list[str]:
        """The nodes of all entries."""
        try:
            return sorted(self._keeper.children("entries", until=until))
        except zk.NoNodeError:
            what = f"{self._keeper.path('entries')} in ZooKeeper is gone, and all topologies with it"
            raise StoreError(what, "Restore ZooKeeper's data") from None

    def _read_large(self, key: str, large: Large, until: float) -> bytes:
        asked = [self._keeper.ask("large", name, until=until) for name in large.names()]
        try:
            value = b"".join(self._keeper.wait(result, until)[0] for result in asked)
        except zk.NoNodeError:
            raise StoreError(f"pieces of {key} in ZooKeeper are gone") from None
        if hashlib.sha256(value).hexdigest() != large.digest:
            raise StoreError(f"the pieces of {key} in ZooKeeper are not what was written")
        return value

    # Writing.

    def _plan(self, changes: Sequence[Change], until: float) -> list[Step]:
        """What to do to which node. Large values are written ahead; nobody sees them before the batch names them."""
        steps = [Step(c.key, b"V" + c.value if isinstance(c, Put) else None) for c in changes]
        sizes = [len(step.content or b"") for step in steps]
        total = sum(sizes) + sum(len(step.key) + CHANGE_BYTES for step in steps)
        for size, index in sorted(zip(sizes, range(len(steps)), strict=True), reverse=True):
            content = steps[index].content
            if content is None or size <= CHANGE_BYTES or (size <= INLINE_BYTES and total <= BATCH_BYTES_MAX):
                break
            steps[index] = self._put_large(steps[index].key, content[1:], until)
            total += len(steps[index].content or b"") - size
        if total > BATCH_BYTES_MAX:
            raise StoreError(f"{len(changes)} changes take {total} bytes, more than {BATCH_BYTES_MAX} in ZooKeeper")
        return steps

    def _put_large(self, key: str, value: bytes, until: float) -> Step:
        pieces = [value[at : at + PIECE_BYTES] for at in range(0, len(value), PIECE_BYTES)]
        large = Large(secrets.token_hex(16), len(pieces), hashlib.sha256(value).hexdigest())
        for name, piece in zip(large.names(), pieces, strict=True):
            self._keeper.create("large", name, data=piece, until=until)
        return Step(key, b"L" + msgspec.json.encode(large), large)

    def _commit(self, facts: Facts, steps: Sequence[Step], until: float) -> bool:
        """Write it all under the guard; False when another batch came first. Gives up the lead when that stays open."""
        done: bool | None = None
        while done is None:
            try:
                done = self._try_commit(facts, steps, until)
            except LOST as error:
                done = self._was_committed(facts, until, error)
        if done:
            self._last, self._guard = facts, self._guard + 1
        return done

    def _try_commit(self, facts: Facts, steps: Sequence[Step], until: float) -> bool | None:
        batch = self._keeper.batch()
        batch.check(f"is-{facts.cluster_id}")
        batch.set("facts", data=msgspec.json.encode(facts), version=self._guard)
        for step in steps:
            node = step.key.replace("/", ":")
            if step.content is None:
                if step.key in self._known:
                    batch.delete("entries", node)
            elif step.key in self._known:
                batch.set("entries", node, data=step.content)
            else:
                batch.create("entries", node, data=step.content)
        reason = batch.commit(until)
        if reason is None or isinstance(reason, zk.BadVersionError):
            return reason is None
        if self._look_again(until):
            return None
        raise reason

    def _look_again(self, until: float) -> bool:
        """Whether somebody else's hand was in our root, and what it kept from being taken may be tried again.

        Raises what is wrong when the root is no longer ours. No batch came in between, for the guard was right.
        """
        made = self._prepare(until)
        before = self._known
        self._known = {key: before.get(key) for key in (name.replace(":", "/") for name in self._names(until))}
        if odd := self._known.keys() ^ before.keys():
            log.warning("somebody else made or deleted entries in ZooKeeper: %s", ", ".join(sorted(odd)))
        return made or bool(odd)

    def _was_committed(self, facts: Facts, until: float, lost: Exception) -> bool | None:
        """Whether the batch whose answer got lost was taken; None: it was not, and may be tried again."""
        try:
            found, version = self._facts(until)
        except (*LOST, RainbandError) as error:
            self._abdicate("an answer of the state store got lost")
            raise (error if isinstance(error, RainbandError) else lost) from None
        if found.token == facts.token:
            return True
        if version > self._guard + 1:  # ours may have been the first of those that came
            self._abdicate("an answer of the state store got lost, and others wrote meanwhile")
            raise lost
        return None if version == self._guard else False

    def _replace_known(self, steps: Sequence[Step]) -> None:
        """Remember what is there now, and let go of pieces that nothing names any more."""
        old = [large for step in steps if (large := self._known.pop(step.key, None)) is not None]
        self._known.update({step.key: step.large for step in steps if step.content is not None})
        self._drop([name for large in old for name in large.names()])

    def _drop(self, names: Sequence[str]) -> None:
        """Delete pieces without waiting; what stays behind is swept by the next leader."""
        for name in names:
            self._keeper.delete("large", name)

    def _sweep(self) -> None:
        """Delete pieces that were written ahead of batches that never came."""
        used = {name for large in self._known.values() if large is not None for name in large.names()}
        with contextlib.suppress(*LOST):
            found = self._keeper.children("large", until=self._clock.now() + CALL_S)
            self._drop(sorted(set(found) - used))
