"""The pytest plugin, in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import rainband.build

TEST = '''
from rainband import Bolt, Spout, TopologyBuilder

class Rows(Spout):
    outputs = ("n",)
    def next_tuple(self): self.finish()

class Pass(Bolt):
    outputs = ("n",)
    def execute(self, tup): self.emit(tup.values)

builder = TopologyBuilder("t")
builder.set_spout("rows", Rows())
builder.set_bolt("pass", Pass()).shuffle_grouping("rows")
topology = builder.create_topology()

def test_virtual(virtual_cluster, pytestconfig):
    running = virtual_cluster.submit(topology, sources={"rows": [[1], [2]]})
    virtual_cluster.advance(1)
    assert running.emitted("pass") == [(1,), (2,)]

def test_background(local_cluster):
    running = local_cluster.submit(topology, sources={"rows": [[1], [2]]})
    running.wait_drained(timeout_s=10)
    assert running.emitted("pass") == [(1,), (2,)]
'''


def run_pytest(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (directory / "test_topology.py").write_text(TEST)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "rainband.testing.plugin", "-p", "no:cacheprovider", *arguments],
        cwd=directory,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "RAINBAND"))},
            "PYTHONPATH": str(Path(rainband.build.__file__).parent.parent),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_fixtures_and_seed(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "--rainband-seed=random", "-W", "error")
    assert done.returncode == 0, done.stdout
    assert "rainband: --rainband-seed=" in done.stdout
    assert "2 passed" in done.stdout


def test_a_seed_is_a_number(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "--rainband-seed=lucky")
    assert done.returncode == 4
    assert "a whole number or 'random', not 'lucky'" in done.stderr


def test_loading_the_plugin_imports_next_to_nothing() -> None:
    script = (
        "import pytest, sys; before = set(sys.modules); import rainband.testing.plugin; "
        "print(*set(sys.modules) - before)"
    )
    path = str(Path(rainband.build.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) <= {"rainband", "rainband.build", "rainband.testing", "rainband.testing.plugin"}
