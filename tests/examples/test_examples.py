"""Each example does what it says, and runs with `rainband local FILE`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import rainband.build
from rainband import complete_topology
from rainband.topology.bundle import load_topology
from rainband.topology.graph import Topology

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
FILES = sorted(EXAMPLES.glob("*.py"))
GIVES_UP = {"dead_letters"}


def example(name: str, *arguments: str) -> Topology:
    return load_topology(EXAMPLES / f"{name}.py", "topology", arguments)


@pytest.fixture(autouse=True)
def forget_imports() -> Iterator[None]:
    """Examples are imported under their own names: leave none of them behind."""
    modules, path = set(sys.modules), list(sys.path)
    yield
    for name in {file.stem for file in FILES} - modules:
        sys.modules.pop(name, None)
    sys.path[:] = path


def test_there_are_seven() -> None:
    assert len(FILES) == 7


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_runs_from_the_command_line(file: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rainband", "local", str(file), "--json", "--timeout", "60"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(rainband.build.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (1 if file.stem in GIVES_UP else 0), done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["drained"]
    assert answer["pending"] == 0
    assert bool(answer["dead_letters"]) == (file.stem in GIVES_UP)


def test_word_count(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("the cat\n\nthe dog the end\n")
    two.write_bytes(b"caf\xe9 the\n")
    result = complete_topology(example("word_count", str(one), str(two)))
    truth = Counter((one.read_text() + two.read_text(errors="replace")).split())
    assert result.instances("report")[0].newest == truth
    assert result.instances("report")[0].top()[0] == ("the", 4)
    assert len(result.acked("lines")) == 4


def test_exclamation() -> None:
    result = complete_topology(example("exclamation"))
    assert Counter(result.executed("say"))[("nathan!!!!!!",)] == 2
    assert len(result.executed("say")) == 10


@pytest.mark.parametrize("workers", [1, 3])
def test_join(workers: int) -> None:
    result = complete_topology(example("join"), config={"topology.workers": workers})
    assert sorted(result.emitted("join")) == [(1, "tea", 4.0), (2, "rice", 3.2), (3, "salt", 2.5)]
    assert sorted(result.emitted("join", "unmatched")) == [("orders", 4), ("payments", 9)]
    assert sorted(result.acked("orders")) == [1, 2, 3, 4]
    assert sorted(result.acked("payments")) == [1, 2, 3, 9]
    assert result.seconds < 1.5


def test_dead_letters() -> None:
    result = complete_topology(example("dead_letters"), raise_errors=False)
    assert [letter[:4] for letter in result.emitted("amounts", "dead_letters")] == [(2, "default", ("seven",), 3)]
    assert sorted(result.acked("amounts")) == [0, 1, 3]
    assert result.emitted("book")[-1] == (99.75,)
    assert {error.error for error in result.errors()} == {"ValueError: could not convert string to float: 'seven'"}
    assert 0.7 < result.seconds < 1.0


def test_router() -> None:
    result = complete_topology(example("router"))
    minutes: dict[Any, int] = {}
    for machine, _, done_at in result.emitted("machine"):
        minutes[machine] = done_at
    assert sum(minutes.values()) == 200
    assert max(minutes.values()) - min(minutes.values()) <= 10


@pytest.mark.parametrize("workers", [1, 4])
def test_custom_grouping(workers: int) -> None:
    result = complete_topology(example("custom_grouping"), config={"topology.workers": workers})
    owners = {(task, customer) for task, customer, _ in result.emitted("account")}
    assert {customer: task for task, customer in owners if task < 2} == {"acme": 0, "globex": 1}
    assert len(owners) == 4
    assert ("acme", 11) in [(customer, units) for _, customer, units in result.emitted("account")]


class Slow(BaseHTTPRequestHandler):
    """Answers only once `together` requests are under way at the same time."""

    barrier = threading.Barrier(4)

    def do_GET(self) -> None:
        self.barrier.wait(10)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, *_: object) -> None: ...


def test_async_http() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        topology = example("async_http", f"http://127.0.0.1:{server.server_port}")
        result = complete_topology(topology)
    finally:
        server.shutdown()
        server.server_close()
    assert len(result.emitted("fetch")) == 100
    assert set(result.emitted("fetch")) >= {("/", 200, 1), ("/weather", 200, 8)}
    assert len(result.acked("paths")) == 100
