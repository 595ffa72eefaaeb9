"""A real Apache Storm cluster on loopback: ZooKeeper, Nimbus, a supervisor, and the worker JVMs it starts.

Not Storm's LocalCluster, which keeps everything in one JVM. The jars come from
the pom.xml beside the topologies (storm-client, storm-server; storm-shaded-deps contains the ZooKeeper
server). The layout of STORM_HOME, the main classes and the system properties are those of Storm's own
launcher script; a worker takes its jars from STORM_HOME/lib-worker.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.peers.corpus import cache_dir
from benchmarks.peers.meters import wait_until
from benchmarks.peers.processes import Group, free_ports

VERSION = "2.8.3"
SOURCES = Path(__file__).parent / "storm"
SHADED = "org.apache.storm.shade.org.apache.zookeeper.server"
SLOTS = 4

LOGGING = """<configuration><appenders>
<Console name="out" target="SYSTEM_ERR"><PatternLayout pattern="%d %p %c{1} %m%n%throwable"/></Console>
</appenders><loggers><root level="INFO"><appender-ref ref="out"/></root></loggers></configuration>
"""
WORKER_LOGGING = """<configuration><appenders>
<File name="out" fileName="${sys:workers.artifacts}/${sys:storm.id}/${sys:worker.port}/worker.log">
<PatternLayout pattern="%d %p %c{1} %m%n%throwable"/></File>
</appenders><loggers><root level="INFO"><appender-ref ref="out"/></root></loggers></configuration>
"""


def build() -> tuple[Path, Path]:
    """(our jar, the directory of Storm's jars), built by Maven when the sources changed."""
    home = cache_dir("storm", VERSION)
    jar, libs, stamp = home / "target" / "storm-peer.jar", home / "libs", home / "built"
    newest = max(path.stat().st_mtime for path in SOURCES.rglob("*") if path.is_file())
    if stamp.exists() and stamp.stat().st_mtime >= newest and jar.exists():
        return jar, libs
    command = [
        "mvn",
        "-q",
        "-B",
        "clean",
        "package",
        "dependency:copy-dependencies",
        f"-DoutputDirectory={libs}",
    ]
    command += [f"-Dpeer.build.directory={home / 'target'}", "-DincludeScope=runtime"]
    with (home / "build.log").open("wb") as log:
        done = subprocess.run(command, cwd=SOURCES, stdout=log, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise RuntimeError(f"Maven could not build the topologies; see {log.name}")
    stamp.touch()
    return jar, libs


class NimbusRefused(Exception):
    """Raised for a request that Nimbus answered with an error; the message is Storm's."""


class StormDaemons:
    """The daemons, from `with` to its end; a console to speak to Nimbus."""

    def __init__(self, *, java: str = "java") -> None:
        self.java = java
        self.jar, self.libs = build()
        self.root = Path(tempfile.mkdtemp(prefix="storm-peer-"))
        self.ports = dict(zip(("zookeeper", "nimbus", "supervisor"), free_ports(3), strict=True))
        self._groups: list[Group] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close(keep_logs=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None
    ) -> None:
        self.close(keep_logs=kind is not None)

    def close(self, *, keep_logs: bool = False) -> None:
        """Stop everything that was started; after a failure leave the logs behind and say where."""
        for group in reversed(self._groups):
            group.stop(grace_s=1.0)
        if keep_logs:
            print(f"storm: logs are kept in {self.root}", file=sys.stderr)
        else:
            shutil.rmtree(self.root, ignore_errors=True)

    def ask(self, verb: str, **request: object) -> dict[str, Any]:
        """One request to Nimbus through the console."""
        stdin, stdout = self.console.pipes()
        stdin.write(json.dumps({"do": verb, **request}).encode() + b"\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise RuntimeError(f"the console ended; see {self.console.log}")
        answer: dict[str, Any] = json.loads(line)
        if not answer.pop("ok"):
            raise NimbusRefused(f"{verb}: {answer['error']}")
        return answer

    def alive(self) -> bool:
        """Are all daemons up?"""
        return all(group.running for group in self._groups)

    def _start(self) -> None:
        self._lay_out()
        classpath = f"{self.libs}/*"
        self._daemon(
            "zookeeper", f"{SHADED}.ZooKeeperServerMain", [str(self.root / "zookeeper.cfg")], classpath
        )
        wait_until(lambda: self._listening("zookeeper"), self.alive, 30, "ZooKeeper did not listen")
        self._daemon("nimbus", "org.apache.storm.daemon.nimbus.Nimbus", [], classpath)
        wait_until(lambda: self._listening("nimbus"), self.alive, 60, "Nimbus did not listen")
        self._daemon("supervisor", "org.apache.storm.daemon.supervisor.Supervisor", [], classpath)
        self.console = self._daemon(
            "console", "rainband.peers.Console", [], f"{self.jar}:{classpath}", talk=True
        )
        wait_until(self._supervised, self.alive, 60, "no supervisor joined")

    def _daemon(self, name: str, main: str, args: list[str], classpath: str, *, talk: bool = False) -> Group:
        properties = {
            "storm.home": self.home,
            "storm.conf.file": self.root / "storm.yaml",
            "storm.jar": self.jar,
            "storm.log.dir": self.root / "logs",
            "daemon.name": name,
            "java.io.tmpdir": self.root / "tmp",
            "log4j.configurationFile": self.root / "conf" / "daemon.xml",
            "zookeeper.admin.enableServer": "false",
        }
        command = [self.java, "-Xmx512m", *(f"-D{key}={value}" for key, value in properties.items())]
        group = Group(
            [*command, "-cp", classpath, main, *args],
            self.root / "logs" / f"{name}.log",
            cwd=self.root,
            talk=talk,
        )
        self._groups.append(group)
        return group

    def _listening(self, name: str) -> bool:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.ports[name]), timeout=1),
        ):
            return True
        return False

    def _supervised(self) -> bool:
        with contextlib.suppress(NimbusRefused):
            return int(self.ask("cluster")["supervisors"]) == 1
        return False

    @property
    def home(self) -> Path:
        """STORM_HOME."""
        return self.root / "home"

    def _lay_out(self) -> None:
        for name in ("home", "conf", "logs", "local", "zookeeper", "tmp"):
            (self.root / name).mkdir()
        (self.home / "lib-worker").symlink_to(self.libs)
        (self.root / "conf" / "daemon.xml").write_text(LOGGING)
        (self.root / "conf" / "worker.xml").write_text(WORKER_LOGGING)
        zookeeper = {
            "dataDir": self.root / "zookeeper",
            "clientPort": self.ports["zookeeper"],
            "tickTime": 2000,
            "clientPortAddress": "127.0.0.1",
            "maxClientCnxns": 0,
        }
        (self.root / "zookeeper.cfg").write_text(
            "".join(f"{key}={value}\n" for key, value in zookeeper.items())
        )
        (self.root / "storm.yaml").write_text(json.dumps(self._conf(), indent=1))  # JSON is YAML

    def _conf(self) -> Mapping[str, object]:
        return {
            "storm.zookeeper.servers": ["127.0.0.1"],
            "storm.zookeeper.port": self.ports["zookeeper"],
            "storm.local.dir": str(self.root / "local"),
            "storm.local.hostname": "127.0.0.1",
            "storm.log.dir": str(self.root / "logs"),
            "storm.workers.artifacts.dir": str(self.root / "logs" / "workers"),
            "storm.log4j2.conf.dir": str(self.root / "conf"),
            "nimbus.seeds": ["127.0.0.1"],
            "nimbus.thrift.port": self.ports["nimbus"],
            "supervisor.thrift.port": self.ports["supervisor"],
            "supervisor.slots.ports": free_ports(SLOTS),
            # only how soon a round begins and ends; nothing here is on the way of a tuple
            "nimbus.monitor.freq.secs": 2,
            "supervisor.monitor.frequency.secs": 1,
            "supervisor.worker.shutdown.sleep.secs": 1,
            "worker.heap.memory.mb": 2048,
            "topology.worker.max.heap.size.mb": 2048,
        }
