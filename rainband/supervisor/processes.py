"""Start, recognise, watch and end processes. The only file that starts one.

A process is named by pid, start time and boot id together: a pid alone may by now be somebody else's. Processes are
started from an argv list without a shell, each as leader of its own session, so that all it started can be ended with
it. They are not tied to their parent's life: workers outlive their supervisor.

What is asked again and again is asked without pathlib: it interns the parts of each path, and with ever new numbers in
them the table of all interned strings is soon made anew, twice as large.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import site
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from rainband.records import Slot
from rainband.supervisor.pulse import Sample
from rainband.topology.secrets import ENV_PREFIX as SECRET_PREFIX

WORKER_MODULE = "rainband.worker"
KEPT_VARIABLES = frozenset(
    "PATH HOME USER LOGNAME LANG LANGUAGE TZ TMPDIR TEMP TMP VIRTUAL_ENV LD_LIBRARY_PATH".split()
)
KEPT_PREFIXES = ("LC_", "PYTHON", "RAINBAND_", "SSL_CERT_", "OMP_", "COVERAGE_")
DROPPED_VARIABLES = frozenset({"PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONBREAKPOINT"})
SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD", "KEY")
LINUX = sys.platform.startswith("linux")


class Identity(msgspec.Struct, frozen=True):
    """One process for all time: `started` is its start time in the system's own ticks, since boot `boot`."""

    pid: int
    started: int
    boot: str


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended. `code` is None for one that was not our child; `from_outside`: not by its own doing."""

    code: int | None
    cause: str
    from_outside: bool


@dataclass(frozen=True, slots=True)
class FoundWorker:
    """A running worker process, as its command line describes it."""

    identity: Identity
    home: Path
    port: int


@functools.cache
def boot_id() -> str:
    """The same for all processes between two boots of this machine."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{psutil.boot_time():.0f}"


def identify(pid: int) -> Identity | None:
    """The live process that has this pid now, or None."""
    if pid <= 0:
        return None
    try:
        if not LINUX:
            process = psutil.Process(pid)
            dead = process.status() == psutil.STATUS_ZOMBIE
            return None if dead else Identity(pid, int(process.create_time() * 100), boot_id())
        # psutil derives start times from the wall clock, which may jump; the kernel's own count of ticks does not.
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else Identity(pid, int(fields[19]), boot_id())
    except (OSError, psutil.Error):
        return None


def look(identity: Identity, passes: int) -> Sample | None:
    """CPU use and state of a process beside its progress counter; None when it is gone or the system does not say."""
    try:
        process = psutil.Process(identity.pid)
        with process.oneshot():
            times = process.cpu_times()
            stopped = process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
        return Sample(passes, times.user + times.system, stopped)
    except (OSError, psutil.Error):
        return None


