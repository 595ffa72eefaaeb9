"""Ends an exclusive worker that has outlived its lease, whatever its loop, its lanes and its supervisor are doing.

The loop ends it sooner, but not during a call. So does its supervisor, which may itself be dead or stand still.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

from rainband.topology.home import read_lease

GRACE_SHARE = 0.15  # of nimbus.supervisor.timeout.secs; its supervisor, where it can, has said why at 0.1
LOOK_S = 1.0  # a machine that sleeps stops what threads wait by, not what the lease counts by


def keep_on_leash(
    lease: int,
    grace_s: float,
    since_boot: Callable[[], float],
    end: Callable[[], None],
    pause: Callable[[float], object],
) -> None:
    """Call `end` once `grace_s` have passed since the lease behind the descriptor was over."""
    while (left_s := read_lease(lease) + grace_s - since_boot()) > 0.0:
        pause(min(left_s, LOOK_S))
    end()


def kill_ourselves() -> None:
    """With all that was started here; a worker leads its own process group."""
    os.killpg(os.getpgid(0), signal.SIGKILL)


def start(lease: int, timeout_s: float, since_boot: Callable[[], float]) -> None:
    """`timeout_s` is nimbus.supervisor.timeout.secs."""
    arguments = (lease, GRACE_SHARE * timeout_s, since_boot, kill_ourselves, threading.Event().wait)
    threading.Thread(target=keep_on_leash, args=arguments, name="leash", daemon=True).start()
