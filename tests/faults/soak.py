"""A random mix of faults under load for as long as wished, then the oracle's verdict and the slopes of what may leak.

    PYTHONPATH=tests python -m faults.soak --minutes 60 [--seed N]

Two topologies share a cluster of two supervisors. One is attacked: its workers are killed, stopped and rebalanced. The
other is left alone, so that its workers live for the whole time. Daemons are killed and stopped too, only in the first
quarter of the time: the leaks of their last lives are measured over the second half, for a life's first hundred deaths
touch pages that then stay. One JSON document on stdout; exit code 1 when something was lost or repeated without need,
or memory grew or a descriptor or thread too many stayed. The latter count in runs of half an hour at least: in minutes
they only tell which supervisor happens to have more workers.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from kit.chaos import SHORT, Arena, Case, alive, kill_at_once, now, wait
from rainband.build import describe
from rainband.errors import RainbandError
from rainband.records import WorkerBeat

PAUSE_S = (3.0, 7.0)
SAMPLE_S = 2.0
DAEMONS_UNTIL = 0.25
MEASURED_FROM = 0.5
SETTLE_S = 300.0  # what a process opens and fills in its first minutes stays with it
WINDOWS = 10
FELT_S = 1.0
MEMORY_PERCENT_PER_HOUR = 1.0
LONG_MINUTES = 30.0


def main() -> int:
    flags = argparse.ArgumentParser(prog="python -m faults.soak")
    flags.add_argument("--minutes", type=float, default=60.0)
    flags.add_argument("--rate", type=float, default=600.0)
    flags.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    flags.add_argument("--keep", action="store_true", help="keep journals and logs")
    given = flags.parse_args()
    sys.stderr.write(f"seed {given.seed}\n")
    directory = Path(tempfile.mkdtemp(prefix="rainband-soak-"))
    try:
        found = Soak(directory, given.minutes * 60.0, given.rate, given.seed).run()
    finally:
        if given.keep:
            sys.stderr.write(f"kept {directory}\n")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    print(json.dumps({"seed": given.seed, "minutes": given.minutes, "built": describe(), **found}))
    return 0 if found["good"] else 1


class Meter:
    """Memory, descriptors and threads of processes over time."""

    def __init__(self) -> None:
        self.samples: dict[str, list[tuple[float, int, int, int]]] = {}

    def look(self, name: str, pid: int) -> None:
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                sample = (now(), process.memory_info().rss, process.num_fds(), process.num_threads())
        except psutil.Error:
            return
        self.samples.setdefault(f"{name} {pid}", []).append(sample)

    def slopes(self, since: float, settle_s: float, least: int) -> dict[str, dict[str, float]]:
        """Per process that was there long enough: memory in percent an hour, descriptors and threads more at the end.

        From `since` on, and from `settle_s` seconds after the process was seen first. More than in the whole first
        quarter: some are opened when they are needed first.
        """
        found = {}
        for name, samples in self.samples.items():
            begin = max(since, samples[0][0] + settle_s)
            late = [sample for sample in samples if sample[0] >= begin]
            if len(late) < least:
                continue
            times, floor = lowest(late)
            slope, _ = statistics.linear_regression(times, floor)
            quarter = max(1, len(late) // 4)
            found[name] = {
                "rss_mib": round(late[-1][1] / 2**20, 1),
                "rss_percent_per_hour": round(slope * 3600 / floor[0] * 100, 2),
                "descriptors": late[-1][2] - max(sample[2] for sample in late[:quarter]),
                "threads": late[-1][3] - max(sample[3] for sample in late[:quarter]),
            }
        return found


def lowest(samples: list[tuple[float, int, int, int]]) -> tuple[list[float], list[int]]:
    """The lowest memory in each tenth of the time: garbage that waits for its collection is no leak."""
    size = max(1, len(samples) // WINDOWS)
    windows = [samples[at : at + size] for at in range(0, len(samples) - size + 1, size)]
    return [window[0][0] for window in windows], [min(sample[1] for sample in window) for window in windows]


class Soak:
    """One run."""

    def __init__(self, directory: Path, seconds: float, rate: float, seed: int) -> None:
        self.directory = directory
        self.seconds = seconds
        self.rate = rate
        self.draw = random.Random(seed)
        self.meter = Meter()
        self.done: dict[str, int] = {}
        self.arena = Arena(directory, supervisors=2, slots=6, settings=SHORT)

    def run(self) -> dict[str, Any]:
        lines = int(self.rate * (self.seconds + 300))
        with self.arena:
            self.calm = self.arena.case("calm", workers=2, rate=self.rate / 2, source_lines=lines)
            self.case = self.arena.case("attacked", workers=3, rate=self.rate, source_lines=lines)
            self.case.wait_flowing()
            self.begun = now()
            while now() < self.begun + self.seconds:
                self.attack()
                self.rest()
            found = self.verdict()
            self.arena.end_cleanly()
        return found

    def attack(self) -> None:
        daemons = now() < self.begun + self.seconds * DAEMONS_UNTIL
        kinds: list[Callable[[], None]] = [
            self.kill_worker, self.kill_worker, self.kill_every_worker, self.stop_worker, self.stop_worker_for_good,
            self.storm, self.rebalance, self.pause, self.crash,
        ]  # fmt: skip
        if daemons:
            kinds += [self.kill_supervisor, self.kill_nimbus, self.stop_nimbus, self.lose_host]
        kind = self.draw.choice(kinds)
        self.done[kind.__name__] = self.done.get(kind.__name__, 0) + 1
        sys.stderr.write(f"{now() - self.begun:7.1f} s  {kind.__name__}\n")
        before = {case: len(case.faults) for case in (self.case, self.calm)}
        kind()
        felt = now() + FELT_S  # a signal, and the word of it, take a moment
        wait(lambda: now() >= felt, FELT_S + 5)
        wait(self.whole, 60.0, self.case.explain)
        for case, known in before.items():
            if len(case.faults) > known:
                case.mended()
        self.case.wait_flowing(50)

    def whole(self) -> bool:
        try:
            s = self.case.statistics()
        except RainbandError:
            return False
        living = [worker for worker in s.workers if worker.state == "RUNNING" and alive(worker.pid)]
        return s.status == "ACTIVE" and s.workers_running == s.workers_wanted == len(living)

    def rest(self) -> None:
        until = now() + self.draw.uniform(*PAUSE_S)
        while now() < until:
            self.sample()
            signal.sigtimedwait([], min(SAMPLE_S, max(0.0, until - now())))

    def sample(self) -> None:
        for name, child in self.arena.children.items():
            self.meter.look(name, child.pid)
        for worker in self.calm.workers():
            self.meter.look("calm worker", worker.pid)

    # Faults

    def fault(self, *, spout: bool = False) -> None:
        """Either topology may feel it: daemons and hosts are shared."""
        self.case.fault(spout=spout)
        self.calm.fault(spout=spout)

    def victim(self) -> WorkerBeat:
        found: WorkerBeat = wait(lambda: self.draw.choice(self.case.workers() or [None]), 30.0)
        return found

    def kill_worker(self) -> None:
        self.case.kill_worker(self.victim())

    def kill_every_worker(self) -> None:
        self.case.fault(spout=True)
        kill_at_once([worker.pid for worker in self.case.workers()])

    def stop_worker(self) -> None:
        victim = self.victim()
        self.case.fault(spout=True)
        self.arena.stop(victim.pid)
        until = now() + self.draw.uniform(0.2, 2.0)
        wait(lambda: now() >= until, 5.0)
        self.arena.go_on(victim.pid)

    def stop_worker_for_good(self) -> None:
        victim = self.victim()
        self.case.fault(spout=True)
        self.arena.stop(victim.pid)
        wait(lambda: not Path(f"/proc/{victim.pid}").exists(), 20.0, self.case.explain)

    def crash(self) -> None:
        self.case.fault(spout=True)  # after a rebalance the task may share its worker with the spout
        self.case.order("keyed", self.draw.choice(["segfault", "_exit 3", "exit 1"]))

    def storm(self) -> None:
        self.case.fault()
        ports = [worker.port for worker in self.case.workers()]
        for number in range(300):
            with socket.socket() as stranger:
                stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
                if stranger.connect_ex(("127.0.0.1", ports[number % len(ports)])) == 0 and number % 2:
                    stranger.send(os.urandom(100))

    def rebalance(self) -> None:
        self.case.fault(spout=True)
        self.case.running.rebalance(workers=self.draw.choice([2, 3, 4]))

    def pause(self) -> None:
        self.case.fault()
        self.case.running.deactivate()
        self.case.running.activate()

    def kill_supervisor(self) -> None:
        self.fault()
        name = self.draw.choice(self.arena.names[1:])
        self.arena.kill(name)
        self.arena.start(name)
        self.arena.wait_supervisors(2)

    def kill_nimbus(self) -> None:
        self.fault()
        self.arena.kill("nimbus")
        self.arena.start("nimbus")
        self.arena.wait_supervisors(2)

    def stop_nimbus(self) -> None:
        self.fault()
        self.arena.stop(self.arena.pid("nimbus"))
        until = now() + self.draw.uniform(1.0, 6.0)
        wait(lambda: now() >= until, 10.0)
        self.arena.go_on(self.arena.pid("nimbus"))

    def lose_host(self) -> None:
        self.fault(spout=True)
        name = self.draw.choice(self.arena.names[1:])
        ports = json.loads((self.arena.state(name) / "supervisor.json").read_bytes())["ports"]
        victims = [pid for port, pid in self.arena.workers().items() if port in ports]
        self.arena.kill(name)
        kill_at_once(victims)
        wait(lambda: self.arena.alive_supervisors() == 1, 20.0)
        wait(lambda: all(self.runs(case) for case in (self.case, self.calm)), 40.0, self.case.explain)
        self.arena.start(name)
        self.arena.wait_supervisors(2)

    def runs(self, case: Case) -> bool:
        s = case.statistics()
        return s.workers_running == s.workers_wanted

    # The end

    def verdict(self) -> dict[str, Any]:
        since = self.begun + self.seconds * MEASURED_FROM
        slopes = self.meter.slopes(since, min(SETTLE_S, self.seconds / 12), least=10)
        found: dict[str, Any] = {"faults": self.done, "slopes": slopes}
        good = True
        for case in (self.case, self.calm):
            case.finish(180)
            verdict = case.verdict()
            times = [fault["all_acked_s"] for fault in verdict.pop("faults") if fault["all_acked_s"] is not None]
            verdict["recovery_worst_s"] = max(times, default=0.0)
            found[case.name] = verdict
            wrong = ("lost", "unacked", "false_acks", "unexcused", "strange")
            good = good and all(verdict[name] == 0 for name in wrong)
        if self.seconds >= LONG_MINUTES * 60:
            for slope in slopes.values():
                good = good and slope["descriptors"] <= 3 and slope["threads"] <= 1
                good = good and slope["rss_percent_per_hour"] < MEMORY_PERCENT_PER_HOUR
        return {"good": good, **found}


if __name__ == "__main__":
    sys.exit(main())