class Process:
    """A process to watch: `fileno()` becomes readable when it has ended; then `reap()` says how.

    Made by `start` (a child) or `adopt` (one that was started by somebody else).
    """

    def __init__(self, identity: Identity, child: subprocess.Popen[bytes] | None) -> None:
        self.identity = identity
        self._child = child
        self._signalled = 0
        self._watch = _watch(identity, child)

    @property
    def pid(self) -> int:
        return self.identity.pid

    def fileno(self) -> int:
        return self._watch

    def alive(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        return identify(self.pid) == self.identity

    def send_signal(self, number: int) -> None:
        """Signal the process itself, if it is still the same one."""
        if identify(self.pid) == self.identity:
            self._signalled = number
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL the process and all of its session."""
        self.send_signal(signal.SIGKILL)
        _kill_session(self.identity)

    def reap(self, timeout_s: float = 5.0) -> Exit:
        """Kill what the ended process left behind, and say how it ended. Raises TimeoutExpired while it lives."""
        _kill_session(self.identity)
        if self._child is None:
            return Exit(None, "gone while nobody watched it or it was adopted, so its exit code is unknown", True)
        return _describe(self._child.wait(timeout_s), self._signalled)

    def close(self) -> None:
        """Stop watching; the process itself goes on."""
        if self._watch >= 0:
            os.close(self._watch)
            self._watch = -1
        if self._child is not None:
            self._child.returncode = self._child.returncode if self._child.returncode is not None else 0


def _watch(identity: Identity, child: subprocess.Popen[bytes] | None) -> int:
    """A file descriptor that becomes readable when the process ends."""
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(ProcessLookupError):
            return os.pidfd_open(identity.pid)
    reader, writer = os.pipe()

    def wait() -> None:
        if child is not None:
            os.waitid(os.P_PID, identity.pid, os.WEXITED | os.WNOWAIT)
        else:
            with contextlib.suppress(psutil.Error):
                psutil.Process(identity.pid).wait()
        os.close(writer)

    threading.Thread(target=wait, name=f"wait-{identity.pid}", daemon=True).start()
    return reader


def _describe(code: int, signalled: int) -> Exit:
    if code >= 0:
        return Exit(code, f"exit code {code}", False)
    try:
        name = f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        name = f"signal {-code}"
    if -code == signal.SIGKILL and signalled != signal.SIGKILL:
        name += ", sent from outside or by a kernel short of memory"
    return Exit(code, name, -code in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP))


def _kill_session(leader: Identity) -> None:
    """SIGKILL every other process in the session that `leader` made.

    A session id stays taken while it has members, so these are its own, unless the pid leads a new process by now.
    """
    now = identify(leader.pid)
    if now is not None and now != leader:
        return
    try:
        pids = psutil.pids()
    except OSError:  # no descriptor is free to list them: its process group at least
        with contextlib.suppress(OSError):
            os.killpg(leader.pid, signal.SIGKILL)
        return
    for pid in pids:
        with contextlib.suppress(OSError):
            if pid != leader.pid and os.getsid(pid) == leader.pid:
                os.kill(pid, signal.SIGKILL)


def start(argv: Sequence[str], *, cwd: Path, log: Path | None, env: Mapping[str, str]) -> Process:
    """Start a process in a session of its own; its output is appended to `log` (None = ours). Raises OSError."""
    with contextlib.ExitStack() as stack:
        output = None
        if log is not None:
            log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, output)
        child = subprocess.Popen(
            list(argv), cwd=cwd, env=dict(env), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True, close_fds=True,
        )  # fmt: skip
    identity = identify(child.pid)
    try:
        return Process(identity or Identity(child.pid, 0, boot_id()), child)
    except OSError:
        child.kill()
        child.wait()
        raise


def adopt(identity: Identity) -> Process | None:
    """Watch a process that somebody else started; None when it is no longer there."""
    if identify(identity.pid) != identity:
        return None
    process = Process(identity, None)
    if process.alive():
        return process
    process.close()
    return None


def python_command(module: str, *arguments: str) -> list[str]:
    """argv that runs `module` with this interpreter. -P: files lying in the working directory hide no module."""
    return [sys.executable, "-P", "-m", module, *arguments]


def worker_command(
    home: Path,
    slot: Slot,
    log: Path,
    lease_s: float,
    beat_s: float = 1.0,
    keys: Path | None = None,
    secrets: Path | None = None,
) -> list[str]:
    """argv of the worker on `slot`; it reports every `beat_s`.

    `lease_s` is how long Nimbus may be silent before the slot is somebody else's.
    """
    where = ["--home", str(home), "--supervisor", slot.supervisor, "--port", str(slot.port), "--log", str(log)]
    more = ["--lease", f"{lease_s:g}", "--beat", f"{beat_s:g}", *(["--keys", str(keys)] if keys is not None else [])]
    more += ["--secrets", str(secrets)] if secrets is not None else []
    return python_command(WORKER_MODULE, *where, *more)


def environment(source: Mapping[str, str] | None = None, *, for_workers: bool = True) -> dict[str, str]:
    """The variables a started process may see: an allow-list of ours, without secrets, and the way to this rainband.

    `for_workers`: with RAINBAND_SECRET_*, which are meant for the topologies' own code.
    """
    kept = {}
    for name, value in (os.environ if source is None else source).items():
        allowed = name in KEPT_VARIABLES or name.startswith(KEPT_PREFIXES)
        guarded = name.startswith("RAINBAND_") and not (for_workers and name.startswith(SECRET_PREFIX))
        secret = guarded and any(word in name for word in SECRET_WORDS)
        if allowed and not secret and name not in DROPPED_VARIABLES:
            kept[name] = value
    paths = [os.path.abspath(path) for path in kept.pop("PYTHONPATH", "").split(os.pathsep) if path]
    ours = str(Path(__file__).resolve().parents[2])
    if ours not in _site_directories() and ours not in paths:
        paths.append(ours)
    if paths:
        kept["PYTHONPATH"] = os.pathsep.join(paths)
    return kept


def _site_directories() -> set[str]:
    return {str(Path(path).resolve()) for path in (*site.getsitepackages(), site.getusersitepackages())}


def found_workers(root: Path) -> Iterator[FoundWorker]:
    """Every running worker whose home lies directly in `root`, whoever started it."""
    root = root.resolve()
    for process in psutil.process_iter(["pid", "cmdline"]):
        found = _as_worker(process.info["pid"], process.info["cmdline"] or [])
        if found is not None and found.home.parent == root:
            yield found


def worker_of(pid: int) -> FoundWorker | None:
    """The worker that has this pid on this machine; None for anything else."""
    try:
        return _as_worker(pid, psutil.Process(pid).cmdline())
    except (OSError, psutil.Error):
        return None


def _as_worker(pid: int, line: list[str]) -> FoundWorker | None:
    if WORKER_MODULE not in line or "--home" not in line[:-1] or "--port" not in line[:-1]:
        return None
    home, port = Path(line[line.index("--home") + 1]), line[line.index("--port") + 1]
    identity = identify(pid)
    return FoundWorker(identity, home, int(port)) if identity is not None and port.isdigit() else None


def end_group(processes: Sequence[Process], grace_s: float) -> None:
    """SIGTERM to all, SIGKILL to the sessions of those that are still there after `grace_s` seconds; reaps children."""
    for process in processes:
        process.send_signal(signal.SIGTERM)
    psutil.wait_procs([p for p in map(_handle, processes) if p is not None], timeout=grace_s)
    for process in processes:
        if process.alive():
            process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.reap()
        process.close()


def _handle(process: Process) -> psutil.Process | None:
    with contextlib.suppress(OSError, psutil.Error):
        return psutil.Process(process.pid)
    return None
