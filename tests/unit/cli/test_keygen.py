"""The cluster's key file: made once, private, and what every command then uses."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from rainband.cli.main import run
from rainband.messaging.keys import KEY_FILE, cluster_keys


def test_makes_a_private_key_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "keys"
    assert run(["keygen", str(directory)]) == 0
    path = directory / KEY_FILE
    assert str(path) in capsys.readouterr().out
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert cluster_keys(str(directory)) is not None
    assert cluster_keys(None) is None


def test_never_overwrites_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["keygen", str(tmp_path)])
    before = (tmp_path / KEY_FILE).read_bytes()
    assert run(["keygen", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / KEY_FILE).read_bytes() == before
