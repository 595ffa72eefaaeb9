"""What links and ledgers may see, on real workers: frames lost, repeated, out of order, late, or of the dead."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq

from kit.chaos import SHORT, Case, wait
from kit.chaos_host import failing_calls, needs_strace
from rainband.messaging import frames
from rainband.topology.home import wire_id

pytestmark = pytest.mark.faults
CLUSTER = {"slots": 8, "settings": SHORT}

EVERY = 40
LEAST = 5
apart = {"shape": "chain", "workers": 4, "rate": 300.0, "config": {"topology.acker.executors": 1}}


def break_connections(case: Case, component: str, tmp_path: Path) -> None:
    """Every so manieth send of the component's worker fails as if the peer had reset the connection.

    What ZeroMQ held is lost with it. Links send again what was not receipted, also what had arrived.
    """
    others = {"numbers", "relay", "sink", "__acker"} - {component}
    victim = case.worker(component, without=tuple(sorted(others)))
    before = {w.pid for w in case.workers()}
    log = tmp_path / "calls"
    case.fault()
    with failing_calls(victim.pid, "sendto,sendmsg", f"error=ECONNRESET:when={EVERY}+{EVERY}", log):
        wait(lambda: log.read_text().count("INJECTED") >= LEAST, 60.0, case.explain)
        case.wait_flowing(100)
    broken = log.read_text().count("INJECTED")
    case.wait_flowing(100)
    case.mended()
    verdict = case.judge()
    s = case.statistics()
    print(f"{case.name}: {broken} connections broken", verdict)
    assert verdict["again"] == 0, verdict
    assert (s.failed, s.timed_out, s.restarts) == (0, 0, 0)
    assert {w.pid for w in case.workers()} == before


@needs_strace
@pytest.mark.attacked(**apart)
def test_f40_inits_that_are_sent_again(case: Case, tmp_path: Path) -> None:
    """The spout's worker tells the acker of roots; a repeated init that counted would be a false ack."""
    break_connections(case, "numbers", tmp_path)


@needs_strace
@pytest.mark.attacked(**apart)
def test_f41_reports_that_overtake_each_other(case: Case, tmp_path: Path) -> None:
    """The middle's reports come late, those of the sink before them."""
    break_connections(case, "relay", tmp_path)


@needs_strace
@pytest.mark.attacked(**apart)
def test_f43_verdicts_that_are_lost(case: Case, tmp_path: Path) -> None:
    break_connections(case, "__acker", tmp_path)


def test_f44_frames_in_the_name_of_the_dead(case: Case) -> None:
    victim = case.worker("relay", without=("numbers",))
    case.kill_worker(victim)
    case.wait_replaced(victim)
    case.wait_flowing()
    topology = wire_id(case.assignment().topology_id)
    before = case.statistics().counters["frames_refused"]
    sent = 0
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    for worker in case.workers():
        with context.socket(zmq.PUSH) as ghost:
            ghost.linger = 2000
            ghost.connect(f"tcp://127.0.0.1:{worker.port}")
            for seq in range(1, 30):
                for kind in range(frames.ACKS, frames.DATA + 1):
                    body: list[object] = [frames.record(kind, 4, False), b"late"]
                    to = worker.incarnation
                    ghost.send(frames.build(frames.BATCH, topology, victim.incarnation, to, seq, seq, body))
                    sent += worker.port != victim.port
    context.term()
    case.wait_flowing(500)
    verdict = case.judge()
    refused = case.statistics().counters["frames_refused"] - before
    print(f"{sent} late frames, {refused} refused", verdict)
    assert refused >= sent
    assert case.statistics().restarts == 1


@pytest.mark.attacked(shape="chain", workers=3, rate=100.0, config={"topology.message.timeout.secs": 3})
def test_f45_replays_while_the_first_try_still_runs(case: Case) -> None:
    case.fault()
    case.order("relay", "sleep", 5)
    case.wait_flowing(200, 60.0)
    case.mended()
    verdict = case.judge()
    s = case.statistics()
    print(f"{s.timed_out} timed out", verdict)
    assert s.timed_out > 0
    assert verdict["again"] > 0
    assert (s.pending, s.acked) == (0, verdict["expected"])
    assert s.restarts == 0


def test_f37_raises_in_the_middle_of_the_work(case: Case) -> None:
    before = {w.pid for w in case.workers()}
    for component in ("numbers", "relay", "keyed", "pairs", "wide", "sink"):
        case.fault()
        case.order(component, "raise", f"{component}-on-purpose")
        case.wait_flowing(50)
        case.mended()
    case.judge()
    for component in ("numbers", "relay", "keyed", "pairs", "wide", "sink"):
        told = [error for error in case.running.errors(component) if f"{component}-on-purpose" in error.error]
        assert told, case.running.errors()
        assert told[0].traceback
    assert {w.pid for w in case.workers()} == before
    assert case.statistics().restarts == 0
