"""Bundles: the same code gives the same bytes, and nothing that is malformed or hostile is ever written."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import stat
import struct
import sys
import zipfile
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rainband.errors import InvalidTopology, Refused, UsageError
from rainband.topology import bundle
from rainband.topology.builder import TopologyBuilder
from rainband.topology.bundle import build_bundle, check_component, import_root, load_component, open_bundle, pack
from rainband.topology.components import Bolt, Spout
from rainband.topology.graph import Topology
from rainband.topology.plan import StreamPlan
from rainband.topology.tuples import Tuple

HEX = "0" * 64


class Lines(Spout):
    outputs = ("line",)

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def next_tuple(self) -> None: ...


class Sink(Bolt):
    def execute(self, tup: Tuple) -> None: ...


@pytest.fixture
def topology(tmp_path: Path) -> Topology:
    builder = TopologyBuilder("t")
    builder.set_spout("lines", Lines(["a"]))
    builder.set_bolt("sink", Sink()).shuffle_grouping("lines")
    topology = builder.create_topology()
    topology.project = tmp_path / "project"
    topology.project.mkdir()
    return topology


@pytest.fixture(autouse=True)
def _any_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The components of these tests come from the tests, not from the projects they pack."""
    monkeypatch.setattr(bundle, "import_root", lambda module: None)


def names_in(data: bytes) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(data)).namelist()


def test_what_belongs_to_a_project(topology: Topology) -> None:
    root = topology.project
    assert root is not None
    for name in (
        "wc.py", "data/words.txt", "pkg/__init__.py", "pkg/__pycache__/a.pyc", ".git/config", ".env", "old.pyc",
        "venv/lib/x.py", "mine/pyvenv.cfg", "mine/x.py", "node_modules/x.js", "x.egg-info/PKG-INFO",
    ):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "link.py").symlink_to(root / "wc.py")
    (root / "pkg" / "loop").symlink_to(root)
    (root / "gone").symlink_to(root / "nothing")
    (root / "own").symlink_to(Path(bundle.__file__).parent.parent)
    os.mkfifo(root / "pipe")
    names = names_in(build_bundle(topology))
    assert [name for name in names if name.startswith("code/")] == [
        "code/data/words.txt", "code/link.py", "code/pkg/__init__.py", "code/wc.py",
    ]  # fmt: skip
    assert len([name for name in names if name.startswith("components/")]) == 2


