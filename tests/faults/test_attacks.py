"""People with bad intentions at every socket of real daemons and workers, while a topology works: it does not notice.

Named after the attacks of the catalogue (A1 ... A26); `unharmed` is what must hold of the topology in each.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import random
import secrets
import socket
import sqlite3
import stat
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
import zmq

from kit import leftovers
from kit.chaos import SHORT, Arena, Case, now, wait
from kit.clusters import heartbeat, word_count
from rainband.errors import NotAllowed, RainbandError, Refused
from rainband.messaging import frames
from rainband.messaging.keys import Keys
from rainband.nimbus.client import Client
from rainband.records import Done, Download, GetTopology, HeartbeatReply, Kill, Rebalance, Request, Submit, Upload
from rainband.supervisor import processes
from rainband.topology.home import wire_id
from rainband.topology.secrets import variable

pytestmark = pytest.mark.faults
CLUSTER = {"slots": 6, "settings": SHORT, "extra": {"nimbus": {"nimbus.upload.expiry.secs": 2}}}

DRAW = random.Random(1)
GROWTH_BYTES_MAX = 40 << 20
ANSWER_S = 2.0
STRANGERS = 1000
RATE_S = 1.5
FULL_RATE = 0.7  # of the rate before them: a machine has other things to do, too


@contextlib.contextmanager
def unharmed(case: Case) -> Iterator[None]:
    """Same processes, nothing lost, nothing executed twice, no memory taken."""
    before = {w.pid for w in case.workers()}
    daemons = [child.pid for child in case.arena.children.values()]
    sizes = {pid: psutil.Process(pid).memory_info().rss for pid in [*before, *daemons]}
    case.fault()
    yield
    case.wait_flowing()
    grown = {pid: psutil.Process(pid).memory_info().rss - size for pid, size in sizes.items()}
    case.mended()
    verdict = case.judge()
    assert verdict["again"] == 0, verdict
    assert {w.pid for w in case.workers()} == before
    assert case.statistics().restarts == 0
    assert max(grown.values()) <= GROWTH_BYTES_MAX, grown


@contextlib.contextmanager
def talker(address: str, kind: int = zmq.DEALER) -> Iterator[zmq.Socket[bytes]]:
    """A socket of somebody who knows ZeroMQ."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context.socket(kind) as made:
        made.linger = 0
        made.sndtimeo = 5000
        made.connect(f"tcp://{address}")
        yield made
    context.term()


def data_ports(case: Case) -> list[int]:
    return [w.port for w in case.workers()]


def refused(arena: Arena, request: Request) -> str:
    """Why Nimbus does not do it."""
    with pytest.raises(RainbandError) as caught:
        arena.client._rpc.call(request)
    return str(caught.value)


def hostile_frames(case: Case) -> list[bytes]:
    topology = wire_id(case.assignment().topology_id)
    known = case.workers()
    me = 12345
    made = [DRAW.randbytes(DRAW.randrange(1, 4096)) for _ in range(200)] + [b"", b"rb", b"rb" + bytes(46)]
    good = frames.build(frames.HELLO, topology, me, 0, 0, 0, [frames.hello_body("127.0.0.1:9", True)])
    made += [good[:2] + bytes([version]) + good[3:] for version in (0, 2, 255)]  # versions that are not ours
    made += [good[:-1], good + b"x", good[:20] + bytes([good[20] ^ 1]) + good[21:]]
    for worker in known:
        to = worker.incarnation
        made += [
            frames.build(frames.BATCH, topology, me, to, 1, 0, [frames.record(frames.DATA, 5, False), b"hello"]),
            frames.build(frames.BATCH, topology, me, to, frames.ID_MAX, frames.ID_MAX, []),
            frames.build(frames.RESEND, topology, me, to, 1, 0, []),
            frames.build(frames.RECEIPT, topology, me, to, 0, frames.ID_MAX, []),
            frames.build(frames.PROBE, topology, me, to, frames.ID_MAX, 0, []),
            frames.build(frames.BATCH, topology ^ 1, me, to, 1, 0, [frames.record(frames.ACKS, 3, False), b"abc"]),
            frames.gone(topology, me, f"127.0.0.1:{worker.port}", to ^ 1),
        ]
    return made


