"""Several hosts as people start them: `rainband keygen`, one Nimbus, a supervisor per host, default settings.

Hosts are network namespaces. Keys are required there, so each host has its copy of the key; whoever has none is out.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.chaos import Arena, Case, alive, kill_at_once, now, wait
from kit.chaos_host import Hosts, needs_ip, run
from rainband.errors import NotAllowed
from rainband.nimbus.client import Client
from rainband.supervisor import processes

pytestmark = [pytest.mark.faults, pytest.mark.slow, needs_ip]

CUT_S = 20.0
SILENCE_S = 35.0
LINKED_S = 3.0
SLOTS = 3


class Town(Arena):
    """Nimbus on host 1, supervisors on hosts 1, 2 and 3, started by the command lines of docs/operating.md."""

    def __init__(self, directory: Path, hosts: Hosts) -> None:
        self.hosts = hosts
        keys = directory / "keys-here"
        done = subprocess.run(
            processes.python_command("rainband", "keygen", str(keys)),
            capture_output=True, text=True, check=False, env=processes.environment(),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        for number in (1, 2, 3):
            shutil.copytree(keys, directory / f"keys-{number}")
        own = {"nimbus": {"nimbus.host": hosts.address(1)}}
        prefix = {"nimbus": hosts.prefix(1), **{f"supervisor-{number}": hosts.prefix(number) for number in (1, 2, 3)}}
        given = {"keys.dir": str(keys)}
        super().__init__(directory, supervisors=3, slots=SLOTS, settings=given, extra=own, prefix=prefix)

    def start(self, *names: str) -> None:
        for name in names:
            number = 1 if name == "nimbus" else int(name.removeprefix("supervisor-"))
            keys = ["-c", f"keys.dir={self.directory / f'keys-{number}'}"]
            own = ["--state", str(self.state(name)), *keys]
            if name == "nimbus":
                own += ["--port", str(self.port)]
                own += [part for key, value in self.extra[name].items() for part in ("-c", f"{key}={value}")]
            else:
                own += ["--slots", str(SLOTS), "--nimbus", self.address]
                own += ["-c", f"supervisor.host={self.hosts.address(number)}"]
            command = processes.python_command("rainband", name.partition("-")[0], *own)
            log = self.directory / f"{name}.log"
            argv = [*self.prefix[name], *command]
            self.children[name] = processes.start(argv, cwd=self.directory, log=log, env=processes.environment())


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with Hosts(3) as made:
        yield made


@pytest.fixture(scope="module")
def cluster(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    directory = tmp_path_factory.mktemp("town")
    made = Town(directory, hosts)
    with made:
        yield made
        made.start(*(name for name in made.names if name not in made.children))
        made.wait_supervisors(3)
        made.end_cleanly()


def hosts_of(case: Case) -> set[str]:
    return {case.arena.supervisor_of(slot) for slot in case.assignment().slots()}


def pids_on(case: Case, name: str) -> set[int]:
    own = {slot.port: slot for slot in case.assignment().slots() if case.arena.supervisor_of(slot) == name}
    held = [w for w in processes.found_workers(case.arena.topologies(name)) if w.port in own]
    return {w.identity.pid for w in held}


def test_without_the_key_nobody_gets_in(cluster: Town) -> None:
    with Client(cluster.address, timeout_s=1.0) as stranger, pytest.raises(NotAllowed):
        stranger.topologies()


def lasts(seconds: float) -> None:
    until = now() + seconds
    wait(lambda: now() >= until, seconds + 5)


@pytest.mark.parametrize("way", ["silent", "blackhole"])
def test_f20_every_pair_of_hosts_cut_for_twenty_seconds(case: Case, hosts: Hosts, way: str) -> None:
    """Workers on three hosts that cannot reach each other, while Nimbus reaches all (host 1 keeps its own)."""
    assert len(hosts_of(case)) == 3
    before = {w.pid for w in case.workers()}
    placed = case.assignment().placements
    at = case.fault()
    if way == "silent":
        hosts.cut(2, 3)
    else:  # both routers say that there is no such host
        run("ip", "-n", hosts.names[1], "route", "add", "blackhole", hosts.address(3))
        run("ip", "-n", hosts.names[2], "route", "add", "blackhole", hosts.address(2))
    try:
        lasts(CUT_S)
    finally:
        if way == "silent":
            hosts.heal(2, 3)
        else:
            run("ip", "-n", hosts.names[1], "route", "del", "blackhole", hosts.address(3))
            run("ip", "-n", hosts.names[2], "route", "del", "blackhole", hosts.address(2))
    healed = now()
    case.wait_flowing(100)
    back_s = case.mended() - healed
    case.wait_flowing(1000)
    verdict = case.judge()
    print(f"cut ({way}) for {healed - at:.1f} s, flowing {back_s:.1f} s after", verdict)
    assert back_s <= LINKED_S
    assert verdict["again"] == 0, verdict
    assert {w.pid for w in case.workers()} == before
    assert case.assignment().placements == placed
    assert case.statistics().failed == 0


def test_f21_host_cut_off_from_all_others(case: Case, hosts: Hosts) -> None:
    """For less than its lease: nothing moves, nothing is lost."""
    before = {w.pid for w in case.workers()}
    case.fault()
    for other in (0, 1, 2):
        hosts.cut(3, other)
    try:
        lasts(CUT_S)
    finally:
        for other in (0, 1, 2):
            hosts.heal(3, other)
    healed = now()
    case.wait_flowing(100, 60.0)
    print(f"flowing {case.mended() - healed:.1f} s after it healed")
    case.wait_flowing(1000, 60.0)
    verdict = case.judge()
    assert verdict["again"] == 0, verdict
    assert {w.pid for w in case.workers()} == before
    case.arena.wait_supervisors(3)


def test_f11_host_is_lost_with_default_leases(case: Case) -> None:
    with_spout = {case.arena.supervisor_of(slot) for slot in case.slots_of("numbers")}
    name = sorted(hosts_of(case) - with_spout - {"supervisor-1"})[0]
    lost = pids_on(case, name)
    kept = {w.pid for w in case.workers()} - lost
    assert lost
    at = case.fault()
    case.arena.kill(name)
    kill_at_once(lost)

    def moved() -> bool:
        s = case.statistics()
        return name not in hosts_of(case) and s.workers_running == s.workers_wanted

    wait(moved, 2 * SILENCE_S, case.explain)
    back_s = case.mended() - at
    case.wait_flowing()
    case.faults.append(dict(case.faults[0]))  # the lease is as long as the message timeout: either may fail a root
    verdict = case.judge()
    print(f"host lost, default leases: all tasks run elsewhere after {back_s:.1f} s (goal {SILENCE_S:g} s)", verdict)
    assert back_s <= SILENCE_S
    assert {w.pid for w in case.workers()} >= kept
    assert all(alive(pid) for pid in kept)
