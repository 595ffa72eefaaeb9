"""local: a whole cluster in this process, for trying things out and for tests.

Theory of operation. `engine.Engine` joins what a real cluster spreads over processes: Nimbus (the same core, over a
store in memory), one `host.Host` per supervisor, and in its slots the same `Worker` objects that worker processes
run, over links in memory. The engine is told the time and does one pass of everything. `LocalCluster` drives it: on a
background thread by the machine's clock, or, under a virtual clock, in the caller's thread whenever time is let pass.
With `processes=True` it starts the real daemons instead. `recording` is what tests see of a topology.

Invariants
- There is no second engine: what runs here is what runs in a worker process. Each task has its own copy of its
  component.
- Under a virtual clock nothing but the seed and the caller's calls decides what happens: no thread, no clock, no
  random number of the system's.
- Only the thread that drives the engine touches it; calls from others are handed to that thread.

Callers: users' programs and tests, testing/ (complete_topology, run_bolt), cli/ (`rainband local`).
"""

from rainband.local.cluster import LocalCluster, LocalRunning

__all__ = ["LocalCluster", "LocalRunning"]
