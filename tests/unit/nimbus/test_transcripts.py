"""Nimbus told as transcripts: after each event the answer, what changed, and whom it wants to push.

    @12.5 supervisor a 6700 6701          first heartbeat with these ports
    @12.5 beat a                          heartbeat like the last; its workers report RUNNING, idle and all applied
    @12.5 beat a pending=3 | -6701        ... with pending trees; without the worker on 6701
    @12.5 stopping a
    @12.5 submit wc workers=2
    @12.5 kill wc wait=10, rebalance wc workers=1 count=4, activate wc, deactivate wc
    @12.5 tick
    @12.5 restart                         another Nimbus on the same store

RAINBAND_REWRITE=1 writes the transcripts anew; the difference is then read by a person.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kit.clusters import WALL, word_count
from rainband.cluster.blobs import MemoryBlobs
from rainband.cluster.memory import MemoryStore
from rainband.nimbus.core import Nimbus
from rainband.records import (
    Activate,
    Assignment,
    Deactivate,
    Done,
    Failure,
    GetTopology,
    Heartbeat,
    HeartbeatReply,
    Kill,
    ListTopologies,
    Rebalance,
    Request,
    Response,
    Status,
    Submit,
    Topologies,
    TopologySummary,
    WorkerBeat,
    WorkerState,
)

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


class Story:
    """Plays events against one Nimbus and writes down what happens."""

    def __init__(self) -> None:
        self.store = MemoryStore("c" * 32)
        self.nimbus = self.new_nimbus(0.0)
        self.ports: dict[str, tuple[int, ...]] = {}
        self.known: dict[str, dict[str, Assignment]] = {}
        self.shown: dict[str, str] = {}

    def new_nimbus(self, now: float) -> Nimbus:
        return Nimbus(self.store, MemoryBlobs(), {}, now, require_bundle=False)

    def play(self, line: str) -> list[str]:
        at, verb, *words = line.split()
        now = float(at[1:])
        if verb == "restart":
            self.nimbus = self.new_nimbus(now)
            lines = [f"epoch {self.nimbus.epoch}"]
        elif verb == "tick":
            lines = []
        elif verb in ("supervisor", "beat", "stopping"):
            lines = self.heartbeat(verb, words, now)
        else:
            lines = [show(self.nimbus.handle(self.request(verb, words), now, WALL + now))]
        pushed = self.nimbus.tick(now)
        lines += [f"push {', '.join(pushed)}"] if pushed else []
        return lines + self.changes(now)

    def request(self, verb: str, words: list[str]) -> Request:
        name, *rest = words
        options = {key: int(value) for key, value in (word.split("=") for word in rest)}
        wait = options.pop("wait", None)
        workers = options.pop("workers", None)
        if verb == "submit":
            return Submit(name, word_count(name, workers or 1).encode())
        if verb == "kill":
            return Kill(name, wait)
        if verb == "rebalance":
            return Rebalance(name, wait, workers, options)
        return Activate(name) if verb == "activate" else Deactivate(name)

    def heartbeat(self, verb: str, words: list[str], now: float) -> list[str]:
        supervisor, *rest = words
        if verb == "supervisor":
            self.ports[supervisor] = tuple(map(int, rest))
            self.known[supervisor] = {}
            rest = []
        known = self.known[supervisor]
        pending = next((int(word.removeprefix("pending=")) for word in rest if word.startswith("pending=")), 0)
        without = {int(word[1:]) for word in rest if word.startswith("-")}
        workers = tuple(
            WorkerBeat(
                topology_id, slot.port, 100 + slot.port, 1, assignment.version, WorkerState.RUNNING,
                uptime_s=now, pending=pending, idle=not pending, paused=assignment.status != Status.ACTIVE,
            )
            for topology_id, assignment in sorted(known.items())
            for slot in assignment.slots()
            if slot.supervisor == supervisor and slot.port not in without
        )
        versions = {topology_id: (a.epoch, a.version) for topology_id, a in known.items()}
        ports, stopping = self.ports[supervisor], verb == "stopping"
        beat = Heartbeat(supervisor, "127.0.0.1", 1, ports, workers, versions, stopping=stopping)
        answer = self.nimbus.handle(beat, now, WALL)
        if not isinstance(answer, HeartbeatReply):
            return [show(answer)]
        self.known[supervisor] = {
            **{topology_id: a for topology_id, a in known.items() if topology_id in answer.wanted},
            **{assignment.topology_id: assignment for assignment in answer.assignments},
        }
        wanted = ", ".join(short(topology_id) for topology_id in answer.wanted)
        changed = "".join(f", told version {a.version} of {short(a.topology_id)}" for a in answer.assignments)
        return [f"{supervisor} runs {wanted or 'nothing'}{changed}"]

    def changes(self, now: float) -> list[str]:
        """Topologies that look different than after the last event."""
        listed = self.nimbus.handle(ListTopologies(), now, WALL + now)
        assert isinstance(listed, Topologies)
        looks = {summary.name: self.look(summary, now) for summary in listed.topologies}
        lines = [look for name, look in looks.items() if look != self.shown.get(name)]
        lines += [f"{name} is gone" for name in self.shown if name not in looks]
        self.shown = looks
        return lines

    def look(self, summary: TopologySummary, now: float) -> str:
        whole = self.nimbus.handle(GetTopology(summary.name), now, WALL + now)
        assert isinstance(whole, TopologySummary)
        head = f"{summary.name} {summary.status}"
        if summary.slots_missing:
            head += f", {summary.slots_missing} slots missing"
        if summary.due_s is not None:
            head += f", due at {now + summary.due_s:g}"
        assignment = whole.assignment
        if assignment is None:
            return head
        head += f", {summary.workers_running} of {summary.workers} workers run"
        head += f", assignment {assignment.version} of epoch {assignment.epoch}: {assignment.status}"
        for slot in assignment.slots():
            placed = ", ".join(
                f"{p.executor.component}[{p.executor.first}-{p.executor.last}]#{p.number}" for p in assignment.on(slot)
            )
            head += f"\n  {slot.supervisor}:{slot.port}  {placed}"
        return head


def short(topology_id: str) -> str:
    return topology_id.rsplit("-", 1)[0]


def show(answer: Response) -> str:
    if isinstance(answer, Failure):
        return f"refused ({answer.code}): {answer.message}. {answer.fix}".rstrip(". ")
    assert isinstance(answer, Done)
    return f"done {answer.topology_id} {answer.note}".rstrip()


def replay(text: str) -> str:
    story = Story()
    out: list[str] = []
    for line in text.splitlines():
        if line.startswith("#"):
            out.append(line)
        elif line.startswith("@"):
            out += ["", line, "----", *story.play(line)]
    return "\n".join(out) + "\n"


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    written = path.read_text()
    played = replay(written)
    if os.environ.get("RAINBAND_REWRITE"):
        path.write_text(played)
    assert played == written or os.environ.get("RAINBAND_REWRITE")