def test_the_same_code_gives_the_same_bytes(topology: Topology, tmp_path: Path) -> None:
    for root in (tmp_path / "a", tmp_path / "b"):
        for name in ("z.py", "a/b.py", "a.py") if root.name == "a" else ("a.py", "z.py", "a/b.py"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(name)
        os.utime(root / "a.py", (root.name == "a", 5))
    (tmp_path / "b" / "a.py").chmod(0o755)
    first, second = build_bundle(topology, tmp_path / "a"), build_bundle(topology, tmp_path / "b")
    assert first == second
    plan, data = pack(topology, tmp_path / "a")
    assert (data, plan.bundle) == (first, hashlib.sha256(first).hexdigest())
    assert msgspec.structs.replace(plan, bundle="") == topology.plan
    (tmp_path / "b" / "a.py").write_text("changed")
    assert build_bundle(topology, tmp_path / "b") != first


@settings(max_examples=25)
@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8}\.py)?", fullmatch=True), st.binary(max_size=2_000)))
def test_what_was_packed_is_what_is_opened(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    root = tmp_path_factory.mktemp("project")
    written = {}
    for name, data in files.items():
        path = root / name
        if any(parent.is_file() for parent in path.parents) or path.is_dir() or name.split("/")[0] in bundle.SKIPPED:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        written[name] = data
    topology = TopologyBuilder("t")
    topology.set_spout("lines", Lines([]))
    home = root.parent / (root.name + "-home")
    open_bundle(build_bundle(topology.create_topology(), root), home)
    found = [path for path in (home / "code").rglob("*") if path.is_file()]
    assert {path.relative_to(home / "code").as_posix(): path.read_bytes() for path in found} == written


def test_an_opened_bundle_is_private_and_replaces_only_its_own(topology: Topology, tmp_path: Path) -> None:
    assert topology.project is not None
    (topology.project / "wc.py").write_text("one")
    home = tmp_path / "home"
    open_bundle(build_bundle(topology), home)
    (home / "positions").write_text("kept")
    (home / "code" / "stale.py").write_text("stale")
    (topology.project / "wc.py").write_text("two")
    open_bundle(build_bundle(topology), home)
    names = sorted(path.name for path in home.rglob("*") if path.suffix != ".pkl")
    assert names == ["code", "components", "positions", "wc.py"]
    assert (home / "code" / "wc.py").read_text() == "two"
    for path in (home, *home.rglob("*")):
        if path.name != "positions":
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_large_and_repetitive_files_travel(topology: Topology, tmp_path: Path) -> None:
    assert topology.project is not None
    (topology.project / "zeros.bin").write_bytes(bytes(5_000_000))
    open_bundle(build_bundle(topology), tmp_path / "home")
    assert (tmp_path / "home" / "code" / "zeros.bin").stat().st_size == 5_000_000


@pytest.mark.skipif(os.getuid() == 0, reason="root may read anything")
@pytest.mark.parametrize("mode", [0o000, 0o400])
def test_a_directory_that_cannot_be_read_is_named(topology: Topology, mode: int) -> None:
    assert topology.project is not None
    closed = topology.project / "closed"
    closed.mkdir()
    (closed / "more.py").write_text("")
    closed.chmod(mode)
    try:
        with pytest.raises(Refused, match=f"cannot read {closed}.*: Permission denied. Give this user the right"):
            build_bundle(topology)
    finally:
        closed.chmod(0o700)


def test_too_much_code_is_refused(topology: Topology, monkeypatch: pytest.MonkeyPatch) -> None:
    assert topology.project is not None
    for number in range(5):
        (topology.project / f"{number}.py").write_bytes(bytes(1000))
    monkeypatch.setattr(bundle, "BYTES_MAX", 4000)
    with pytest.raises(UsageError, match="Keep the topology in a directory of its own"):
        build_bundle(topology)
    monkeypatch.setattr(bundle, "ENTRIES_MAX", 1004)
    with pytest.raises(UsageError, match="more than 4 files"):
        build_bundle(topology)
    with pytest.raises(UsageError, match="no directory"):
        build_bundle(topology, Path("/nonexistent"))


def test_components_must_travel_with_the_project(
    topology: Topology, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bundle, "import_root", lambda module: tmp_path)
    with pytest.raises(UsageError, match="which does not travel with"):
        build_bundle(topology)
    topology.project = None
    assert bundle.project_of(topology) == tmp_path
    monkeypatch.setattr(bundle, "import_root", lambda module, roots=[tmp_path, tmp_path / "a"]: roots.pop())
    with pytest.raises(UsageError, match="several directories"):
        build_bundle(topology)


def test_components_of_modules_that_workers_cannot_see_are_refused(
    topology: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in topology.parts():
        monkeypatch.setattr(type(part), "__module__", "statistics.parts")
    monkeypatch.setattr(bundle, "import_root", lambda module: topology.project)
    with pytest.raises(UsageError, match=r"comes from statistics\.parts, which is the standard library's"):
        build_bundle(topology, Path("."))


def test_where_modules_were_imported_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = import_root(__name__)
    assert here is not None
    assert here.joinpath(*__name__.split(".")).with_suffix(".py") == Path(__file__).resolve()
    for name in ("json", "hypothesis", "rainband.errors", "builtins", "nothing_of_that_name"):
        assert import_root(name) is None
    script = ModuleType("__main__")
    script.__file__ = str(tmp_path / "pkg" / "tool.py")
    monkeypatch.setitem(sys.modules, "__main__", script)
    assert import_root("__main__") == tmp_path / "pkg"
    script.__spec__ = ModuleSpec("pkg.tool", None)
    assert import_root("__main__") == tmp_path
    package = ModuleType("pkg")
    package.__file__ = str(tmp_path / "pkg" / "__init__.py")
    monkeypatch.setitem(sys.modules, "pkg", package)
    assert import_root("pkg") == tmp_path


def archive(*entries: tuple[str, bytes], edit: Callable[[zipfile.ZipInfo], object] = lambda entry: None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, data in entries:
            entry = zipfile.ZipInfo("x" * len(name))
            entry.compress_type = zipfile.ZIP_DEFLATED
            edit(entry)
            entry.filename = name
            made.writestr(entry, data)
    return buffer.getvalue()


def mode(bits: int) -> Callable[[zipfile.ZipInfo], object]:
    return lambda entry: setattr(entry, "external_attr", bits << 16)


def stored(entry: zipfile.ZipInfo) -> None:
    entry.compress_type = zipfile.ZIP_STORED


GOOD = archive(("code/a.py", b"a" * 100), ("code/b/c.py", b"c"), (f"components/{HEX}.pkl", b"p"))
END = len(GOOD) - 22


def with_end(data: bytes, **changes: int) -> bytes:
    names = ("disk", "start_disk", "here", "count", "size", "offset", "comment")
    values = dict(zip(names, struct.unpack("<4H2IH", data[-18:]), strict=True)) | changes
    return data[:-18] + struct.pack("<4H2IH", *values.values())


HOSTILE: list[tuple[str, bytes]] = [
    ("no zip", b"hello"),
    ("empty", b""),
    ("cut", GOOD[:-1]),
    ("bytes before", b"#!/bin/sh\n" + GOOD),
    ("bytes after", GOOD + b"x"),
    ("comment", with_end(GOOD, comment=1) + b"x"),
    ("many disks", with_end(GOOD, disk=1)),
    ("count beyond", with_end(GOOD, count=65535, here=65535)),
    ("counts differ", with_end(GOOD, count=1)),
    ("bad crc", archive(("code/a", b"abcdefgh"), edit=stored).replace(b"abcdefgh", b"abcdefgX")),
    ("up", archive(("code/../../evil", b"x"))),
    ("up at once", archive(("../evil", b"x"))),
    ("absolute", archive(("/etc/evil", b"x"))),
    ("absolute under code", archive(("code//etc/evil", b"x"))),
    ("backslash", archive(("code\\..\\evil", b"x"))),
    ("drive", archive(("C:/evil", b"x"))),
    ("dot", archive(("code/./a", b"x"))),
    ("newline", archive(("code/a\nb", b"x"))),
    ("escape", archive(("code/a\x1b[0m", b"x"))),
    ("long part", archive(("code/" + "a" * 256, b"x"))),
    ("long name", archive(("code/" + "a/" * 600 + "a", b"x"))),
    ("elsewhere", archive(("plan.msgpack", b"x"))),
    ("code as a file", archive(("code", b"x"))),
    ("directory", archive(("code/a/", b""))),
    ("inside a file", archive(("code/a", b"x"), ("code/a/b", b"y"))),
    ("pickle name", archive(("components/../x.pkl", b"x"))),
    ("pickle digest", archive(("components/abc.pkl", b"x"))),
    ("symlink", archive(("code/a", b"/etc/passwd"), edit=mode(stat.S_IFLNK | 0o777))),
    ("device", archive(("code/a", b""), edit=mode(stat.S_IFCHR | 0o600))),
    ("fifo", archive(("code/a", b""), edit=mode(stat.S_IFIFO | 0o600))),
    ("bomb", archive(("code/a", bytes(10_000_000)))),
    ("bzip2", archive(("code/a", b"x" * 100), edit=lambda e: setattr(e, "compress_type", zipfile.ZIP_BZIP2))),
]


@pytest.mark.parametrize("data", [row[1] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_a_hostile_bundle_is_refused_and_leaves_nothing(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InvalidTopology, match="the bundle is refused"):
        open_bundle(data, tmp_path / "home")
    assert list(tmp_path.iterdir()) == []


def test_a_plain_archive_is_accepted(tmp_path: Path) -> None:
    open_bundle(GOOD, tmp_path / "home")
    assert (tmp_path / "home" / "code" / "b" / "c.py").read_bytes() == b"c"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidTopology, match="there twice"):
        open_bundle(archive(("code/a", b"x"), ("code/a", b"y")), tmp_path / "home")


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    data = bytearray(archive(("code/a", b"x" * 100)))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(InvalidTopology, match="encrypted"):
        open_bundle(bytes(data), tmp_path / "home")


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=6))
@settings(max_examples=200, deadline=None)
def test_damaged_bytes_are_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, int]]
) -> None:
    data = bytearray(GOOD)
    for position, value in edits:
        data[position] = value
    place = tmp_path_factory.mktemp("place")
    try:
        open_bundle(bytes(data), place / "home")
    except InvalidTopology:
        assert list(place.iterdir()) == []
    else:
        assert [path.name for path in place.iterdir()] == ["home"]
        assert {path.name for path in (place / "home").iterdir()} <= {"code", "components"}