def test_a01_hostile_frames_on_the_data_ports(case: Case) -> None:
    with unharmed(case):
        made = hostile_frames(case)
        for port in data_ports(case):
            with talker(f"127.0.0.1:{port}", zmq.PUSH) as rude:
                for frame in made:
                    rude.send(frame)
                rude.send_multipart([b"x"] * 10_000)
                case.wait_flowing(50)
            with talker(f"127.0.0.1:{port}", zmq.PUSH) as rude, contextlib.suppress(zmq.Again):
                rude.send(bytes(64 << 20))
                case.wait_flowing(50)
    counted = case.statistics().counters
    assert counted["frames_malformed"] >= 200
    assert counted["frames_unknown"] > 0
    assert counted["frames_foreign"] > 0


def test_a01_flood_of_requests(case: Case) -> None:
    """Garbage, and questions whose answers nobody reads: others are answered all the time, nobody is declared dead."""
    with unharmed(case), talker(case.arena.address) as rude, Client(case.arena.address, timeout_s=10.0) as honest:
        for number in range(30_000):
            noise = DRAW.randbytes(DRAW.randrange(200))
            with contextlib.suppress(zmq.Again):
                rude.send_multipart([number.to_bytes(8, "little"), noise], zmq.NOBLOCK)
            if number % 3000 == 0:
                at = now()
                assert sum(supervisor.alive for supervisor in honest.cluster().supervisors) == 1
                assert now() - at <= ANSWER_S
        for number in range(2000):
            with contextlib.suppress(zmq.Again):
                rude.send_multipart([number.to_bytes(8, "little"), b"\x81\xa4type\xabget_cluster"], zmq.NOBLOCK)
        at = now()
        honest.topologies()
        assert now() - at <= ANSWER_S


def test_a03_frames_that_were_seen_before_come_back_or_belong_elsewhere(case: Case) -> None:
    """In the name of living peers, to whom they were said: a number that was there already is not taken again."""
    other = case.arena.case("a03-other", shape="chain", workers=1)
    other.wait_flowing()
    ours, theirs = (wire_id(one.assignment().topology_id) for one in (case, other))
    workers, [foreigner] = case.workers(), other.workers()
    before = case.statistics().counters
    sent: Counter[str] = Counter()
    body: list[object] = [frames.record(frames.DATA, 5, False), b"again"]
    with unharmed(case), unharmed(other):
        for worker in workers:
            with talker(f"127.0.0.1:{worker.port}", zmq.PUSH) as rude:
                rude.linger = 2000
                for peer in workers:
                    kind = "frames_refused" if peer is worker else "frames_duplicate"  # reflected, or replayed
                    for seq in range(1, 21):
                        to = worker.incarnation
                        rude.send(frames.build(frames.BATCH, ours, peer.incarnation, to, seq, 0, body))
                        rude.send(frames.build(frames.BATCH, theirs, peer.incarnation, to, seq, 0, body))
                        sent.update([kind, "frames_foreign"])
                rude.send(frames.build(frames.BATCH, theirs, foreigner.incarnation, worker.incarnation, 1, 0, body))
                sent.update(["frames_foreign"])
        case.wait_flowing()

        def more() -> dict[str, int]:
            after = case.statistics().counters
            return {kind: after[kind] - before[kind] for kind in sent}

        wait(lambda: all(more()[kind] >= count for kind, count in sent.items()), 10.0, lambda: f"{sent} {more()}")
        assert sum(error.error.count("again") for error in case.running.errors()) == 0
    other.kill()


