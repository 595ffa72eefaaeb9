"""Which ports may serve as slots: chosen once, held while nobody works there, and who has them otherwise.

A slot's port is its worker's data port and stays the same for the life of a supervisor's state. While a slot is empty
the supervisor itself listens there, so that a second supervisor or a stranger meets the refusal at once and not on
the day a worker is started.
"""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

import psutil

from rainband.config import Config
from rainband.errors import Refused, UsageError
from rainband.supervisor.disk import Disk
from rainband.supervisor.orders import wanted_by_port
from rainband.supervisor.processes import Identity, found_workers, identify

FIRST_PORT = 6700
HIGHEST_PORT = 65535


def hold(host: str, port: int) -> socket.socket | None:
    """A socket that keeps the port for us until it is closed; None when we cannot have it."""
    try:
        return listen(host, port)
    except OSError:
        return None


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises OSError: somebody else does, or it is not allowed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # As libzmq does: connections of a former worker that are still winding up are no reason to refuse the port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    return listener


def free(host: str, port: int) -> bool:
    """Whether we could listen there now."""
    held = hold(host, port)
    if held is not None:
        held.close()
    return held is not None


def choose(count: int, host: str, taken: frozenset[int] = frozenset()) -> tuple[int, ...]:
    """`count` free ports below the range the system hands out by itself, sorted. Raises Refused if too few are."""
    low = _ephemeral_start()
    candidates = range(FIRST_PORT, low if low > FIRST_PORT + 1000 else HIGHEST_PORT)
    chosen: list[int] = []
    for port in random.SystemRandom().sample(candidates, len(candidates)):
        if len(chosen) == count:
            return tuple(sorted(chosen))
        if port not in taken and free(host, port):
            chosen.append(port)
    raise Refused(f"only {len(chosen)} free ports for {count} slots on {host}", "Give the ports of the slots yourself")


def _ephemeral_start() -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return 32768


def holder(port: int) -> Identity | None:
    """The process that listens on the port, where the system tells."""
    with contextlib.suppress(OSError, psutil.Error):
        for connection in psutil.net_connections("tcp"):
            local = connection.laddr
            if connection.status == psutil.CONN_LISTEN and connection.pid and local and local.port == port:
                return identify(connection.pid)
    return None


def describe_holder(port: int) -> str:
    """The holder of a port, for people."""
    found = holder(port)
    if found is None:
        return "another process (the system does not say which)"
    with contextlib.suppress(OSError, psutil.Error):
        return f"pid {found.pid} ({psutil.Process(found.pid).name()})"
    return f"pid {found.pid}"


def slot_ports(config: Config, disk: Disk, count: int | None) -> tuple[int, ...]:
    """`count` slots keep the ports they had and choose free ones for the rest; without a count, config says which.

    A port that somebody else has by now is given up, unless a worker of ours is remembered or assigned there.
    """
    if count is None:
        given: tuple[int, ...] = tuple(config["supervisor.slots.ports"])
        return given
    if count < 1:
        raise UsageError(f"a supervisor cannot have {count} slots", "Give 1 or more")
    host: str = config["supervisor.host"]
    memory = disk.memory
    needed = {*memory.workers, *wanted_by_port(memory.assignments, memory.supervisor)}
    needed |= {found.port for found in found_workers(disk.topologies)}
    known = tuple([port for port in memory.ports if port in needed or free(host, port)])[:count]
    more = choose(count - len(known), host, frozenset(memory.ports)) if count > len(known) else ()
    return (*known, *more)
