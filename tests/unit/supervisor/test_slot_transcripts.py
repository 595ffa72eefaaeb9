"""The slot machine told as transcripts: after each event, the state and the actions that follow.

RAINBAND_REWRITE=1 writes them anew; the difference is then read by a person.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from rainband.supervisor import slot as machine
from rainband.supervisor.slot import Slot, step

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


def parse(line: str) -> tuple[float, machine.Event]:
    """`@12.5 Exited pid=7 cause="exit code 1"` at second 12.5."""
    at, name, *_ = line.split()
    kind = getattr(machine, name)
    rest = line.split(name, 1)[1].strip()
    arguments = eval(f"dict({rest})", {}, {})  # noqa: S307 - our own test files
    return float(at[1:]), kind(**arguments)


def show(before: Slot, after: Slot, actions: tuple[machine.Action, ...], now: float) -> list[str]:
    lines = [str(before.state) if before.state is after.state else f"{before.state} -> {after.state}"]
    if after.due < 1e9 and after.due != before.due:
        lines[0] += f"  due in {after.due - now:g} s"
    for action in actions:
        fields = " ".join(f"{f.name}={getattr(action, f.name)}" for f in dataclasses.fields(action))
        lines.append(f"  {type(action).__name__} {fields}".rstrip())
    return lines


def replay(text: str) -> str:
    slot = Slot(6700)
    out: list[str] = []
    for line in text.splitlines():
        if line.startswith("#"):
            out.append(line)
        elif line.startswith("@"):
            now, event = parse(line)
            before = slot
            slot, actions = step(slot, event, now)
            out += ["", line, "----", *show(before, slot, actions, now)]
    return "\n".join(out) + "\n"


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    written = path.read_text()
    played = replay(written)
    if os.environ.get("RAINBAND_REWRITE"):
        path.write_text(played)
    assert played == written or os.environ.get("RAINBAND_REWRITE")
