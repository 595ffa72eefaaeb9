"""The other side of the comparison: engines that do what rainband does, each run as its users run it.

- `corpus`: the lines every word count reads. `floor`: the same work without any engine.
- `storm`, `bytewax_peer`, `motorway_peer`, `pyflink_peer`: one peer each; each has `run(bench, *, workers,
  acking, seconds, **settings) -> dict` and a command line. `storm` also has `StormCluster`, whose daemons
  outlive a round.
- below them: `rows` (the one shape of a result), `meters` (counters written by the measured processes),
  `processes` (start, account, stop), `venvs` (each peer's packages apart from ours), `command` (the command
  line).
- `storm/`: the Java topologies, their pom.xml and the Python bolts of the multilang variant.

Nothing here imports rainband, and rainband imports nothing from here.
"""
