"""testing: prove a topology in milliseconds, with what production runs.

Theory of operation. Nothing here executes a bolt by itself: `complete_topology` submits to a LocalCluster under a
virtual clock and lets time pass until the topology is drained; `run_bolt` builds a topology of one spout that emits the
given rows and the very bolt it was handed. `plugin` gives pytest the fixtures `local_cluster` and `virtual_cluster`.

Invariants
- The same topology, rows and seed give the same result, in every process and on every machine.
- Every emitted value passes through the codec, and an emitted value that is changed later is an error.
- The first error of user code is raised with its own type and traceback, unless `raise_errors=False`.

The names below are imported when first used: the plugin is loaded by every run of pytest, and must cost nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rainband.local.cluster import LocalCluster, LocalRunning
    from rainband.testing.bolts import BoltRun, run_bolt
    from rainband.testing.completion import Completed, complete_topology

_HOMES = {
    "LocalCluster": "rainband.local.cluster",
    "LocalRunning": "rainband.local.cluster",
    "BoltRun": "rainband.testing.bolts",
    "run_bolt": "rainband.testing.bolts",
    "Completed": "rainband.testing.completion",
    "complete_topology": "rainband.testing.completion",
}

__all__ = ["BoltRun", "Completed", "LocalCluster", "LocalRunning", "complete_topology", "run_bolt"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'rainband.testing' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value
