"""What `rainband doctor` finds without asking anybody."""

from __future__ import annotations

from pathlib import Path

import pytest

from rainband.cli.doctor import Finding, check_zookeeper
from rainband.config import Config


def test_credentials_that_the_first_nimbus_makes_are_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (found,) = check_zookeeper(Config.layer({"nimbus.state": "zookeeper://127.0.0.1:1/a"}))
    assert (found.state, found.text) == ("warn", "there are no credentials for ZooKeeper yet")
    assert found.fix.startswith("The first Nimbus of this user makes them")
    assert not list(tmp_path.rglob("*.auth"))


def test_credentials_that_were_named_and_are_not_there_are_one(tmp_path: Path) -> None:
    named = {"nimbus.state": "zookeeper://127.0.0.1:1/a", "nimbus.zookeeper.auth.file": str(tmp_path / "none")}
    (found,) = check_zookeeper(Config.layer(named))
    assert isinstance(found, Finding)
    assert (found.state, found.text[:27]) == ("bad", "cannot read the credentials")
