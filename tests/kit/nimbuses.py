"""Several Nimbus processes on one ZooKeeper, which a test may stop and kill, and a supervisor played by the test."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rainband.config import Config
from rainband.errors import RainbandError
from rainband.messaging.keys import Keys
from rainband.messaging.rpc import RpcClient
from rainband.nimbus import state
from rainband.records import ClusterSummary, GetCluster
from rainband.supervisor import ports

SETTINGS: dict[str, object] = {"nimbus.zookeeper.session.secs": 4, "nimbus.monitor.freq.secs": 0.5}
CODE = """
import sys
from rainband.cli.daemons import log_to_stderr
from rainband.config import Config
from rainband.errors import RainbandError
from rainband.nimbus import service
import msgspec
log_to_stderr(False)
try:
    service.run(Config.layer(msgspec.json.decode(sys.argv[1])))
except RainbandError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
"""


def wait(condition: Callable[[], Any], timeout_s: float, what: Callable[[], str] | str = "") -> Any:
    """What `condition` returns once it is true. AssertionError after `timeout_s`."""
    until = time.monotonic() + timeout_s
    while not (found := condition()):
        text = what() if callable(what) else what
        assert time.monotonic() < until, f"not within {timeout_s:g} s: {text or condition}"
        signal.sigtimedwait([], 0.02)
    return found


class Nimbuses:
    """`count` of them at fixed ports, each with a directory of its own. Use as a context manager.

    `hosts` are their addresses, `prefixes` what is put before their command lines. With `keys` they and those who ask
    use them, and the credentials for ZooKeeper are made of them.
    """

    def __init__(
        self,
        directory: Path,
        url: str,
        count: int,
        settings: Mapping[str, object] | None = None,
        *,
        hosts: Sequence[str] = (),
        prefixes: Sequence[Sequence[str]] = (),
        keys: bool = False,
    ) -> None:
        self.directory = directory
        self.url = url
        self.settings = {**SETTINGS, **(settings or {})}
        self.ports = ports.choose(count, "127.0.0.1")
        self.hosts = list(hosts) or ["127.0.0.1"] * count
        self.prefixes = list(prefixes) or [()] * count
        self.seeds = [f"{host}:{port}" for host, port in zip(self.hosts, self.ports, strict=True)]
        self.keys = Keys.generate() if keys else None
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.credentials = "rainband:a secret of the tests"
        directory.mkdir(parents=True, exist_ok=True)
        if self.keys is not None:
            (directory / "keys").mkdir(mode=0o700)
            self.keys.save(directory / "keys" / "cluster.key")
            self.settings["keys.dir"] = str(directory / "keys")
            self.credentials = state.credentials(Config.layer(self.settings))
        else:
            auth = directory / "auth"
            auth.touch(mode=0o600)
            auth.write_text(f"{self.credentials}\n")
            self.settings["nimbus.zookeeper.auth.file"] = str(auth)

    def __enter__(self) -> Nimbuses:
        return self

    def __exit__(self, *_: object) -> None:
        for number in list(self.processes):
            self.kill(number)

    def config(self, number: int) -> dict[str, object]:
        return {
            "nimbus.state": self.url, "nimbus.port": self.ports[number], "nimbus.host": self.hosts[number],
            "state.dir": str(self.directory / str(number)), **self.settings,
        }  # fmt: skip

    def start(self, *numbers: int) -> None:
        """Start Nimbuses, also again."""
        import msgspec

        for number in numbers:
            config = Config.layer(self.config(number)).plain()
            argv = [*self.prefixes[number], sys.executable, "-c", CODE, msgspec.json.encode(config).decode()]
            with open(self.directory / f"{number}.log", "ab") as log:
                self.processes[number] = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self, number: int) -> float:
        """kill -9; returns when."""
        process = self.processes.pop(number)
        at = time.monotonic()
        process.kill()
        process.wait(10)
        return at

    def terminate(self, number: int) -> float:
        """SIGTERM; returns when."""
        at = time.monotonic()
        self.processes[number].send_signal(signal.SIGTERM)
        assert self.processes[number].wait(10) == 0, self.log(number)
        del self.processes[number]
        return at

    def stop(self, number: int) -> None:
        os.kill(self.processes[number].pid, signal.SIGSTOP)

    def go_on(self, number: int) -> None:
        os.kill(self.processes[number].pid, signal.SIGCONT)

    def log(self, number: int) -> str:
        with contextlib.suppress(OSError):
            return (self.directory / f"{number}.log").read_text(errors="replace")
        return ""

    def logs(self) -> str:
        return "\n".join(f"--- {number}\n{self.log(number)[-3000:]}" for number in range(len(self.ports)))

    def summary(self, *numbers: int, timeout_s: float = 0.4) -> ClusterSummary | None:
        """What the leader says when these are asked (default: all); None while there is none."""
        asked = [self.seeds[number] for number in numbers or range(len(self.ports))]
        client = RpcClient(asked, timeout_s, self.keys)
        try:
            answer = client.call(GetCluster())
        except RainbandError:
            return None
        finally:
            client.close()
        assert isinstance(answer, ClusterSummary)
        return answer

    def leader(self, timeout_s: float = 20.0, but: int | None = None) -> int:
        """The number of the Nimbus that leads, waited for; `but` must not be asked."""
        asked = [number for number in range(len(self.ports)) if number != but]

        def led() -> ClusterSummary | None:
            found = self.summary(*asked)
            return found if found is not None and (but is None or found.leader != self.seeds[but]) else None

        found: ClusterSummary = wait(led, timeout_s, self.logs)
        return self.seeds.index(found.leader)

    def wait_members(self, count: int, timeout_s: float = 20.0) -> ClusterSummary:
        """Until so many stand for election."""
        found: ClusterSummary = wait(
            lambda: (s := self.summary()) is not None and len(s.nimbuses) == count and s, timeout_s, self.logs
        )
        return found


@contextlib.contextmanager
def connected(seeds: list[str], timeout_s: float = 4.0) -> Iterator[RpcClient]:
    client = RpcClient(seeds, timeout_s)
    try:
        yield client
    finally:
        client.close()
