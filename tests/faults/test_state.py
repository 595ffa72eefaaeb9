"""What daemons remember: kills in the middle of a write, full and failing disks, damaged blobs, foreign state."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kit.chaos import PROJECT, SHORT, Arena, Case, imported, now, wait, write_source
from kit.chaos_host import failing_calls, fill, needs_root, needs_strace, small_disk
from rainband.errors import ClusterUnavailable, RainbandError, StoreError
from rainband.nimbus.client import Client
from rainband.topology.bundle import pack
from rainband.topology.graph import Topology

pytestmark = pytest.mark.faults
CLUSTER = {"slots": 6, "settings": SHORT}

MENDED_S = 10.0
SPACE_S = 10.0
NIMBUS_BACK_S = 3.0
SLOW_SYNC_S = 5


@contextlib.contextmanager
def made(arena: Arena, name: str, ballast: int = 0) -> Iterator[tuple[Topology, Path]]:
    """A small topology and its project; `ballast` bytes make its bundle larger."""
    directory = arena.directory / f"case-{name}"
    directory.mkdir(exist_ok=True)
    write_source(directory / "source-0", 1000)
    project = arena.directory / f"project-{name}"
    shutil.copytree(PROJECT, project, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    (project / "ballast.txt").write_bytes(random.Random(name).randbytes(ballast))
    with imported(project) as module:
        yield module.chain(name, str(directory), 500.0, {"topology.workers": 1}), project


def submit(arena: Arena, name: str, ballast: int = 0, client: Client | None = None) -> None:
    """Submit such a topology."""
    with made(arena, name, ballast) as (topology, project):
        (client or arena.client).submit(topology, project=project)


def names(arena: Arena) -> set[str]:
    return {topology.name for topology in arena.client.topologies()}


def test_f15_second_nimbus_on_the_same_state(case: Case) -> None:
    cluster = case.arena
    case.fault()
    first = cluster.pid("nimbus")
    cluster.extra["nimbus-2"] = {"state.dir": str(cluster.state("nimbus")), "nimbus.port": 0}
    log = cluster.directory / "nimbus-2.log"
    from rainband.supervisor import processes

    argv = processes.python_command("rainband", "nimbus", "--port", "0", "--state", str(cluster.state("nimbus")))
    second = processes.start(argv, cwd=cluster.directory, log=log, env=processes.environment())
    try:
        wait(lambda: not second.alive(), 10.0, "the second Nimbus runs")
        assert second.reap().code == 3
    finally:
        second.kill()
        second.close()
    said = log.read_text()
    assert "state.db is locked by pid" in said
    assert str(first) in said
    assert cluster.alive_supervisors() == 1
    case.wait_flowing()
    case.mended()
    assert case.judge()["again"] == 0


def test_f19_state_of_another_cluster(case: Case) -> None:
    cluster = case.arena
    before = {w.pid for w in case.workers()}
    case.fault()
    cluster.kill("nimbus")
    state = cluster.state("nimbus")
    kept = state.with_name("kept")
    state.rename(kept)
    cluster.start("nimbus")
    wait(lambda: cluster.logged("supervisor-1", "cluster id mismatch"), 10.0, lambda: cluster.log("supervisor-1"))
    case.wait_flowing()
    assert set(cluster.workers().values()) >= before
    cluster.kill("nimbus")
    shutil.rmtree(state)
    kept.rename(state)
    cluster.start("nimbus")
    wait(lambda: {w.pid for w in case.workers()} == before, 15.0, case.explain)
    case.mended()
    assert case.judge()["again"] == 0


def test_f28_state_directory_that_cannot_be_one(tmp_path: Path) -> None:
    from rainband.supervisor import processes

    (tmp_path / "file").write_text("in the way")
    for own in (["nimbus", "--port", "0"], ["supervisor", "--slots", "1"]):
        log = tmp_path / f"{own[0]}.log"
        argv = processes.python_command("rainband", *own, "--state", str(tmp_path / "file" / "state"))
        child = processes.start(argv, cwd=tmp_path, log=log, env=processes.environment())
        try:
            wait(lambda child=child: not child.alive(), 10.0, lambda log=log: log.read_text())  # type: ignore[misc]
            assert child.reap().code in (2, 3)
        finally:
            child.kill()
            child.close()
        last = log.read_text().strip().splitlines()[-1]
        assert last.startswith("error: ")
        assert str(tmp_path / "file") in last
        assert "Traceback" not in log.read_text()


@needs_root
def test_f28_read_only_state_directory(tmp_path: Path) -> None:
    from kit.chaos_host import run
    from rainband.supervisor import processes

    with small_disk(tmp_path / "disk", 1024) as disk:
        run("mount", "-o", "remount,ro", str(disk))
        for own in (["nimbus", "--port", "0"], ["supervisor", "--slots", "1"]):
            log = tmp_path / f"{own[0]}.log"
            argv = processes.python_command("rainband", *own, "--state", str(disk))
            child = processes.start(argv, cwd=tmp_path, log=log, env=processes.environment())
            try:
                wait(lambda child=child: not child.alive(), 10.0, lambda log=log: log.read_text())  # type: ignore[misc]
                assert child.reap().code in (2, 3)
            finally:
                child.kill()
                child.close()
            last = log.read_text().strip().splitlines()[-1]
            assert last.startswith("error: ")
            assert "read-only" in last.lower()
            assert str(disk) in last


def flipped(whole: bytes) -> bytes:
    return whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {"flipped": flipped, "cut-short": lambda whole: whole[:-100]}


@pytest.mark.parametrize("name", DAMAGES)
def test_f29_damaged_blob_is_never_imported(case: Case, name: str) -> None:
    cluster = case.arena
    before = {w.pid for w in case.workers()}
    case.fault()
    cluster.kill("supervisor-1")
    submit(cluster, name, 2000)
    blobs = [path for path in (cluster.state("nimbus") / "nimbus" / "blobs").iterdir() if path.is_file()]
    bundle = cluster.client.topology(name).summary().plan
    [blob] = [path for path in blobs if path.name.encode() in bundle]
    whole = blob.read_bytes()
    blob.write_bytes(DAMAGES[name](whole))
    cluster.kill("nimbus")  # a Nimbus that wrote the blob trusts it; the next one looks
    cluster.start("nimbus")
    cluster.start("supervisor-1")
    cluster.wait_supervisors(1)
    wait(lambda: cluster.logged("supervisor-1", "corrupt", blob.name), 10.0, lambda: cluster.log("supervisor-1"))
    running = cluster.client.topology(name)
    wait(lambda: any(f"blob {blob.name}" in w.note for w in running.statistics().workers), 10.0, lambda: str(running))
    [told] = running.statistics().workers
    assert (told.state, running.statistics().workers_running) == ("CRASHED", 0)
    assert set(cluster.workers().values()) == before
    assert not [home for home in cluster.homes("supervisor-1") if home.name.startswith(name)]
    blob.write_bytes(whole)
    at = now()
    running.wait_running(15)
    print(f"blob mended: its topology runs after {now() - at:.1f} s; Nimbus was told: {told.note}")
    assert now() - at <= MENDED_S
    running.kill(wait_s=0)
    case.mended()
    assert case.judge()["again"] == 0


@needs_root
def test_f26_disk_of_nimbus_is_full(tmp_path: Path) -> None:
    directory = tmp_path / "arena"
    (directory / "nimbus").mkdir(parents=True)
    with small_disk(directory / "nimbus", 8 << 10) as disk, Arena(directory, settings=SHORT) as arena:
        case = arena.case("f26-running")
        case.wait_flowing()
        case.fault()
        filler = fill(disk)
        with pytest.raises(StoreError, match=r"needs \d+ bytes in .* free") as refused:
            submit(arena, "f26-refused", 200_000)
        print("disk full:", refused.value)
        assert names(arena) == {"f26-running"}
        case.wait_flowing()
        filler.unlink()
        at = case.mended()
        submit(arena, "f26-accepted", 200_000)
        arena.client.topology("f26-accepted").wait_running(20)
        print(f"accepted and running {now() - at:.1f} s after there was space")
        assert now() - at <= SPACE_S
        arena.client.topology("f26-accepted").kill(wait_s=0)
        assert case.judge()["again"] == 0
        assert case.statistics().restarts == 0
        arena.end_cleanly()


@needs_root
def test_f26_disk_of_a_supervisor_is_full(tmp_path: Path) -> None:
    directory = tmp_path / "arena"
    (directory / "supervisor-1").mkdir(parents=True)
    with small_disk(directory / "supervisor-1", 8 << 10) as disk, Arena(directory, settings=SHORT) as arena:
        case = arena.case("f26-running")
        case.wait_flowing()
        before = {w.pid for w in case.workers()}
        case.fault()
        filler = fill(disk)
        submit(arena, "f26-waiting", 200_000)
        wait(lambda: arena.logged("supervisor-1", "No space left"), 15.0, lambda: arena.log("supervisor-1"))
        case.order("keyed", "shout", 200)
        case.wait_flowing()
        wait(lambda: case.statistics().counters.get("log_bytes_dropped", 0) > 0, 10.0, case.explain)
        filler.unlink()
        at = case.mended()
        arena.client.topology("f26-waiting").wait_running(30)
        print(f"running {now() - at:.1f} s after there was space")
        assert now() - at <= SPACE_S
        arena.client.topology("f26-waiting").kill(wait_s=0)
        verdict = case.judge()
        assert {w.pid for w in case.workers()} == before
        assert verdict["again"] <= 1, verdict
        arena.end_cleanly()


WRITES = "pwrite64,write,ftruncate,fdatasync,fsync,rename,unlink"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Arena]:
    with Arena(tmp_path / "arena", slots=3, settings=SHORT) as made:
        yield made
        made.end_cleanly()


def files_of(arena: Arena, digest: str) -> list[Path]:
    """What Nimbus may write to for a topology with this bundle. Its log and its sockets are none of them."""
    state = arena.state("nimbus") / "nimbus"
    blobs = state / "blobs"
    rows = [state / f"state.db{suffix}" for suffix in ("", "-wal", "-journal")]
    return [state, *rows, blobs, blobs / "incoming", blobs / digest, blobs / "incoming" / digest]


def killed_at_every_write(
    arena: Arena, prepare: Callable[[int], str], act: Callable[[Client, int], object], check: Callable[[int], None]
) -> int:
    """Let `act` run with Nimbus killed at its 1st, 2nd, 3rd … write, until it comes through; `check` after each.

    `prepare` returns the digest of the bundle. All three are told the number.
    """
    slowest_s = 0.0
    for number in range(1, 60):
        files = files_of(arena, prepare(number))
        with failing_calls(arena.pid("nimbus"), WRITES, f"signal=KILL:when={number}", files=files):
            client = Client(arena.address, timeout_s=2.0)
            try:
                act(client, number)
                through = True
            except ClusterUnavailable:
                through = False
            finally:
                client.close()
        if through and arena.children["nimbus"].alive():
            print(f"killed at {number - 1} writes; back after {slowest_s:.1f} s at most")
            return number
        wait(lambda: not arena.children["nimbus"].alive(), 5.0)
        arena.kill("nimbus")
        at = now()
        arena.start("nimbus")
        arena.wait_supervisors(1)
        slowest_s = max(slowest_s, now() - at)
        assert slowest_s <= NIMBUS_BACK_S
        check(number)
    raise AssertionError("it never came through")


@pytest.mark.slow
@needs_strace
def test_f14_nimbus_killed_at_each_write_of_submit(small: Arena) -> None:
    """Each time with another bundle, so that each time it is uploaded."""

    def prepare(number: int) -> str:
        with made(small, f"f14-{number}", 100) as (topology, project):
            plan, _ = pack(topology, project)
        return plan.bundle

    def act(client: Client, number: int) -> None:
        submit(small, f"f14-{number}", 100, client)

    def check(number: int) -> None:
        assert names(small) <= {f"f14-{number}"}
        if names(small):
            small.client.topology(f"f14-{number}").wait_running(20)
            small.client.topology(f"f14-{number}").kill(wait_s=0)

    tried = killed_at_every_write(small, prepare, act, check)
    assert tried > 5
    small.client.topology(f"f14-{tried}").wait_running(20)
    small.client.topology(f"f14-{tried}").kill(wait_s=0)


@pytest.mark.slow
@needs_strace
@pytest.mark.parametrize("command", ["kill", "rebalance"])
def test_f14_nimbus_killed_at_each_write_of_a_command(small: Arena, command: str) -> None:
    """A rebalance goes back and forth between one worker and two: it has as many as before, or as it was told."""
    before: list[int] = []

    def prepare(number: int) -> str:
        if "f14" not in names(small):
            submit(small, "f14")
        s = small.client.topology("f14").wait_running(20)
        before.append(s.workers_wanted)
        return ""

    def act(client: Client, number: int) -> None:
        running = client.topology("f14")
        if command == "kill":
            running.kill(wait_s=0)
        else:
            running.rebalance(workers=3 - before[-1], wait_s=0, timeout_s=5.0)

    def check(number: int) -> None:
        wait(lambda: gone_or_runs(small, "f14"), 20.0, lambda: small.log("nimbus"))
        if command == "rebalance":
            s = small.client.topology("f14").statistics()
            assert s.workers_wanted in (before[-1], 3 - before[-1])
            wait(lambda: len(small.workers()) == s.workers_wanted, 10.0, lambda: str(small.workers()))

    tried = killed_at_every_write(small, prepare, act, check)
    assert tried > 2
    if command == "rebalance":
        assert small.client.topology("f14").statistics().workers_wanted == 3 - before[-1]
        small.client.topology("f14").kill(wait_s=0)
    else:
        assert names(small) == set()


def gone_or_runs(arena: Arena, name: str) -> bool:
    """A kill that was decided goes on to its end; otherwise all workers run."""
    try:
        s = arena.client.topology(name).statistics()
    except RainbandError:
        return name not in names(arena)
    return s.status == "ACTIVE" and s.workers_running == s.workers_wanted


@pytest.mark.slow
@needs_strace
def test_f27_disk_of_nimbus_fails_or_is_slow(small: Arena) -> None:
    case = small.case("f27-running", workers=2)
    case.wait_flowing()
    case.fault()
    with failing_calls(small.pid("nimbus"), "fsync,fdatasync", "error=EIO"):
        with pytest.raises(RainbandError) as refused:
            submit(small, "f27-refused", 5000)
        print("failing disk:", refused.value)
        assert "Input/output error" in str(refused.value) or "disk I/O error" in str(refused.value)
        case.wait_flowing()
    assert names(small) == {"f27-running"}
    with failing_calls(small.pid("nimbus"), "fsync,fdatasync", f"delay_exit={SLOW_SYNC_S * 10**6}"):
        at = now()
        submit(small, "f27-late", 5000)  # no answer within its patience: it asks again, and is accepted once
        assert now() - at >= SLOW_SYNC_S
        print(f"slow disk: submitted after {now() - at:.1f} s, by asking again")
        at = now()
        with Client(small.address, timeout_s=10 * SLOW_SYNC_S) as patient:
            submit(small, "f27-slow", 6000, patient)
        print(f"slow disk: submitted after {now() - at:.1f} s")
        assert now() - at >= SLOW_SYNC_S
        case.wait_flowing()
    wait(lambda: small.alive_supervisors() == 1, 20.0)
    case.mended()
    assert names(small) == {"f27-running", "f27-late", "f27-slow"}
    for name in ("f27-late", "f27-slow"):
        small.client.topology(name).wait_running(30)
        small.client.topology(name).kill(wait_s=0)
    assert case.judge()["again"] == 0
    assert case.statistics().restarts == 0
    memory = json.loads((small.state("supervisor-1") / "supervisor.json").read_bytes())
    assert memory["supervisor"]
