"""Code arrives whole and checked, or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rainband import Bolt, Spout, TopologyBuilder, Tuple
from rainband.errors import RainbandError, StoreError, VersionMismatch
from rainband.records import Done, Download, GetTopology, Piece, Request, Response, Status, TopologySummary, Upload
from rainband.supervisor.localizer import PIECE_BYTES, Localizer, fetch, give, localize, localized
from rainband.topology.bundle import build_bundle
from rainband.topology.home import read_plan
from rainband.topology.plan import Plan


class Words(Spout):
    outputs = ("word",)

    def next_tuple(self) -> None:
        self.finish()


class Count(Bolt):
    def execute(self, tup: Tuple) -> None:
        pass


def bundled() -> tuple[Plan, bytes]:
    builder = TopologyBuilder("t")
    builder.set_spout("words", Words())
    builder.set_bolt("count", Count()).shuffle_grouping("words")
    topology = builder.create_topology()
    data = build_bundle(topology, None)
    fields = {name: getattr(topology.plan, name) for name in Plan.__struct_fields__}
    return Plan(**{**fields, "bundle": hashlib.sha256(data).hexdigest()}), data


PLAN, BUNDLE = bundled()


def nimbus(data: bytes = BUNDLE, plan: Plan = PLAN) -> Callable[[Request], Response]:
    def call(request: Request) -> Response:
        if isinstance(request, GetTopology):
            return TopologySummary("t", request.name, Status.ACTIVE, 1, 2, 2, 0.0, plan=plan.encode())
        assert isinstance(request, Download)
        return Piece(data[request.offset : request.offset + request.length], len(data))

    return call


def test_a_topology_arrives(tmp_path: Path) -> None:
    localize(tmp_path, "t-1", nimbus())
    assert localized(tmp_path, "t-1")
    assert read_plan(tmp_path / "t-1") == PLAN
    assert (tmp_path / "t-1" / "components").is_dir()


def test_what_is_here_is_not_asked_for(tmp_path: Path) -> None:
    localize(tmp_path, "t-1", nimbus())
    localize(tmp_path, "t-1", nobody)


def test_a_damaged_plan_is_replaced(tmp_path: Path) -> None:
    localize(tmp_path, "t-1", nimbus())
    (tmp_path / "t-1" / "plan.msgpack").write_bytes(b"\xc1")
    localize(tmp_path, "t-1", nimbus())
    assert read_plan(tmp_path / "t-1") == PLAN


def nobody(request: Request) -> Response:
    raise AssertionError(request)


def cut(path: Path) -> None:
    """As a power cut leaves a file: empty, and as old as it was."""
    times = path.stat()
    path.write_bytes(b"")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("damage", ["empty", "missing", "no code"])
def test_what_a_power_cut_took_is_opened_again_from_the_bundle_that_is_here(tmp_path: Path, damage: str) -> None:
    localize(tmp_path, "t-1", nimbus())
    home = tmp_path / "t-1"
    lost, *others = sorted((home / "components").iterdir())
    was = lost.read_bytes()
    others[0].write_bytes(others[0].read_bytes() + b"as its user left it")
    (home / "positions.sqlite").write_bytes(b"how far it has come")
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    if damage == "empty":
        cut(lost)
    elif damage == "missing":
        lost.unlink()
    else:
        shutil.rmtree(home / "code")
    localize(tmp_path, "t-1", nobody)
    assert lost.read_bytes() == was
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before
    assert (home / "code").is_dir()
    assert stat.S_IMODE(lost.stat().st_mode) == 0o600


def test_what_its_user_shortened_is_left_alone(tmp_path: Path) -> None:
    localize(tmp_path, "t-1", nimbus())
    (changed, *_others) = (tmp_path / "t-1" / "components").iterdir()
    changed.write_bytes(b"short")
    plan = (tmp_path / "t-1" / "plan.msgpack").stat()
    os.utime(changed, ns=(plan.st_atime_ns, plan.st_mtime_ns + 1))
    localize(tmp_path, "t-1", nobody)
    assert changed.read_bytes() == b"short"


@pytest.mark.parametrize("kept", [b"", BUNDLE[:-1]])
def test_a_bundle_that_a_power_cut_took_as_well_comes_from_nimbus(tmp_path: Path, kept: bytes) -> None:
    localize(tmp_path, "t-1", nimbus())
    (lost, *_others) = (tmp_path / "t-1" / "components").iterdir()
    was = lost.read_bytes()
    cut(lost)
    (tmp_path / "t-1" / "bundle.zip").write_bytes(kept)
    localize(tmp_path, "t-1", nimbus())
    assert (lost.read_bytes(), (tmp_path / "t-1" / "bundle.zip").read_bytes()) == (was, BUNDLE)


def test_large_blobs_come_in_pieces() -> None:
    data = bytes(range(256)) * (PIECE_BYTES // 100)
    assert fetch(hashlib.sha256(data).hexdigest(), nimbus(data)) == data


def test_a_corrupt_blob_is_asked_for_once_more_and_never_used(tmp_path: Path) -> None:
    asked = []

    def call(request: Request) -> Response:
        asked.append(request)
        return nimbus(BUNDLE[:-1] + b"?")(request)

    with pytest.raises(StoreError, match="is corrupt"):
        localize(tmp_path, "t-1", call)
    assert sum(isinstance(request, Download) and request.offset == 0 for request in asked) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_blob_damaged_on_its_way_is_taken_the_second_time() -> None:
    answers = [b"?" * len(BUNDLE), BUNDLE]

    def call(request: Request) -> Response:
        return Piece(answers.pop(0), len(BUNDLE))

    assert fetch(PLAN.bundle, call) == BUNDLE


@pytest.mark.parametrize("answer", [Done(), Piece(b"", 10), Piece(b"x", 0), Piece(b"x", 1 << 40)])
def test_nonsense_is_refused(answer: Response) -> None:
    with pytest.raises(RainbandError):
        fetch(PLAN.bundle, lambda request: answer)


def test_another_python(tmp_path: Path) -> None:
    fields = {name: getattr(PLAN, name) for name in Plan.__struct_fields__}
    other = Plan(**{**fields, "python": "2.7.18"})
    with pytest.raises(VersionMismatch, match=r"Python 2\.7\.18"):
        localize(tmp_path, "t-1", nimbus(plan=other))
    assert list(tmp_path.iterdir()) == []


def test_the_thread_says_what_became_of_each(tmp_path: Path) -> None:
    import queue

    said: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
    localizer = Localizer(tmp_path, nimbus(), lambda topology, reason: said.put((topology, reason)))
    localizer.want("t-1")
    localizer.want("../x")
    localizer.want("t-1")
    assert said.get(timeout=10) == ("t-1", "")
    topology, reason = said.get(timeout=10)
    assert topology == "../x"
    assert "cannot be" in reason
    assert said.get(timeout=10) == ("t-1", "")
    localizer.close()


def test_the_thread_looks_at_its_connection_while_it_has_nothing_to_do(tmp_path: Path) -> None:
    looked = threading.Event()
    localizer = Localizer(tmp_path, nimbus(), lambda topology, reason: None, looked.set, idle_s=0.0)
    assert looked.wait(10.0)
    localizer.close()


def test_a_bundle_goes_back_to_a_nimbus_that_lost_it(tmp_path: Path) -> None:
    localize(tmp_path, "t-1", nimbus())
    sent: list[Upload] = []

    def call(request: Request) -> Response:
        assert isinstance(request, Upload)
        sent.append(request)
        return Done()

    give(tmp_path, "0" * 64, call)
    assert sent == []
    give(tmp_path, PLAN.bundle, call)
    assert b"".join(piece.data for piece in sent) == BUNDLE
    assert [piece.done for piece in sent] == [False] * (len(sent) - 1) + [True]
    sent.clear()
    (tmp_path / "t-1" / "bundle.zip").write_bytes(BUNDLE[:-1])
    give(tmp_path, PLAN.bundle, call)
    assert sent == []
