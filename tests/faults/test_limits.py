"""Clocks that jump, memory, descriptors and ports that run out, logs that overflow, bolts that are slow."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import socket
from pathlib import Path

import psutil
import pytest

from kit.chaos import SHORT, Arena, Case, alive, now, wait, write_whole
from kit.chaos_host import crowded, needs_root

pytestmark = pytest.mark.faults
CLUSTER = {"slots": 6, "settings": SHORT}

HOUR_S = 3600.0
NEXT_SLOT_S = 5.0
RECOVERED_S = 5.0
HOARD_S = 3.0
OVERLOAD_S = 6.0
GROWN_MAX = 60 << 20
SUSPENDED_S = 8.0
SHIFTED_CLOCK = '''
import time

real, shown = time.time, "{path}"


def shifted():
    try:
        with open(shown) as file:
            return real() + float(file.read() or 0)
    except (OSError, ValueError):
        return real()


time.time = shifted
'''


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the seconds by which every process started from now on is mistaken about the time of day."""
    offset = tmp_path / "offset"
    offset.write_text("0")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SHIFTED_CLOCK.format(path=offset))
    known = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path / "site"), known])))
    return offset


def test_f32_wall_clock_jumps(tmp_path: Path, clock: Path) -> None:
    with Arena(tmp_path / "arena", settings=SHORT) as arena:
        case = arena.case("f32", config={"topology.message.timeout.secs": 4})
        case.wait_flowing()
        before = {w.pid for w in case.workers()}
        case.fault()
        for offset in (HOUR_S, -HOUR_S, HOUR_S, 0.0):
            write_whole(clock, str(offset))
            case.wait_flowing(400)
        for turn in range(40):
            write_whole(clock, str(HOUR_S * (-1) ** turn))
            case.wait_flowing(10)
        case.mended()
        verdict = case.judge()
        s = case.statistics()
        assert (verdict["again"], s.failed, s.timed_out, s.restarts) == (0, 0, 0, 0), verdict
        assert {w.pid for w in case.workers()} == before
        assert verdict["standstill_s"] <= 20.0
        arena.end_cleanly()


def test_f32_everything_is_suspended_and_goes_on(case: Case) -> None:
    """As a laptop that sleeps: past every lease and timeout, for all processes alike. Nobody draws conclusions."""
    cluster = case.arena
    before = {w.pid for w in case.workers()}
    case.fault()
    everybody = [*before, *(child.pid for child in cluster.children.values())]
    for pid in everybody:
        cluster.stop(pid)
    until = now() + SUSPENDED_S
    wait(lambda: now() >= until, SUSPENDED_S + 5)
    for pid in everybody:
        cluster.go_on(pid)
    case.wait_flowing(400)
    case.mended()
    verdict = case.judge()
    s = case.statistics()
    assert (verdict["again"], s.failed, s.timed_out, s.restarts) == (0, 0, 0, 0), verdict
    assert {w.pid for w in case.workers()} == before


def limit(pid: int, what: int, value: int) -> None:
    resource.prlimit(pid, what, (value, value))


def test_f33_memory_limit(case: Case) -> None:
    victim = case.worker("keyed", without=("numbers",))
    before = {w.pid for w in case.workers()}
    limit(victim.pid, resource.RLIMIT_AS, psutil.Process(victim.pid).memory_info().vms + (96 << 20))
    case.fault()
    orders = 0

    def hit() -> bool:
        """Either task of the component may take the order."""
        nonlocal orders
        orders += 1
        case.order("keyed", "eat", 512)
        dead = not alive(victim.pid)
        return dead or any("MemoryError" in error.error for error in case.running.errors("keyed"))

    wait(hit, 30.0, case.explain)
    case.mended()
    case.wait_flowing()
    verdict = case.judge()
    assert {w.pid for w in case.workers()} >= before - {victim.pid}
    assert verdict["again"] <= 2 * orders or not alive(victim.pid), verdict


