"""Benchmarks: how fast, how soon, how large. Each runs the real thing and prints one JSON object.

    python -m benchmarks NAME [--workers N] [--no-acking] [--seconds S] [--json]

- `harness`: a cluster of real daemons and worker processes in a directory of its own; a window cut out of the
  workers' exact counters after a warm-up, CPU time and memory from /proc. `results`: the one shape of a result.
- `throughput`, `latency`, `memory`, `startup`, `control`: the benchmarks. `catalogue`: their names. `trees` and
  `generator`: what runs in processes of its own.
- `topologies/`: what they submit, written as a user would write it; its directory is the project that travels.
- `compare`: rainband and the engines in `peers/` in turn, which import nothing of this. `uncompiled`: the plain files.
- `report`, `pages`, `charts`, `goals`: all of that into docs/benchmarks.md.

A benchmark checks what it counted against the truth; one whose counts are wrong raises `WrongCount` and fails.
"""
