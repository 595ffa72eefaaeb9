"""A whole cluster as child processes on this machine: one Nimbus, some supervisors, and through them their workers.

For `rainband up`, `rainband demo` and LocalCluster(processes=True). The children are the same daemons a real cluster
runs, started by the same command line; they watch the process that started them, and stop when it is gone, so that not
even a SIGKILL leaves them behind. State stays in its directory and is found again by the next start.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from rainband.clock import SystemClock
from rainband.config import expanded
from rainband.errors import ClusterUnavailable, NotAllowed, RainbandError, Refused, UsageError, unwritable
from rainband.supervisor import disk, ports, processes
from rainband.supervisor.processes import Process

STOP_GRACE_S = 10.0
POLL_S = 0.05
LOCK = "up.lock"
PATHS = frozenset(
    ("keys.dir", "supervisor.secrets.dir", *(f"nimbus.zookeeper.{what}.file" for what in ("auth", "ca", "cert", "key")))
)
LOG_BYTES_MAX = 8 * 1024 * 1024
ENDS: dict[int, type[RainbandError]] = {kind.exit_code: kind for kind in (UsageError, Refused, NotAllowed)}


class EmbeddedCluster:
    """Start with `start()`, end with `stop()`, or use as a context manager.

    `state` receives one directory per daemon, their output (`nimbus.log`, `supervisor-1.log`) and a lock (`up.lock`),
    held from start to stop: another cluster on it touches neither processes nor logs of this one. `port` 0 chooses a
    free one. `settings` are config keys for all daemons; `verbose` daemons write more into their logs.
    """

    def __init__(
        self,
        state: Path,
        *,
        supervisors: int = 1,
        slots: int = 4,
        host: str = "127.0.0.1",
        port: int = 0,
        settings: Mapping[str, object] | None = None,
        verbose: bool = False,
    ) -> None:
        self.state = state
        self.slots = slots
        self.host = host
        self.port = port
        self.settings = absolute(settings or {})
        self.verbose = verbose
        self.names = ["nimbus", *(f"supervisor-{number}" for number in range(1, supervisors + 1))]
        self.children: dict[str, Process] = {}
        self._log_begins: dict[str, int] = {}
        self._lock: int | None = None
        self._clock = SystemClock()

    @property
    def address(self) -> str:
        """Where Nimbus answers, host:port."""
        return f"{self.host}:{self.port}"

    def __enter__(self) -> EmbeddedCluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, timeout_s: float = 30.0) -> None:
        """Start every daemon and wait until Nimbus leads and has heard of all supervisors.

        Raises Refused (port or state directory) or what ended a daemon (with its last words); then nothing is running.
        """
        if self.port:
            self._check_port()
        try:
            self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = disk.take_lock(self.state / LOCK, "Stop that one first, or choose another state directory")
        except OSError as error:
            raise unwritable(self.state, error) from None
        try:
            self.port = self.port or ports.choose(1, self.host)[0]
            for name in self.names:
                self._start(name)
            self._wait_ready(timeout_s)
        except BaseException:
            self.stop()
            raise

    def _check_port(self) -> None:
        """Raises Refused when we cannot listen on Nimbus's port: another process would answer in the place of ours."""
        try:
            ports.listen(self.host, self.port).close()
        except OSError as error:
            from rainband.messaging.sockets import cannot_listen

            raise cannot_listen(self.host, self.port, error.errno or 0) from None

    def failure(self, wait_s: float = 0.0) -> RainbandError | None:
        """None while all daemons live; else which one ended, and its last line, as what its exit code stands for.

        Waits up to `wait_s` for an end.
        """
        watched = {child.fileno(): name for name, child in self.children.items()}
        ended, _, _ = select.select(list(watched), [], [], wait_s)
        for number in ended:
            name = watched[number]
            end = self.children[name].reap()
            kind = ENDS.get(end.code or 0, ClusterUnavailable)
            return kind(f"{name} ended ({end.cause}): {self.last_words(name)}")
        return None

    def last_words(self, name: str) -> str:
        """The last line a daemon wrote, or ''."""
        with contextlib.suppress(OSError):
            text = (self.state / f"{name}.log").read_bytes()[self._log_begins.get(name, 0) :]
            lines = text.decode(errors="replace").strip().splitlines()
            return lines[-1].removeprefix("error: ") if lines else ""
        return ""

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Supervisors first, so that they can stop their workers; then Nimbus; then whatever is left of the workers."""
        supervisors = [child for name, child in self.children.items() if name != "nimbus"]
        processes.end_group(supervisors, grace_s)
        processes.end_group([child for name, child in self.children.items() if name == "nimbus"], grace_s)
        for name, child in self.children.items():
            if name != "nimbus":
                self._kill_left(self.state / name, child.pid)
        self.children.clear()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _kill_left(self, directory: Path, supervisor: int) -> None:
        """Kill the workers in a supervisor's directory, if it was the last to hold it: others are not ours."""
        lock = disk.inherit_lock(directory / disk.LOCK, supervisor)
        if lock is None:
            return
        for worker in processes.found_workers(directory / "topologies"):
            left = processes.adopt(worker.identity)
            if left is not None:
                left.kill()
                left.close()
        os.close(lock)

    def _start(self, name: str) -> None:
        settings = {**self.settings, "state.dir": str(self.state if name == "nimbus" else self.state / name)}
        own = ["nimbus"] if name == "nimbus" else ["supervisor", "--slots", str(self.slots), "--stop-workers"]
        own += ["-v"] if self.verbose else []
        if name == "nimbus":
            settings |= {"nimbus.host": self.host, "nimbus.port": self.port}
        else:
            settings |= {"nimbus.seeds": [self.address], "supervisor.host": self.host}
        given = [part for key, value in settings.items() for part in ("-c", f"{key}={_text(value)}")]
        log = self.state / f"{name}.log"
        if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
            log.unlink()
        self._log_begins[name] = log.stat().st_size if log.exists() else 0
        env = processes.environment(for_workers=name != "nimbus")
        argv = processes.python_command("rainband", *own, "--while", str(os.getpid()), *given)
        self.children[name] = processes.start(argv, cwd=self.state, log=log, env=env)

    def _wait_ready(self, timeout_s: float) -> None:
        from rainband.messaging.keys import cluster_keys
        from rainband.messaging.rpc import RpcClient
        from rainband.records import ClusterSummary, GetCluster

        end = self._clock.now() + timeout_s
        named = self.settings.get("keys.dir")
        keys = cluster_keys(named if isinstance(named, str) else None)
        client = RpcClient([self.address], timeout_s=1.0, keys=keys)
        try:
            while True:
                failure = self.failure(POLL_S)
                if failure is not None:
                    raise failure
                with contextlib.suppress(ClusterUnavailable):
                    answer = client.call(GetCluster())
                    assert isinstance(answer, ClusterSummary)
                    if sum(s.alive for s in answer.supervisors) >= len(self.names) - 1:
                        return
                if self._clock.now() > end:
                    raise ClusterUnavailable(
                        f"the cluster was not ready within {timeout_s:.0f} s", f"See the logs in {self.state}"
                    )
        finally:
            client.close()


def absolute(settings: Mapping[str, object]) -> dict[str, object]:
    """The settings for processes started elsewhere: relative paths are those of this process's directory."""
    return {
        key: str(expanded(value).absolute()) if key in PATHS and isinstance(value, str) and value else value
        for key, value in settings.items()
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def run_script(path: Path, *arguments: str, timeout_s: float = 600.0) -> str:
    """Run a Python file of our own to its end; returns its stdout. Raises RainbandError with its last words."""
    argv = [sys.executable, "-I", str(path), *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise RainbandError(f"{path.name} failed: {lines[-1] if lines else f'exit code {done.returncode}'}")
    return done.stdout


def kill_process(pid: int) -> None:
    """kill -9, as an accident would."""
    os.kill(pid, 9)


def kill_worker(pid: int, topology_id: str, port: int) -> bool:
    """kill -9 a worker on this machine; false when `pid` is not the one of that topology and port."""
    found = processes.worker_of(pid)
    if found is None or (found.home.name, found.port) != (topology_id, port):
        return False
    kill_process(pid)
    return True
