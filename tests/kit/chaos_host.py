"""What a test does to the machine around real processes: small disks, failing system calls, cables. All need root.

Everything made here has the test's own pid in its name and is taken away again, also when the test fails.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from kit.chaos import Arena, wait
from rainband.messaging.keys import Keys

NOWHERE = "02:00:00:00:00:01"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts, namespaces, ptrace")
needs_strace = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("strace") is None, reason="needs root and strace")
needs_ip = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2")


def run(*argv: str) -> str:
    """A command that has to succeed; its output."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr.strip()}"
    return done.stdout


@contextlib.contextmanager
def small_disk(directory: Path, kib: int) -> Iterator[Path]:
    """A file system of its own, so small that it can be filled, at `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", f"size={kib}k,mode=0700", "tmpfs", str(directory))
    try:
        yield directory
    finally:
        run("umount", "-l", str(directory))


@contextlib.contextmanager
def control_group(controller: str, limits: Sequence[str], name: str, value: int) -> Iterator[Path]:
    """A control group with a limit (the name of its file in either version); write a pid into the file given."""
    group = Path("/sys/fs/cgroup") / controller / name
    if not group.parent.is_dir():
        group = Path("/sys/fs/cgroup") / name
    try:
        group.mkdir()
        limit = next(group / file for file in limits if (group / file).exists())
        limit.write_text(str(value))
    except (OSError, StopIteration) as error:
        removed(group)
        pytest.skip(f"no control group for {controller}: {error!r}")
    try:
        yield group / "cgroup.procs"
    finally:
        wait(lambda: removed(group), 10.0, f"{group} cannot be removed")


@contextlib.contextmanager
def memory_group(name: str, limit_bytes: int) -> Iterator[Path]:
    """A control group with so much memory; write a pid into the file to put that process there."""
    with control_group("memory", ["memory.limit_in_bytes", "memory.max"], name, limit_bytes) as members:
        yield members


@contextlib.contextmanager
def crowded(name: str, pid: int) -> Iterator[None]:
    """The process can start no other and no thread: its control group has as many as it may have."""
    with control_group("pids", ["pids.max"], name, 1 << 15) as members:
        home = Path(f"/proc/{pid}/cgroup").read_text()
        members.write_text(str(pid))
        (members.parent / "pids.max").write_text((members.parent / "pids.current").read_text())
        try:
            yield
        finally:
            (members.parent / "pids.max").write_text("max")
            where = next(line.split(":")[2] for line in home.splitlines() if ":pids:" in line or line.startswith("0::"))
            back = members.parent.parent / where.strip("/") / "cgroup.procs"
            for line in members.read_text().split():
                back.write_text(line)


def removed(directory: Path) -> bool:
    with contextlib.suppress(OSError):
        directory.rmdir()
    return not directory.exists()


def fill(directory: Path) -> Path:
    """Leave no byte free; the file that takes them all."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size) == size:
                    pass
    return filler


@contextlib.contextmanager
def failing_calls(
    pid: int, calls: str, how: str, log: Path | None = None, files: Sequence[Path] = ()
) -> Iterator[subprocess.Popen[str]]:
    """Attach strace so that system calls of the process fail, wait, or kill it: see `-e inject` in strace(1).

    `log` gets a line per call, with INJECTED in those that were made to fail. Given `files`, only calls on these count.
    """
    out = str(log or "/dev/null")
    only = [part for file in files for part in ("-P", str(file))]
    argv = ["strace", *only, "-f", "-p", str(pid), "-o", out, "-e", f"trace={calls}", "-e", f"inject={calls}:{how}"]
    tracer = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    try:
        assert tracer.stderr is not None
        line = tracer.stderr.readline()
        assert "attached" in line, line
        yield tracer
    finally:
        if tracer.poll() is None:
            tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=10)


