"""rainband: a Storm for Python.

Write spouts and bolts as classes, prove them in a LocalCluster, submit them to a cluster with one command.

Who imports whom, from the bottom: errors, config, clock, records; groupings (where does a tuple go?); topology (what
did the user write?); acker (is a tuple tree done?); messaging (how do bytes travel?); cluster (what is remembered?);
worker, supervisor and nimbus, which never import one another; local and testing; cli.

The names below are the public ones. Each is imported when first used, so that `import rainband` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from rainband.build import VERSION as __version__

if TYPE_CHECKING:
    from rainband.config import Config
    from rainband.errors import (
        ClusterUnavailable,
        EmitRefused,
        FailTuple,
        InvalidConfig,
        InvalidTopology,
        NotAllowed,
        NotEnoughSlots,
        NotReached,
        RainbandError,
        Refused,
        TopologyExists,
        TopologyNotFound,
        UnknownField,
        UsageError,
        ValueRefused,
        VersionMismatch,
    )
    from rainband.groupings.hashing import stable_hash
    from rainband.groupings.specs import CustomGrouping
    from rainband.local import LocalCluster
    from rainband.nimbus.client import Client, Running
    from rainband.testing import complete_topology, run_bolt
    from rainband.topology.builder import TopologyBuilder
    from rainband.topology.components import Bolt, DirectStream, ManualBolt, ReliableSpout, Spout
    from rainband.topology.context import TopologyContext
    from rainband.topology.graph import Topology
    from rainband.topology.tuples import Tuple

_HOMES = {
    "rainband.config": ("Config",),
    "rainband.errors": (
        "ClusterUnavailable",
        "EmitRefused",
        "FailTuple",
        "InvalidConfig",
        "InvalidTopology",
        "NotAllowed",
        "NotEnoughSlots",
        "NotReached",
        "RainbandError",
        "Refused",
        "TopologyExists",
        "TopologyNotFound",
        "UnknownField",
        "UsageError",
        "ValueRefused",
        "VersionMismatch",
    ),
    "rainband.groupings.hashing": ("stable_hash",),
    "rainband.groupings.specs": ("CustomGrouping",),
    "rainband.local": ("LocalCluster",),
    "rainband.nimbus.client": ("Client", "Running"),
    "rainband.testing": ("complete_topology", "run_bolt"),
    "rainband.topology.builder": ("TopologyBuilder",),
    "rainband.topology.components": ("Bolt", "DirectStream", "ManualBolt", "ReliableSpout", "Spout"),
    "rainband.topology.context": ("TopologyContext",),
    "rainband.topology.graph": ("Topology",),
    "rainband.topology.tuples": ("Tuple",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Bolt",
    "Client",
    "ClusterUnavailable",
    "Config",
    "CustomGrouping",
    "DirectStream",
    "EmitRefused",
    "FailTuple",
    "InvalidConfig",
    "InvalidTopology",
    "LocalCluster",
    "ManualBolt",
    "NotAllowed",
    "NotEnoughSlots",
    "NotReached",
    "RainbandError",
    "Refused",
    "ReliableSpout",
    "Running",
    "Spout",
    "Topology",
    "TopologyBuilder",
    "TopologyContext",
    "TopologyExists",
    "TopologyNotFound",
    "Tuple",
    "UnknownField",
    "UsageError",
    "ValueRefused",
    "VersionMismatch",
    "__version__",
    "complete_topology",
    "run_bolt",
    "stable_hash",
]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'rainband' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