class Trap:
    """Leaves a mark where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (str(self.path), "w"))


def test_a05_pickles_are_opened_nowhere(case: Case, tmp_path: Path) -> None:
    mark = tmp_path / "opened"
    trap = pickle.dumps(Trap(mark))
    pickle.loads(pickle.dumps(Trap(tmp_path / "proof"))).close()
    assert (tmp_path / "proof").exists()
    control, token = (case.arena.topologies("supervisor-1") / "control").read_text().split()
    with unharmed(case):
        for address, kind in (
            (case.arena.address, zmq.DEALER), (control.removeprefix("tcp://"), zmq.DEALER),
            *((f"127.0.0.1:{port}", zmq.PUSH) for port in data_ports(case)),
        ):  # fmt: skip
            with talker(address, kind) as rude:
                for parts in ([trap], [bytes(8), trap], [b"\x01" + bytes(7), trap], [token.encode(), trap], [trap] * 3):
                    rude.send_multipart(parts)
                case.wait_flowing(20)
        assert refused(case.arena, Submit("trap", trap))
    assert not mark.exists()


PATHS = [
    f"{start}{step * 6}etc/passwd{end}"
    for step in ("../", "..\\", "..%2f", "..%252f", "%2e%2e/", "..//", "....//", "/")
    for start in ("", "/", "./", "wc/", "\x00")
    for end in ("", "\x00", ".zip", "/.", "\n")
] + ["/proc/self/root", "/dev/zero", "~root", "C:\\x", "", ".", "..", "a" * 5000]


def test_a07_paths_where_names_belong(case: Case) -> None:
    """More than 200 of them, in every field that becomes part of a path."""
    arena = case.arena
    assert len(PATHS) >= 200
    with unharmed(case):
        for path in PATHS:
            for request in (
                Download(path, 0, 10), Upload(path, 0, b"x", True), GetTopology(path), Submit(path, b""),
                heartbeat(path), Kill(path), Download(path, 0, 10, here=True),
            ):  # fmt: skip
                said = refused(arena, request)
                assert "root:" not in said
                assert "Traceback" not in said
        kept = {path.name for path in (arena.state("nimbus") / "nimbus" / "blobs").rglob("*") if path.is_file()}
        assert all(len(name) == 64 for name in kept), kept


def archive(name: str, content: bytes, mode: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        file.writestr(entry, content)
    return buffer.getvalue()


ARCHIVES = {
    "bomb": lambda: archive("code/a", bytes(200 << 20)),
    "slip": lambda: archive("code/../../../evil", b"x"),
    "absolute": lambda: archive("/tmp/rainband-evil", b"x"),
    "symlink": lambda: archive("code/a", b"/etc/passwd", stat.S_IFLNK | 0o777),
    "no zip": lambda: b"PK" + DRAW.randbytes(1000),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_a08_hostile_bundles(cluster: Arena, kind: str) -> None:
    """Accepted as bytes, refused by whoever would open them; a bystander is not touched, and the name can be freed."""
    other = cluster.case(f"a08-bystander-{kind.replace(' ', '-')}", shape="chain", workers=1)
    other.wait_flowing()
    name = f"a08-{kind.replace(' ', '-')}"
    data = ARCHIVES[kind]()
    digest = hashlib.sha256(data).hexdigest()
    rpc = cluster.client._rpc
    with unharmed(other):
        for offset in range(0, len(data), 1 << 20):
            rpc.call(Upload(digest, offset, data[offset : offset + (1 << 20)], offset + (1 << 20) >= len(data)))
        assert isinstance(rpc.call(Submit(name, word_count(name, bundle=digest).encode())), Done)
        wait(lambda: cluster.logged("supervisor-1", "the bundle is refused"), 15.0, lambda: cluster.log("supervisor-1"))
        other.wait_flowing()
        written = [path for path in cluster.directory.rglob("*evil*") if "case-" not in str(path)]
        assert not written
        assert not Path("/tmp/rainband-evil").exists()
        assert [home.name for home in cluster.homes("supervisor-1") if home.name.startswith(name)] == []
        cluster.client.topology(name).kill(wait_s=0)
    other.kill()


def test_a14_crowd_of_idle_connections(case: Case) -> None:
    host, _, port = case.arena.address.rpartition(":")
    with unharmed(case), contextlib.ExitStack() as stack:
        for number in range(400):
            idle = stack.enter_context(socket.create_connection((host, int(port)), 2.0))
            if number % 2:
                idle.send(b"\xff\x00\x00\x00")  # the beginning of a greeting that never goes on
        for data_port in data_ports(case):
            for _ in range(100):
                stack.enter_context(socket.create_connection((host, data_port), 2.0))
        at = now()
        with Client(case.arena.address) as honest:
            honest.topologies()
        assert now() - at <= ANSWER_S
        case.wait_flowing()


def test_a15_requests_that_are_too_large(case: Case) -> None:
    arena = case.arena
    plan = word_count("large")
    count = plan.components["count"]
    huge = {f"c{number}": count for number in range(20_000)}
    crowded = type(plan)("large", {**plan.components, **huge}, {})
    with unharmed(case):
        assert "more than 10000" in refused(arena, Submit("large", crowded.encode()))
        assert "larger than" in refused(arena, Submit("large", bytes(17 << 20)))
        with talker(arena.address) as rude:  # past our own client's check
            rude.send_multipart([b"\x01" + bytes(7), bytes(17 << 20)])
            case.wait_flowing(100)
        for number in range(300):
            assert isinstance(arena.client._rpc.call(heartbeat(f"invented-{number}", ports=())), HeartbeatReply)
        assert arena.alive_supervisors() >= 1
    wait(lambda: arena.alive_supervisors() == 1, 10.0)


def test_a16_uploads_that_never_end(case: Case) -> None:
    """So many are taken and no more; then they expire, and honest ones are taken again."""
    rpc = case.arena.client._rpc
    incoming = case.arena.state("nimbus") / "nimbus" / "blobs" / "incoming"
    with unharmed(case):
        beginnings = [Upload(hashlib.sha256(b"%d" % number).hexdigest(), 0, bytes(1000), False) for number in range(65)]
        for beginning in beginnings[:64]:
            assert isinstance(rpc.call(beginning), Done)
        assert "uploads are under way already" in refused(case.arena, beginnings[64])
        wait(lambda: not list(incoming.iterdir()), 20.0)
        data = b"honest"
        assert isinstance(rpc.call(Upload(hashlib.sha256(data).hexdigest(), 0, data, True)), Done)


def test_a20_no_way_round_the_checks(case: Case) -> None:
    with unharmed(case):
        rpc = case.arena.client._rpc
        assert "'topology.workers' cannot be 1000000" in refused(case.arena, Rebalance(case.name, workers=1_000_000))
        assert "its 2 tasks were fixed" in refused(case.arena, Rebalance(case.name, parallelism={"relay": 3}))
        assert "cannot wait" in refused(case.arena, Rebalance(case.name, wait_s=float("nan")))
        digest = hashlib.sha256(b"x").hexdigest()
        assert "was not uploaded" in refused(case.arena, Submit("a20", word_count("a20", bundle=digest).encode()))
        with pytest.raises(Refused):
            rpc.call(heartbeat("stranger", cluster_id="0" * 32))


def test_a21_stored_topology_that_is_poison(case: Case) -> None:
    """The leader leads, sets it aside, and serves the others."""
    arena = case.arena
    poisoned = arena.case("a21-poisoned", shape="chain", workers=1)
    topology_id = poisoned.assignment().topology_id
    with unharmed_by_restart(case):
        arena.kill("nimbus")
        with contextlib.closing(sqlite3.connect(arena.state("nimbus") / "nimbus" / "state.db")) as state, state:
            kept = state.execute("SELECT value FROM entries WHERE key = ?", (f"plan/{topology_id}",)).fetchone()[0]
            state.execute("UPDATE entries SET value = ? WHERE key = ?", (b"\x80" + kept, f"plan/{topology_id}"))
        arena.start("nimbus")
        arena.wait_supervisors(1)
        assert [topology.name for topology in arena.client.topologies()] == [case.name]
        assert arena.logged("nimbus", "set aside", topology_id)
        case.wait_flowing()
        arena.kill("nimbus")
        with contextlib.closing(sqlite3.connect(arena.state("nimbus") / "nimbus" / "state.db")) as state, state:
            state.execute("UPDATE entries SET value = ? WHERE key = ?", (kept, f"plan/{topology_id}"))
        arena.start("nimbus")
        arena.wait_supervisors(1)
    poisoned.kill()


@contextlib.contextmanager
def unharmed_by_restart(case: Case) -> Iterator[None]:
    before = {w.pid for w in case.workers()}
    case.fault()
    yield
    wait(lambda: {w.pid for w in case.workers()} == before, 15.0, case.explain)
    case.mended()
    assert case.judge()["again"] == 0


def test_a24_nobody_is_exposed_without_keys(tmp_path: Path) -> None:
    for own in (["nimbus", "--port", "0"], ["supervisor", "--slots", "1"]):
        assert "keygen" in ends(tmp_path, *own, "-c", f"{own[0]}.host=0.0.0.0")


def ends(directory: Path, *words: str) -> str:
    """What a daemon says that ends at once because it is not allowed to run like this."""
    log = directory / f"{words[0]}.log"
    argv = processes.python_command("rainband", *words, "--state", str(directory / words[0]))
    child = processes.start(argv, cwd=directory, log=log, env=processes.environment())
    try:
        wait(lambda: not child.alive(), 10.0, log.read_text)
        assert child.reap().code == 5
    finally:
        child.kill()
        child.close()
    return log.read_text()


CANARIES = {"canary.variable": secrets.token_hex(16), "canary-file": secrets.token_hex(16)}


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """Daemons with keys and secrets, started by somebody whose umask keeps nothing private."""
    directory = tmp_path_factory.mktemp("keyed")
    (directory / "keys").mkdir(mode=0o700)
    Keys.generate().save(directory / "keys" / "cluster.key")
    (directory / "secrets").mkdir(mode=0o700)
    file = directory / "secrets" / "canary-file"
    file.touch(mode=0o600)
    file.write_text(CANARIES[file.name])
    extra = {"supervisor-1": {"supervisor.secrets.dir": str(file.parent)}}
    settings = {**SHORT, "keys.dir": str(directory / "keys")}
    before = os.umask(0)
    os.environ[variable("canary.variable")] = CANARIES["canary.variable"]
    try:
        with Arena(directory, slots=4, settings=settings, extra=extra) as made:
            yield made
            made.end_cleanly()
    finally:
        del os.environ[variable("canary.variable")]
        os.umask(before)


def rate_of(case: Case) -> float:
    """Numbers a second that come to the sink."""
    at, sunk = now(), case.count("sunk-keyed")
    wait(lambda: now() >= at + RATE_S, 10.0)
    return (case.count("sunk-keyed") - sunk) / (now() - at)


def test_a02_strangers_at_doors_that_need_a_key(keyed: Arena) -> None:
    case = keyed.case("a02")
    case.wait_flowing()
    theirs, before = Keys.generate(), rate_of(case)
    with unharmed(case), contextlib.ExitStack() as stack:
        context: zmq.Context[zmq.Socket[bytes]] = stack.enter_context(zmq.Context())
        context.set(zmq.MAX_SOCKETS, 2 * STRANGERS)
        doors = [keyed.address, *(f"127.0.0.1:{port}" for port in data_ports(case))]
        for number in range(STRANGERS // 2):
            door = context.socket(zmq.PUSH if number % len(doors) else zmq.DEALER)
            door.linger = 0
            if number % 3 == 1:  # a key, but not ours
                door.curve_publickey, door.curve_secretkey = theirs.public, theirs.secret
                door.curve_serverkey = theirs.public
            elif number % 3 == 2:
                door.plain_username, door.plain_password = b"rainband", b"rainband"
            door.connect(f"tcp://{doors[number % len(doors)]}")
            stack.callback(door.close)
        for number in range(STRANGERS // 2):
            host, _, port = doors[number % len(doors)].rpartition(":")
            stack.enter_context(socket.create_connection((host, int(port)), 2.0))
        assert rate_of(case) >= FULL_RATE * before
        with Client(keyed.address, timeout_s=1.0) as stranger, pytest.raises(NotAllowed):
            stranger.topologies()
        with Client(keyed.address, keys=theirs, timeout_s=1.0) as stranger, pytest.raises(NotAllowed):
            stranger.topologies()
        at = now()
        assert keyed.alive_supervisors() == 1
        assert now() - at <= ANSWER_S
    case.kill()


def test_a22_a23_a26_what_is_secret_stays_so(keyed: Arena) -> None:
    """Only its own file has it, nothing of ours is open to others, workers inherit nothing they need not."""
    case = keyed.case("a22")
    case.wait_flowing()
    key_file = keyed.directory / "keys" / "cluster.key"
    key = Keys.load(key_file).secret
    spellings = [key, key.hex().encode(), *(text.encode() for text in CANARIES.values())]
    own_files = [key_file, keyed.directory / "secrets" / "canary-file"]
    case.fault()
    case.order("relay", "confess", *CANARIES)
    wait(lambda: any("2 secrets of 64 letters" in error.error for error in case.running.errors("relay")), 10.0)
    case.mended()
    told = [case.running.errors(), case.statistics(), case.running.summary(), keyed.client.cluster()]
    told += [case.running.stacks(), keyed.client.topologies()]
    assert not [spelling for spelling in spellings if spelling in repr(told).encode()]
    workers = [w.pid for w in case.workers()]
    for pid in [*workers, *(child.pid for child in keyed.children.values())]:
        assert_hidden(spellings, Path(f"/proc/{pid}/cmdline"))
    assert_hidden(spellings, Path(f"/proc/{keyed.pid('nimbus')}/environ"))
    for pid in [*workers, keyed.pid("supervisor-1")]:
        assert_hidden([*spellings[:2], CANARIES["canary-file"].encode()], Path(f"/proc/{pid}/environ"))
    for pid in workers:
        process = psutil.Process(pid)
        assert set(process.environ()) <= {*processes.environment(), "RAINBAND_SECRETS"}
        own = f"{keyed.topologies('supervisor-1')}"
        assert process.cwd().startswith(own)
        assert not [file.path for file in process.open_files() if "nimbus" in Path(file.path).parts[-2:]]
    assert leftovers.holding(keyed.directory, spellings) == own_files
    assert open_to_others(keyed.directory) == []
    case.judge()
    case.kill()


def open_to_others(top: Path) -> list[str]:
    """What daemons made below `top`, with modes that let others in."""
    wrong = []
    for path in top.rglob("*"):
        inside = any(part.startswith(("nimbus", "supervisor-")) for part in path.relative_to(top).parts)
        if not inside or "case-" in str(path):
            continue
        with contextlib.suppress(FileNotFoundError):  # gone meanwhile
            mode = path.lstat().st_mode
            if mode & 0o077 and not stat.S_ISLNK(mode):
                wrong.append(f"{path} has mode {mode & 0o777:o}")
    return wrong


def assert_hidden(spellings: Sequence[bytes], path: Path) -> None:
    text = path.read_bytes()
    assert not any(spelling in text for spelling in spellings), path


def test_a23_a_key_that_others_may_read_is_none(keyed: Arena, tmp_path: Path) -> None:
    directory = tmp_path / "keys"
    directory.mkdir(mode=0o700)
    Keys.generate().save(directory / "cluster.key")
    (directory / "cluster.key").chmod(0o644)
    assert "chmod 600" in ends(tmp_path, "nimbus", "--port", "0", "-c", f"keys.dir={directory}")