class Hosts:
    """Network namespaces that stand for hosts, on one bridge; this process is on it too, at `here`. A context manager.

    A cut is made of neighbour entries that lead nowhere: packets vanish without a word, one way or both.
    """

    def __init__(self, count: int) -> None:
        self.tag = f"rb{os.getpid() % 100_000}"
        self.net = f"10.213.{os.getpid() % 250}"
        self.here = f"{self.net}.254"
        self.names = [f"{self.tag}n{number}" for number in range(1, count + 1)]

    def __enter__(self) -> Hosts:
        try:
            run("ip", "link", "add", self.tag, "type", "bridge")
            run("ip", "addr", "add", f"{self.here}/24", "dev", self.tag)
            run("ip", "link", "set", self.tag, "up")
            for number, name in enumerate(self.names, 1):
                run("ip", "netns", "add", name)
                run("ip", "link", "add", f"{self.tag}v{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
                run("ip", "link", "set", f"{self.tag}v{number}", "master", self.tag, "up")
                run("ip", "-n", name, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
                run("ip", "-n", name, "link", "set", "eth0", "up")
                run("ip", "-n", name, "link", "set", "lo", "up")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self.tag], capture_output=True, check=False)

    def address(self, number: int) -> str:
        return self.here if number == 0 else f"{self.net}.{number}"

    def prefix(self, number: int) -> list[str]:
        """In front of a command line: runs it on that host."""
        return ["ip", "netns", "exec", self.names[number - 1]]

    def cut(self, source: int, target: int, *, one_way: bool = False) -> None:
        """Packets from host `source` to `target` vanish, and back unless `one_way`. Host 0 is here."""
        self._neighbour(source, "replace", self.address(target), "lladdr", NOWHERE, "nud", "permanent")
        if not one_way:
            self.cut(target, source, one_way=True)

    def heal(self, source: int, target: int) -> None:
        for one, other in ((source, target), (target, source)):
            with contextlib.suppress(AssertionError):
                self._neighbour(one, "del", self.address(other))

    def slow_down(self, number: int, rate: str = "1mbit", latency: str = "500ms") -> None:
        """A host's way out becomes narrow, with a queue in front of it that drops what waits longer."""
        shape = ["tbf", "rate", rate, "burst", "16kb", "latency", latency]
        run(*self.prefix(number), "tc", "qdisc", "replace", "dev", "eth0", "root", *shape)

    def speed_up(self, number: int) -> None:
        run(*self.prefix(number), "tc", "qdisc", "del", "dev", "eth0", "root")

    @contextlib.contextmanager
    def no_ports(self, number: int) -> Iterator[None]:
        """Nobody on the host can make a new connection; those that are stay, and who listens goes on."""
        self._reserve(number, "1024-65535")
        try:
            yield
        finally:
            self._reserve(number, "")

    def _reserve(self, number: int, ports: str) -> None:
        path = "/proc/sys/net/ipv4/ip_local_reserved_ports"
        run(*self.prefix(number), "sh", "-c", f"echo '{ports}' > {path}")

    def _neighbour(self, number: int, action: str, *words: str) -> None:
        prefix = ["ip"] if number == 0 else ["ip", "-n", self.names[number - 1]]
        run(*prefix, "neigh", action, *words, "dev", self.tag if number == 0 else "eth0")


def wait_ended(pid: int, timeout_s: float = 10.0) -> None:
    """Wait until a process that is not our child is gone."""
    wait(lambda: not Path(f"/proc/{pid}").exists(), timeout_s, f"process {pid} is still there")


@contextlib.contextmanager
def arena_on(hosts: Hosts, directory: Path, settings: Mapping[str, object]) -> Iterator[Arena]:
    """Nimbus here, a supervisor on each of two hosts, all with one key; it has to end cleanly."""
    keys = directory / "keys"
    keys.mkdir(mode=0o700)
    Keys.generate().save(keys / "cluster.key")
    numbers = (1, 2)
    extra: dict[str, dict[str, object]] = {f"supervisor-{n}": {"supervisor.host": hosts.address(n)} for n in numbers}
    extra["nimbus"] = {"nimbus.host": hosts.here}
    prefix = {f"supervisor-{n}": hosts.prefix(n) for n in numbers}
    given = {**settings, "keys.dir": str(keys)}
    with Arena(directory, supervisors=2, slots=4, settings=given, extra=extra, prefix=prefix) as made:
        yield made
        made.end_cleanly()