@pytest.mark.slow
@pytest.mark.attacked(shape="chain", workers=3, rate=5000.0, work_s=0.002)
def test_f33_ten_times_too_much(case: Case) -> None:
    """The spout could send ten times what the bolt takes: it waits, and what is queued does not grow."""
    before = {w.pid: w.rss_bytes for w in case.workers()}
    case.fault()
    until = now() + OVERLOAD_S
    queued: list[int] = []
    grown = 0
    while now() < until:
        s = case.statistics()
        queued.append(sum(component.queued for component in s.components.values()))
        grown = max([grown, *(w.rss_bytes - before[w.pid] for w in s.workers if w.pid in before)])
        let_pass(0.25)
    print(f"queued at most {max(queued)}, in the end {queued[-1]}, {s.pending} pending, grown {grown >> 20} MiB")
    assert {w.pid for w in case.workers()} == set(before)
    assert grown <= GROWN_MAX
    assert max(queued[len(queued) // 2 :]) <= 2 * max(queued[: len(queued) // 2]) + 1000
    case.mended()
    verdict = case.judge()
    s = case.statistics()
    assert (verdict["again"], s.failed, s.timed_out, s.restarts) == (0, 0, 0, 0), verdict


def let_pass(seconds: float) -> None:
    until = now() + seconds
    wait(lambda: now() >= until, seconds + 5)


def test_f34_descriptors_run_out(case: Case) -> None:
    victim = case.worker("keyed", without=("numbers",))
    other = case.worker("numbers")
    limit(victim.pid, resource.RLIMIT_NOFILE, psutil.Process(victim.pid).num_fds() + 6)
    case.fault(spout=True)
    case.order("keyed", "files", 1.5)
    at = case.kill_worker(other)  # all links have to be made anew while there is no descriptor left
    case.wait_replaced(other)
    case.wait_flowing()
    case.faults[0]["until"] = case.mended()
    print(f"flowing {now() - at:.1f} s after, of which 1.5 s without descriptors")
    assert now() - at <= 1.5 + RECOVERED_S
    assert alive(victim.pid)
    case.judge()


def test_f34_new_peers_while_no_descriptor_is_left(case: Case) -> None:
    """A worker goes on while it cannot connect to those that are new, and does so once it can."""
    victim = case.worker("keyed", without=("numbers",))
    limit(victim.pid, resource.RLIMIT_NOFILE, psutil.Process(victim.pid).num_fds() + 6)
    case.fault(spout=True)
    case.order("keyed", "hoard", HOARD_S)
    at = now()
    case.running.rebalance(workers=5, wait_s=0.2)
    case.wait_flowing()
    assert now() - at <= HOARD_S + 2 * RECOVERED_S
    print(f"flowing {case.mended() - at:.1f} s after the rebalance, of which {HOARD_S:g} s without descriptors")
    assert alive(victim.pid)
    case.judge()
    assert case.statistics().restarts == 0


@needs_root
def test_f34_no_process_can_be_started(case: Case) -> None:
    """Its supervisor says why, tries again, and succeeds once there is room; the other workers live."""
    cluster = case.arena
    victim = case.worker("relay", without=("numbers",))
    others = {w.pid for w in case.workers()} - {victim.pid}
    with crowded(f"rainband-{os.getpid()}", cluster.pid("supervisor-1")):
        case.kill_worker(victim)
        wait(lambda: cluster.logged("supervisor-1", "could not be started", "temporarily unavailable"), 10.0,
             lambda: cluster.log("supervisor-1"))  # fmt: skip
        wait(lambda: any("temporarily unavailable" in w.note for w in case.statistics().workers), 5.0, case.explain)
        assert cluster.alive_supervisors() == 1
    at = now()
    case.wait_replaced(victim)
    back_s = case.mended() - at
    case.wait_flowing()
    case.judge()
    print(f"started {back_s:.1f} s after there was room")
    assert back_s <= 2 * RECOVERED_S  # it had begun to try less often
    assert {w.pid for w in case.workers()} > others


def test_f35_foreign_process_takes_the_port(case: Case) -> None:
    cluster = case.arena
    victim = case.worker("relay", without=("numbers",))
    cluster.stop(cluster.pid("supervisor-1"))
    case.kill_worker(victim)
    with contextlib.closing(socket.socket()) as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wait(lambda: bound(thief, victim.port), 5.0)
        thief.listen(1)
        at = case.fault()  # what waits for the successor is lost a second time when that comes elsewhere
        cluster.go_on(cluster.pid("supervisor-1"))
        wait(lambda: victim.port not in {slot.port for slot in case.assignment().slots()}, 8.0, case.explain)
        wait(lambda: (s := case.statistics()).workers_running == s.workers_wanted, 10.0, case.explain)
        back_s = case.mended() - at
        case.faults[0]["until"] = at + back_s
        case.wait_flowing()
        blocked = cluster.logged("supervisor-1", f"port {victim.port} is blocked by pid {os.getpid()}")
        assert len(blocked) == 1
    wait(lambda: cluster.logged("supervisor-1", f"port {victim.port} is free again"), 8.0)
    print(f"next slot used after {back_s:.1f} s")
    assert back_s <= NEXT_SLOT_S
    case.judge()


def test_f35_workers_of_a_supervisor_that_forgot_itself(case: Case) -> None:
    """Its successor has another name and other ports: it ends what it finds in its directory, by pid and start time."""
    cluster = case.arena
    old = {w.pid for w in case.workers()}
    at = case.fault(spout=True)
    cluster.kill("supervisor-1")
    (cluster.state("supervisor-1") / "supervisor.json").unlink()
    cluster.start("supervisor-1")
    wait(lambda: not any(alive(pid) for pid in old), 10.0, case.explain)
    assert len(cluster.logged("supervisor-1", "killing worker", "no slot of ours")) == len(old)
    wait(lambda: len(case.workers()) == case.statistics().workers_wanted, 30.0, case.explain)
    back_s = case.mended() - at
    case.wait_flowing()
    print(f"all run in slots of its own after {back_s:.1f} s")
    case.judge()


def bound(thief: socket.socket, port: int) -> bool:
    try:
        thief.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


def test_f25_strangers_on_the_data_port(case: Case) -> None:
    before = {w.pid for w in case.workers()}
    ports = [w.port for w in case.workers()]
    case.fault()
    for number in range(1500):
        with socket.socket() as stranger:
            # Closing sends RST instead of FIN.
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            stranger.connect(("127.0.0.1", ports[number % len(ports)]))
            if number % 3:
                with contextlib.suppress(OSError):
                    stranger.send(os.urandom(64) if number % 3 == 1 else b"GET / HTTP/1.0\r\n\r\n")
    case.wait_flowing()
    case.mended()
    verdict = case.judge()
    assert verdict["again"] == 0, verdict
    assert verdict["standstill_s"] <= 20.0
    assert {w.pid for w in case.workers()} == before


@pytest.mark.attacked(config={"topology.message.timeout.secs": 3})
def test_f38_slow_bolt(case: Case) -> None:
    case.fault()
    case.order("pairs", "sleep", 1.5)
    case.wait_flowing()
    case.mended()
    s = case.statistics()
    assert (s.timed_out, s.failed, s.replayed, s.restarts) == (0, 0, 0, 0)
    relayed = [line.split()[0] for line in (case.directory / "relayed").read_bytes().splitlines()]
    assert len(relayed) == len(set(relayed))
    case.fault()
    case.order("pairs", "sleep", 6)
    queued: list[int] = []

    def timed_out() -> bool:
        s = case.statistics()
        queued.append(sum(component.queued for component in s.components.values()))
        return s.timed_out > 0

    wait(timed_out, 10.0, case.explain)
    before = max(queued)
    until = now() + 2.0
    wait(lambda: timed_out() and now() >= until, 10.0)
    assert max(queued) <= 2 * before + 1000, queued
    case.wait_flowing()
    case.mended()
    verdict = case.judge()
    s = case.statistics()
    print(f"slow bolt: {s.timed_out} timed out, {s.replayed} replayed, {max(queued)} queued at most", verdict)
    assert s.restarts == 0
    assert "component 'pairs', task" in case.arena.worker_logs()
    assert "Set blocking = True" in case.arena.worker_logs()


def test_f55_flood_of_log_lines(case: Case) -> None:
    other = case.arena.case("f55-bystander", shape="chain", workers=1)
    other.wait_flowing()
    other.fault()
    case.fault()
    case.order("keyed", "shout", 150_000)  # 150 MB
    other.wait_flowing()
    case.wait_flowing()
    case.mended()
    other.mended()
    sizes = [path.stat().st_size for path in case.arena.directory.glob("supervisor-*/logs/**/worker-*.log*")]
    assert sum(sizes) <= 100 << 20, sizes
    verdict = other.judge()
    assert verdict["again"] == 0
    assert verdict["standstill_s"] <= 20.0
    other.kill()
    assert case.judge()["again"] == 0
    for path in case.arena.directory.glob("supervisor-*/logs"):
        shutil.rmtree(path, ignore_errors=True)


def test_f17_nimbus_is_away(case: Case) -> None:
    """The store behind Nimbus or Nimbus itself is away: the data plane goes on, also over a death."""
    cluster = case.arena
    cluster.kill("nimbus")
    case.fault()
    case.wait_flowing()
    [victim] = [pid for port, pid in sorted(cluster.workers().items())[-1:]]
    at = case.fault(spout=True)
    os.kill(victim, 9)
    wait(lambda: len(cluster.workers()) == 3 and victim not in cluster.workers().values(), 5.0)
    case.wait_flowing()
    back_s = case.mended() - at
    assert not alive(victim)
    cluster.start("nimbus")
    cluster.wait_supervisors(1)
    print(f"without Nimbus: flowing again {back_s:.1f} s after a death")
    case.judge()
