"""Where does a tuple go?

Users declare a *grouping* (specs.py); a worker turns each subscription into a *chooser* (choosers.py) that picks task
indexes: positions within the sorted task ids of the receiving component. The room knows nothing of sockets,
processes, credit or tuples: a chooser sees only the values, and `blocked` flags its owner keeps up to date.

Invariants
- Keys equal by `==` have one `stable_hash`, in every process and every run, and so go to one task (hashing.py).
- fields: key group = stable hash mod G, task index = group * tasks // G. It depends on values only, never on what the
  fields are called, who emits, or which tasks are blocked.
- shuffle: counts per target differ by at most one while no target is blocked; a blocked target is passed over unless
  all are blocked.
- partial key: a key has two candidates (one if there is one task); all: every index once; global: index 0.
- Same seed, same calls, same answers: no clock and no hidden randomness.

Called by the builder (specs) and by worker executors (choosers); `stable_hash` is public.
"""

from __future__ import annotations

from rainband.groupings.choosers import Chooser, make_chooser
from rainband.groupings.hashing import HASH_VERSION, key_group, stable_hash, task_of_group
from rainband.groupings.specs import CustomGrouping, Grouping

__all__ = [
    "HASH_VERSION",
    "Chooser",
    "CustomGrouping",
    "Grouping",
    "key_group",
    "make_chooser",
    "stable_hash",
    "task_of_group",
]