def test_loading_a_component(topology: Topology, tmp_path: Path) -> None:
    open_bundle(build_bundle(topology), tmp_path / "home")
    plan = topology.plan.components["lines"]
    component = load_component(tmp_path / "home", plan.digest)
    assert isinstance(component, Lines)
    assert component.paths == ["a"]
    check_component(component, plan)
    with pytest.raises(InvalidTopology, match="declares other outputs than its plan"):
        check_component(component, msgspec.structs.replace(plan, streams={"default": StreamPlan(("other",))}))


class Explodes:
    def __reduce__(self) -> Any:
        return (int, ("x",))


def test_a_component_that_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "components").mkdir()
    for data in (b"garbage", pickle.dumps(Explodes()), b"cnothing_of_that_name\nX\n."):
        digest = hashlib.sha256(data).hexdigest()
        (tmp_path / "components" / f"{digest}.pkl").write_bytes(data)
        with pytest.raises(InvalidTopology, match="cannot be read back"):
            load_component(tmp_path, digest)
    (tmp_path / "components" / f"{HEX}.pkl").write_bytes(pickle.dumps(1))
    with pytest.raises(InvalidTopology, match="is damaged"):
        load_component(tmp_path, HEX)
    with pytest.raises(InvalidTopology, match="has no component"):
        load_component(tmp_path, "1" * 64)
    for digest in ("", "../../etc/passwd", HEX.upper() + "A", HEX + "\n"):
        with pytest.raises(InvalidTopology, match="is no digest"):
            load_component(tmp_path, digest)
