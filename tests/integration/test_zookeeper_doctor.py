"""`rainband doctor` on ZooKeepers that are fit, silent, somebody else's or open to all; and TLS to one."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kazoo.client import KazooClient

from kit import zookeeper
from kit.nimbuses import Nimbuses
from kit.zookeeper import Ensemble
from rainband.config import Config
from rainband.errors import NotAllowed, RainbandError, UsageError
from rainband.nimbus import state
from rainband.supervisor import ports, processes

zookeeper.require()
pytestmark = pytest.mark.faults
ROOTS = itertools.count()


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ensemble]:
    with zookeeper.ensemble(tmp_path_factory.mktemp("zookeeper")) as made:
        yield made


@pytest.fixture
def url(ensemble: Ensemble) -> str:
    return ensemble.url(f"/doctor-{next(ROOTS)}")


@pytest.fixture
def auth(tmp_path: Path) -> Path:
    path = tmp_path / "auth"
    path.touch(mode=0o600)
    path.write_text("rainband:a secret of the tests\n")
    return path


def doctor(tmp_path: Path, **settings: object) -> list[dict[str, str]]:
    """What it found out about ZooKeeper."""
    given = {"state.dir": str(tmp_path / "state"), "nimbus.seeds": '["127.0.0.1:1"]', **settings}
    words = [word for key, value in given.items() for word in ("-c", f"{key}={value}")]
    argv = [sys.executable, "-P", "-m", "rainband", "doctor", "--json", *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=processes.environment())
    found = [json.loads(line) for line in done.stdout.splitlines()]
    mine = [one for one in found if one["what"] == "zookeeper"]
    assert done.returncode == int(any(one["state"] == "bad" for one in found)), done.stderr
    assert "a secret" not in done.stdout
    return mine


def test_one_that_is_fit_before_and_after_its_first_nimbus(url: str, auth: Path, tmp_path: Path) -> None:
    settings = {"nimbus.state": url, "nimbus.zookeeper.auth.file": auth}
    first = doctor(tmp_path, **settings)
    assert [one["state"] for one in first] == ["ok", "ok"]
    assert "is not there yet" in first[1]["text"]
    with Nimbuses(tmp_path / "nimbuses", url, 1) as nimbuses:
        nimbuses.start(0)
        nimbuses.leader()
        second = doctor(tmp_path, **settings)
    assert [one["state"] for one in second] == ["ok", "ok"]
    assert "belongs to cluster" in second[1]["text"]
    auth.write_text("rainband:another\n")
    [bad] = doctor(tmp_path, **settings)
    assert bad["state"] == "bad"
    assert "for other credentials" in bad["text"]
    assert bad["fix"] == "Give every Nimbus the same credentials"


def test_one_that_anyone_may_write_to(url: str, auth: Path, tmp_path: Path) -> None:
    servers, _, root = url.removeprefix("zookeeper://").partition("/")
    anyone = KazooClient(servers)
    anyone.start(10)
    with contextlib.closing(anyone):
        anyone.create(f"/{root}", b"")
        anyone.stop()
    found = doctor(tmp_path, **{"nimbus.state": url, "nimbus.zookeeper.auth.file": auth})
    assert [one["state"] for one in found] == ["ok", "bad"]
    assert "anyone may write to" in found[1]["text"]
    assert "Set an ACL" in found[1]["fix"]


def test_servers_that_are_silent(ensemble: Ensemble, auth: Path, tmp_path: Path) -> None:
    closed = ports.choose(1, "127.0.0.1")[0]
    [bad] = doctor(
        tmp_path, **{"nimbus.state": f"zookeeper://127.0.0.1:{closed}/x", "nimbus.zookeeper.auth.file": auth}
    )
    assert (bad["state"], bad["text"]) == ("bad", f"127.0.0.1:{closed} does not answer")
    some = f"zookeeper://127.0.0.1:{closed},{ensemble.servers[0].address}/some"
    found = doctor(tmp_path, **{"nimbus.state": some, "nimbus.zookeeper.auth.file": auth})
    assert [one["state"] for one in found] == ["warn", "ok", "ok"]
    [bad] = doctor(tmp_path, **{"nimbus.state": some, "nimbus.zookeeper.auth.file": tmp_path / "nowhere"})
    assert "cannot read the credentials" in bad["text"]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem signed server.pem and client.pem (certificate and key in one) and client.key."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl")
    directory = tmp_path_factory.mktemp("certificates")

    def openssl(*words: str) -> None:
        done = subprocess.run(["openssl", *words], cwd=directory, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    new = ["-newkey", "rsa:2048", "-nodes"]
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=tests")
    (directory / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name in ("server", "client"):
        openssl("req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names"]
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *signed)
        both = directory / f"{name}.pem"
        both.write_text((directory / f"{name}.crt").read_text() + (directory / f"{name}.key").read_text())
        (directory / f"{name}.key").chmod(0o600)
    return directory


def test_tls_with_a_certificate_of_our_own(certificates: Path, auth: Path, tmp_path: Path) -> None:
    port = ports.choose(1, "127.0.0.1")[0]
    more = [
        "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory", f"secureClientPort={port}",
        f"ssl.keyStore.location={certificates / 'server.pem'}", "ssl.keyStore.type=PEM",
        f"ssl.trustStore.location={certificates / 'ca.pem'}", "ssl.trustStore.type=PEM", "ssl.clientAuth=need",
    ]  # fmt: skip
    settings: dict[str, object] = {
        "nimbus.zookeeper.ca.file": str(certificates / "ca.pem"),
        "nimbus.zookeeper.cert.file": str(certificates / "client.crt"),
        "nimbus.zookeeper.key.file": str(certificates / "client.key"),
    }
    url = f"zookeeper://127.0.0.1:{port}/tls"
    with zookeeper.ensemble(tmp_path / "zookeeper", more=more):
        with Nimbuses(tmp_path / "nimbuses", url, 2, settings) as nimbuses:
            nimbuses.start(0, 1)
            nimbuses.wait_members(2)
            first = nimbuses.leader()
            nimbuses.kill(first)
            nimbuses.leader(but=first)
            known = {"nimbus.state": url, "nimbus.zookeeper.auth.file": auth}
            found = doctor(tmp_path, **known, **settings)
            assert [one["state"] for one in found] == ["ok", "ok"], found
            assert "(TLS)" in found[0]["text"]
            assert [one["state"] for one in doctor(tmp_path, **known)] == ["bad"]
            other = {**settings, "nimbus.zookeeper.ca.file": str(certificates / "client.crt")}
            assert [one["state"] for one in doctor(tmp_path, **known, **other)] == ["bad"]


def test_files_for_tls_that_cannot_be(tmp_path: Path) -> None:
    good = tmp_path / "good.pem"
    good.touch(mode=0o600)
    ca, cert, key = (f"nimbus.zookeeper.{what}.file" for what in ("ca", "cert", "key"))
    assert state.tls(Config()) is None
    refused: list[tuple[dict[str, object], type[RainbandError], str]] = [
        ({ca: str(tmp_path / "nowhere")}, UsageError, "cannot read .*nowhere"),
        ({cert: str(good), key: str(good)}, UsageError, "needs nimbus.zookeeper.ca.file"),
        ({ca: str(good), cert: str(good)}, UsageError, "together with"),
    ]
    for settings, error, said in refused:
        with pytest.raises(error, match=said):
            state.tls(Config(settings))
    open_to_all = tmp_path / "open.key"
    open_to_all.touch(mode=0o644)
    with pytest.raises(NotAllowed, match=r"open to other users\. Run: chmod 600"):
        state.tls(Config({ca: str(good), cert: str(good), key: str(open_to_all)}))
