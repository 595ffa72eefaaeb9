"""nimbus: who runs where?

Theory of operation. `core.Nimbus` is told of requests and of the time and answers with records. It keeps what must
last in a `Store` (one row per topology, its plan, its assignment) and what supervisors say in memory. Each decision
is one write: the new rows are worked out first, written, and only then believed; when the write fails, nothing was
decided. Its parts: `lifecycle` is the one table of states, `scheduler` places executors with the fewest moves,
`assigning` makes assignments of that, `liveness` knows who is silent for too long, `roster` what each supervisor
offers, `admission` what may run at all, `rows` what is stored; `shelf` keeps the bundles, `statistics` adds up what
workers report, `views` answers questions; `journal` words what the log says of each command.
`service` is the daemon around the core; `client` and `running` are what programs hold: `Client` and `Running`.
Where several Nimbuses share a store, `service` has a core only while the election (cluster/) says that it leads; the
others answer with the leader's address. `state` opens what the settings name; `copies` sees to it that bundles are on
two Nimbuses before a topology is accepted, and fetches those that are missing here.

Invariants
- A topology is accepted when its row, plan and (if slots suffice) assignment are on the disk, after its bundle.
- A slot holds one topology at most; each executor of a scheduled topology is in exactly one slot.
- A topology that never ran waits until all its slots are there. One that lost slots runs on with those it has.
- Assignment versions only grow; a placement number is the version in which the executor came to its slot, so it
  grows when the executor moves and stays when it does not. Supervisors and workers compare (epoch, version).
- A Nimbus that has just started declares nobody dead for one full lease.
- A Nimbus decides nothing before it has asked its lease, and what it writes names its epoch: one that was replaced
  without noticing changes nothing, and its heartbeat answers are ignored by supervisors that heard of a later epoch.
- A leader whose supervisors have heard a later epoch makes way, and leads next above it: its state is from a copy.
- A leader that lacks a bundle leads all the same. A store that does not answer stops decisions, never what runs.
- Delayed actions (the waits of kill and rebalance) are stored with the time they still have and go on after a restart.
- One bad topology stops neither another one nor Nimbus: a stored row that cannot be read is set aside.
  What runs of it runs on in its slots, and its name stays in use, until it is mended or killed.
- Nothing here unpickles or imports user code.
"""
