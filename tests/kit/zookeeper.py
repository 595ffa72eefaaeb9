"""Real ZooKeeper servers on loopback, brought up by the tests themselves: one, or an ensemble of three.

The server's jars come from Debian's package `zookeeper` where that is installed, else from Maven Central, once, into
~/.cache. Without Java or a network the tests are skipped with the reason; where CI is set they fail.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

from rainband.supervisor import ports

VERSION = "3.9.3"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "rainband-tests" / f"zookeeper-{VERSION}"
DEBIAN = Path("/usr/share/java/zookeeper.jar")
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
TICK_MS = 500
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>rainband.tests</groupId><artifactId>zookeeper-server</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>
<dependency><groupId>org.apache.zookeeper</groupId><artifactId>zookeeper</artifactId><version>{VERSION}</version></dependency>
<dependency><groupId>org.xerial.snappy</groupId><artifactId>snappy-java</artifactId><version>1.1.10.7</version></dependency>
<dependency><groupId>io.dropwizard.metrics</groupId><artifactId>metrics-core</artifactId><version>4.1.36</version></dependency>
</dependencies></project>
"""


class Unavailable(Exception):
    """Why there is no ZooKeeper here."""


@cache
def java_class_path() -> str:
    """Where the server's classes are; fetched on the first use."""
    if shutil.which("java") is None:
        raise Unavailable("there is no java")
    if DEBIAN.exists():
        return f"{DEBIAN.parent}/*"
    jars = CACHE / "jars"
    if not jars.is_dir():
        if shutil.which("mvn") is None:
            raise Unavailable("neither Debian's package zookeeper nor mvn is there")
        CACHE.mkdir(parents=True, exist_ok=True)
        pom, fetched = CACHE / "pom.xml", CACHE / f"jars-{os.getpid()}"
        pom.write_text(POM)
        argv = ["mvn", "-q", "-B", "-f", str(pom), PLUGIN, f"-DoutputDirectory={fetched}", "-DincludeScope=runtime"]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            raise Unavailable("Maven Central did not answer in 300 s") from None
        if done.returncode:
            raise Unavailable(f"mvn failed: {(done.stdout + done.stderr).strip()[-400:]}")
        with contextlib.suppress(OSError):  # another test run was faster
            fetched.rename(jars)
    return f"{jars}/*"


def require() -> None:
    """Skip the tests of this module where there can be no ZooKeeper; fail them where CI is set."""
    try:
        java_class_path()
    except Unavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no ZooKeeper: {error}", allow_module_level=True)


class ZooKeeper:
    """One server of an ensemble of `servers` (client, peer and election ports of all) at `host`.

    `prefix` is put before the command line (`ip netns exec ...`), `more` are lines of its configuration.
    """

    def __init__(
        self,
        directory: Path,
        number: int,
        servers: list[tuple[int, int, int]],
        host: str,
        prefix: Sequence[str],
        more: Sequence[str] = (),
    ) -> None:
        self.host = host
        self.prefix = list(prefix)
        self.directory = directory / f"zookeeper-{number}"
        self.port = servers[number - 1][0]
        self.process: subprocess.Popen[bytes] | None = None
        self.data = self.directory / "data"
        self.data.mkdir(parents=True)
        (self.data / "myid").write_text(str(number))
        lines = [
            f"tickTime={TICK_MS}", "initLimit=20", "syncLimit=4", f"dataDir={self.data}", f"clientPort={self.port}",
            f"clientPortAddress={host}", "admin.enableServer=false", "4lw.commands.whitelist=ruok,srvr,stat",
            "minSessionTimeout=1000", *more,
        ]
        if len(servers) > 1:
            lines += [f"server.{n}={host}:{peer}:{vote}" for n, (_, peer, vote) in enumerate(servers, 1)]
            lines.append("quorumListenOnAllIPs=false")
        self.config = self.directory / "zoo.cfg"
        self.config.write_text("\n".join(lines) + "\n")

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def start(self) -> None:
        """Start it; it answers a little later."""
        argv = [
            *self.prefix, "java", "-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
            "-Dzookeeper.fsync.warningthresholdms=5000", "-Dzookeeper.forceSync=no",
            "-cp", java_class_path(), MAIN, str(self.config),
        ]
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def ask(self, word: str) -> str:
        """Answer to a four-letter word, '' when there is none."""
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 0.5) as connection:
            connection.settimeout(0.5)
            connection.sendall(word.encode())
            parts = iter(lambda: connection.recv(4096), b"")
            return b"".join(parts).decode()
        return ""

    def mode(self) -> str:
        """standalone, leader, follower; '' while it does not serve."""
        lines = [line for line in self.ask("srvr").splitlines() if line.startswith("Mode: ")]
        return lines[0].removeprefix("Mode: ") if lines else ""

    def wait_serving(self, timeout_s: float = 30.0) -> None:
        until = time.monotonic() + timeout_s
        while not self.mode():
            assert self.process is not None
            assert self.process.poll() is None, (self.directory / "log").read_text()[-2000:]
            assert time.monotonic() < until, (self.directory / "log").read_text()[-2000:]
            signal.sigtimedwait([], 0.05)

    def kill(self) -> None:
        """kill -9; what it took is on its disk."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)


class Ensemble:
    """`count` servers that know each other."""

    def __init__(
        self,
        directory: Path,
        count: int = 1,
        *,
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
        more: Sequence[str] = (),
    ) -> None:
        free = ports.choose(3 * count, "127.0.0.1")
        named = [(free[3 * n], free[3 * n + 1], free[3 * n + 2]) for n in range(count)]
        self.servers = [ZooKeeper(directory, number, named, host, prefix, more) for number in range(1, count + 1)]

    def start(self) -> None:
        for server in self.servers:
            server.start()
        for server in self.servers:
            server.wait_serving()

    def kill(self) -> None:
        for server in self.servers:
            server.kill()

    def leader(self) -> ZooKeeper:
        """The server that leads the ensemble, or the only one."""
        return next(server for server in self.servers if server.mode() in ("leader", "standalone"))

    def url(self, root: str = "/rainband") -> str:
        """What `nimbus.state` is to be."""
        return f"zookeeper://{','.join(server.address for server in self.servers)}{root}"


@contextlib.contextmanager
def ensemble(
    directory: Path,
    count: int = 1,
    *,
    host: str = "127.0.0.1",
    prefix: Sequence[str] = (),
    more: Sequence[str] = (),
) -> Iterator[Ensemble]:
    """A running ensemble; its processes are gone afterwards."""
    made = Ensemble(directory, count, host=host, prefix=prefix, more=more)
    try:
        made.start()
        yield made
    finally:
        made.kill()
