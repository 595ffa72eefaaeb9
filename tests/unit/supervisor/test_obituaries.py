"""Words of deaths to workers on other hosts wait while this host has no free port, and are dropped when old."""

from __future__ import annotations

from pathlib import Path

import pytest

from rainband.config import Config
from rainband.errors import Refused
from rainband.messaging.keys import Keys
from rainband.supervisor import daemon
from rainband.supervisor.daemon import GONE_TRY_S, Obituary, Supervisor
from rainband.supervisor.disk import Disk


class Way:
    """A network that has no port at first."""

    ports = 0
    sent: list[str] = []

    def __init__(self, host: str, port: int, keys: Keys | None) -> None:
        if not Way.ports:
            raise Refused("port 0 on 127.0.0.1 is in use")

    def send(self, address: str, frame: bytes) -> bool:
        Way.sent.append(address)
        return True

    def close(self) -> None:
        pass


def test_a_supervisor_without_a_free_port_tells_of_deaths_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(daemon, "ZmqNetwork", Way)
    monkeypatch.setattr(Way, "sent", [])
    supervisor = Supervisor(Config.layer({"nimbus.seeds": ["127.0.0.1:9"]}), Disk(tmp_path / "state"), [])
    try:
        words = [Obituary(at, f"127.0.0.1:{port}", "wc-1-1", "127.0.0.1:6700", 7) for at, port in ((0.0, 1), (5.0, 2))]
        supervisor.obituaries = list(words)
        for now in (5.0, 5.1, 5.2):
            supervisor._send_obituaries(now)
        assert supervisor.obituaries == words
        assert caplog.text.count("port 0 on 127.0.0.1 is in use") == 1
        supervisor._send_obituaries(GONE_TRY_S + 1.0)
        assert supervisor.obituaries == words[1:]
        monkeypatch.setattr(Way, "ports", 1)
        supervisor._send_obituaries(GONE_TRY_S + 2.0)
        assert (supervisor.obituaries, Way.sent) == ([], ["127.0.0.1:2"])
    finally:
        supervisor._close()
