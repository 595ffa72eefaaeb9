"""Values between two real worker processes: what comes out is what went in; the rest fails its tuple alone."""

from __future__ import annotations

from pathlib import Path

from kit.placed import PlacedWorkers, project_module
from rainband.topology.graph import Topology

travellers = project_module("travellers")
REST = 200
MIB = 1 << 20
EVERY_ERROR = {"topology.max.error.report.per.interval": 1000}


def run(directory: Path, topology: Topology, timeout_s: float = 30.0) -> PlacedWorkers:
    """Until drained, with `bolt` and `checks` in different workers."""
    places = [int(executor.component == "checks") for executor in topology.plan.executors()]
    with PlacedWorkers(directory / "cluster", topology, places) as placed:
        placed.wait_drained(timeout_s)
        placed.stop()
        return placed


def told(directory: Path, verdict: str) -> list[str]:
    lines = [line.partition(" ") for line in (directory / "told").read_text().splitlines()]
    return [name for word, _, name in lines if word == verdict]


def checked(directory: Path) -> list[tuple[str, str]]:
    lines = [line.partition(": ") for line in (directory / "checked").read_text().splitlines()]
    return [(name, verdict) for name, _, verdict in lines]


def test_every_kind_of_value_arrives_as_it_was(tmp_path: Path) -> None:
    names = list(travellers.VALUES)
    topology = travellers.travelling(str(tmp_path), names, REST, travellers.Sends())
    placed = run(tmp_path, topology)
    assert not placed.errors
    assert [line for line in checked(tmp_path) if line[1] != "same"] == []
    assert len(checked(tmp_path)) == 2 * len(names) + REST
    assert sorted(told(tmp_path, "ack")) == sorted([*names, *map(str, range(REST))])
    assert told(tmp_path, "fail") == []


def test_what_cannot_travel_fails_its_tuple_and_says_so(tmp_path: Path) -> None:
    names = list(travellers.SPOILT)
    topology = travellers.travelling(str(tmp_path), names, REST, travellers.Spoils(), EVERY_ERROR)
    placed = run(tmp_path, topology)
    assert sorted(told(tmp_path, "fail")) == sorted(names)
    assert sorted(told(tmp_path, "ack")) == sorted(map(str, range(REST)))
    numbers = [name for name, verdict in checked(tmp_path) if verdict == "same" and name.isdigit()]
    assert sorted(numbers) == sorted(map(str, range(REST)))
    for name, (_, why) in travellers.SPOILT.items():
        found = [error for error in placed.errors if why in error.error]
        assert found, (name, why, [error.error for error in placed.errors])
        for error in found:
            assert error.component == "bolt"
            assert "'bolt' emitted on stream 'other', field 'value': " in error.error
    assert len(placed.errors) == len(names)
    assert placed.counter("peers_lost") == placed.counter("bad_messages") == 0


def test_64_mib_pass_and_more_fails_while_the_link_stays(tmp_path: Path) -> None:
    sizes = [MIB, 63 * MIB, 64 * MIB, 64 * MIB + 1, 80 * MIB, 300_000]
    topology = travellers.travelling(str(tmp_path), [str(size) for size in sizes], REST, travellers.Large())
    placed = run(tmp_path, topology, 60.0)
    passed = [size for size in sizes if size <= 64 * MIB]
    refused = [str(size) for size in sizes if size > 64 * MIB]
    arrived = [line for line in checked(tmp_path) if int(line[0]) > 1000]
    assert arrived == [(str(size), f"{size} {size}") for size in passed]
    assert told(tmp_path, "fail") == refused
    assert sorted(told(tmp_path, "ack")) == sorted([*map(str, passed), *map(str, range(REST))])
    errors = [error.error for error in placed.errors]
    assert len(errors) == len(refused)
    for size, error in zip(refused, errors, strict=True):
        assert "'bolt' emitted on stream 'default', field 'value': " in error
        assert f"a value of {size} bytes is over topology.max.value.bytes = {64 * MIB}" in error
    assert placed.counter("peers_lost") == placed.counter("bad_messages") == 0
